"""Segments, sorting and counting against NumPy, at their edges too."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing.gradients import check_gradients

from .tapes import gradient

IAE = tf.errors.InvalidArgumentError

X = np.random.default_rng(0).normal(size=(2, 3, 4))


# Segments


IDS = np.array([0, 0, 2, 2, 2])
DATA = np.random.default_rng(2).normal(size=(5, 2))


@pytest.mark.parametrize(
    "name, fn, empty",
    [
        ("sum", np.sum, 0),
        ("mean", np.mean, 0),
        ("max", np.max, 0),
        ("min", np.min, 0),
        ("prod", np.prod, 1),
    ],
)
def test_segments(name, fn, empty):
    rows = [fn(DATA[:2], axis=0), np.full(2, empty), fn(DATA[2:], axis=0)]
    ours = getattr(tf.math, f"segment_{name}")
    np.testing.assert_allclose(ours(DATA, IDS), rows)
    check_gradients(lambda x: ours(x, IDS), [DATA], order=2)

    order = np.array([3, 0, 4, 1, 2])
    unsorted = getattr(tf.math, f"unsorted_segment_{name}")
    limits = np.finfo(np.float64)
    empty = {"max": limits.min, "min": limits.max}.get(name, empty)
    expected = [np.full(2, empty) if i in (1, 3) else rows[min(i, 2)] for i in range(4)]
    np.testing.assert_allclose(unsorted(DATA[order], IDS[order], 4), expected)
    full = np.minimum(IDS[order], 1)
    check_gradients(lambda x: unsorted(x, full, 2), [DATA[order]], order=2)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "sqrt_n"])
def test_unsorted_segments_are_captured(name):
    reduce = getattr(tf.math, f"unsorted_segment_{name}")
    captured = tf.function(jit_compile=True)(lambda x, ids: reduce(x, ids, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a function that runs eagerly
        for numbers in ([0, 1, 2, 0, 1], [2, -1, 2, 0, -1]):  # rows are left out only later
            ids = tf.constant(numbers)
            np.testing.assert_allclose(captured(tf.constant(DATA), ids), reduce(DATA, ids, 3))
        with pytest.raises(IAE, match=r"outside \[0, 3\)"):
            captured(tf.constant(DATA), tf.constant([0, 3, 1, 0, 1]))


def test_segment_of_two_axes_and_of_dropped_rows():
    x = np.arange(6.0).reshape(2, 3)
    ids = np.array([[0, 1, -1], [1, -1, 0]])
    np.testing.assert_array_equal(tf.math.unsorted_segment_sum(x, ids, 2), [5, 4])
    np.testing.assert_allclose(tf.math.unsorted_segment_sqrt_n(x, ids, 2), [5, 4] / np.sqrt(2))
    g = gradient(lambda v: tf.math.unsorted_segment_sum(v, ids, 2), x)
    np.testing.assert_array_equal(g, [[1, 1, 0], [1, 0, 1]])
    assert tf.math.segment_sum(tf.zeros([0, 3]), tf.zeros([0], tf.int32)).shape == (0, 3)


def test_segment_max_ties_and_zeros_in_products():
    g = gradient(lambda x: tf.math.segment_max(x, [0, 0, 1]), [2.0, 2.0, 1.0])
    np.testing.assert_array_equal(g, [0.5, 0.5, 1])
    g = gradient(lambda x: tf.math.segment_prod(x, [0, 0, 0]), [2.0, 0.0, 3.0])
    np.testing.assert_array_equal(g, [0, 6, 0])


@pytest.mark.parametrize(
    "call",
    [
        lambda: tf.math.segment_sum(DATA, [0, 1, 0, 1, 1]),
        lambda: tf.math.segment_sum(DATA, [-1, 0, 0, 1, 1]),
        lambda: tf.math.segment_sum(DATA, [0, 0]),
        lambda: tf.math.segment_sum(DATA, [0.0] * 5),
        lambda: tf.math.unsorted_segment_sum(DATA, IDS, 2),
        lambda: tf.math.unsorted_segment_sum(DATA, [0, 1], 2),
    ],
)
def test_wrong_segments(call):
    with pytest.raises(IAE):
        call()


# Sorting and counting


def test_sort_and_argsort():
    for axis in (0, 1, -1):
        np.testing.assert_array_equal(tf.sort(X, axis), np.sort(X, axis))
        order = tf.argsort(X, axis)
        assert order.dtype == tf.int32
        np.testing.assert_array_equal(order, np.argsort(X, axis, kind="stable"))
        falling = tf.sort(X, axis, direction="DESCENDING")
        np.testing.assert_array_equal(falling, -np.sort(-X, axis))
    np.testing.assert_array_equal(tf.argsort([1, 2, 1, 2], direction="DESCENDING"), [1, 3, 0, 2])
    np.testing.assert_array_equal(tf.sort(tf.constant([1, 0, 2], tf.uint8)), [0, 1, 2])
    with pytest.raises(ValueError, match="direction"):
        tf.sort([1.0], direction="up")


def test_top_k():
    values, indices = tf.math.top_k([[1.0, 3.0, 3.0, 2.0]], k=3)
    np.testing.assert_array_equal(values, [[3, 3, 2]])
    np.testing.assert_array_equal(indices, [[1, 2, 3]])
    assert indices.dtype == tf.int32
    g = gradient(lambda x: tf.nn.top_k(x, 2).values[0] * 5.0, [1.0, 3.0, 2.0])
    np.testing.assert_array_equal(g, [0, 5, 0])
    for bad in (lambda: tf.math.top_k([1.0], 2), lambda: tf.math.top_k(1.0)):
        with pytest.raises(IAE):
            bad()


def test_searchsorted():
    edges, values = np.array([1.0, 3.0, 5.0]), np.array([0.0, 3.0, 9.0])
    for side in ("left", "right"):
        found = tf.searchsorted(edges, values, side)
        assert found.dtype == tf.int32
        np.testing.assert_array_equal(found, np.searchsorted(edges, values, side))
    batch = tf.searchsorted(np.stack([edges, edges + 2]), np.stack([values, values]))
    np.testing.assert_array_equal(batch, [[0, 1, 3], [0, 0, 3]])
    with pytest.raises(IAE):
        tf.searchsorted(np.zeros((2, 3)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="side"):
        tf.searchsorted(edges, values, side="middle")


def test_unique():
    y, idx, count = tf.unique_with_counts([5, 2, 5, 7, 2, 5])
    np.testing.assert_array_equal(y, [5, 2, 7])
    np.testing.assert_array_equal(idx, [0, 1, 0, 2, 1, 0])
    np.testing.assert_array_equal(count, [3, 2, 1])
    assert tf.unique([1.0, 1.0]).idx.dtype == tf.int32
    with pytest.raises(IAE):
        tf.unique([[1]])


def test_bincount_and_histogram():
    x = np.array([1, 1, 3, 0])
    np.testing.assert_array_equal(tf.math.bincount(x), np.bincount(x))
    np.testing.assert_array_equal(tf.math.bincount(x, minlength=6), np.bincount(x, minlength=6))
    np.testing.assert_array_equal(tf.math.bincount(x, maxlength=2), [1, 2])
    weights = np.array([0.5, 1.0, 2.0, 4.0])
    np.testing.assert_array_equal(tf.math.bincount(x, weights), np.bincount(x, weights))
    np.testing.assert_array_equal(
        gradient(lambda w: tf.math.bincount(x, w)[1] * 3.0, weights), [3, 3, 0, 0]
    )
    np.testing.assert_array_equal(tf.math.bincount([[0, 1], [1, 1]], axis=-1), [[1, 1], [0, 2]])
    np.testing.assert_array_equal(tf.math.bincount([1, 1], binary_output=True), [0, 1])
    values = np.array([-1.0, 0.0, 1.5, 2.0, 5.0, 15])
    np.testing.assert_array_equal(tf.histogram_fixed_width(values, [0.0, 5.0], 5), [2, 1, 1, 0, 2])
    with pytest.raises(IAE):
        tf.math.bincount([-1])
    with pytest.raises(IAE):
        tf.histogram_fixed_width(values, [1.0, 0.0])


def test_invert_permutation():
    np.testing.assert_array_equal(tf.math.invert_permutation([2, 0, 1]), [1, 2, 0])
    with pytest.raises(IAE):
        tf.math.invert_permutation([0, 0])
