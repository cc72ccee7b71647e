"""A forward pass under ``tf.function`` within an eager tape: beside the bare one, and TensorFlow.

    python benchmarks/taped.py [--peers FOLDER] [--rounds N]

The text is the same for both frameworks. Each runs in a process of its own, on one core with one
thread; rounds go through both in turn, bare and decorated, and what counts is the median of the
ratios of each round. Time is the process's CPU time. Losses and gradients are compared first.
Peers are installed into FOLDER (default: in the user's cache) by the first run.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

from served import Child, main

FRAMEWORKS = ["distgrad", "tensorflow"]
FORMS = ["bare", "decorated"]


def mlp(layers):
    return [layers.Dense(64, activation="relu"), layers.Dense(64, activation="relu")], (32, 8)


def cnn(layers):
    made = [layers.Conv2D(16, 3, activation="relu"), layers.BatchNormalization()]
    made += [layers.MaxPooling2D(), layers.Conv2D(32, 3, activation="relu"), layers.Flatten()]
    return made, (32, 28, 28, 1)


def transformer(layers):
    made = []
    for _ in range(4):
        made += [Attention(layers), Forward(layers)]
    return [*made, layers.GlobalAveragePooling1D()], (8, 16, 32)


class Attention:
    """Attention beside a short cut; a plain callable, as both frameworks take it."""

    def __init__(self, layers):
        self.parts = [layers.LayerNormalization(), layers.MultiHeadAttention(4, 8)]

    def __call__(self, x):
        y = self.parts[0](x)
        return x + self.parts[1](y, y)


class Forward:
    def __init__(self, layers):
        self.parts = [layers.LayerNormalization(), layers.Dense(64, activation="gelu")]
        self.parts.append(layers.Dense(32))

    def __call__(self, x):
        y = x
        for part in self.parts:
            y = part(y)
        return x + y


MODELS = {"MLP": mlp, "CNN": cnn, "transformer": transformer}


def steps(tf, name):
    """The loss and the gradients of a step, by form."""
    import numpy as np

    parts, shape = MODELS[name](tf.keras.layers)
    inputs = tf.keras.Input(shape[1:])
    y = inputs
    for part in [*parts, tf.keras.layers.Dense(4)]:
        y = part(y)
    model = tf.keras.Model(inputs, y)
    rng = np.random.default_rng(0)
    model.set_weights(
        [rng.normal(size=w.shape) * 0.1 + 0.5 * (w.ndim == 1) for w in model.get_weights()]
    )
    x = tf.constant(rng.normal(size=shape), tf.float32)
    variables = model.trainable_variables

    def step(forward):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(forward(x)))
        return loss, tape.gradient(loss, variables)

    def bare(x):
        return model(x, training=True)

    decorated = tf.function(bare)
    return {"bare": lambda: step(bare), "decorated": lambda: step(decorated)}


def serve(framework: str) -> None:
    """The child: answers ``check`` with numbers of the step, ``time`` with its microseconds."""
    import importlib

    import numpy as np

    tf = importlib.import_module(framework)
    ready = {name: steps(tf, name) for name in MODELS}
    for line in sys.stdin:
        kind, name, form = line.split()
        step = ready[name][form]
        if kind == "check":
            loss, grads = step()
            norms = [float(np.linalg.norm(np.asarray(g))) for g in grads]
            print(json.dumps([float(loss), *norms]), flush=True)
            continue
        best = float("inf")
        for _ in range(5):
            start = time.process_time()
            for _ in range(20):
                step()
            best = min(best, time.process_time() - start)
        print(json.dumps(best / 20 * 1e6), flush=True)


def report(children: dict[str, Child], rounds: int) -> None:
    import numpy as np

    print("microseconds of a step's loss and gradients (median); ratios decorated / bare, and")
    print("distgrad decorated / TensorFlow decorated: median over the rounds, and range")
    for name in MODELS:
        found = [
            child.ask("check", f"{name} {form}") for child in children.values() for form in FORMS
        ]
        for other in found[1:]:
            np.testing.assert_allclose(other, found[0], rtol=1e-3, atol=1e-5)
        times: dict[tuple[str, str], list[float]] = {}
        for i in range(rounds):
            for framework in FRAMEWORKS if i % 2 else FRAMEWORKS[::-1]:
                for form in FORMS:
                    took = children[framework].ask("time", f"{name} {form}")
                    times.setdefault((framework, form), []).append(took)
        cells = [
            f"{framework} {form} {statistics.median(times[framework, form]):.0f}"
            for framework in FRAMEWORKS
            for form in FORMS
        ]
        ours = times["distgrad", "decorated"]
        cells.append(f"decorated / bare {ratio(ours, times['distgrad', 'bare'])}")
        cells.append(f"to TensorFlow {ratio(ours, times['tensorflow', 'decorated'])}")
        print(f"{name:<12}" + " | ".join(cells), flush=True)


def ratio(ours: list[float], others: list[float]) -> str:
    ratios = [a / b for a, b in zip(ours, others, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main(__file__, __doc__, FRAMEWORKS, serve, report, rounds=5)
