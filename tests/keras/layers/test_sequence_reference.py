"""Normalizing, recurrent and attention layers against the numbers of Keras 3.

The file with them is made by tests/reference/make_sequence_reference.py, which says what is in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad as tf
from distgrad.keras import layers

FILE = Path(__file__).parents[2] / "reference" / "sequence_layers.npz"
STORED = dict(np.load(FILE))
DESCRIBED = json.loads(str(STORED["cases"]))
# Float32 sums in another order: a few roundings of the largest terms.
RTOL, ATOL = 1e-5, 4e-6


def arrays(nest: Any) -> Any:
    """The nest with the stored arrays in the place of their names."""
    if isinstance(nest, list):
        return [arrays(item) for item in nest]
    return STORED[nest[1:]] if isinstance(nest, str) and nest.startswith("@") else nest


def make(spec: Any) -> Any:
    if not isinstance(spec, dict):
        return spec
    config = {key: make(value) for key, value in spec["config"].items()}
    return getattr(layers, spec["class"])(*map(make, spec["args"]), **config)


def label(case: dict) -> str:
    return f"{case['layer']['class']}-{','.join([*case['layer']['config'], *case['keywords']])}"


class Run:
    """A stored case, made anew here."""

    def __init__(self, case: dict) -> None:
        self.layer = make(case["layer"])
        self.inputs = tf.nest.map_structure(tf.constant, arrays(case["inputs"]))
        self.keywords = {key: arrays(value) for key, value in case["keywords"].items()}
        self.factors = arrays(case["factors"])
        self.layer(*self.inputs, **self.keywords)
        self.layer.set_weights(arrays(case["weights"]))

    def __call__(self, by: list | None = None) -> tuple[list, list]:
        """The outputs, and the gradients by ``by`` (default: the trainable weights)."""
        by = self.layer.trainable_variables if by is None else by
        with tf.GradientTape() as tape:
            tape.watch(self.inputs)
            outputs = tf.nest.flatten(self.layer(*self.inputs, **self.keywords))
            terms = [tf.reduce_sum(o * f) for o, f in zip(outputs, self.factors, strict=True)]
            total = sum(terms[1:], terms[0])
        return outputs, tape.gradient(total, by)


def compare(found: list, expected: list) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        # Terms that cancel leave the rounding of the largest one.
        scale = max(1.0, float(np.abs(theirs).max(initial=0)))
        np.testing.assert_allclose(np.asarray(ours), theirs, rtol=RTOL, atol=ATOL * scale)


@pytest.mark.parametrize("case", DESCRIBED["cases"], ids=label)
def test_as_keras(case: dict) -> None:
    run = Run(case)
    assert [weight.path.split("/", 1)[1] for weight in run.layer.weights] == case["names"]
    start = arrays(case["weights"])
    inputs = tf.nest.flatten(run.inputs)
    outputs, gradients = run([*inputs, *run.layer.trainable_variables])
    compare(outputs, arrays(case["outputs"]))
    compare(gradients[: len(inputs)], arrays(case["by_inputs"]))
    compare(gradients[len(inputs) :], arrays(case["by_weights"]))
    run.layer.set_weights(start)
    for _ in range(DESCRIBED["steps"]):
        _, gradients = run()
        for weight, gradient in zip(run.layer.trainable_variables, gradients, strict=True):
            weight.assign_sub(DESCRIBED["rate"] * gradient)
    compare(run.layer.get_weights(), arrays(case["after"]))


@pytest.mark.parametrize("case", DESCRIBED["cases"], ids=label)
def test_made_again_of_its_config(case: dict) -> None:
    run = Run(case)
    config = json.loads(json.dumps(run.layer.get_config()))
    first, _ = run()
    run.layer = type(run.layer).from_config(config)
    assert json.loads(json.dumps(run.layer.get_config())) == config
    run.layer(*run.inputs, **run.keywords)
    run.layer.set_weights(arrays(case["weights"]))
    second, _ = run()
    for one, other in zip(first, second, strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes()


def test_the_comparison_can_fail() -> None:
    case = next(c for c in DESCRIBED["cases"] if c["layer"]["class"] == "LSTM")
    run = Run(case)
    run.layer.set_weights([1.001 * w for w in arrays(case["weights"])])
    with pytest.raises(AssertionError):
        compare(run()[0], arrays(case["outputs"]))
