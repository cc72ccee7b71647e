"""Pooling: values against loops, ties, padding, gradients, errors."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing.gradients import check_gradients


def distinct(*shape):
    """Elements that differ by more than a finite difference."""
    count = int(np.prod(shape))
    return np.random.default_rng(count).permutation(count).reshape(shape) / 8.0


def loops(x, fn, size, strides, padding):
    """2-D pooling, one window at a time; padding does not count."""
    if padding == "SAME":
        counts = [-(-n // s) for n, s in zip(x.shape[1:3], strides, strict=True)]
        before = [
            max((c - 1) * s + k - n, 0) // 2
            for c, s, k, n in zip(counts, strides, size, x.shape[1:3], strict=True)
        ]
    else:
        counts = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:3], size, strides, strict=True)]
        before = [0, 0]
    out = np.empty((x.shape[0], *counts, x.shape[3]))
    for n, i, j, c in np.ndindex(*out.shape):
        y, z = i * strides[0] - before[0], j * strides[1] - before[1]
        part = x[n, max(y, 0) : y + size[0], max(z, 0) : z + size[1], c]
        out[n, i, j, c] = fn(part)
    return out


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize("size", [(2, 2), (3, 2)])
def test_values(padding, strides, size):
    x = distinct(2, 7, 6, 3)
    for fn, reduce in ((tf.nn.max_pool2d, np.max), (tf.nn.avg_pool2d, np.mean)):
        found = fn(x, size, strides, padding)
        expected = loops(x, reduce, size, strides, padding)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        check_gradients(lambda x, fn=fn: fn(x, size, strides, padding), [x])


def test_one_and_three_axes_and_the_general_names():
    x = distinct(2, 7, 3)
    for fn, general, wide in (
        (tf.nn.max_pool1d, tf.nn.max_pool, tf.nn.max_pool2d),
        (tf.nn.avg_pool1d, tf.nn.avg_pool, tf.nn.avg_pool2d),
    ):
        expected = wide(x[:, None], [1, 2], [1, 2], "SAME")[:, 0].numpy()
        assert np.array_equal(fn(x, 2, 2, "SAME").numpy(), expected)
        assert np.array_equal(general(x, [1, 2, 1], [1, 2, 1], "SAME").numpy(), expected)
    x = distinct(1, 2, 2, 2, 1)
    assert tf.nn.max_pool3d(x, 2, 2, "VALID").numpy().item() == x.max()
    assert tf.nn.avg_pool3d(x, 2, 2, "VALID").numpy().item() == pytest.approx(x.mean())


def test_channels_first_is_the_same_transposed():
    x = distinct(2, 6, 7, 3)
    for fn in (tf.nn.max_pool2d, tf.nn.avg_pool2d):
        expected = fn(x, [2, 3], [1, 2], "SAME").numpy().transpose(0, 3, 1, 2)
        found = fn(x.transpose(0, 3, 1, 2), [1, 1, 2, 3], [1, 1, 1, 2], "SAME", data_format="NCHW")
        assert np.array_equal(found.numpy(), expected)


def test_gradient_at_a_tie_goes_to_the_first_of_each_window():
    x = tf.ones((1, 4, 4, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.nn.max_pool2d(x, 2, 2, "VALID")
    expected = np.zeros((4, 4))
    expected[::2, ::2] = 1
    assert np.array_equal(tape.gradient(y, x).numpy()[0, ..., 0], expected)


def test_second_derivative_by_the_input_is_zero_not_missing():
    x = tf.constant(distinct(1, 4, 4, 1))
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = tf.nn.max_pool2d(x, 2, 2, "VALID")
        g = inner.gradient(y, x)
    assert not outer.gradient(g, x).numpy().any()


def test_padding_never_wins_and_never_counts():
    x = -np.ones((1, 3, 3, 1))
    assert np.array_equal(tf.nn.max_pool2d(x, 2, 2, "SAME").numpy(), -np.ones((1, 2, 2, 1)))
    assert np.array_equal(tf.nn.avg_pool2d(x, 2, 2, "SAME").numpy(), -np.ones((1, 2, 2, 1)))
    explicit = [[0, 0], [1, 0], [0, 1], [0, 0]]
    assert np.array_equal(tf.nn.max_pool2d(x, 2, 2, explicit).numpy(), -np.ones((1, 2, 2, 1)))


def test_integers_nan_and_empty_batches():
    x = tf.constant(np.arange(16, dtype=np.int32).reshape(1, 4, 4, 1))
    found = tf.nn.max_pool2d(x, 2, 2, "VALID")
    assert found.dtype == tf.int32 and found.numpy().ravel().tolist() == [5, 7, 13, 15]
    nan = np.ones((1, 2, 2, 1))
    nan[0, 1, 1] = np.nan
    assert np.isnan(tf.nn.max_pool2d(nan, 2, 2, "VALID").numpy()).all()
    assert tf.nn.max_pool2d(tf.ones((0, 4, 4, 2)), 2, 2, "VALID").shape == (0, 2, 2, 2)
    assert tf.nn.avg_pool2d(tf.ones((0, 4, 4, 2)), 2, 2, "VALID").shape == (0, 2, 2, 2)


@pytest.mark.parametrize(
    "fn",
    [
        lambda: tf.nn.max_pool2d(tf.ones((4, 4, 1)), 2, 2, "VALID"),
        lambda: tf.nn.max_pool2d(tf.ones((1, 2, 2, 1)), 5, 1, "VALID"),
        lambda: tf.nn.max_pool2d(tf.ones((1, 4, 4, 1)), 2, 2, "NONE"),
        lambda: tf.nn.max_pool2d(tf.ones((1, 4, 4, 1)), 0, 2, "SAME"),
        lambda: tf.nn.max_pool2d(tf.ones((1, 4, 4, 1)), [1, 2, 2, 2], 2, "SAME"),
        lambda: tf.nn.max_pool2d(tf.ones((1, 4, 4, 1)), 2, [2, 1, 1, 1], "SAME"),
        lambda: tf.nn.avg_pool2d(tf.ones((1, 4, 4, 1)), 2, 2, "SAME", data_format="CHWN"),
        lambda: tf.nn.avg_pool2d(tf.constant([[[[1]]]]), 1, 1, "SAME"),
        lambda: tf.nn.max_pool(tf.ones((4, 4)), 2, 2, "SAME"),
    ],
)
def test_what_makes_no_sense_is_an_invalid_argument(fn):
    with pytest.raises(tf.errors.InvalidArgumentError):
        fn()
