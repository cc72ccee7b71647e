"""Files as TensorFlow reads and writes them, and images as the bytes in them, by way of Pillow.

``tf.io`` and ``tf.image`` have these names. A file's name, or its content, may be given as str or
bytes, or as an array of no axes, as a dataset gives it.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import InvalidArgumentError, NotFoundError
from distgrad.core.tensor import Tensor
from distgrad.core.texts import Bytes, as_bytes
from distgrad.ops.image import convert_image_dtype

__all__ = [
    "decode_and_crop_jpeg",
    "decode_bmp",
    "decode_gif",
    "decode_image",
    "decode_jpeg",
    "decode_png",
    "encode_jpeg",
    "encode_png",
    "extract_jpeg_shape",
    "is_jpeg",
    "read_file",
    "write_file",
]

_FORMATS = ("JPEG", "PNG", "GIF", "BMP")
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_PLAIN = {"1": "L", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}  # what modes are without a choice


def _value(scalar: Any) -> Any:
    return np.asarray(scalar, dtype=object).item()


def bytes_of(contents: Any) -> bytes:
    """The bytes of one file. Raises InvalidArgumentError for anything else."""
    value = _value(contents)
    if not isinstance(value, bytes):
        raise InvalidArgumentError(
            f"contents are the bytes of one file, as tf.io.read_file gives them, not {contents!r}"
        )
    return value


def _path(filename: Any) -> Path:
    return Path(os.fsdecode(_value(filename)))


def read_file(filename: Any, name: str | None = None) -> Bytes:
    """The bytes of a file. Raises NotFoundError (a FileNotFoundError) where there is none."""
    path = _path(filename)
    try:
        return as_bytes(path.read_bytes())
    except FileNotFoundError:
        raise NotFoundError(f"{path}; No such file or directory") from None


def write_file(filename: Any, contents: Any, name: str | None = None) -> None:
    """Writes bytes, or a str in UTF-8, to a file, and makes the folders above it."""
    path, value = _path(filename), _value(contents)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(value.encode() if isinstance(value, str) else value)


def _opened(contents: Any, ratio: int = 1) -> Any:
    """The image, a JPEG made smaller by ``ratio``; InvalidArgumentError for a damaged one."""
    from distgrad.keras.utils.images import pillow

    library = pillow("tf.io.decode_image")
    try:
        image = library.open(io.BytesIO(bytes_of(contents)), formats=_FORMATS)
        if ratio != 1:
            image.draft(image.mode, tuple(max(size // ratio, 1) for size in image.size))
        image.load()
        return image
    except library.UnidentifiedImageError:
        raise InvalidArgumentError(
            "Unknown image file format. One of JPEG, PNG, GIF, BMP required."
        ) from None
    except (OSError, SyntaxError) as error:  # the latter of a PNG with a wrong check sum
        raise InvalidArgumentError(f"the image is damaged, or cut off: {error}") from None


def _pixels(image: Any, channels: int | None, dtype: Any = np.uint8) -> Tensor:
    """One image as (height, width, channels); of the channels in the file for None and 0.

    Raises ValueError for other channels than 0, 1, 3 and 4, and for another dtype than uint8 and
    uint16.
    """
    if channels not in (None, 0, 1, 3, 4):
        raise ValueError(f"channels are 0 (as in the file), 1, 3 or 4, not {channels!r}")
    wanted = as_dtype(dtype).numpy_dtype
    if wanted not in (np.uint8, np.uint16):
        raise ValueError(f"dtype is uint8 or uint16, not {as_dtype(dtype).name}")
    deep = image.mode in ("I", "I;16", "I;16B")  # gray of 16 bits
    if deep and wanted == np.uint16 and channels in (None, 0, 1):
        return as_tensor(np.asarray(image, np.uint16)[..., None])
    if deep:
        image = image.point(lambda value: value / 256).convert("L")
    if image.mode == "P" and not channels and "transparency" in image.info:
        channels = 4
    if channels == 1:
        array = _gray(image)
    else:
        mode = _MODES[channels] if channels else _PLAIN.get(image.mode, image.mode)
        array = np.array(image.convert(mode))
    array = array[..., None] if array.ndim == 2 else array
    return as_tensor(array if wanted == np.uint8 else array.astype(np.uint16) * 257)


def _gray(image: Any) -> np.ndarray:
    """One channel as TensorFlow's decoders make it: a JPEG's own luma, weights rounded down."""
    if image.format == "JPEG":
        image.draft("L", image.size)
    elif image.mode not in ("1", "L", "LA"):
        red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), np.uint32), -1, 0)
        return ((9797 * red + 19234 * green + 3737 * blue) >> 15).astype(np.uint8)
    return np.array(image.convert("L"))


def decode_image(
    contents: Any,
    channels: int | None = None,
    dtype: Any = np.uint8,
    name: str | None = None,
    expand_animations: bool = True,
) -> Tensor:
    """The image in the bytes of a JPEG, PNG, GIF or BMP file: (height, width, channels).

    A GIF has an axis of its images before these, but for ``expand_animations=False``, which takes
    the first. A dtype of floats has values from 0 to 1. Raises InvalidArgumentError (a ValueError)
    for bytes of another kind, ValueError for other channels than 0, 1, 3 and 4.
    """
    image = _opened(contents)
    if image.format == "GIF" and expand_animations:
        pixels = _frames(image)
    else:
        deep = as_dtype(dtype).numpy_dtype == np.uint16
        pixels = _pixels(image, channels, np.uint16 if deep else np.uint8)
    return convert_image_dtype(pixels, dtype)


def decode_jpeg(
    contents: Any,
    channels: int = 0,
    ratio: int = 1,
    fancy_upscaling: bool = True,
    try_recover_truncated: bool = False,
    acceptable_fraction: float = 1,
    dct_method: str = "",
    name: str | None = None,
) -> Tensor:
    """``decode_image`` of one image as uint8, made smaller by a ``ratio`` of 2, 4 or 8.

    Pixels are those of "INTEGER_ACCURATE" for each ``dct_method``: TensorFlow's default rounds
    otherwise. Raises ValueError for another ratio, and where ``fancy_upscaling=False`` would make
    other pixels; InvalidArgumentError for a ``dct_method`` that there is not.
    """
    if ratio not in (1, 2, 4, 8):
        raise ValueError(f"ratio is 1, 2, 4 or 8, not {ratio!r}")
    if dct_method not in ("", "INTEGER_FAST", "INTEGER_ACCURATE"):
        raise InvalidArgumentError(
            f"dct_method is INTEGER_FAST or INTEGER_ACCURATE, not {dct_method!r}"
        )
    image = _opened(contents, ratio)
    samplings = {layer[1:3] for layer in getattr(image, "layer", ())}
    if not fancy_upscaling and ratio == 1 and channels != 1 and len(samplings) > 1:
        raise ValueError(
            "fancy_upscaling=False: the colours of this image lie in larger blocks than its "
            "brightness, and are made smooth here: leave it out"
        )
    return _pixels(image, channels)


def is_jpeg(contents: Any, name: str | None = None) -> Tensor:
    """Whether the bytes of a file are those of a JPEG, a bool tensor."""
    return as_tensor(bytes_of(contents)[:3] == b"\xff\xd8\xff")


def extract_jpeg_shape(
    contents: Any, output_type: Any = np.int32, name: str | None = None
) -> Tensor:
    """Height, width and channels of a JPEG, of which no pixel is decoded.

    Raises InvalidArgumentError for bytes of another kind.
    """
    image = _opened(contents)
    if image.format != "JPEG":
        raise InvalidArgumentError(f"the contents are those of a {image.format}, not of a JPEG")
    shape = (image.height, image.width, len(image.getbands()))
    return as_tensor(np.array(shape, as_dtype(output_type).numpy_dtype))


def decode_and_crop_jpeg(
    contents: Any, crop_window: Any, channels: int = 0, **settings: Any
) -> Tensor:
    """``decode_jpeg``, of which the block ``crop_window`` (y, x, height, width) is kept.

    Raises InvalidArgumentError where the block does not lie in the image.
    """
    top, left, height, width = (int(v) for v in np.asarray(crop_window))
    whole = decode_jpeg(contents, channels, **settings)
    rows, columns, _ = whole._data.shape
    inside = top >= 0 and left >= 0 and top + height <= rows and left + width <= columns
    if not inside or height <= 0 or width <= 0:
        raise InvalidArgumentError(
            f"a crop_window of {[top, left, height, width]} in an image of {rows} x {columns}"
        )
    return whole[top : top + height, left : left + width]


def decode_png(
    contents: Any, channels: int = 0, dtype: Any = np.uint8, name: str | None = None
) -> Tensor:
    """``decode_image`` of one image, as uint8 or uint16."""
    return _pixels(_opened(contents), channels, dtype)


def decode_bmp(contents: Any, channels: int = 0, name: str | None = None) -> Tensor:
    """``decode_image`` of one image, as uint8."""
    return _pixels(_opened(contents), channels)


def decode_gif(contents: Any, name: str | None = None) -> Tensor:
    """All images of a GIF: (images, height, width, 3)."""
    return _frames(_opened(contents))


def _frames(image: Any) -> Tensor:
    frames = []
    for index in range(getattr(image, "n_frames", 1)):
        image.seek(index)
        frames.append(_pixels(image, 3).numpy())
    return as_tensor(np.stack(frames))


def _encoded(kind: str, image: Any, channels: tuple[int, ...], **settings: Any) -> Bytes:
    """Raises InvalidArgumentError for other images than uint8 of so many channels."""
    from distgrad.keras.utils.images import pillow

    maker, array = pillow(f"tf.io.encode_{kind}"), np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in channels:
        raise InvalidArgumentError(
            f"a {kind} is made of uint8 of shape (height, width, channels), channels one of "
            f"{channels}, not of {array.dtype} of shape {array.shape}"
        )
    file = io.BytesIO()
    picture = maker.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    picture.save(file, format=kind, **settings)
    return as_bytes(file.getvalue())


def encode_jpeg(
    image: Any,
    format: str = "",
    quality: int = 95,
    progressive: bool = False,
    optimize_size: bool = False,
    chroma_downsampling: bool = True,
    density_unit: str = "in",
    x_density: int = 300,
    y_density: int = 300,
    xmp_metadata: Any = "",
    name: str | None = None,
) -> Bytes:
    """The bytes of a JPEG file of an image of uint8: (height, width, 1 or 3).

    ``format`` is "grayscale", "rgb" or "" for what the image is; densities are dots per "in" or
    "cm". Raises InvalidArgumentError (a ValueError) for another image.
    """
    channels = {"": (1, 3), "grayscale": (1,), "rgb": (3,)}.get(format)
    if channels is None or density_unit not in ("in", "cm"):
        raise InvalidArgumentError(
            f'format is "", "grayscale" or "rgb", density_unit "in" or "cm"; not {format!r}, '
            f"{density_unit!r}"
        )
    inch = 2.54 if density_unit == "cm" else 1
    settings = {"xmp": xmp_metadata} if xmp_metadata else {}
    return _encoded(
        "jpeg",
        image,
        channels,
        quality=quality,
        progressive=progressive,
        optimize=optimize_size,
        subsampling=2 if chroma_downsampling else 0,
        dpi=(x_density * inch, y_density * inch),
        **settings,
    )


def encode_png(image: Any, compression: int = -1, name: str | None = None) -> Bytes:
    """The bytes of a PNG file of an image of uint8: (height, width, 1, 2, 3 or 4).

    Raises InvalidArgumentError (a ValueError) for another image.
    """
    level = {} if compression < 0 else {"compress_level": compression}
    return _encoded("png", image, (1, 2, 3, 4), **level)
