"""Objects of a user's own class where a tensor is asked for."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf


class Positive:
    """A number by its logarithm, as libraries of probability have their parameters."""

    def __init__(self, value):
        self.log = tf.Variable(np.log(value), dtype=tf.float64)


tf.register_tensor_conversion_function(
    Positive, lambda value, dtype=None, name=None, as_ref=False: tf.exp(value.log)
)


def test_it_is_read_by_every_operation_and_differentiated():
    two = Positive(2.0)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.stack([two, 3.0]) * two) + tf.square(two) - tf.ones([], tf.float64)
    assert float(loss) == pytest.approx(2 * 2 + 3 * 2 + 4 - 1)
    assert float(tape.gradient(loss, two.log)) == pytest.approx(2 * (2 * 2 + 3 + 2 * 2))
    assert float(tf.convert_to_tensor(two)) == pytest.approx(2.0)
    np.testing.assert_allclose(tf.function(lambda: tf.exp(two) * 1.0)(), np.exp(2.0))


def test_what_cannot_be_registered():
    for kind in (int, np.ndarray, "text"):
        with pytest.raises(TypeError, match="of a class of one's own"):
            tf.register_tensor_conversion_function(kind, lambda *a: 1.0)
    with pytest.raises(TypeError, match="callable, not 3"):
        tf.register_tensor_conversion_function(Positive, 3)
