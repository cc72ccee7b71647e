"""Simple rules are called on arrays where nobody records: the same kernels, so the same bits."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.core import recording
from distgrad.core.primitive import registry
from distgrad.core.tensor import Tensor

pytestmark = pytest.mark.cpu  # a GPU's kernels are called by the tape


class Nobody:
    """A recorder that does nothing: with it the walk goes through tensors."""

    def record(self, *args): ...

    def read_variable(self, *args): ...


def straight_plans():
    for primitive in list(registry.values()):
        if primitive.differentiable and not primitive.variadic and primitive.kinds != "c":
            arguments = range(len(primitive.arg_names))
            mask = sum(
                1 << i for i in arguments if primitive.arg_names[i] not in primitive.constant
            )
            plan = primitive.plan(mask, len(arguments))
            if plan is not None and plan.straight():
                yield primitive.name


STRAIGHT = list(straight_plans())


def test_the_most_common_ones_are_straight():
    assert {"add", "subtract", "multiply", "negative", "tanh", "relu", "exp"} <= set(STRAIGHT)
    assert not {"dot", "sum", "abs", "select"} & set(STRAIGHT)


def gradients(primitive, args, params):
    """Of first and second order; with a number in the place of each argument as well."""
    found = []
    for number in (None, *range(len(args))):
        given = [Tensor(np.array(a)) for a in args]
        if number is not None:
            given[number] = 0.75
        watched = [g for g in given if type(g) is Tensor]
        if not watched:
            continue
        with tf.GradientTape() as outer:
            outer.watch(watched)
            with tf.GradientTape() as inner:
                inner.watch(watched)
                y = primitive(*given, **params)
            first = inner.gradient(y, watched)
            total = sum(tf.reduce_sum(g * g) for g in first if g is not None)
        second = outer.gradient(total, watched) if isinstance(total, Tensor) else []
        found += [g.numpy() for g in (*first, *second) if g is not None]
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", STRAIGHT)
def test_the_bits_of_tensors(name, dtype):
    primitive = registry[name]
    for args, params in primitive.make_samples(np.random.default_rng(1)):
        args = [np.asarray(a).astype(dtype) for a in args]
        straight = gradients(primitive, args, params)
        nobody = Nobody()
        recording.push(nobody)
        try:
            slow = gradients(primitive, args, params)
        finally:
            recording.remove(nobody)
        assert len(straight) == len(slow) > 0
        for a, b in zip(straight, slow, strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def test_complex_numbers_are_conjugated():
    x = tf.constant(np.array([1 + 2j, 3 - 1j]))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = x * (2 - 1j)
    np.testing.assert_allclose(tape.gradient(y, x), np.full(2, 2 + 1j))


def test_a_kernel_that_is_replaced_is_seen(monkeypatch):
    x = tf.constant([1.0, 2.0])

    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.tanh(x)
        return tape.gradient(y, x).numpy()

    before = gradient()
    grad = registry["tanh_grad"]
    kernel = grad.kernel_for(np)
    grad.replace_kernel(np, lambda g, y: kernel(g, y) * 2)
    try:
        np.testing.assert_array_equal(gradient(), 2 * before)
    finally:
        grad.replace_kernel(np, kernel)
    np.testing.assert_array_equal(gradient(), before)


def test_a_cotangent_that_is_a_variable_does_not_change_with_it():
    x, v = tf.constant([1.0, 2.0]), tf.Variable([3.0, 4.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = x + 1.0
    g = tape.gradient(y, x, output_gradients=v)
    v.assign([0.0, 0.0])
    np.testing.assert_array_equal(g, [3.0, 4.0])
