"""Images as arrays and as files, by way of Pillow."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import MissingExtraError
from distgrad.core.user_line import warn
from distgrad.keras.backend import floatx
from distgrad.keras.layers.core import data_format_of, one_of
from distgrad.ops.casting import cast

_MODES = {"grayscale": "L", "rgb": "RGB", "rgba": "RGBA"}


def pillow(what: str) -> Any:
    """``PIL.Image``. Raises MissingExtraError (an ImportError) that says ``what`` needs it."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError(f"{what} needs Pillow: pip install pillow") from None
    return Image


def brightened(image: Any, factor: float) -> Any:
    """A Pillow image ``factor`` times as bright. Raises MissingExtraError without Pillow."""
    pillow("a change of brightness")
    from PIL import ImageEnhance

    return ImageEnhance.Brightness(image).enhance(factor)


def with_text(
    image: np.ndarray,
    text: str,
    at: tuple[int, int],
    size: int,
    color: tuple[int, ...],
    thickness: int,
) -> np.ndarray:
    """A uint8 image of 1 or 3 channels with a text of ``size`` pixels from (x, y) on it.

    Raises MissingExtraError without Pillow.
    """
    made = pillow("a text on an image").fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    from PIL import ImageDraw, ImageFont

    options: dict[str, Any] = {"font": ImageFont.load_default(size)}
    options["stroke_width"] = max(thickness - 1, 0)
    fill = color if made.mode == "RGB" else int(np.mean(color))
    ImageDraw.Draw(made).text(at, text, fill=fill, **options)
    return np.asarray(made).reshape(image.shape)


def array_to_img(
    x: Any, data_format: str | None = None, scale: bool = True, dtype: Any = None
) -> Any:
    """An array of rank 3 as a Pillow image; ``scale`` spreads its values over 0 to 255.

    Raises ValueError for another rank or number of channels, MissingExtraError (an ImportError)
    without Pillow.
    """
    image, array = pillow("array_to_img"), np.asarray(x, as_dtype(dtype or floatx()).numpy_dtype)
    if array.ndim != 3:
        raise ValueError(
            "Expected image array to have rank 3 (single image). Got array with shape: "
            f"{array.shape}"
        )
    if data_format_of(data_format) == "channels_first":
        array = array.transpose(1, 2, 0)
    if scale:
        array = array - array.min()
        largest = array.max()
        array = (array / largest if largest != 0 else array) * 255
    channels = array.shape[2]
    if channels == 1 and array.max() > 255:
        return image.fromarray(array[:, :, 0].astype(np.int32))
    if channels not in (1, 3, 4):
        raise ValueError(f"Unsupported channel number: {channels}")
    return image.fromarray((array[:, :, 0] if channels == 1 else array).astype(np.uint8))


def img_to_array(img: Any, data_format: str | None = None, dtype: Any = None) -> np.ndarray:
    """An image as an array of rank 3, of dtype ``floatx`` by default.

    Raises ValueError for another rank than 2 or 3.
    """
    array = np.asarray(img, as_dtype(dtype or floatx()).numpy_dtype)
    if array.ndim not in (2, 3):
        raise ValueError(f"Unsupported image shape: {array.shape}")
    array = array[..., None] if array.ndim == 2 else array
    return array.transpose(2, 0, 1) if data_format_of(data_format) == "channels_first" else array


def save_img(
    path: Any,
    x: Any,
    data_format: str | None = None,
    file_format: str | None = None,
    scale: bool = True,
    **kwargs: Any,
) -> None:
    """Writes an array of rank 3 as an image file, in the format of its name's ending.

    Further arguments are Pillow's. Raises MissingExtraError (an ImportError) without Pillow.
    """
    if file_format is None and isinstance(path, (str, os.PathLike)):
        file_format = Path(path).suffix[1:].lower()
    if file_format and file_format.lower() == "jpg":
        file_format = "jpeg"
    image = array_to_img(x, data_format=data_format, scale=scale)
    if image.mode == "RGBA" and file_format == "jpeg":
        warn("The JPEG format does not support RGBA images, converting to RGB.")
        image = image.convert("RGB")
    image.save(path, format=file_format, **kwargs)


def load_img(
    path: Any,
    color_mode: str = "rgb",
    target_size: tuple[int, int] | None = None,
    interpolation: str = "nearest",
    keep_aspect_ratio: bool = False,
) -> Any:
    """The image in a file, as a Pillow image of ``target_size`` (height, width) if that is given.

    ``interpolation`` is one of Pillow's; with ``keep_aspect_ratio`` the middle of the image is cut
    out in the proportions of the target first. Raises ValueError for another color mode or
    interpolation, MissingExtraError (an ImportError) without Pillow.
    """
    images = pillow("load_img")
    one_of("color_mode", color_mode, *_MODES)
    if isinstance(path, io.BytesIO):
        image = images.open(path)
    elif isinstance(path, (str, bytes, os.PathLike)):
        with open(path, "rb") as file:
            image = images.open(io.BytesIO(file.read()))
    else:
        raise TypeError(f"path should be path-like or io.BytesIO, not {type(path)}")
    deep = color_mode == "grayscale" and image.mode in ("I;16", "I")  # gray of more than 8 bits
    if image.mode != _MODES[color_mode] and not deep:
        image = image.convert(_MODES[color_mode])
    if target_size is None or image.size == (target_size[1], target_size[0]):
        return image
    ways = {name.lower(): value for name, value in images.Resampling.__members__.items()}
    if interpolation not in ways:
        raise ValueError(
            f"Invalid interpolation method {interpolation} specified. Supported methods are "
            f"{', '.join(ways)}"
        )
    (width, height), (rows, columns) = image.size, target_size
    box = None
    if keep_aspect_ratio:
        wide = min(width, height * columns // rows)
        high = min(height, width * rows // columns)
        left, top = (width - wide) // 2, (height - high) // 2
        box = (left, top, left + wide, top + high)
    return image.resize((columns, rows), ways[interpolation], box=box)


def smart_resize(
    x: Any,
    size: tuple[int, int],
    interpolation: str = "bilinear",
    data_format: str = "channels_last",
) -> Any:
    """One image or a batch of them of another ``size`` (height, width), cropped to its form before.

    An array gives an array, all else a tensor; integers become floats, but by "nearest". Raises
    ValueError for another size, rank or
    interpolation.
    """
    from distgrad.keras.ops import image

    if len(size) != 2:
        raise ValueError(f"Expected `size` to be a tuple of 2 integers, but got: {size}.")
    if len(np.shape(x)) not in (3, 4):
        raise ValueError(
            "Expected an image array with shape `(height, width, channels)`, or `(batch_size, "
            f"height, width, channels)`, but got input with incorrect rank, of shape {np.shape(x)}."
        )
    images = as_tensor(x)
    if images.dtype.is_integer and interpolation != "nearest":
        images = cast(images, "float32")
    found = image.resize(
        images, size, interpolation, crop_to_aspect_ratio=True, data_format=data_format
    )
    return found.numpy() if isinstance(x, np.ndarray) else found
