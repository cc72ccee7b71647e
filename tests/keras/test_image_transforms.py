"""keras.preprocessing.image: images turned, shifted, sheared, zoomed, and of another brightness."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

import distgrad as tf

image = tf.keras.preprocessing.image
LAST = {"row_axis": 0, "col_axis": 1, "channel_axis": 2}
SQUARE = np.random.default_rng(0).uniform(0, 9, (5, 5, 3)).astype("f")
OBLONG = np.random.default_rng(1).uniform(0, 9, (4, 6, 1)).astype("f")


def affine(x, *, order=1, **changes):
    return image.apply_affine_transform(x, **changes, **LAST, order=order)


def test_what_does_not_change_is_given_back():
    assert affine(SQUARE) is SQUARE
    np.testing.assert_allclose(affine(SQUARE, theta=360), SQUARE, atol=1e-6)


def test_quarter_turns():
    np.testing.assert_allclose(affine(SQUARE, theta=90), np.rot90(SQUARE), atol=1e-6)
    first = image.apply_affine_transform(SQUARE.transpose(2, 0, 1), theta=-90)
    np.testing.assert_allclose(first, np.rot90(SQUARE, -1).transpose(2, 0, 1), atol=1e-6)


def test_shifts_are_as_keras_has_them():
    """``tx`` is along the columns, ``ty`` along the rows; Keras draws them from other ranges."""
    np.testing.assert_allclose(affine(OBLONG, tx=1)[:, :-1], OBLONG[:, 1:], rtol=1e-6)
    np.testing.assert_allclose(affine(OBLONG, tx=1)[:, -1], OBLONG[:, -1], rtol=1e-6)
    np.testing.assert_allclose(affine(OBLONG, ty=-2)[2:], OBLONG[:2], rtol=1e-6)
    empty = image.apply_affine_transform(OBLONG, ty=9, fill_mode="constant", cval=7, **LAST)
    assert (empty == 7).all() and empty.dtype == np.float32


def test_zoom_and_shear():
    ramp = np.tile(np.arange(7.0)[:, None, None], (1, 7, 1))  # the row's number
    np.testing.assert_allclose(affine(ramp, zy=0.5)[:, 0, 0], 3 + (np.arange(7) - 3) / 2)
    np.testing.assert_allclose(affine(ramp, zx=0.5), ramp)
    sideways = ramp.transpose(1, 0, 2)  # the column's number
    found = affine(sideways, shear=30)[:, 3, 0]
    np.testing.assert_allclose(found, 3 - 0.5 * (np.arange(7) - 3))


@pytest.mark.parametrize("order", [0, 1, 3])
def test_all_at_once_in_the_order_of_keras(order):
    """Turn, shift, shear, zoom; the middle of an oblong has its numbers changed, as in Keras."""
    turn, lean = np.deg2rad(20), np.deg2rad(10)
    (c, s), (a, b) = (np.cos(turn), np.sin(turn)), (np.cos(lean), np.sin(lean))
    matrix = np.array([[c, -s, c * 0.5 - s * 0.25], [s, c, s * 0.5 + c * 0.25], [0, 0, 1]])
    matrix = matrix @ [[1, -b, 0], [0, a, 0], [0, 0, 1]] @ np.diag([1.2, 0.9, 1])
    top, left = 1.5, 2.5
    ahead, back = np.eye(3), np.eye(3)
    ahead[:2, 2], back[:2, 2] = (top, left), (-top, -left)
    matrix = ahead @ matrix @ back
    swap = np.eye(3)[[1, 0, 2]]
    matrix = swap @ matrix @ swap
    expected = ndimage.affine_transform(
        OBLONG[..., 0], matrix[:2, :2], matrix[:2, 2], order=order, mode="nearest"
    )
    found = affine(OBLONG, theta=20, tx=0.5, ty=0.25, shear=10, zx=1.2, zy=0.9, order=order)
    np.testing.assert_allclose(found[..., 0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "axes", "words"),
    [
        (SQUARE[0], (0, 1, 2), "multi-channel"),
        (SQUARE, (0, 0, 2), "distinct"),
        (SQUARE, (0, 1, 3), r"indices: \{3\}"),
        (SQUARE, (0, 2, 1), "first and last"),
    ],
)
def test_wrong_images_and_axes(x, axes, words):
    row, column, channel = axes
    with pytest.raises(ValueError, match=words):
        image.apply_affine_transform(
            x, theta=1, row_axis=row, col_axis=column, channel_axis=channel
        )


def test_channels_are_shifted_within_the_values_there_are():
    x = np.array([[[1.0, 5.0], [8.0, 3.0]]])
    np.testing.assert_array_equal(image.apply_channel_shift(x, 2, 2), [[[3, 7], [8, 5]]])
    np.testing.assert_array_equal(image.apply_channel_shift(x, -3, 0), [[[1, 2], [5, 1]]])


def test_brightness():
    pytest.importorskip("PIL")
    x = np.array([[[10.0, 20, 30], [100, 200, 250]]])
    found = image.apply_brightness_shift(x, 0.5, scale=False)
    np.testing.assert_array_equal(found, [[[5, 10, 15], [50, 100, 125]]])
    assert found.dtype == np.float32
    spread = image.apply_brightness_shift(x, 1, scale=True)
    np.testing.assert_array_equal(spread, np.floor((x - 10) / 240 * 255))
    outside = image.apply_brightness_shift(x - 10, 1.0, scale=False)
    np.testing.assert_array_equal(outside, x - 10)
    wide = np.array([[[-5.1], [0.0], [5.1]]])  # of which 127.5 is not kept
    np.testing.assert_allclose(
        image.apply_brightness_shift(wide, 1, False), [[[-5.1], [-0.02], [5.1]]], atol=1e-6
    )


@pytest.mark.parametrize(
    ("drawn", "given"),
    [
        (lambda x: image.random_rotation(x, 30, **LAST), lambda u: {"theta": u(-30, 30)}),
        (
            lambda x: image.random_shift(x, 0.5, 0.25, **LAST),
            lambda u: {"tx": 4 * u(-0.25, 0.25), "ty": 6 * u(-0.5, 0.5)},
        ),
        (lambda x: image.random_shear(x, 9, **LAST), lambda u: {"shear": u(-9, 9)}),
        (
            lambda x: image.random_zoom(x, (0.5, 2), **LAST),
            lambda u: {"zx": u(0.5, 2), "zy": u(0.5, 2)},
        ),
    ],
)
def test_numbers_of_numpy_choose_the_change(drawn, given):
    np.random.seed(3)
    found = drawn(OBLONG)
    expected = affine(OBLONG, **given(np.random.RandomState(3).uniform))
    np.testing.assert_array_equal(found, expected)


def test_random_channels_and_brightness():
    np.random.seed(4)
    found = image.random_channel_shift(SQUARE, 2.0, 2)
    shift = np.random.RandomState(4).uniform(-2, 2)
    np.testing.assert_array_equal(found, np.clip(SQUARE + shift, SQUARE.min(), SQUARE.max()))
    assert image.random_zoom(SQUARE, (1, 1), **LAST) is SQUARE
    for call in (image.random_zoom, image.random_brightness):
        with pytest.raises(ValueError, match="two floats. Received: \\(1,\\)"):
            call(SQUARE, (1,))
    pytest.importorskip("PIL")
    np.random.seed(4)
    bright = np.random.RandomState(4).uniform(0.5, 1)
    np.testing.assert_array_equal(
        image.random_brightness(SQUARE * 20, (0.5, 1)),
        image.apply_brightness_shift(SQUARE * 20, bright),
    )
