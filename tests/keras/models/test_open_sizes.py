"""Axes of unknown size that meet axes of known size."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.keras import ops

Symbol = tf.keras.KerasTensor


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        (lambda: Symbol((None, 3)) + Symbol((2, None)), (2, 3)),
        (lambda: Symbol((None, 3)) + Symbol((5, None)), (5, 3)),
        (lambda: Symbol((None, None, 3)) + np.ones((5, 3), "f"), (None, 5, 3)),
        (lambda: Symbol((None, None, 3)) * Symbol((None, 32, 1)), (None, 32, 3)),
        (lambda: ops.concatenate([Symbol((None, None, 3)), Symbol((2, 7, 3))], -1), (2, 7, 6)),
        (lambda: ops.matmul(Symbol((None, None)), Symbol((4, 5))), (None, 5)),
        (lambda: ops.conv(Symbol((2, 10, None)), np.ones((3, 5, 4), "f")), (2, 8, 4)),
        (
            lambda: ops.scan(lambda c, x: (c, c + x), Symbol((None,)), Symbol((6, None)))[1],
            (6, None),
        ),
        (lambda: Symbol((None, None, 3)) + Symbol((None, None, 3)), (None, None, 3)),
    ],
)
def test_the_known_size_holds(call, shape):
    assert call().shape == shape


def test_a_model_of_steps_that_are_not_known_beforehand_with_a_table_of_places():
    inputs = tf.keras.Input((None, 3))
    places = np.arange(15, dtype="f").reshape(5, 3)
    outputs = tf.keras.layers.Dense(2, kernel_initializer="ones")(inputs + places)
    assert outputs.shape == (None, 5, 2)
    model = tf.keras.Model(inputs, outputs)
    expected = np.broadcast_to(places.sum(1)[None, :, None], (4, 5, 2))
    np.testing.assert_array_equal(model(np.zeros((4, 5, 3), "f")), expected)
