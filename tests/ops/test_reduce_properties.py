"""Reductions over random shapes and axes, against NumPy."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import distgrad as tf
from distgrad.testing.gradients import check_gradients

from .properties import FULL, array_of, quick

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def shape_and_axes(draw, shapes=SHAPES):
    """A shape, and None, one axis or several of them, negative ones too."""
    shape = draw(shapes)
    ndim = len(shape)
    if not ndim:
        return shape, None
    one = st.integers(-ndim, ndim - 1)
    several = st.lists(one, max_size=ndim, unique_by=lambda a: a % ndim).map(tuple)
    return shape, draw(st.none() | one | several)


@quick
@given(case=shape_and_axes(), keepdims=st.booleans())
def test_sums_products_and_logic_equal_numpys(case, keepdims):
    shape, axis = case
    x = array_of(shape)
    for ours, theirs in [(tf.reduce_sum, np.sum), (tf.reduce_prod, np.prod)]:
        found, expected = ours(x, axis, keepdims), theirs(x, axis=axis, keepdims=keepdims)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    for ours, theirs in [(tf.reduce_any, np.any), (tf.reduce_all, np.all)]:
        found, expected = ours(x > 0, axis, keepdims), theirs(x > 0, axis=axis, keepdims=keepdims)
        np.testing.assert_array_equal(found, expected)


@quick
@given(case=shape_and_axes(FULL), keepdims=st.booleans())
def test_means_extrema_and_moments_equal_numpys(case, keepdims):
    shape, axis = case
    x = array_of(shape)
    for ours, theirs in [
        (tf.reduce_mean, np.mean),
        (tf.reduce_max, np.max),
        (tf.reduce_min, np.min),
        (tf.math.reduce_variance, np.var),
        (tf.math.reduce_std, np.std),
    ]:
        found, expected = ours(x, axis, keepdims), theirs(x, axis=axis, keepdims=keepdims)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@quick
@given(case=shape_and_axes(FULL), keepdims=st.booleans())
def test_derivatives_over_any_axes(case, keepdims):
    shape, axis = case
    for fn in (tf.reduce_mean, tf.reduce_prod, tf.reduce_max, tf.reduce_logsumexp):
        check_gradients(lambda x, fn=fn: fn(x, axis, keepdims), [array_of(shape)], order=2)


@quick
@given(case=shape_and_axes(FULL), zeros=st.integers(0, 6))
def test_products_with_any_number_of_zeros(case, zeros):
    shape, axis = case
    x = array_of(shape)
    x.flat[np.random.default_rng(zeros).permutation(x.size)[:zeros]] = 0.0
    check_gradients(lambda v: tf.reduce_prod(v, axis), [x], order=2)


@quick
@given(shape=FULL, exclusive=st.booleans(), reverse=st.booleans(), data=st.data())
def test_scans_undo_themselves(shape, exclusive, reverse, data):
    x = array_of(shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    total = tf.cumsum(x, axis, exclusive, reverse).numpy()
    whole = total + x if exclusive else total
    turned = np.flip(whole, axis) if reverse else whole
    steps = np.diff(turned, axis=axis, prepend=0.0)
    np.testing.assert_allclose(np.flip(steps, axis) if reverse else steps, x, atol=1e-13)
    product = tf.math.cumprod(np.exp(x), axis, exclusive, reverse)
    np.testing.assert_allclose(np.log(product.numpy()), total, atol=1e-12)
    inclusive = tf.math.cumulative_logsumexp(x, axis, False, reverse)
    sums = tf.cumsum(np.exp(x), axis, False, reverse)
    np.testing.assert_allclose(np.exp(inclusive.numpy()), sums, rtol=1e-12)


@quick
@given(shape=FULL, data=st.data(), direction=st.sampled_from(["ASCENDING", "DESCENDING"]))
def test_sort_is_argsort_gathered(shape, data, direction):
    x = np.random.default_rng(0).integers(0, 3, shape).astype(float)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    order = tf.argsort(x, axis, direction).numpy()
    found = tf.sort(x, axis, direction).numpy()
    np.testing.assert_array_equal(found, np.take_along_axis(x, order, axis))
    expected = np.sort(x, axis)
    expected = np.flip(expected, axis) if direction == "DESCENDING" else expected
    np.testing.assert_array_equal(found, expected)
    # Stable: among equal neighbours the positions rise.
    ties = np.diff(found, axis=axis) == 0
    assert (np.diff(order, axis=axis)[ties] > 0).all()


@quick
@given(
    ids=st.lists(st.integers(-1, 3), max_size=8),
    width=st.integers(0, 3),
    name=st.sampled_from(["sum", "mean", "max", "min", "prod"]),
)
def test_unsorted_segments(ids, width, name):
    x = array_of((len(ids), width))
    where = np.array(ids, dtype=np.int32)
    found = getattr(tf.math, f"unsorted_segment_{name}")(x, where, 4).numpy()
    assert found.shape == (4, width)
    fn = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min, "prod": np.prod}[name]
    for i in set(ids) - {-1}:
        np.testing.assert_allclose(found[i], fn(x[where == i], axis=0), rtol=1e-12)
