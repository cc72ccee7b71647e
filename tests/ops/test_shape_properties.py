"""Shape operations over random shapes: they undo each other, and agree with NumPy."""

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
def test_transpose_and_its_inverse(shape, data):
    x = array_of(shape)
    perm = data.draw(st.permutations(range(len(shape))))
    turned = tf.transpose(x, perm)
    np.testing.assert_array_equal(turned, np.transpose(x, perm))
    np.testing.assert_array_equal(tf.transpose(turned, tf.math.invert_permutation(perm)), x)


@quick
@given(shape=SHAPES, data=st.data())
def test_reshape_keeps_the_elements_in_order(shape, data):
    x = array_of(shape)
    wanted = list(data.draw(st.permutations(shape)))
    found = tf.reshape(x, wanted)
    np.testing.assert_array_equal(found, x.reshape(wanted))
    if x.size:
        wanted[0] = -1
        np.testing.assert_array_equal(tf.reshape(x, wanted), found)


@quick
@given(shape=SHAPES, data=st.data(), count=st.integers(1, 4))
def test_split_and_concat_undo_each_other(shape, data, count):
    x = array_of(shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    cuts = sorted(data.draw(st.lists(st.integers(0, shape[axis]), max_size=count)))
    sizes = np.diff([0, *cuts, shape[axis]]).tolist()
    parts = tf.split(x, sizes, axis)
    for part, expected in zip(parts, np.split(x, cuts, axis), strict=True):
        np.testing.assert_array_equal(part, expected)
    np.testing.assert_array_equal(tf.concat(parts, axis), x)
    if shape[axis]:
        np.testing.assert_array_equal(tf.stack(tf.unstack(x, axis=axis), axis), x)


@quick
@given(broadcast=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0))
def test_broadcast_to_the_common_shape(broadcast):
    for shape in broadcast.input_shapes:
        x = array_of(shape)
        found = tf.broadcast_to(x, broadcast.result_shape)
        np.testing.assert_array_equal(found, np.broadcast_to(x, broadcast.result_shape))
        check_gradients(
            lambda v: tf.broadcast_to(v, broadcast.result_shape), [np.asarray(x)], order=1
        )


@quick
@given(shape=FULL, data=st.data())
def test_padding_in_every_mode(shape, data):
    x = array_of(shape)
    modes = [("CONSTANT", "constant", 3), ("REFLECT", "reflect", -1), ("SYMMETRIC", "symmetric", 0)]
    ours, theirs, extra = data.draw(st.sampled_from(modes))
    widths = [
        tuple(data.draw(st.integers(0, n + extra if extra < 1 else extra)) for _ in range(2))
        for n in shape
    ]
    found = tf.pad(x, widths, ours)
    np.testing.assert_array_equal(found, np.pad(x, widths, theirs))
    check_gradients(lambda v: tf.pad(v, widths, ours), [x], order=2)


@quick
@given(shape=FULL, data=st.data())
def test_tile_repeat_roll_and_reverse(shape, data):
    x = array_of(shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    counts = [data.draw(st.integers(0, 3)) for _ in shape]
    np.testing.assert_array_equal(tf.tile(x, counts), np.tile(x, counts))
    each = [data.draw(st.integers(0, 2)) for _ in range(shape[axis])]
    np.testing.assert_array_equal(tf.repeat(x, each, axis), np.repeat(x, each, axis))
    np.testing.assert_array_equal(tf.repeat(x, each[0], axis), np.repeat(x, each[0], axis))
    shift = data.draw(st.integers(-9, 9))
    np.testing.assert_array_equal(tf.roll(x, shift, axis), np.roll(x, shift, axis))
    np.testing.assert_array_equal(tf.reverse(x, [axis]), np.flip(x, axis))


@quick
@given(rows=st.integers(0, 4), columns=st.integers(0, 4), k=st.integers(-3, 3))
def test_diagonals_and_bands(rows, columns, k):
    x = array_of((2, rows, columns))
    band = tf.linalg.band_part(x, -1, abs(k))
    np.testing.assert_array_equal(band, np.tril(x, abs(k)))
    if -rows < k < columns:
        line = tf.linalg.diag_part(x, k=k)
        np.testing.assert_array_equal(line, np.diagonal(x, k, -2, -1))
        back = tf.linalg.diag(line, k=k, num_rows=rows, num_cols=columns)
        np.testing.assert_array_equal(tf.linalg.diag_part(back, k=k), line)
        np.testing.assert_array_equal(tf.linalg.set_diag(x, line, k=k), x)
