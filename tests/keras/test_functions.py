"""Activations, regularizers and constraints against the stored numbers of Keras 3."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf

STORED = json.loads((Path(__file__).parents[1] / "reference" / "keras_functions.json").read_text())
X = np.array(STORED["x"], np.float32)
CASES = [pytest.param(case, id=f"{i}-{case['name']}") for i, case in enumerate(STORED["cases"])]


@pytest.mark.parametrize("case", CASES)
def test_activation_and_its_gradient_are_those_of_keras(case):
    """To 1e-6; near 0 to 1e-6 of the order of the input, where tails cancel in float32."""
    activation = getattr(tf.keras.activations, case["name"])
    x = tf.Variable(X)
    with tf.GradientTape() as tape:
        y = activation(x, **case["config"])
        target = tf.reduce_sum(y * np.array(STORED["weight"], np.float32))
    np.testing.assert_allclose(y.numpy(), case["value"], rtol=1e-6, atol=1e-6)
    gradient = tape.gradient(target, x)
    np.testing.assert_allclose(gradient.numpy(), case["gradient"], rtol=1e-6, atol=1e-6)
    assert tf.keras.activations.get(case["name"]) is activation
    assert tf.keras.activations.serialize(activation) == case["name"]


@pytest.mark.parametrize("case", STORED["others"], ids=lambda case: case["class"])
def test_regularizer_or_constraint_is_that_of_keras(case):
    room = getattr(tf.keras, case["kind"])
    made = getattr(room, case["class"])(**case["config"])
    np.testing.assert_allclose(made(X).numpy(), case["value"], rtol=1e-6, atol=1e-7)
    again = room.get(json.loads(json.dumps(room.serialize(made))))
    assert type(again) is type(made) and again.get_config() == made.get_config()


def test_get():
    regularizers, constraints = tf.keras.regularizers, tf.keras.constraints
    assert regularizers.get(None) is None and constraints.get(None) is None
    assert float(regularizers.get("l2")(tf.constant([1.0, 2.0]))) == pytest.approx(0.05)
    assert regularizers.get("l1_l2").l1 == 0.01 and regularizers.get("L1L2").l1 == 0.0
    assert regularizers.get(regularizers.l1).l1 == 0.01
    assert isinstance(constraints.get("max_norm"), constraints.MaxNorm)
    for room, kind in ((regularizers, "regularizer"), (constraints, "constraint")):
        with pytest.raises(ValueError, match=f"unknown {kind} 'l3'"):
            room.get("l3")
    with pytest.raises(ValueError, match="l1"):
        regularizers.L1(-0.5)
    with pytest.raises(ValueError, match="mode"):
        regularizers.OrthogonalRegularizer(mode="diagonals")
    with pytest.raises(ValueError, match="unknown activation 'rellu'.*relu"):
        tf.keras.activations.get("rellu")
