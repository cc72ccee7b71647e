"""Equalization by tiles with a limit, against the stored numbers of Keras."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

layers = tf.keras.layers
Equalized = layers.ContrastLimitedAdaptiveHistogramEqualization
IMAGE = (np.arange(42).reshape(1, 6, 7, 1) ** 2 % 251).astype(np.float32)
STORED = [
    (
        {"tile_grid_size": (2, 3)},
        [[0.0, 15.883, 41.762], [198.935, 45.927, 157.466], [35.39, 210.908, 153.783]],
    ),
    (
        {"tile_grid_size": (2, 3), "clip_limit": 0},
        [[0.0, 61.979, 85.0], [218.993, 96.51, 207.778], [63.16, 228.733, 155.833]],
    ),
    (
        {"tile_grid_size": (1, 2), "clip_limit": 40.0},
        [[0.0, 33.261, 63.75], [210.652, 74.144, 159.375], [66.522, 224.742, 180.625]],
    ),
]


@pytest.mark.parametrize("options, expected", STORED)
def test_values_are_those_of_keras(options, expected):
    made = Equalized(**options)(IMAGE, training=False)  # it acts always
    np.testing.assert_allclose(made[0, ::2, ::3, 0], expected, atol=1e-3)
    both = np.concatenate([IMAGE, 255 - IMAGE], -1)
    small = Equalized((0, 1), data_format="channels_first", **options)
    again = small(both.transpose(0, 3, 1, 2)[0] / 255)
    np.testing.assert_allclose(again[0] * 255, made[0, ..., 0], atol=1e-3)
    layer = Equalized.from_config(Equalized(**options).get_config())
    np.testing.assert_array_equal(layer(IMAGE), made)


def test_in_a_captured_step():
    """Nothing in it is read on the host: that would be an error."""
    step = tf.function(lambda x: Equalized(tile_grid_size=(2, 2))(x), jit_compile="strict")
    for image in (IMAGE, IMAGE / 2):
        np.testing.assert_allclose(
            step(tf.constant(image)), Equalized(tile_grid_size=(2, 2))(image), atol=1e-3
        )


def test_wrong_arguments():
    for options, words in (
        ({"tile_grid_size": (0, 2)}, "tile_grid_size"),
        ({"value_range": 1}, ""),
    ):
        with pytest.raises(ValueError, match=words):
            Equalized(**options)
