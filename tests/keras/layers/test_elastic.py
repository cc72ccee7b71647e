"""RandomElasticTransform: the noise that moves pixels, and how they are read."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.keras.layers.blurring import bell, weighted

layers = tf.keras.layers
IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 6, 7, 3)).astype(np.float32)
MODES = ("constant", "nearest", "wrap", "mirror", "reflect")


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("fill_mode", MODES)
def test_reads_as_map_coordinates_does(fill_mode, interpolation):
    layer = layers.RandomElasticTransform(
        fill_mode=fill_mode, interpolation=interpolation, fill_value=3
    )
    rng = np.random.default_rng(1)
    down, across = (rng.uniform(-3, n + 3, (2, 6, 7, 1)).astype("f") for n in (6, 7))
    made = layer._read(tf.constant(IMAGES), tf.constant(down), tf.constant(across)).numpy()
    for image, found, rows, columns in zip(IMAGES, made, down[..., 0], across[..., 0], strict=True):
        for channel in range(3):
            expected = tf.keras.ops.image.map_coordinates(
                image[..., channel],
                np.stack([rows, columns]),
                order=1 if interpolation == "bilinear" else 0,
                fill_mode=fill_mode,
                fill_value=3,
            )
            np.testing.assert_allclose(found[..., channel], expected, rtol=1e-5, atol=1e-4)


def test_the_window_of_each_image_ends_at_three_deviations():
    deviations = np.array([0.3, 0.7, 1.9], "f").reshape(3, 1, 1, 1)
    weights = bell(tf.constant(deviations), 13, reach=3.0).numpy()[:, 0, 0]
    for deviation, found in zip(deviations.ravel(), weights, strict=True):
        size = int(6 * deviation) | 1  # as Keras counts
        line = np.exp(-0.5 * ((np.arange(size) - size // 2) / deviation) ** 2)
        expected = np.pad(line / line.sum(), (13 - size) // 2)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    spread = weighted(tf.constant(IMAGES), 1, tf.ones((2, 1, 1, 3)))
    around = np.pad(IMAGES, ((0, 0), (1, 1), (0, 0), (0, 0)))
    np.testing.assert_allclose(spread, around[:, :-2] + IMAGES + around[:, 2:], rtol=1e-5)


def test_how_far_pixels_move():
    """On a ramp what is read is where it comes from; images of their own scale move unlike."""
    tf.random.set_seed(3)
    ramp = np.broadcast_to(np.arange(60.0)[None, None, :, None], (8, 40, 60, 1)).astype("f")
    moved = layers.RandomElasticTransform((1, 1), (0.5, 0.5))(ramp).numpy()
    by = (moved - ramp)[:, 8:-8, 8:-8]  # away from borders
    # Noise of deviation 1 times s, smoothed with deviation s = 0.05 * 40 / 2: about 1 / (2 root pi)
    # remains, times a = 0.1 * 60 / 2.
    assert 0.6 < by.std() / (3 / (2 * np.sqrt(np.pi))) < 1.4
    assert abs(by.mean()) < 0.2
    assert not np.isclose(by[0], by[1]).all()
    for still in ({"scale": 0.0}, {"factor": 0}):
        layer = layers.RandomElasticTransform(**still, value_range=(0, 5))
        np.testing.assert_array_equal(layer(IMAGES), IMAGES)


def test_wrong_arguments():
    for call, words in (
        (lambda: layers.RandomElasticTransform(1.5), "between 0.0 and 1.0"),
        (lambda: layers.RandomElasticTransform(scale=2), "scale must lie"),
        (lambda: layers.RandomElasticTransform(fill_mode="edge"), "fill_mode must be"),
        (lambda: layers.RandomElasticTransform(interpolation="cubic"), "interpolation must be"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
