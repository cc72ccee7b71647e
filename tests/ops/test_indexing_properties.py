"""Indexing, gather and scatter over random shapes and keys, against NumPy."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import distgrad as tf
from distgrad.testing.gradients import check_gradients

from .properties import FULL, SHAPES, array_of, quick


@quick
@given(shape=SHAPES, data=st.data())
def test_basic_indexing_equals_numpys(shape, data):
    x = array_of(shape)
    key = data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    found = tf.constant(x)[key]
    np.testing.assert_array_equal(found, x[key])
    check_gradients(lambda v: v[key], [x], order=2)


@quick
@given(shape=FULL, data=st.data())
def test_masks_over_leading_axes(shape, data):
    x = array_of(shape)
    ndim = data.draw(st.integers(1, len(shape)))
    mask = data.draw(hnp.arrays(bool, shape[:ndim]))
    np.testing.assert_array_equal(tf.constant(x)[mask], x[mask])
    np.testing.assert_array_equal(tf.boolean_mask(x, mask), x[mask])
    start = data.draw(st.integers(0, len(shape) - 1))
    inner = data.draw(hnp.arrays(bool, shape[start:]))
    expected = x[(slice(None),) * start + (inner,)]
    np.testing.assert_array_equal(tf.boolean_mask(x, inner, axis=start), expected)


@quick
@given(shape=FULL, data=st.data())
def test_gather_along_any_axis(shape, data):
    x = array_of(shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = data.draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
    indices = data.draw(hnp.arrays(np.int32, size, elements=st.integers(0, shape[axis] - 1)))
    found = tf.gather(x, indices, axis=axis)
    np.testing.assert_array_equal(found, np.take(x, indices, axis=axis))
    check_gradients(lambda v: tf.gather(v, indices, axis=axis), [x], order=2)


@quick
@given(shape=FULL, data=st.data())
def test_gather_in_batches_is_a_gather_for_each(shape, data):
    shape = (2, *shape)
    x = array_of(shape)
    axis = data.draw(st.integers(1, len(shape) - 1))
    size = data.draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
    indices = data.draw(hnp.arrays(np.int32, (2, *size), elements=st.integers(0, shape[axis] - 1)))
    found = tf.gather(x, indices, axis=axis, batch_dims=1)
    expected = [np.take(a, i, axis=axis - 1) for a, i in zip(x, indices, strict=True)]
    np.testing.assert_array_equal(found, np.stack(expected))


@quick
@given(shape=FULL, data=st.data())
def test_scatter_is_the_transpose_of_gather(shape, data):
    x = array_of(shape)
    depth = data.draw(st.integers(0, len(shape)))
    count = data.draw(st.integers(0, 5))
    limits = [st.integers(0, n - 1) for n in shape[:depth]]
    places = [[data.draw(limit) for limit in limits] for _ in range(count)]
    indices = np.array(places, dtype=np.int64).reshape(count, depth)
    picked = tf.gather_nd(x, indices).numpy()
    key = tuple(indices.T)
    expected = x[key] if depth else np.stack([x] * count) if count else np.zeros((0, *shape))
    np.testing.assert_array_equal(picked, expected)
    updates = np.random.default_rng(1).normal(size=picked.shape)
    spread = tf.scatter_nd(indices, updates, shape).numpy()
    # <gather(x), u> = <x, scatter(u)>
    np.testing.assert_allclose(np.sum(picked * updates), np.sum(x * spread), atol=1e-12)
    added = tf.tensor_scatter_nd_add(x, indices, updates)
    np.testing.assert_allclose(added, x + spread, atol=1e-13)


@quick
@given(
    indices=hnp.arrays(
        np.int64, hnp.array_shapes(min_dims=0, max_dims=2, max_side=3), elements=st.integers(-1, 4)
    ),
    data=st.data(),
)
def test_one_hot_along_any_axis(indices, data):
    axis = data.draw(st.integers(-1, indices.ndim))
    found = tf.one_hot(indices, 4, axis=axis).numpy()
    last = np.moveaxis(found, axis, -1)
    np.testing.assert_array_equal(last, indices[..., None] == np.arange(4))


@quick
@given(numbers=st.lists(st.integers(0, 2), max_size=8))
def test_partition_and_stitch_undo_each_other(numbers):
    x = array_of((len(numbers), 2))
    where = np.array(numbers, dtype=np.int32)
    parts = tf.dynamic_partition(x, where, 3)
    places = tf.dynamic_partition(tf.range(len(numbers)), where, 3)
    np.testing.assert_array_equal(tf.dynamic_stitch(places, parts), x)
