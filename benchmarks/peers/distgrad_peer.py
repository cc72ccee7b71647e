"""distgrad: its Keras models under its training step, its tape and its optimizer.

Forms: eager, captured (the default of ``compile``), fit (captured, through ``Model.fit``), and
shards8 (captured, the batch cut into 8 virtual shards that this one worker runs).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
from networks import chain, keras_model
from workloads import EPSILON, Parameter, Trainer, Workload

import distgrad as tf

FORMS = ("eager", "captured", "fit", "shards8")


def make(workload: Workload, parameters: Sequence[Parameter], form: str) -> Trainer | None:
    arrays = [p.value for p in parameters]
    if workload.kind in ("adam", "chain"):
        if form in ("fit", "shards8"):
            return None
        return {"adam": _adam, "chain": _chain}[workload.kind](workload, arrays, form)
    model = _model(workload, arrays, form)
    if form == "fit":
        return Trainer(lambda x, y: (x, y), lambda batch, n: _fit(model, batch, n))
    return _steps(model, form)


def _model(workload: Workload, arrays: list[np.ndarray], form: str) -> Any:
    precision, half = tf.keras.mixed_precision, workload.dtype != "float32"
    precision.set_global_policy(f"mixed_{workload.dtype}" if half else "float32")
    try:
        model, variables = keras_model(workload, tf, tf.keras)
    finally:
        precision.set_global_policy("float32")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    model.compile(
        optimizer=tf.keras.optimizers.Adam(workload.rate, epsilon=EPSILON),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False if form == "eager" else "auto",
    )
    return model


def _steps(model: Any, form: str) -> Trainer:
    """The step under ``fit``, on batches that are cut already; as there, the layers are settled."""
    from distgrad.core import dispatch
    from distgrad.data.loader import cut
    from distgrad.keras.layers.tracking import settled
    from distgrad.training import world
    from distgrad.training.feeding import Feeder

    shards = 8 if form == "shards8" else 1
    numbers = count()
    kept: list[Any] = []
    fed: list[Any] = []  # what is let go of may be filled again

    def ready(x: np.ndarray, y: np.ndarray) -> Any:
        batch = cut(0, len(x), shards, range(shards), lambda a, b: (x[a:b], y[a:b]))
        device = dispatch.current()
        if not device.copies_ahead:
            return batch
        # On a GPU it lies there already, as it does for the peers: sent ahead, and kept.
        sent = Feeder(device, lends=form != "eager")([batch])
        fed.append(sent)
        return next(sent)

    def run(batch: Any, steps: int) -> float:
        if not kept:
            model.prepare(batch.shards[0][1])
            kept.append(model._make_training_step(world.communicator(), shards, 0))
        (step,) = kept
        with settled(model):
            for _ in range(steps):
                result = step(next(numbers), batch)
        return float(result.loss)

    return Trainer(ready, run)


def _fit(model: Any, batch: tuple, steps: int) -> float:
    x, y = (np.concatenate([array] * steps) for array in batch)
    history = model.fit(x, y, batch_size=len(batch[0]), shuffle=False, verbose=0)
    return history.history["loss"][-1]


def _function(step: Any, form: str) -> Any:
    if form == "eager":
        return step
    return tf.function(step, jit_compile=True)


def _adam(workload: Workload, arrays: list[np.ndarray], form: str) -> Trainer:
    half = len(arrays) // 2
    variables = [tf.Variable(a) for a in arrays[:half]]
    gradients = [tf.constant(a) for a in arrays[half:]]
    optimizer = tf.keras.optimizers.Adam(workload.rate, epsilon=EPSILON)
    optimizer.build(variables)

    def update() -> None:
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    step = _function(update, form)

    def run(batch: Any, steps: int) -> float:
        for _ in range(steps):
            step()
        return float(variables[0][0].numpy().mean())

    return Trainer(lambda x, y: None, run)


def _chain(workload: Workload, arrays: list[np.ndarray], form: str) -> Trainer:
    x, w = map(tf.constant, arrays)

    def gradient(x: Any, w: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = chain(tf, x, w, workload.sizes["length"])
        dx, dw = tape.gradient(y, [x, w])
        return tf.reduce_sum(dx * dx + dw * dw)

    step = _function(gradient, form)

    def run(batch: Any, steps: int) -> float:
        for _ in range(steps):
            result = step(x, w)
        return float(result)

    return Trainer(lambda x, y: None, run)


def version() -> str:
    return f"distgrad {tf.__version__}, NumPy {np.__version__}"
