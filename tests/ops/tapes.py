"""Gradients of a function at arrays, for the tests of operations."""

from __future__ import annotations

import distgrad as tf


def gradients(fn, *arrays):
    """As arrays, None where there is none."""
    tensors = [tf.constant(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = fn(*tensors)
    return [None if g is None else g.numpy() for g in tape.gradient(value, tensors)]


def gradient(fn, array):
    """The gradient of a function of one array."""
    return gradients(fn, array)[0]
