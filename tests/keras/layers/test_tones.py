"""Inverted, posterized, solarized, stretched and equalized images, against NumPy formulas."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

layers = tf.keras.layers
BYTES = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3)).astype(np.uint8)
IMAGES = BYTES.astype(np.float32)
CLOSE = {"rtol": 1e-5, "atol": 1e-3}


def test_invert():
    np.testing.assert_array_equal(layers.RandomInvert((1, 1))(BYTES), 255 - IMAGES)
    np.testing.assert_array_equal(layers.RandomInvert((1, 1), (-3, 9))(BYTES), 9 - IMAGES)
    np.testing.assert_array_equal(layers.RandomInvert(0.0)(BYTES), IMAGES)
    tf.random.set_seed(2)
    many = np.broadcast_to(IMAGES[:1], (600, 6, 5, 3))
    changed = (layers.RandomInvert(0.5)(many).numpy() != many).any(axis=(1, 2, 3))
    assert 110 < changed.sum() < 190  # a chance from 0 to 0.5, a quarter in the mean


def test_posterization():
    for bits in (1, 3, 8):
        expected = (BYTES >> (8 - bits)) << (8 - bits)
        np.testing.assert_array_equal(layers.RandomPosterization((bits, bits))(BYTES), expected)
        small = layers.RandomPosterization((bits, bits), (0, 1))((BYTES + 0.25).astype("f") / 255)
        np.testing.assert_allclose(small, expected / 255, **CLOSE)
    tf.random.set_seed(2)
    many = layers.RandomPosterization(3)(np.full((60, 1, 1, 1), 255)).numpy()
    assert set(many.ravel()) == {128, 192}  # one bit or two


def test_solarization():
    np.testing.assert_array_equal(layers.Solarization()(BYTES), 255 - IMAGES)
    for scale in (1, 2):
        layer = layers.Solarization((0.2, 0.2), (0.6, 0.6), (0, 255 / scale))
        values = (IMAGES + 0.2 * 255).clip(0, 255)
        expected = np.where(values < 0.6 * 255, values, 255 - values)
        np.testing.assert_allclose(layer(IMAGES / scale), expected / scale, **CLOSE)
    tf.random.set_seed(2)
    added = 255 - layers.Solarization((0.2, 0.3))(np.zeros((300, 1, 1, 1), "f")).numpy()
    assert 51 - 1e-3 <= added.min() < 53 and 75 < added.max() < 76.51


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_auto_contrast(data_format):
    small = IMAGES / 4 + 20
    small[1, ..., 2] = 7
    low, high = (f(small, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    with np.errstate(invalid="ignore"):
        expected = (small - low) * 255 / (high - low)
    expected[1, ..., 2] = 7
    layer = layers.AutoContrast(data_format=data_format)
    order, back = ((0, 3, 1, 2), (0, 2, 3, 1)) if "first" in data_format else ((0, 1, 2, 3),) * 2
    for training in (True, False):
        made = layer(small.transpose(order), training=training).numpy().transpose(back)
        np.testing.assert_allclose(made, expected, **CLOSE)
    made = layers.AutoContrast((0, 1))(small[0] / 255)
    np.testing.assert_allclose(made * 255, expected[0], **CLOSE)


def equalized(channel: np.ndarray, bins: int) -> np.ndarray:
    at = (channel / 255 * (bins - 1)).astype(int)
    below = np.bincount(at.ravel(), minlength=bins).cumsum()
    least = below[below > 0][0]
    return np.round((below - least) * 255 / max(below[-1] - least, 1))[at]


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("bins", [256, 16])
def test_equalization(data_format, bins):
    values = (IMAGES / 3 + 20).astype(int).astype(np.float32)
    values[..., 1] = 99  # of one value, and left alone
    expected = np.stack([equalized(values[..., i], bins) for i in range(3)], -1)
    expected[..., 1] = 99
    layer = layers.Equalization(bins=bins, data_format=data_format)
    order, back = ((0, 3, 1, 2), (0, 2, 3, 1)) if "first" in data_format else ((0, 1, 2, 3),) * 2
    made = layer(values.transpose(order)).numpy().transpose(back)
    np.testing.assert_allclose(made, expected)
    np.testing.assert_array_equal(layer(values[0], training=False), values[0])
    assert layer(BYTES[0]).shape == BYTES[0].shape


def test_equalization_in_a_captured_step():
    """Nothing in it is read on the host: that would be an error."""
    layer = layers.Equalization()
    step = tf.function(lambda x: layer(x, training=True), jit_compile="strict")
    for images in (IMAGES, IMAGES / 2):
        np.testing.assert_array_equal(step(tf.constant(images)), layer(images))


def test_configs_and_wrong_arguments():
    for layer in (layers.AutoContrast((0, 1)), layers.Equalization((0, 1), 12)):
        config = layer.get_config()
        assert "seed" not in config and type(layer).from_config(config).get_config() == config
    for call, words in (
        (lambda: layers.RandomInvert(-1), "between 0.0 and 1.0"),
        (lambda: layers.RandomPosterization(0), "between 1 and 8"),
        (lambda: layers.RandomPosterization((2, 4.5)), "factor must be a positive int"),
        (lambda: layers.Solarization(threshold_factor=2), "threshold_factor must lie"),
        (lambda: layers.AutoContrast(255), "value_range must be"),
        (lambda: layers.Equalization(bins=0), "bins must be a positive int"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
