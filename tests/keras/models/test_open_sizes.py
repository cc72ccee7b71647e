"""Axes of unknown size that meet axes of known size."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.keras import ops

Symbol = tf.keras.KerasTensor
patches = ops.image.extract_patches_3d


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        (lambda: Symbol((None, 3)) + Symbol((2, None)), (2, 3)),
        (lambda: Symbol((None, 3)) + Symbol((5, None)), (5, 3)),
        (lambda: Symbol((None, None, 3)) + np.ones((5, 3), "f"), (None, 5, 3)),
        (lambda: Symbol((None, None, 3)) * Symbol((None, 32, 1)), (None, 32, 3)),
        (lambda: ops.concatenate([Symbol((None, None, 3)), Symbol((2, 7, 3))], -1), (2, 7, 6)),
        (lambda: ops.matmul(Symbol((None, None)), Symbol((4, 5))), (None, 5)),
        (lambda: ops.conv(Symbol((2, 10, None)), np.ones((3, 5, 4), "f")), (2, 8, 4)),
        (
            lambda: ops.scan(lambda c, x: (c, c + x), Symbol((None,)), Symbol((6, None)))[1],
            (6, None),
        ),
        (lambda: Symbol((None, None, 3)) + Symbol((None, None, 3)), (None, None, 3)),
    ],
)
def test_the_known_size_holds(call, shape):
    assert call().shape == shape


def test_a_model_of_steps_that_are_not_known_beforehand_with_a_table_of_places():
    inputs = tf.keras.Input((None, 3))
    places = np.arange(15, dtype="f").reshape(5, 3)
    outputs = tf.keras.layers.Dense(2, kernel_initializer="ones")(inputs + places)
    assert outputs.shape == (None, 5, 2)
    model = tf.keras.Model(inputs, outputs)
    expected = np.broadcast_to(places.sum(1)[None, :, None], (4, 5, 2))
    np.testing.assert_array_equal(model(np.zeros((4, 5, 3), "f")), expected)


@pytest.mark.parametrize(
    ("parts", "shapes"),
    [
        (lambda x: ops.split(x, 2), [(None, 4, 3)] * 2),
        (lambda x: ops.array_split(x, 2), [(None, 4, 3)] * 2),
        (lambda x: ops.vsplit(x, [1, 3]), [(1, 4, 3), (2, 4, 3), (None, 4, 3)]),
        (lambda x: [ops.broadcast_to(x[:, 0], (2, 5, 3))], [(2, 5, 3)]),
    ],
)
def test_parts_of_an_axis_of_unknown_size(parts, shapes):
    assert [part.shape for part in parts(Symbol((None, 4, 3)))] == shapes


@pytest.mark.parametrize(
    ("call", "shapes"),
    [
        (lambda x, i: ops.segment_sum(x, i), [(None, 4, 3)]),
        (lambda x, i: ops.segment_max(x, i, 7), [(7, 4, 3)]),
        (lambda x, i: ops.split(ops.transpose(x, (1, 0, 2)), [1, 4], 1)[1], [(4, 3, 3)]),
        (lambda x, i: ops.unstack(ops.reshape(x, (4, -1)), num=2, axis=1), [(4,)] * 2),
        (lambda x, i: ops.slice(x, Symbol((3,), "int32"), (2, -1, 3)), [(2, None, 3)]),
        (
            lambda x, i: ops.image.pad_images(
                Symbol((None, None, None, 3)), 2, 3, target_height=20, target_width=30
            ),
            [(None, 20, 30, 3)],
        ),
        (
            lambda x, i: ops.image.perspective_transform(
                Symbol((None, 8, 9, 3)), Symbol((None, 4, 2)), Symbol((None, 4, 2))
            ),
            [(None, 8, 9, 3)],
        ),
        (
            lambda x, i: ops.image.scale_and_translate(
                Symbol((None, 8, 9, 3)), (None, 5, 6, 3), np.ones(2), np.ones(2), (1, 2), "linear"
            ),
            [(None, 5, 6, 3)],
        ),
        (lambda x, i: patches(Symbol((None, 9, 9, 9, 2)), 3), [(None, 3, 3, 3, 54)]),
        (lambda x, i: patches(Symbol((9, 9, 9, 2)), 3), [(3, 3, 3, 54)]),
    ],
)
def test_operations_whose_shapes_zeros_do_not_tell(call, shapes):
    found = call(Symbol((None, 4, 3)), Symbol((None,), "int32"))
    assert [part.shape for part in (found if isinstance(found, list) else [found])] == shapes


def test_a_model_of_groups_is_saved_and_runs():
    data, groups = tf.keras.Input((2,)), tf.keras.Input((), dtype="int32")
    model = tf.keras.Model([data, groups], ops.segment_sum(data, groups))
    model = tf.keras.Model.from_config(model.get_config())
    found = model([np.ones((4, 2), "f"), np.array([0, 2, 2, 0], "int32")])
    np.testing.assert_array_equal(found, [[2, 2], [0, 0], [2, 2]])
