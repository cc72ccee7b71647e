"""tf.image: sizes, flips and tone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import distgrad as tf
from distgrad.ops.warp import warp
from distgrad.testing.gradients import check_gradients

with np.load(Path(__file__).parents[1] / "reference" / "images.npz") as _file:
    STORED = {name: _file[name] for name in _file.files}


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


def of_tensorflow(kind):
    return [name for name in STORED if name.startswith(kind)]


@pytest.mark.parametrize("name", of_tensorflow("resize/"))
def test_resize_is_that_of_tensorflow(name):
    """(Whose bicubic without antialias has its coefficients from a table of 1024 rows.)"""
    _, method, antialias, height, width = name.split("/")
    size = int(height), int(width)
    found = tf.image.resize(STORED["resized"], size, method, antialias=antialias == "1")
    close = 5e-3 if (method, antialias) == ("bicubic", "0") else 1e-5
    np.testing.assert_allclose(found, STORED[name], rtol=close, atol=close)


def test_resize_that_keeps_the_form():
    x = np.zeros((1, 7, 11, 2), np.float32)
    for size, expected in (((3, 5), (3, 5)), ((13, 4), (3, 4)), ((4, 20), (4, 6))):
        found = tf.image.resize(x, size, preserve_aspect_ratio=True)
        assert found.shape == (1, *expected, 2)


@pytest.mark.parametrize("name", of_tensorflow("warp/"))
def test_warp_is_that_of_tensorflow(name):
    _, interpolation, fill_mode = name.split("/")
    images, maps = tf.constant(STORED["warped"]), tf.constant(STORED["maps"])
    found = warp(images, maps, interpolation, fill_mode, 0.7)
    np.testing.assert_allclose(found, STORED[name], rtol=1e-5, atol=1e-5)


def test_resize_of_two_pixels():
    x = np.array([[[0.0], [8.0]]])
    bilinear = tf.image.resize(x, [1, 4])
    assert bilinear.dtype == tf.float32
    assert bilinear.numpy().ravel().tolist() == [0.0, 2.0, 6.0, 8.0]
    nearest = tf.image.resize(np.array([[[0], [8]]]), [1, 4], method="nearest")
    assert nearest.dtype == tf.int64 and nearest.numpy().ravel().tolist() == [0, 0, 8, 8]


@pytest.mark.parametrize("method, share", [("gaussian", np.exp(-2.0)), ("mitchellcubic", 1 / 16)])
def test_what_blurs_does_so_at_the_same_size(method, share):
    """The neighbour counts ``share`` of what the pixel itself does."""
    found = tf.image.resize(np.array([[[0.0], [8.0]]]), [1, 2], method)
    near = 8 * share / (1 + share)
    np.testing.assert_allclose(found.numpy().ravel(), [near, 8 - near], rtol=1e-6)


@pytest.mark.parametrize("size", [(3, 4), (6, 8), (2, 2), (1, 1), (5, 3)])
def test_resize_of_a_plane_is_a_plane_inside(size):
    rows, columns = np.meshgrid(np.arange(3.0), np.arange(4.0), indexing="ij")
    x = (2 * rows + 3 * columns)[None, ..., None]
    found = tf.image.resize(x, size).numpy()[0, ..., 0]
    y = np.clip((np.arange(size[0]) + 0.5) * 3 / size[0] - 0.5, 0, 2)
    z = np.clip((np.arange(size[1]) + 0.5) * 4 / size[1] - 0.5, 0, 3)
    np.testing.assert_allclose(found, 2 * y[:, None] + 3 * z, rtol=1e-6, atol=1e-6)


def test_gradient_of_nearest_counts_the_copies():
    x = tf.constant(normal(1, 2, 2, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.image.resize(x, (5, 4), method="nearest")
    g = tf.convert_to_tensor(tape.gradient(y, x)).numpy()[0, ..., 0]
    assert g.tolist() == [[4.0, 4.0], [6.0, 6.0]]


def test_flips():
    for x in (normal(2, 3, 4, 2), normal(3, 4, 2)):
        assert np.array_equal(tf.image.flip_left_right(x).numpy(), x[..., ::-1, :])
        assert np.array_equal(tf.image.flip_up_down(x).numpy(), x[..., ::-1, :, :])
        check_gradients(tf.image.flip_left_right, [x])


def test_tone_of_floats():
    x = np.random.default_rng(0).uniform(size=(2, 3, 4, 3))
    gray = tf.image.rgb_to_grayscale(x)
    np.testing.assert_allclose(gray[..., 0], x @ [0.2989, 0.587, 0.114], rtol=1e-12)
    np.testing.assert_allclose(tf.image.adjust_brightness(x, 0.7), x + 0.7, rtol=1e-12)
    mean = x.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(
        tf.image.adjust_contrast(x, 1.5), (x - mean) * 1.5 + mean, rtol=1e-10
    )


def test_integers_stand_for_0_to_1_and_are_clipped():
    x = np.array([[[0, 100, 255]]], np.uint8)
    assert tf.image.adjust_brightness(x, 0.5).numpy().ravel().tolist() == [127, 227, 255]
    assert tf.image.rgb_to_grayscale(x).dtype == tf.uint8
    floats = tf.image.convert_image_dtype(x, tf.float32)
    np.testing.assert_allclose(floats, x / 255, rtol=1e-6)
    back = tf.image.convert_image_dtype(floats, tf.uint8)
    assert np.array_equal(back.numpy(), x)
    deep = tf.image.convert_image_dtype(x, tf.uint16)
    assert np.array_equal(deep.numpy(), x.astype(np.uint16) * 256)
    assert np.array_equal(tf.image.convert_image_dtype(deep, tf.uint8).numpy(), x)
    signed = tf.image.convert_image_dtype(tf.constant([200, 300], tf.int32), tf.uint8)
    assert signed.numpy().tolist() == [0, 0]
    many = tf.image.convert_image_dtype(tf.constant([-1, 7], tf.int8), tf.uint8, saturate=True)
    assert many.numpy().tolist() == [0, 14]


@pytest.mark.parametrize(
    "fn",
    [
        lambda: tf.image.resize(tf.ones((2, 2)), (3, 3)),
        lambda: tf.image.resize(tf.ones((2, 2, 1)), (0, 3)),
        lambda: tf.image.resize(tf.ones((2, 2, 1)), (3,)),
        lambda: tf.image.resize(tf.ones((2, 2, 1)), (3, 3), method="cubic"),
        lambda: tf.image.resize(tf.ones((0, 2, 1)), (3, 3)),
        lambda: tf.image.flip_up_down(tf.ones(3)),
        lambda: tf.image.rgb_to_grayscale(tf.ones((2, 2, 2))),
        lambda: tf.image.convert_image_dtype(tf.constant([1]), tf.bool),
    ],
)
def test_what_makes_no_sense_is_an_invalid_argument(fn):
    with pytest.raises(tf.errors.InvalidArgumentError):
        fn()


def test_total_variation():
    """The sum over neighbours, by NumPy; of each image of a batch."""
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 3))
    expected = np.abs(np.diff(x, axis=1)).sum((1, 2, 3)) + np.abs(np.diff(x, axis=2)).sum((1, 2, 3))
    np.testing.assert_allclose(tf.image.total_variation(x), expected)
    np.testing.assert_allclose(tf.image.total_variation(x[1]), expected[1])
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.image.total_variation(x[0, 0])
