"""Sharper, softer, slanted and partly erased images, against NumPy formulas."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

layers = tf.keras.layers
IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 6, 7, 3)).astype(np.float32)
CLOSE = {"rtol": 1e-5, "atol": 1e-3}


def filtered(kernel: np.ndarray) -> np.ndarray:
    """The images under a window with an odd number of rows and columns, among zeros."""
    high, wide = kernel.shape
    around = np.pad(IMAGES, ((0, 0), (high // 2,) * 2, (wide // 2,) * 2, (0, 0)))
    parts = np.lib.stride_tricks.sliding_window_view(around, kernel.shape, axis=(1, 2))
    return np.einsum("bhwcij,ij->bhwc", parts, kernel)


@pytest.mark.parametrize("factor", [0.0, 0.3, 0.5, 1.0])
def test_sharpness(factor):
    kernel = np.full((3, 3), 1 / 13)
    kernel[1, 1] = 5 / 13
    expected = IMAGES + (1 - 2 * factor) * (filtered(kernel) - IMAGES)
    made = layers.RandomSharpness((factor, factor))(IMAGES)
    np.testing.assert_allclose(made, expected.clip(0, 255), **CLOSE)


@pytest.mark.parametrize("size", [3, (5, 1), (3, 5)])
def test_gaussian_blur(size):
    sides = (size, size) if isinstance(size, int) else size
    bells = [np.exp(-0.5 * ((np.arange(n) - n // 2) / 0.7) ** 2) for n in sides]
    kernel = np.outer(*(bell / bell.sum() for bell in bells))
    made = layers.RandomGaussianBlur((1, 1), size, (0.7, 0.7))(IMAGES)
    np.testing.assert_allclose(made, filtered(kernel), **CLOSE)
    unchanged = layers.RandomGaussianBlur(0.0, size, value_range=(10, 90))(IMAGES)
    np.testing.assert_array_equal(unchanged, IMAGES.clip(10, 90))


def test_shear():
    tf.random.set_seed(3)
    ramp = np.broadcast_to(np.arange(9.0)[:, None, None], (40, 9, 9, 1)).astype("f")
    moved = layers.RandomShear(0, (0.25, 0.25), fill_mode="nearest")(ramp).numpy()[..., 0]
    down, across = np.mgrid[:9, :9]
    ways = [(down + slope * across).clip(0, 8) for slope in (0.25, -0.25)]
    near = np.array([np.isclose(moved, way, atol=1e-4).all(axis=(1, 2)) for way in ways])
    assert (near[0] ^ near[1]).all() and near.any(axis=1).all()
    sideways = layers.RandomShear((0.25, 0.25), fill_mode="nearest")(ramp.transpose(0, 2, 1, 3))
    near = [np.isclose(sideways[..., 0], way.T, atol=1e-4).all(axis=(1, 2)) for way in ways]
    assert (near[0] ^ near[1]).all()


@pytest.mark.parametrize("fill_value", [7, (1, 2, 300), None])
def test_erasing(fill_value):
    tf.random.set_seed(3)
    images = np.random.default_rng(1).uniform(0, 255, (200, 20, 30, 3)).astype("f")
    made = layers.RandomErasing(scale=(0.1, 0.3), fill_value=fill_value)(images).numpy()
    kept = (made == images).all(axis=-1)
    changed = ~kept.all(axis=(1, 2))
    assert 60 < changed.sum() < 140  # a chance from 0 to 1
    for image, left in zip(made[changed], kept[changed], strict=True):
        rows, columns = np.flatnonzero(~left.all(axis=1)), np.flatnonzero(~left.all(axis=0))
        box = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert len(rows) * len(columns) == (~left).sum()
        assert 6 <= len(rows) <= 11 and 9 <= len(columns) <= 17  # the roots of 0.1 and 0.3
        if fill_value is None:
            assert box.min() == 0 and box.max() == 255
        else:
            np.testing.assert_array_equal(box, np.minimum(fill_value, 255) + 0 * box)


def test_wrong_arguments():
    for call, words in (
        (lambda: layers.RandomSharpness(1.1), "between 0.0 and 1.0"),
        (lambda: layers.RandomGaussianBlur(kernel_size=4), "kernel_size must be an odd int"),
        (lambda: layers.RandomGaussianBlur(sigma=2.0), "sigma must lie"),
        (lambda: layers.RandomShear(-0.1), "x_factor must lie"),
        (lambda: layers.RandomShear(fill_mode="mirror"), "fill_mode must be"),
        (lambda: layers.RandomErasing(scale=3), "scale must lie"),
        (lambda: layers.RandomErasing(fill_value="gray"), "fill_value must be None"),
        (lambda: layers.RandomErasing(fill_value=(1, 2))(IMAGES), "one for each of 3 channels"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
