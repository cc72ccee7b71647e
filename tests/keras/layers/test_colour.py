"""Random colours of images, against formulas over NumPy arrays and colorsys."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

import distgrad as tf

layers = tf.keras.layers
IMAGES = np.random.default_rng(0).uniform(0, 255, (6, 4, 5, 3)).astype(np.float32)
GRAY = (IMAGES @ [0.2989, 0.587, 0.114])[..., None]
CLOSE = {"rtol": 1e-4, "atol": 1e-2}


def through_hsv(change) -> np.ndarray:
    """The images with hue, saturation and value (all in [0, 1]) changed by a function."""

    def one(pixel):
        return np.multiply(255, colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel / 255))))

    return np.apply_along_axis(one, -1, IMAGES.astype(np.float64))


@pytest.mark.parametrize("scale", [1.0, 1 / 255])
def test_hue_and_saturation(scale):
    tf.random.set_seed(3)
    given = {"value_range": (0, 255 * scale)}
    turned = layers.RandomHue((0.4, 0.4), **given)(IMAGES * np.float32(scale)) / scale
    ways = [through_hsv(lambda h, s, v, d=d: ((h + d) % 1, s, v)) for d in (0.2, -0.2)]
    near = np.array([np.abs(turned - way).max(axis=(1, 2, 3)) < 0.02 for way in ways])
    assert (near[0] ^ near[1]).all() and near.any(axis=1).all()
    for factor in (0.0, 0.3, 0.5, 0.9, 1.0):
        made = layers.RandomSaturation((factor, factor), **given)(IMAGES * np.float32(scale))
        times = factor / (1 - factor + 1e-7)
        expected = through_hsv(lambda h, s, v, t=times: (h, min(s * t, 1), v))
        np.testing.assert_allclose(made / scale, expected, **CLOSE)


def test_gray():
    some = layers.RandomColorDegeneration((0.3, 0.3))(IMAGES)
    np.testing.assert_allclose(some, IMAGES + 0.3 * (GRAY - IMAGES), rtol=1e-5)
    clipped = layers.RandomColorDegeneration((0, 0), (10, 20))(IMAGES)
    np.testing.assert_array_equal(clipped, IMAGES.clip(10, 20))
    np.testing.assert_allclose(layers.RandomGrayscale(1)(IMAGES), GRAY + 0 * IMAGES, rtol=1e-5)
    np.testing.assert_array_equal(layers.RandomGrayscale(0.0)(IMAGES), IMAGES)
    np.testing.assert_array_equal(layers.RandomGrayscale(1.0)(GRAY), GRAY.astype("f"))
    tf.random.set_seed(3)
    many = np.broadcast_to(IMAGES[:1], (400, 4, 5, 3))
    changed = (layers.RandomGrayscale(0.3)(many).numpy() != many).any(axis=(1, 2, 3))
    assert 90 < changed.sum() < 150


def test_one_number_is_a_range_from_zero():
    tf.random.set_seed(3)
    many = np.broadcast_to(IMAGES[:1, :1, :1], (400, 1, 1, 3))
    shares = (layers.RandomColorDegeneration(0.4)(many) - many) / (GRAY[0, 0, 0] - many)
    assert 0 <= shares[:, 0, 0, 0].numpy().min() < 0.03 and 0.37 < shares.numpy().max() < 0.4001
    for layer in (layers.RandomHue(0.4), layers.RandomSaturation(0.4)):
        assert layer.factor == (0, 0.4)


def test_jitter_is_its_parts_in_order():
    factors = {"brightness": 0.3, "contrast": 0.4, "saturation": (0.3, 0.6), "hue": 0.5}
    jitter = layers.RandomColorJitter((0, 200), **{f"{k}_factor": v for k, v in factors.items()})
    tf.random.set_seed(5)
    made = jitter(IMAGES)
    tf.random.set_seed(5)
    x = IMAGES
    for name, factor in factors.items():
        x = getattr(layers, f"Random{name.capitalize()}")(factor, value_range=(0, 200))(x)
    np.testing.assert_array_equal(made, x)
    np.testing.assert_array_equal(layers.RandomColorJitter()(IMAGES), IMAGES)


def test_wrong_arguments():
    for call, words in (
        (lambda: layers.RandomHue(1.5), "between 0.0 and 1.0"),
        (lambda: layers.RandomSaturation(-0.1), "between 0.0 and 1.0"),
        (lambda: layers.RandomSaturation(0.1, 255), "value_range must be"),
        (lambda: layers.RandomGrayscale(1.2), "factor must lie between 0 and 1"),
        (lambda: layers.RandomColorJitter(hue_factor=2), "between 0.0 and 1.0"),
        (lambda: layers.RandomHue(0.1)(IMAGES[..., :2]), "3 channels"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
