"""``keras.ops`` at the edges of its functions: axes, dtypes, orders and errors."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.keras import ops
from distgrad.testing.gradients import check_gradients

X = np.ones((2, 3))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: ops.moveaxis(X, 0, 5), "axis 5"),
        (lambda: ops.moveaxis(X, -3, 0), "axis -3"),
        (lambda: ops.swapaxes(X, 0, 5), "axis 5"),
        (lambda: ops.rot90(X, axes=(0, -2)), "two different"),
        (lambda: ops.rot90(X[0]), "axis 1"),
        (lambda: ops.diag(np.ones((2, 2, 2))), "2, 2, 2"),
        (lambda: ops.pad(X, 1, mode="reflect", constant_values=1), "constant_values, 1"),
        (lambda: ops.stft(X, 2, 0, 4), "sequence_stride .* not 0"),
        (lambda: ops.stft(X, 2, 1.0, 4), "sequence_stride .* not 1.0"),
        (lambda: ops.istft((X, X), 4, 0, 4), "sequence_stride .* not 0"),
        (lambda: ops.depth_to_space(np.ones((1, 4, 4, 4)), 0), "at least 2, not 0"),
        (lambda: ops.space_to_depth(np.ones((1, 4, 4, 4)), 1), "at least 2, not 1"),
        (lambda: ops.scan(lambda c, x: (c, x), 0.0, X[0], unroll=-1), "unroll .* not -1"),
        (lambda: ops.scan(lambda c, x: (c, x), 0.0, X[0], length=4), "length of 4 for xs of 3"),
        (lambda: ops.normalize(X, order=2.5), "order .* not 2.5"),
        (lambda: ops.binary_crossentropy(X[:, :1], X), "2, 1.*2, 3"),
        (lambda: ops.histogram(X[0], range=(1,)), "two elements"),
        (lambda: ops.argpartition(X, 3), "kth 3"),
        (lambda: ops.view(np.int16(1), "int8"), "0d"),
        (lambda: ops.norm(X, ord=0), "0 is not an order"),
        (lambda: ops.norm(X, ord=-3, axis=(0, 1)), "-3 is not an order"),
    ],
)
def test_what_does_not_fit_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize(
    ("call", "dtype", "values"),
    [
        (lambda a, b: ops.matmul(a.astype("int8"), b.astype("int8")), "int32", [300, 300]),
        (lambda a, b: ops.einsum("ij,jk->ik", *map(np.int8, (a, b))), "int32", [300, 300]),
        (lambda a, b: ops.matmul(a > 0, b > 0), "bool", [True, True]),
        (lambda a, b: ops.dot(a > 0, b > 0), "bool", [True, True]),
        (lambda a, b: ops.inner(a > 0, b[:, 0] > 0), "bool", [True, True]),
        (lambda a, b: ops.vdot(a[0] > 0, b > 0), "bool", True),
        (lambda a, b: ops.tensordot(a > 0, b < 0, axes=1), "bool", [False, False]),
        (lambda a, b: ops.trunc(a[0] > 0), "bool", [True] * 3),
        (lambda a, b: ops.nan_to_num(a[0] > 0), "bool", [True] * 3),
        (lambda a, b: ops.isreal(a[0] > 0), "bool", [True] * 3),
    ],
)
def test_small_integers_and_bools(call, dtype, values):
    a, b = np.full((2, 3), 10), np.full((3, 1), 10)
    found = call(a, b)
    assert found.dtype == dtype
    np.testing.assert_array_equal(np.squeeze(found), values)


def test_different_elements_in_the_order_in_which_they_come():
    given = np.array([3, 1, 2, 1, 3])
    found = ops.unique(given, False, True, True, True)
    expected = [3, 1, 2], [0, 1, 2], [0, 1, 2, 1, 0], [2, 2, 1]
    for part, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(part, wanted)
    np.testing.assert_array_equal(ops.unique(given, sorted=False, size=2), [3, 1])
    rows = np.array([[3, 1], [2, 1], [3, 1]])
    np.testing.assert_array_equal(ops.unique(rows, sorted=False, axis=0), rows[:2])


def test_axes_of_none_and_several():
    given = np.array([[3.0, 1.0], [2.0, 0.0]])
    np.testing.assert_array_equal(ops.argpartition(given, 1, axis=None), [3, 1, 2, 0])
    np.testing.assert_array_equal(ops.roll(given, 1, axis=(0, 1)), np.roll(given, 1, (0, 1)))


HALF = ops.ones((2, 3, 2, 4), "bfloat16")


@pytest.mark.parametrize(
    ("call", "dtype", "values"),
    [
        (lambda: ops.dot_product_attention(HALF, HALF, HALF, is_causal=True), "bfloat16", 1),
        (lambda: ops.rms_normalization(HALF, ops.ones(4)), "bfloat16", 1),
        (lambda: ops.multi_hot(np.array([[0, 2]]), 3, dtype="bool"), "bool", [[1, 0, 1]]),
        (lambda: ops.moments(np.float16([-2000, 2000]), [0])[1], "float16", 65504),
        (lambda: ops.moments(np.float16([-2, 2]), [0])[1], "float16", 4),
        (lambda: ops.cast(np.ones(2), None), "float32", 1),
        (lambda: ops.correlate(HALF[0, :, 0, 0], np.ones(2, "i1")), "bfloat16", 2),
        (lambda: ops.linspace(0, 8, ops.array(3)), "float32", [0, 4, 8]),
        (lambda: ops.unique(np.float32([1, np.nan, np.nan])), "float32", [1, np.nan, np.nan]),
        (lambda: ops.saturate_cast(np.ones(2), None), "float32", 1),
        (lambda: ops.ctc_decode(np.ones((1, 2, 3), "f2"), [2])[1], "float32", -2),
    ],
)
def test_dtypes(call, dtype, values):
    found = call()
    assert found.dtype == dtype
    np.testing.assert_array_equal(np.asarray(found, "f8"), np.broadcast_to(values, found.shape))


def test_the_loss_of_sequences_is_no_less_exact_than_float32():
    scores = np.random.default_rng(0).normal(size=(1, 3, 4)).astype("f2")
    arguments = [1], [3]
    found = ops.ctc_loss([[2]], scores, *arguments)
    assert found.dtype == "float32"
    expected = ops.ctc_loss([[2]], scores.astype("f4"), *arguments)
    np.testing.assert_array_equal(found, expected)


def test_updates_that_multiply():
    found = ops.scatter_update([2.0, 3.0, 1.0], [[0], [0], [1]], [3.0, 5.0, 2.0], reduction="mul")
    np.testing.assert_array_equal(found, [30, 6, 1])
    rng = np.random.default_rng(1)
    x, updates = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    where = [[0], [2], [0]]
    check_gradients(lambda x, y: ops.scatter_update(x, where, y, "mul"), (x, updates), order=2)


@tf.keras.saving.register_keras_serializable()
def doubled(x):
    return x * 2.0


@pytest.mark.parametrize("mapped", [ops.map, ops.vectorized_map])
def test_models_with_functions_of_slices_come_back(mapped):
    inputs = tf.keras.Input((3,))
    model = tf.keras.Model(inputs, mapped(doubled, inputs))
    again = tf.keras.models.model_from_json(model.to_json())
    np.testing.assert_array_equal(again(np.ones((2, 3), "f")), np.full((2, 3), 2))
