"""Images ``[(batch,) height, width, channels]``: size, flips and tone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype, is_floating
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast, identity
from distgrad.ops.clipping import saturate_cast
from distgrad.ops.indexing import gather
from distgrad.ops.layout import beside, reverse
from distgrad.ops.reduce import reduce_mean, reduce_sum
from distgrad.ops.shape import static


def image_and_axis(name: str, images: Any) -> tuple[Tensor, int]:
    """The images, and the axis of their height; InvalidArgumentError for another rank."""
    x = as_tensor(images)
    if x._data.ndim not in (3, 4):
        raise InvalidArgumentError(
            f"{name} takes images of rank 3 or 4, channels last, not a tensor of shape {x.shape}"
        )
    return x, x._data.ndim - 3


# Size


def _centres(before: int, after: int) -> np.ndarray:
    """Where the centres of ``after`` pixels lie on an axis of ``before``, in its pixels."""
    return (np.arange(after) + 0.5) * (before / after)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, far)


def _mitchell(x: np.ndarray) -> np.ndarray:
    near = ((7 * x - 12) * x * x + 16 / 3) / 6
    far = (((-7 / 3 * x + 12) * x - 20) * x + 32 / 3) / 6
    return np.where(x < 1, near, far)


# How much a pixel counts by its distance, and up to which distance.
_KERNELS: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    "bilinear": (1.0, lambda x: 1 - x),
    "bicubic": (2.0, lambda x: _cubic(x, -0.5)),
    "gaussian": (1.5, lambda x: np.exp(-2 * x * x)),
    "lanczos3": (3.0, lambda x: np.sinc(x) * np.sinc(x / 3)),
    "lanczos5": (5.0, lambda x: np.sinc(x) * np.sinc(x / 5)),
    "mitchellcubic": (2.0, _mitchell),
}


def interpolation_matrix(
    before: int, after: int, method: str = "bilinear", antialias: bool = False
) -> np.ndarray:
    """What each of ``after`` pixels takes of ``before``: ``[after, before]``."""
    if method == "area":
        edges = np.arange(after + 1) * (before / after)
        left, right = np.arange(before), np.arange(1, before + 1)
        common = np.minimum(edges[1:, None], right) - np.maximum(edges[:-1, None], left)
        return np.maximum(common, 0) * (after / before)
    if method != "bilinear" or antialias:
        radius, kernel = _KERNELS[method]
        scale = max(before / after, 1.0) if antialias else 1.0
        apart = np.abs(np.arange(before) + 0.5 - _centres(before, after)[:, None]) / scale
        shares = np.where(apart < radius, kernel(np.minimum(apart, radius)), 0)
        return shares / shares.sum(axis=1, keepdims=True)
    at = np.clip(_centres(before, after) - 0.5, 0, before - 1)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, before - 1)
    weights = np.zeros((after, before))
    rows = np.arange(after)
    np.add.at(weights, (rows, low), 1 - (at - low))
    np.add.at(weights, (rows, high), at - low)
    return weights


@primitive(kinds="f")
def interpolate(xp, x, *, axis, before, after, transpose, method, antialias):
    """Interpolation along ``axis`` from ``before`` to ``after`` pixels, or its transpose."""
    weights = interpolation_matrix(before, after, method, antialias)
    matrix = xp.asarray(weights.T if transpose else weights, dtype=x.dtype)
    outer, inner = x.shape[:axis], x.shape[axis + 1 :]
    rows = xp.reshape(x, (math.prod(outer), x.shape[axis], math.prod(inner)))
    return xp.reshape(xp.matmul(matrix, rows), (*outer, matrix.shape[0], *inner))


@interpolate.vjp("x")
def _(g, axis, before, after, transpose, method, antialias):
    sizes = {"axis": axis, "before": before, "after": after, "transpose": not transpose}
    return bind(interpolate, g, **sizes, method=method, antialias=antialias)


@interpolate.samples
def _(rng):
    for before, after in [(3, 5), (4, 4), (5, 2), (1, 3)]:
        sizes = {"before": before, "after": after, "method": "bilinear", "antialias": False}
        yield sample(rng.normal(size=(2, before, 2)), axis=1, transpose=False, **sizes)
        yield sample(rng.normal(size=(after, 2)), axis=0, transpose=True, **sizes)
    for method in ("area", *_KERNELS):
        settings = {"before": 5, "after": 3, "method": method, "antialias": method != "area"}
        yield sample(rng.normal(size=(5, 2)), axis=0, transpose=False, **settings)


class ResizeMethod:
    """The names of the methods of ``resize`` (``tf.image.ResizeMethod``)."""

    BILINEAR = "bilinear"
    NEAREST_NEIGHBOR = "nearest"
    AREA = "area"
    BICUBIC = "bicubic"
    GAUSSIAN = "gaussian"
    LANCZOS3 = "lanczos3"
    LANCZOS5 = "lanczos5"
    MITCHELLCUBIC = "mitchellcubic"


def resize(
    images: Any,
    size: Any,
    method: str = "bilinear",
    preserve_aspect_ratio: bool = False,
    antialias: bool = False,
    name: str | None = None,
) -> Tensor:
    """Images of another height and width: ``size`` is the two of them.

    "nearest" keeps the dtype, the others give float32: "bilinear", "bicubic", "area", "gaussian",
    "lanczos3", "lanczos5", "mitchellcubic". Pixels are squares around their centres; shrinking
    smooths with ``antialias``, which "nearest" and "area" do without. ``preserve_aspect_ratio``
    makes the largest images of their own form that fit. Raises InvalidArgumentError for another
    rank, an empty size or another method.
    """
    x, axis = image_and_axis("resize", images)
    if method not in ("nearest", "area", *_KERNELS):
        known = ", ".join(map(repr, ("nearest", "area", *_KERNELS)))
        raise InvalidArgumentError(f"resize: method is {method!r}; there are {known}")
    wanted = static(size)
    if len(wanted) != 2 or min(wanted) < 1:
        raise InvalidArgumentError(f"resize takes two sizes above 0, not {wanted}")
    known = x._data.shape[axis : axis + 2]
    if not min(known):
        raise InvalidArgumentError(f"resize: images of shape {x.shape} have no pixels")
    if preserve_aspect_ratio:
        scale = min(np.float32(n) / np.float32(m) for n, m in zip(wanted, known, strict=True))
        wanted = tuple(max(1, int(np.rint(np.float32(m) * scale))) for m in known)
    if method != "nearest":
        x = cast(x, np.float32)
    if known == wanted and method not in ("gaussian", "mitchellcubic"):  # these blur all the same
        return x
    for at, before, after in zip((axis, axis + 1), known, wanted, strict=True):
        if method != "nearest":
            sizes = {"axis": at, "before": before, "after": after, "transpose": False}
            x = bind(interpolate, x, **sizes, method=method, antialias=bool(antialias))
        else:
            nearest = np.minimum(_centres(before, after).astype(np.int64), before - 1)
            x = gather(x, beside(x, nearest), axis=at)
    return x


# Flips


def flip_left_right(image: Any, name: str | None = None) -> Tensor:
    """The columns in reverse order; InvalidArgumentError for a rank other than 3 or 4."""
    x, axis = image_and_axis("flip_left_right", image)
    return reverse(x, [axis + 1])


def flip_up_down(image: Any, name: str | None = None) -> Tensor:
    """The rows in reverse order; InvalidArgumentError for a rank other than 3 or 4."""
    x, axis = image_and_axis("flip_up_down", image)
    return reverse(x, [axis])


# Tone. Integer images stand for 0 to 1: they are computed with as floats, and come back as
# integers, clipped to their range.


def convert_image_dtype(
    image: Any, dtype: Any, saturate: bool = False, name: str | None = None
) -> Tensor:
    """Between floats in [0, 1] and integers from 0 to their largest.

    Between integers the largest becomes about the largest, by a shift of bits. ``saturate`` clips
    what lies outside the range of ``dtype`` to it. Raises InvalidArgumentError for other dtypes.
    """
    x, wanted = as_tensor(image), as_dtype(dtype).numpy_dtype
    known = x._data.dtype
    if known == wanted:
        return identity(x)
    if is_floating(known) and is_floating(wanted):
        return cast(x, wanted)
    if known.kind in "iu" and is_floating(wanted):
        return cast(x, wanted) * (1.0 / np.iinfo(known).max)
    if is_floating(known) and wanted.kind in "iu":
        scaled = x * (np.iinfo(wanted).max + 0.5)
        return saturate_cast(scaled, wanted) if saturate else cast(scaled, wanted)
    if known.kind in "iu" and wanted.kind in "iu":
        return _between_integers(x, wanted, saturate)
    raise InvalidArgumentError(f"convert_image_dtype does not turn {known} into {wanted}")


def _between_integers(x: Tensor, wanted: np.dtype, saturate: bool) -> Tensor:
    to = saturate_cast if saturate else cast
    have, want = int(np.iinfo(x._data.dtype).max) + 1, int(np.iinfo(wanted).max) + 1
    return to(x // (have // want), wanted) if have > want else to(x, wanted) * (want // have)


def as_floats(x: Tensor) -> Tensor:
    """Images of whole numbers as float32 in [0, 1]; others as they are."""
    return x if is_floating(x._data.dtype) else convert_image_dtype(x, np.float32)


def rgb_to_grayscale(images: Any, name: str | None = None) -> Tensor:
    """``0.2989 red + 0.587 green + 0.114 blue``, with one channel in the last axis.

    Raises InvalidArgumentError where the last axis is not 3.
    """
    x = as_tensor(images)
    if x._data.shape[-1:] != (3,):
        raise InvalidArgumentError(f"rgb_to_grayscale takes three channels, not shape {x.shape}")
    rgb = as_floats(x)
    gray = 0.2989 * rgb[..., :1] + 0.587 * rgb[..., 1:2] + 0.114 * rgb[..., 2:]
    return convert_image_dtype(gray, x._data.dtype)


def adjust_brightness(image: Any, delta: Any, name: str | None = None) -> Tensor:
    """``delta`` added to every element; integers stand for 0 to 1 and are clipped."""
    x = as_tensor(image)
    return convert_image_dtype(as_floats(x) + delta, x._data.dtype, saturate=True)


def adjust_contrast(images: Any, contrast_factor: Any, name: str | None = None) -> Tensor:
    """The distance of each element to the mean of its channel times ``contrast_factor``.

    Raises InvalidArgumentError for a rank other than 3 or 4.
    """
    x, axis = image_and_axis("adjust_contrast", images)
    y = as_floats(x)
    mean = reduce_mean(y, [axis, axis + 1], keepdims=True)
    return convert_image_dtype((y - mean) * contrast_factor + mean, x._data.dtype, saturate=True)


def total_variation(images: Any, name: str | None = None) -> Tensor:
    """The sum of the distances between neighbouring pixels: of an image, or of each of several.

    Raises InvalidArgumentError for a rank other than 3 or 4.
    """
    x, axis = image_and_axis("total_variation", images)
    down = x[..., 1:, :, :] - x[..., :-1, :, :]
    right = x[..., 1:, :] - x[..., :-1, :]
    axes = [axis, axis + 1, axis + 2]
    return reduce_sum(abs(down), axes) + reduce_sum(abs(right), axes)
