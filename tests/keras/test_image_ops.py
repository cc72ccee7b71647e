"""``keras.ops.image`` on KerasTensors, in configs, and where it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest

import distgrad as tf
from distgrad import keras
from distgrad.testing.gradients import check_gradients

X = np.random.default_rng(2).uniform(0, 1, (2, 8, 6, 3)).astype(np.float32)
CALLS = {
    "RGBToGrayscale": lambda image, x: image.rgb_to_grayscale(x),
    "RGBToHSV": lambda image, x: image.rgb_to_hsv(x),
    "HSVToRGB": lambda image, x: image.hsv_to_rgb(x),
    "Resize": lambda image, x: image.resize(x, (4, 5)),
    "PadImages": lambda image, x: image.pad_images(x, 1, 2, 3, 4),
    "CropImages": lambda image, x: image.crop_images(x, 1, 1, target_height=4, target_width=3),
    "ExtractPatches": lambda image, x: image.extract_patches(x, 2, padding="same"),
    "AffineTransform": lambda image, x: image.affine_transform(x, np.eye(8)[0]),
    "GaussianBlur": lambda image, x: image.gaussian_blur(x, (3, 3)),
    "SobelEdges": lambda image, x: image.sobel_edges(x),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_functional_model_keeps_what_was_called(name):
    x = keras.Input((8, 6, 3))
    model = keras.Model(x, CALLS[name](keras.ops.image, x))
    expected = CALLS[name](keras.ops.image, X).numpy()
    np.testing.assert_allclose(model(X).numpy(), expected, rtol=1e-6, atol=1e-6)
    assert model.output_shape[1:] == expected.shape[1:]
    entry = json.loads(model.to_json())["config"]["layers"][-1]
    assert (entry["module"], entry["class_name"]) == ("keras.src.ops.image", name)
    again = keras.models.model_from_json(model.to_json())
    np.testing.assert_array_equal(again(X).numpy(), model(X).numpy())


def test_maps_have_exact_gradients():
    transform = [1.1, 0.2, -0.7, -0.1, 0.9, 0.4, 0.01, -0.02]
    for fill_mode in ("constant", "nearest", "wrap", "reflect"):
        check_gradients(
            lambda x, mode=fill_mode: keras.ops.image.affine_transform(
                x, transform, "bilinear", mode
            ),
            [np.random.default_rng(3).normal(size=(4, 5, 2))],
        )


def test_resized_images_keep_their_dtype():
    whole = (X * 255).astype("uint8")
    for method in ("bilinear", "bicubic"):
        found = keras.ops.image.resize(whole, (5, 9), method)
        wanted = tf.image.resize(whole, (5, 9), method).numpy()
        assert found.dtype == tf.uint8
        np.testing.assert_array_equal(found.numpy(), np.clip(np.rint(wanted), 0, 255))
    assert keras.ops.image.resize(X.astype("float16"), (2, 2)).dtype == tf.float16
    assert keras.preprocessing.image.smart_resize(whole, (2, 2)).dtype == np.float32


@pytest.mark.parametrize(
    "wrong",
    [
        lambda image: image.resize(X[0, 0], (2, 2)),
        lambda image: image.resize(X, (2, 2), fill_mode="reflect"),
        lambda image: image.resize(X, (2, 2), crop_to_aspect_ratio=True, pad_to_aspect_ratio=True),
        lambda image: image.pad_images(X, 1, 1, 1),
        lambda image: image.pad_images(X, 1, 1, target_height=2, target_width=2),
        lambda image: image.crop_images(X, 1, 1, 9, 1),
        lambda image: image.rgb_to_grayscale(X[..., :2]),
        lambda image: image.rgb_to_hsv(X.astype(np.uint8)),
        lambda image: image.affine_transform(X, np.zeros(6)),
        lambda image: image.affine_transform(X, np.zeros(8), "cubic"),
        lambda image: image.perspective_transform(X, np.zeros((4, 2)), np.zeros((3, 2))),
        lambda image: image.map_coordinates(X, np.zeros((3, 4)), 1),
        lambda image: image.map_coordinates(X, np.zeros((4, 4)), 1, "zeros"),
        lambda image: image.scale_and_translate(X, X.shape, [1.0], [0.0], [1], "nearest"),
    ],
)
def test_what_does_not_fit_is_a_value_error(wrong):
    with pytest.raises(ValueError, match=r".{20}"):
        wrong(tf.keras.ops.image)


@pytest.mark.parametrize(("size", "period"), [(1, [0]), (2, [0, 1]), (4, [0, 1, 2, 3, 2, 1])])
def test_mirrored_coordinates_go_back_from_the_last_element(size, period):
    places = np.arange(-9, 10)
    expected = np.array(period)[places % len(period)]
    line = np.arange(size).astype(np.float32)
    found = keras.ops.image.map_coordinates(line, places[None].astype(np.float32), 1, "mirror")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_images_are_bent_by_smooth_noise(interpolation):
    x = np.random.default_rng(0).uniform(size=(2, 12, 10, 3)).astype(np.float32)
    still = keras.ops.image.elastic_transform(x, alpha=0.0, interpolation=interpolation)
    np.testing.assert_allclose(still, x, rtol=1e-5, atol=1e-6)
    bent = keras.ops.image.elastic_transform(x, 2.0, 2.0, interpolation, seed=3).numpy()
    again = keras.ops.image.elastic_transform(x, 2.0, 2.0, interpolation, seed=3)
    np.testing.assert_array_equal(bent, again)
    assert np.abs(bent - x).max() > 0.1 and bent.min() >= x.min() and bent.max() <= x.max()
    # Rows of one value stay what they are where the columns alone differ.
    rows = np.broadcast_to(np.float32(0.5), (6, 6, 1))
    np.testing.assert_allclose(keras.ops.image.elastic_transform(rows, seed=1), rows, rtol=1e-5)
    options = {"seed": 3, "data_format": "channels_first"}
    first = keras.ops.image.elastic_transform(
        x.transpose(0, 3, 1, 2), 2.0, 2.0, interpolation, **options
    )
    np.testing.assert_allclose(first.numpy().transpose(0, 2, 3, 1), bent, rtol=1e-5)


def test_what_bending_refuses():
    with pytest.raises(ValueError, match="interpolation"):
        keras.ops.image.elastic_transform(np.zeros((4, 4, 1), np.float32), interpolation="cubic")
    with pytest.raises(ValueError, match="fill_mode"):
        keras.ops.image.elastic_transform(np.zeros((4, 4, 1), np.float32), fill_mode="none")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: tf.keras.ops.image.extract_patches(x, "5"), TypeError),
        (lambda x: tf.keras.ops.image.extract_patches(x, (3, 3, 3, 3)), ValueError),
        (lambda x: tf.keras.ops.image.extract_patches_3d(x, (3, 3)), TypeError),
    ],
)
def test_sizes_of_windows_that_fit_no_image(call, error):
    with pytest.raises(error, match="size is"):
        call(np.ones((1, 8, 8, 3)))
