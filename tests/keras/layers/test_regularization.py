"""Dropout of elements and channels, and Gaussian noise."""

import json
import math

import numpy as np
import pytest

import distgrad as tf

layers = tf.keras.layers
NOISE = [
    lambda **k: layers.Dropout(0.4, **k),
    lambda **k: layers.SpatialDropout1D(0.4, **k),
    lambda **k: layers.GaussianNoise(0.4, **k),
    lambda **k: layers.GaussianDropout(0.4, **k),
]
IDS = ["Dropout", "SpatialDropout1D", "GaussianNoise", "GaussianDropout"]
ONES = np.ones((20, 30, 40), np.float32)


def test_dropout_only_in_training():
    layer = layers.Dropout(0.25)
    ones = np.ones((100, 100), np.float32)
    np.testing.assert_array_equal(layer(ones).numpy(), ones)
    first, second = (layer(ones, training=True).numpy() for _ in range(2))
    assert set(np.unique(first)) == {0.0, np.float32(1 / 0.75)}
    assert abs((first == 0).mean() - 0.25) < 0.02
    assert (first != second).any(), "a fresh mask per call"


def test_dropout_gradient_is_the_mask():
    v = tf.constant(np.ones((4, 5), np.float32))
    with tf.GradientTape() as tape:
        tape.watch(v)
        y = layers.Dropout(0.5)(v, training=True)
    np.testing.assert_array_equal(tape.gradient(y, v).numpy(), y.numpy())


@pytest.mark.parametrize("make", NOISE, ids=IDS)
def test_identity_outside_of_training_and_fresh_noise_within(make):
    layer = make()
    np.testing.assert_array_equal(layer(ONES).numpy(), ONES)
    np.testing.assert_array_equal(layer(ONES, training=False).numpy(), ONES)
    first, second = (layer(ONES, training=True).numpy() for _ in range(2))
    assert (first != second).any() and first.dtype == np.float32
    assert not layer.weights


@pytest.mark.parametrize("make", NOISE, ids=IDS)
def test_noise_follows_the_seed(make):
    def drawn(start, **kwargs):
        tf.keras.utils.set_random_seed(start)
        return make(**kwargs)(ONES, training=True).numpy()

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert (drawn(1) != drawn(2)).any()
    assert (drawn(1, seed=5) != drawn(1, seed=6)).any()


@pytest.mark.parametrize("make", NOISE, ids=IDS)
def test_config_makes_an_equal_layer(make):
    layer = make(seed=3, name="noise")
    config = json.loads(json.dumps(layer.get_config()))
    again = type(layer).from_config(config)
    assert again.get_config() == layer.get_config() and again.seed == 3 and again.name == "noise"


@pytest.mark.parametrize("make", NOISE, ids=IDS)
def test_masks_pass(make):
    steps = tf.constant(ONES)
    steps._keras_mask = tf.constant(np.arange(600).reshape(20, 30) % 2 == 0)
    np.testing.assert_array_equal(make()(steps)._keras_mask.numpy(), steps._keras_mask.numpy())


def test_noise_shape_keeps_or_drops_whole_axes():
    y = layers.Dropout(0.5, noise_shape=(None, 1, 40))(ONES, training=True).numpy()
    assert (y == y[:, :1]).all() and set(np.unique(y)) == {0, 2}
    again = layers.Dropout.from_config(layers.Dropout(0.5, [None, 1, 40]).get_config())
    assert again.noise_shape == (None, 1, 40)


def test_spatial_dropout_drops_channels():
    y = layers.SpatialDropout1D(0.5)(ONES, training=True).numpy()
    assert (y == y[:, :1]).all() and abs(y.mean() - 1) < 0.15
    images = np.ones((8, 5, 6, 7), np.float32)
    y = layers.SpatialDropout2D(0.5)(images, training=True).numpy()
    assert (y == y[:, :1, :1]).all() and set(np.unique(y)) == {0, 2}
    layer = layers.SpatialDropout2D(0.5, data_format="channels_first")
    y = layer(images, training=True).numpy()
    assert (y == y[:, :, :1, :1]).all() and set(np.unique(y)) == {0, 2}
    again = layers.SpatialDropout2D.from_config(json.loads(json.dumps(layer.get_config())))
    assert again.data_format == "channels_first" and again.rate == 0.5


def test_gaussian_noise_has_the_deviation_that_it_says():
    """24000 draws: mean and deviation are off by about 1/150 of the deviation."""
    added = layers.GaussianNoise(0.3)(ONES, training=True).numpy() - 1
    assert abs(added.mean()) < 0.01 and abs(added.std() - 0.3) < 0.01
    factor = layers.GaussianDropout(0.2)(ONES * 2, training=True).numpy() / 2
    assert abs(factor.mean() - 1) < 0.02
    assert abs(factor.std() - math.sqrt(0.25)) < 0.02


def test_the_ends_of_the_rate():
    np.testing.assert_array_equal(layers.Dropout(1)(ONES, training=True).numpy(), ONES * 0)
    for layer in (layers.Dropout(0), layers.GaussianNoise(0), layers.GaussianDropout(0)):
        np.testing.assert_array_equal(layer(ONES, training=True).numpy(), ONES)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: layers.Dropout(1.5), "1.5"),
        (lambda: layers.Dropout("half"), "half"),
        (lambda: layers.Dropout(-0.1), "-0.1"),
        (lambda: layers.Dropout(0.5, noise_shape="1"), "noise_shape.*'1'"),
        (lambda: layers.Dropout(0.5, noise_shape=3), "noise_shape.*3"),
        (lambda: layers.Dropout(0.5, noise_shape=(0, None)), "noise_shape.*0"),
        (lambda: layers.Dropout(0.5, noise_shape=(1,))(ONES, training=True), "noise_shape"),
        (lambda: layers.SpatialDropout1D(1.5), "1.5"),
        (lambda: layers.SpatialDropout1D(0.5)(np.ones((2, 3)), training=True), "shape"),
        (lambda: layers.SpatialDropout2D(0.5, data_format="NHWC"), "NHWC"),
        (lambda: layers.GaussianNoise(2), "stddev.*2"),
        (lambda: layers.GaussianDropout(1), "rate.*1"),
        (lambda: layers.Dropout(0.5, ratio=1), "ratio"),
    ],
)
def test_wrong_use_is_a_value_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()
