"""Tensors for other libraries, and theirs as tensors."""

import numpy as np
import pytest

import distgrad as tf

dlpack = tf.experimental.dlpack


def test_there_and_back():
    x = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    again = dlpack.from_dlpack(dlpack.to_dlpack(x))
    assert again.dtype == tf.float32
    np.testing.assert_array_equal(again, x)


def test_arrays_of_others_are_taken_and_copied():
    array = np.arange(3)
    found = dlpack.from_dlpack(array)
    array[0] = 9
    assert found.numpy().tolist() == [0, 1, 2]


def test_anything_else_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="capsule"):
        dlpack.from_dlpack("text")
