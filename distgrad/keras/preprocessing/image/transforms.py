"""Changes of one image, an array of rank 3: given ones, and ones that NumPy's numbers choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.backend.numpy import backend as numpy_backend
from distgrad.keras.utils.images import array_to_img, brightened, img_to_array


def apply_affine_transform(
    x: Any,
    theta: float = 0,
    tx: float = 0,
    ty: float = 0,
    shear: float = 0,
    zx: float = 1,
    zy: float = 1,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    order: int = 1,
) -> np.ndarray:
    """An image turned by ``theta`` degrees, shifted, sheared by ``shear`` degrees and zoomed.

    ``fill_mode`` (with ``cval``) says what lies outside and ``order`` is that of the splines in
    between, as `scipy.ndimage.affine_transform` has them. Where nothing changes, ``x`` is given
    back itself. Raises ValueError for another rank and for axes that are not 0, 1 and 2, channels
    first or last.
    """
    image, axes = np.asarray(x), {row_axis, col_axis, channel_axis}
    if len(axes) != 3:
        raise ValueError(
            "'row_axis', 'col_axis', and 'channel_axis' must be distinct. Received: "
            f"{(row_axis, col_axis, channel_axis)}"
        )
    if axes != {0, 1, 2}:
        raise ValueError(f"Invalid axis' indices: {axes - {0, 1, 2}}")
    if image.ndim != 3:
        raise ValueError(
            f"Input arrays must be multi-channel 2D images. Received shape: {image.shape}"
        )
    if channel_axis == 1:
        raise ValueError("Channels are allowed in the first and last dimensions, not in 1.")
    if (theta, tx, ty, shear, zx, zy) == (0, 0, 0, 0, 1, 1):
        return image
    turn, lean = np.deg2rad(theta), np.deg2rad(shear)
    matrix = (
        np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        @ _shift(tx, ty)
        @ np.array([[1, -np.sin(lean), 0], [0, np.cos(lean), 0], [0, 0, 1]])
        @ np.diag([zx, zy, 1])
    )
    # About the middle. As in Keras, its two numbers change places with those of the matrix below.
    middle = image.shape[row_axis] / 2 - 0.5, image.shape[col_axis] / 2 - 0.5
    matrix = _shift(*middle) @ matrix @ _shift(-middle[0], -middle[1])
    if col_axis > row_axis:  # the matrix is for (x, y), and SciPy counts (row, column)
        matrix = matrix[[1, 0, 2]][:, [1, 0, 2]]
    channels = [
        numpy_backend.ndimage.affine_transform(
            each, matrix[:2, :2], matrix[:2, 2], order=order, mode=fill_mode, cval=cval
        )
        for each in np.moveaxis(image, channel_axis, 0)
    ]
    return np.stack(channels, axis=channel_axis)


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])


def apply_channel_shift(x: Any, intensity: float, channel_axis: int = 0) -> np.ndarray:
    """An image with ``intensity`` added, between its least and its largest value."""
    image = np.asarray(x)
    return np.clip(image + intensity, image.min(), image.max())


def apply_brightness_shift(x: Any, brightness: float, scale: bool = True) -> np.ndarray:
    """An image of whole numbers from 0 to 255, ``brightness`` times as bright, of dtype floatx.

    ``scale`` spreads its values over 0 to 255 first; without it, those of an image with others are
    spread, and brought back. Raises MissingExtraError (an ImportError) without Pillow.
    """
    low, high = np.min(x), np.max(x)
    outside = low < 0 or high > 255
    image = array_to_img(x, scale=bool(outside or scale))
    found = img_to_array(brightened(image, brightness))
    return found / 255 * (high - low) + low if outside and not scale else found


def random_rotation(
    x: Any,
    rg: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> np.ndarray:
    """An image turned by up to ``rg`` degrees; all else as in `apply_affine_transform`."""
    places = (row_axis, col_axis, channel_axis, fill_mode, cval, interpolation_order)
    return apply_affine_transform(x, np.random.uniform(-rg, rg), 0, 0, 0, 1, 1, *places)


def random_shift(
    x: Any,
    wrg: float,
    hrg: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> np.ndarray:
    """An image shifted by up to the parts ``wrg`` and ``hrg`` of its width and height."""
    places = (row_axis, col_axis, channel_axis, fill_mode, cval, interpolation_order)
    tx = np.random.uniform(-hrg, hrg) * x.shape[row_axis]
    ty = np.random.uniform(-wrg, wrg) * x.shape[col_axis]
    return apply_affine_transform(x, 0, tx, ty, 0, 1, 1, *places)


def random_shear(
    x: Any,
    intensity: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> np.ndarray:
    """An image sheared by up to ``intensity`` degrees; else as in `apply_affine_transform`."""
    places = (row_axis, col_axis, channel_axis, fill_mode, cval, interpolation_order)
    shear = np.random.uniform(-intensity, intensity)
    return apply_affine_transform(x, 0, 0, 0, shear, 1, 1, *places)


def random_zoom(
    x: Any,
    zoom_range: Sequence[float],
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> np.ndarray:
    """An image zoomed by two factors between those of ``zoom_range``: below 1 it grows.

    All else as in `apply_affine_transform`. Raises ValueError unless the range has two numbers.
    """
    places = (row_axis, col_axis, channel_axis, fill_mode, cval, interpolation_order)
    zx, zy = drawn_zoom(zoom_range)
    return apply_affine_transform(x, 0, 0, 0, 0, zx, zy, *places)


def drawn_zoom(zoom_range: Sequence[float]) -> tuple[float, float]:
    """Two factors between those of ``zoom_range``. Raises ValueError unless it has two numbers."""
    if len(zoom_range) != 2:
        raise ValueError(
            f"`zoom_range` should be a tuple or list of two floats. Received: {zoom_range}"
        )
    low, high = zoom_range
    if low == high == 1:
        return 1, 1
    zx, zy = np.random.uniform(low, high, 2)
    return zx, zy


def random_channel_shift(x: Any, intensity_range: float, channel_axis: int = 0) -> np.ndarray:
    """An image with a number of up to ``intensity_range`` added, as `apply_channel_shift` does."""
    intensity = np.random.uniform(-intensity_range, intensity_range)
    return apply_channel_shift(x, intensity, channel_axis)


def random_brightness(x: Any, brightness_range: Sequence[float], scale: bool = True) -> np.ndarray:
    """An image as bright as one of ``brightness_range`` times it; see `apply_brightness_shift`.

    Raises ValueError unless ``brightness_range`` has two numbers.
    """
    if len(brightness_range) != 2:
        raise ValueError(
            f"`brightness_range should be tuple or list of two floats. Received: {brightness_range}"
        )
    low, high = brightness_range
    return apply_brightness_shift(x, np.random.uniform(low, high), scale)
