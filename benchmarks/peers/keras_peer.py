"""Keras 3 on TensorFlow: the models that our Keras names make, too.

Forms: batch and fit are ``train_on_batch`` and ``fit`` with ``jit_compile="auto"`` (XLA); plain is
``train_on_batch`` without XLA.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf
from networks import keras_model
from workloads import EPSILON, THREADS, Parameter, Trainer, Workload

FORMS = ("batch", "plain", "fit")
tf.config.threading.set_intra_op_parallelism_threads(THREADS)
tf.config.threading.set_inter_op_parallelism_threads(THREADS)


class Adam(keras.optimizers.Adam):
    """Keras's, on dense gradients: it squares the parts of an embedding's repeated rows apart."""

    def apply(self, grads, trainable_variables=None):
        super().apply([tf.convert_to_tensor(g) for g in grads], trainable_variables)


def make(workload: Workload, parameters: Sequence[Parameter], form: str) -> Trainer | None:
    if workload.kind == "chain":
        return None
    arrays = [p.value for p in parameters]
    optimizer = Adam(workload.rate, epsilon=EPSILON)
    if workload.kind == "adam":
        return _adam(arrays, optimizer, form)
    keras.backend.clear_session()
    model, variables = keras_model(workload, tf, keras)
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False if form == "plain" else "auto",
    )
    if form == "fit":
        return Trainer(_repeated, lambda batch, n: _fit(model, batch, n))

    def run(batch: Any, steps: int) -> float:
        for _ in range(steps):
            loss = model.train_on_batch(*batch)
            model.reset_metrics()  # its loss is else a mean over steps
        return float(loss)

    return Trainer(lambda x, y: (tf.constant(x), tf.constant(y)), run)


def _repeated(x: Any, y: Any) -> Any:
    return tf.data.Dataset.from_tensors((x, y)).repeat()


def _fit(model: Any, batches: Any, steps: int) -> float:
    history = model.fit(batches, steps_per_epoch=steps, verbose=0)
    return history.history["loss"][-1]


def _adam(arrays: list, optimizer: Any, form: str) -> Trainer | None:
    if form == "fit":
        return None
    half = len(arrays) // 2
    weights = [keras.Variable(a) for a in arrays[:half]]
    gradients = [tf.constant(a) for a in arrays[half:]]
    optimizer.build(weights)

    @tf.function(jit_compile=form == "batch")
    def step(gradients):
        optimizer.apply(gradients)

    def run(batch: Any, steps: int) -> float:
        for _ in range(steps):
            step(gradients)
        return float(tf.reduce_mean(weights[0].value[0]))

    return Trainer(lambda x, y: None, run)


def version() -> str:
    return f"Keras {keras.__version__} on TensorFlow {tf.__version__}"
