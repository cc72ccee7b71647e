"""Layers that change the shape alone."""

import json

import numpy as np
import pytest

import distgrad as tf

layers = tf.keras.layers


def x(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_flatten():
    y = layers.Flatten()(x(3, 2, 4))
    np.testing.assert_array_equal(y.numpy(), x(3, 2, 4).reshape(3, 8))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: layers.Reshape((-1, -1)), r"\(-1, -1\)"),
        (lambda: layers.Reshape((2.5,)), "2.5"),
        (lambda: layers.Reshape((5, -1))(x(2, 12)), r"\(12,\).*\(5, -1\)"),
        (lambda: layers.Reshape((3, 3))(x(2, 12)), r"\(12,\).*\(3, 3\)"),
        (lambda: layers.Permute((0, 1)), r"dims.*\(0, 1\)"),
        (lambda: layers.Permute((2, 1))(x(2, 3)), "rank 3"),
        (lambda: layers.RepeatVector(0), "n must.*0"),
        (lambda: layers.RepeatVector(2)(x(2, 3, 4)), "rank 2"),
        (lambda: layers.ZeroPadding2D((1, 2, 3)), r"\(1, 2, 3\)"),
        (lambda: layers.ZeroPadding2D(-1), "-1"),
        (lambda: layers.ZeroPadding2D()(x(2, 3, 4)), "rank 4"),
        (lambda: layers.Cropping1D("12"), "12"),
        (lambda: layers.Cropping1D(2)(x(1, 4, 1)), r"leaves nothing.*\(1, 4, 1\)"),
        (lambda: layers.Cropping2D((1, 2))(x(1, 5, 4, 1)), "leaves nothing"),
        (lambda: layers.UpSampling2D(0), "size.*0"),
        (lambda: layers.UpSampling2D(interpolation="cubic"), "interpolation.*cubic"),
        (lambda: layers.Flatten(data_format="last"), "data_format.*last"),
    ],
)
def test_wrong_use_is_a_value_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_batches_of_none_have_shapes():
    assert tuple(layers.Flatten()(x(0, 3, 4)).shape) == (0, 12)
    assert tuple(layers.Reshape((2, -1))(x(0, 12)).shape) == (0, 2, 6)
    assert tuple(layers.UpSampling2D()(x(0, 3, 4, 1)).shape) == (0, 6, 8, 1)


def test_integers_stay_integers():
    words = np.array([[1, 2], [3, 4]], np.int64)
    for layer in (layers.Flatten(), layers.Reshape((2, 1)), layers.RepeatVector(2)):
        assert layer(words).dtype == tf.int64


@pytest.mark.parametrize(
    ("target", "batch", "expected"),
    [((3, 5), (None, None), (None, 3, 5)), ((3, -1), (2, None, 5), (2, 3, None))],
)
def test_samples_of_unknown_size_take_the_target_shape(target, batch, expected):
    inputs = tf.keras.Input(batch_shape=batch)
    outputs = tf.keras.layers.Reshape(target)(inputs)
    assert outputs.shape == tf.keras.layers.Reshape(target).compute_output_shape(batch) == expected
    given = np.arange(30, dtype="f").reshape((2, 15) if len(batch) == 2 else (2, 3, 5))
    found = tf.keras.Model(inputs, outputs)(given)
    np.testing.assert_array_equal(found, given.reshape(2, 3, 5))


def test_sizes_are_tuples_in_configs_as_in_keras() -> None:
    made = [
        layers.DepthwiseConv2D(5, strides=2),
        layers.MaxPooling2D(2),
        layers.UpSampling2D((2, 3)),
        layers.Cropping2D(((1, 2), (0, 1))),
        layers.Reshape((4, 2)),
        layers.RandomRotation((-0.1, 0.2)),
        layers.LayerNormalization(axis=[1, 2]),
    ]
    names = ["kernel_size", "pool_size", "size", "cropping", "target_shape", "factor", "axis"]
    found = [layer.get_config()[name] for layer, name in zip(made, names, strict=True)]
    assert found == [(5, 5), (2, 2), (2, 3), ((1, 2), (0, 1)), (4, 2), (-0.1, 0.2), [1, 2]]
    for layer in made:  # and of lists, which files have, they are the same
        written = json.loads(json.dumps(layer.get_config()))
        assert type(layer).from_config(written).get_config() == layer.get_config()
