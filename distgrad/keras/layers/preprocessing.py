"""Layers that bring data to a common scale inside the model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import is_floating
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.data import calling
from distgrad.keras import settings
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import data_format_of, known_size, one_of, whole_number
from distgrad.ops.casting import cast
from distgrad.ops.clipping import maximum, saturate_cast
from distgrad.ops.image import resize
from distgrad.ops.padding import pad
from distgrad.ops.powers import sqrt
from distgrad.ops.rounding import round
from distgrad.ops.shape import reshape, transpose

_EPSILON = 1e-7  # of Keras: the least deviation that is divided by


class Rescaling(Layer):
    """``x * scale + offset``; both are numbers, or arrays that broadcast with the input.

    With images whose channels come first, an array of one axis has a number for each channel.
    """

    of_each_value = True
    supports_masking = True
    casts_inputs = True  # of images in uint8, too

    def __init__(
        self,
        scale: float | Sequence[float],
        offset: float | Sequence[float] = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scale = scale
        self.offset = offset

    def _told_shape(self, shape: Any) -> Any:
        return shape if np.ndim(self.scale) == np.ndim(self.offset) == 0 else None

    def call(self, x: Tensor) -> Tensor:
        return x * self._along(self.scale, x) + self._along(self.offset, x)

    def _along(self, value: Any, x: Tensor) -> Any:
        if isinstance(value, (int, float)):
            return value
        array = np.asarray(value, x._data.dtype)
        if array.ndim and settings.image_data_format == "channels_first":
            array = array.reshape(array.shape + (1,) * (3 - array.ndim))  # one for each channel
        return array


def fitted(
    images: Tensor, size: tuple[int, int], method: str = "bilinear", antialias: bool = False
) -> Tensor:
    """The largest part in the middle of ``images`` that has the form of ``size``, resized to it."""
    *_, height, width, _ = images._data.shape
    high = max(min(height, int(width * size[0] / size[1])), 1)
    wide = max(min(width, int(height * size[1] / size[0])), 1)
    return _resized(_middle(images, high, wide), size, method, antialias)


def _middle(images: Tensor, height: int, width: int) -> Tensor:
    *_, h, w, _ = images._data.shape
    top, left = (h - height) // 2, (w - width) // 2
    return images[..., top : top + height, left : left + width, :]


def _framed(images: Tensor, size: tuple[int, int], value: float) -> Tensor:
    """``images`` in the middle of ones that have the form of ``size``, with ``value`` beside."""
    *batch, height, width, _ = images._data.shape
    high = (max(height, int(width * size[0] / size[1])) - height) // 2
    wide = (max(width, int(height * size[1] / size[0])) - width) // 2
    widths = [(0, 0)] * len(batch) + [(high, high), (wide, wide), (0, 0)]
    return pad(images, widths, constant_values=value)


def _resized(images: Tensor, size: tuple[int, int], method: str, antialias: bool) -> Tensor:
    return cast(resize(images, size, method, antialias=antialias), images._data.dtype)


class _Sized(Layer):
    """Base of layers that make images [(batch,) height, width, channels] of a given size.

    Raises ValueError for a size that is not two positive ints.
    """

    casts_inputs: bool | None = True

    def __init__(
        self, height: int, width: int, *, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.height = whole_number("height", height)
        self.width = whole_number("width", width)
        self.data_format = data_format_of(data_format)

    def call(self, x: Tensor) -> Tensor:
        if self.data_format == "channels_last":
            return self.resize(x)
        batch = tuple(range(x._data.ndim - 3))
        n = len(batch)
        y = self.resize(transpose(x, (*batch, n + 1, n + 2, n)))
        return transpose(y, (*batch, n + 2, n, n + 1))

    def resize(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Resizing(_Sized):
    """Images of another ``height`` and ``width``, as ``tf.image.resize`` makes them.

    ``crop_to_aspect_ratio`` first takes away what does not fit the new form, and
    ``pad_to_aspect_ratio`` adds to it, with ``fill_value``. Whole numbers are rounded to those of
    the images' dtype, but become floats in a function of a dataset, as in Keras. Raises ValueError
    for both at once, and a ``fill_mode`` but "constant".
    """

    casts_inputs = None

    def __init__(
        self,
        height: int,
        width: int,
        interpolation: str = "bilinear",
        crop_to_aspect_ratio: bool = False,
        pad_to_aspect_ratio: bool = False,
        fill_mode: str = "constant",
        fill_value: float = 0.0,
        antialias: bool = False,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(height, width, data_format=data_format, **kwargs)
        if crop_to_aspect_ratio and pad_to_aspect_ratio:
            raise ValueError("crop_to_aspect_ratio or pad_to_aspect_ratio, not both")
        self.interpolation = interpolation
        self.crop_to_aspect_ratio = crop_to_aspect_ratio
        self.pad_to_aspect_ratio = pad_to_aspect_ratio
        self.fill_mode = one_of("fill_mode", fill_mode, "constant")
        self.fill_value = fill_value
        self.antialias = antialias

    def resize(self, x: Tensor) -> Tensor:
        if calling.inside() and not is_floating(x._data.dtype):
            x = cast(x, self.compute_dtype)
        size, dtype = (self.height, self.width), x._data.dtype
        whole = not is_floating(dtype)
        x = cast(x, np.float32) if whole else x
        if self.pad_to_aspect_ratio:
            x = _framed(x, size, int(self.fill_value) if whole else self.fill_value)
        make = fitted if self.crop_to_aspect_ratio else _resized
        y = make(x, size, self.interpolation, self.antialias)
        return saturate_cast(round(y), dtype) if whole else y


class CenterCrop(_Sized):
    """The middle of images, ``height`` by ``width``; of smaller ones the part of that form, larger.

    Raises ValueError for a size that is not two positive ints.
    """

    def __init__(
        self, height: int, width: int, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(height, width, data_format=data_format, **kwargs)

    def resize(self, x: Tensor) -> Tensor:
        *_, height, width, _ = x._data.shape
        if height >= self.height and width >= self.width:
            return _middle(x, self.height, self.width)
        return fitted(x, (self.height, self.width))


class Normalization(Layer):
    """``(x - mean) / sqrt(variance)``, with statistics that are given or taken by ``adapt``.

    There is one mean for each position along ``axis`` (one axis, several, or none: a single one
    for all). ``invert`` goes the other way. Raises ValueError where only one of ``mean`` and
    ``variance`` is given, their shapes differ or have more axes than ``axis``, or an axis is out of
    range or of unknown size.
    """

    supports_masking = True
    takes_kinds = ("ragged",)
    casts_inputs = True

    def __init__(
        self,
        axis: int | Sequence[int] | None = -1,
        mean: float | Sequence[float] | None = None,
        variance: float | Sequence[float] | None = None,
        invert: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = () if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
        if (mean is None) != (variance is None):
            raise ValueError(f"mean {mean!r} and variance {variance!r}: give both, or neither")
        shapes = np.asarray(mean).shape, np.asarray(variance).shape
        if shapes[0] != shapes[1] or len(shapes[0]) > len(self.axis):
            raise ValueError(
                f"mean and variance of shapes {shapes[0]} and {shapes[1]}: they have one shape, of "
                f"no more axes than axis, {self.axis}"
            )
        self.input_mean = mean
        self.input_variance = variance
        self.invert = invert

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; what ``adapt`` found lies in the weights."""
        given = {"mean": self.input_mean, "variance": self.input_variance}
        return {
            **super().get_config(),
            **{k: v if v is None else np.asarray(v).tolist() for k, v in given.items()},
        }

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        rank = len(input_shape)
        if any(not -rank <= axis < rank for axis in self.axis):
            raise ValueError(f"{self.name!r}: axis {self.axis} of an input of shape {input_shape}")
        self._kept = tuple(sorted(axis % rank for axis in self.axis))
        shape = tuple(known_size(self, input_shape, axis) for axis in self._kept)
        sizes = dict(zip(self._kept, shape, strict=True))
        self._beside = tuple(sizes.get(axis, 1) for axis in range(rank))
        if self.input_mean is not None:
            return
        self.adapt_mean = self.add_weight(shape, "zeros", name="mean", trainable=False)
        self.adapt_variance = self.add_weight(shape, "ones", name="variance", trainable=False)
        # Keras keeps it, unused: so a file of weights fits both.
        self.count = self.add_weight((), "zeros", dtype="int64", name="count", trainable=False)

    def adapt(self, data: Any) -> None:
        """Takes mean and variance from an array, a ``data.Dataset`` or any batches.

        Of elements that are tuples, the first part counts; elements of rank 1 are samples. The
        sums are float64. Raises ValueError for no data, for data of another shape than the layer
        was built for, or where mean and variance were given.
        """
        if self.input_mean is not None:
            raise ValueError(f"{self.name!r} was given its mean and variance: it does not adapt")
        count, mean, squares = 0, np.zeros(()), np.zeros(())
        for batch in _batches(data):
            if not self.built:
                self.build((None, *batch.shape[1:]))
            sizes = {axis: self._beside[axis] for axis in self._kept}
            if any(batch.shape[axis : axis + 1] != (n,) for axis, n in sizes.items()):
                raise ValueError(
                    f"{self.name!r} takes inputs with sizes {sizes} (by axis), not of shape "
                    f"{batch.shape}"
                )
            over = tuple(axis for axis in range(batch.ndim) if axis not in self._kept)
            more = math.prod(batch.shape[axis] for axis in over)
            if not more:
                continue
            center = batch.mean(axis=over)
            # Chan, Golub, LeVeque: "Updating formulae and a pairwise algorithm for variances".
            apart = center - mean
            squares = squares + np.square(batch - batch.mean(axis=over, keepdims=True)).sum(over)
            squares = squares + np.square(apart) * (count * more / (count + more))
            mean = mean + apart * (more / (count + more))
            count += more
        if not count:
            raise ValueError(f"{self.name!r}: adapt was given no data")
        self.adapt_mean.assign(mean.astype(self.adapt_mean.dtype.numpy_dtype))
        self.adapt_variance.assign((squares / count).astype(self.adapt_variance.dtype.numpy_dtype))

    def finalize_state(self) -> None:
        """Does nothing: weights that were set are used as they are."""

    @property
    def mean(self) -> Tensor | None:
        """The mean, in a shape that broadcasts with the inputs; None before the layer is built."""
        return self._statistic(self.input_mean, "adapt_mean")

    @property
    def variance(self) -> Tensor | None:
        """The variance, in the shape of the mean."""
        return self._statistic(self.input_variance, "adapt_variance")

    def _statistic(self, given: Any, name: str) -> Tensor | None:
        if not self.built:
            return None
        if given is None:
            return reshape(getattr(self, name), self._beside)
        shape = [1] * len(self._beside)
        value = np.asarray(given, self.compute_dtype)
        for axis, size in zip(self._kept[len(self._kept) - value.ndim :], value.shape, strict=True):
            shape[axis] = size
        return as_tensor(value.reshape(shape))

    def _told_shape(self, shape: Any) -> Any:
        rank = len(shape)
        known = all(-rank <= axis < rank and shape[axis] is not None for axis in self.axis)
        if self.built:
            known = known and rank == len(self._beside)
            known = known and all(shape[axis] == self._beside[axis] for axis in self._kept)
        return shape if known else None

    def call(self, x: Any) -> Any:
        mean, variance = self.mean, self.variance
        deviation = maximum(sqrt(variance), _EPSILON)
        return x * deviation + mean if self.invert else (x - mean) / deviation


def _batches(data: Any) -> Iterator[np.ndarray]:
    """Float64 arrays with a batch axis, from one array or from batches."""
    if isinstance(data, (Tensor, Variable)):
        data = data.numpy()
    if hasattr(data, "__array__"):  # pandas has it, too
        yield _wide(data)
        return
    if not isinstance(data, Iterable):
        raise ValueError(f"adapt takes an array, a Dataset or batches, not {data!r}")
    for element in data:
        batch = _wide(element[0] if isinstance(element, tuple) else element)
        yield batch[None] if batch.ndim == 1 else batch


def _wide(value: Any) -> np.ndarray:
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value, np.float64)
