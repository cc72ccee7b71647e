"""`ImageDataGenerator`: images changed at random and brought to a common scale, in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.core.dtypes import as_dtype
from distgrad.core.user_line import warn
from distgrad.keras.backend import floatx
from distgrad.keras.layers.core import data_format_of
from distgrad.keras.preprocessing.image.files import DirectoryIterator
from distgrad.keras.preprocessing.image.frames import DataFrameIterator
from distgrad.keras.preprocessing.image.iterator import NumpyArrayIterator, warn_of_channels
from distgrad.keras.preprocessing.image.transforms import (
    apply_affine_transform,
    apply_brightness_shift,
    apply_channel_shift,
    drawn_zoom,
)

_AFFINE = ("theta", "tx", "ty", "shear", "zx", "zy")


class ImageDataGenerator:
    """Changes of images, drawn from ranges, and their scale: per image, or by statistics of `fit`.

    Ranges of rotation and shear are in degrees, those of shifts in parts of a side below 1 and in
    pixels from 1 on, or the numbers to choose from; ``zoom_range`` and ``brightness_range`` are
    factors. ``fill_mode``, ``cval`` and ``interpolation_order`` are as in `apply_affine_transform`.
    ``preprocessing_function`` comes after these changes, then ``rescale``. Raises ValueError for
    ranges of another form.
    """

    def __init__(
        self,
        featurewise_center: bool = False,
        samplewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False,
        zca_whitening: bool = False,
        zca_epsilon: float = 1e-6,
        rotation_range: float = 0,
        width_shift_range: Any = 0.0,
        height_shift_range: Any = 0.0,
        brightness_range: Sequence[float] | None = None,
        shear_range: float = 0.0,
        zoom_range: Any = 0.0,
        channel_shift_range: float = 0.0,
        fill_mode: str = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Callable[[np.ndarray], Any] | None = None,
        data_format: str | None = None,
        validation_split: float = 0.0,
        interpolation_order: int = 1,
        dtype: Any = None,
    ) -> None:
        self.featurewise_center = featurewise_center
        self.samplewise_center = samplewise_center
        self.featurewise_std_normalization = featurewise_std_normalization
        self.samplewise_std_normalization = samplewise_std_normalization
        self.zca_whitening, self.zca_epsilon = zca_whitening, zca_epsilon
        self.rotation_range, self.shear_range = rotation_range, shear_range
        self.width_shift_range, self.height_shift_range = width_shift_range, height_shift_range
        self.channel_shift_range = channel_shift_range
        self.fill_mode, self.cval = fill_mode, cval
        self.horizontal_flip, self.vertical_flip = horizontal_flip, vertical_flip
        self.rescale = rescale
        self.preprocessing_function = preprocessing_function
        self.dtype = dtype or floatx()
        self.interpolation_order = interpolation_order
        self.data_format = data_format_of(data_format)
        last = self.data_format == "channels_last"
        self.row_axis, self.col_axis, self.channel_axis = (1, 2, 3) if last else (2, 3, 1)
        if validation_split and not 0 < validation_split < 1:
            raise ValueError(
                f"`validation_split` must be strictly between 0 and 1. Received: {validation_split}"
            )
        self._validation_split = validation_split
        self.mean: Any = None
        self.std: Any = None
        self.zca_whitening_matrix: Any = None
        self.zoom_range = _zoom_of(zoom_range)
        pair = isinstance(brightness_range, (tuple, list)) and len(brightness_range) == 2
        if brightness_range is not None and not pair:
            raise ValueError(
                "`brightness_range should be tuple or list of two floats. Received: "
                f"{brightness_range}"
            )
        self.brightness_range = brightness_range
        if zca_whitening:
            self._override("zca_whitening", "featurewise_center", True)
            self._override("zca_whitening", "featurewise_std_normalization", False)
        if self.featurewise_std_normalization:
            self._override("featurewise_std_normalization", "featurewise_center", True)
        if samplewise_std_normalization:
            self._override("samplewise_std_normalization", "samplewise_center", True)

    def _override(self, by: str, what: str, value: bool) -> None:
        if bool(getattr(self, what)) != value:
            setattr(self, what, value)
            warn(f"This ImageDataGenerator specifies `{by}`, which overrides setting of `{what}`.")

    # Batches

    def flow(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        shuffle: bool = True,
        sample_weight: Any = None,
        seed: int | None = None,
        save_to_dir: Any = None,
        save_prefix: str = "",
        save_format: str = "png",
        ignore_class_split: bool = False,
        subset: str | None = None,
    ) -> NumpyArrayIterator:
        """Batches of arrays; raises ValueError as `NumpyArrayIterator` does."""
        return NumpyArrayIterator(
            *(x, y, self, batch_size, shuffle, sample_weight, seed, self.data_format),
            *(save_to_dir, save_prefix, save_format, subset, ignore_class_split, self.dtype),
        )

    def flow_from_directory(
        self,
        directory: Any,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: Any = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
    ) -> DirectoryIterator:
        """Batches of a folder's images; raises ValueError as `DirectoryIterator` does."""
        return DirectoryIterator(
            *(directory, self, target_size, color_mode, classes, class_mode, batch_size, shuffle),
            *(seed, self.data_format, save_to_dir, save_prefix, save_format, follow_links, subset),
            *(interpolation, keep_aspect_ratio, self.dtype),
        )

    def flow_from_dataframe(
        self,
        dataframe: Any,
        directory: Any = None,
        x_col: str = "filename",
        y_col: Any = "class",
        weight_col: str | None = None,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: Any = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str = "nearest",
        validate_filenames: bool = True,
        **kwargs: Any,
    ) -> DataFrameIterator:
        """Batches of the images that a pandas DataFrame names, as `DataFrameIterator` has them.

        ``has_ext``, ``sort`` and ``drop_duplicates`` of old scripts are passed over, with a
        warning. Raises ValueError and TypeError as `DataFrameIterator` does.
        """
        for name in kwargs:
            if name not in ("has_ext", "sort", "drop_duplicates"):
                raise TypeError(
                    f"flow_from_dataframe() got an unexpected keyword argument {name!r}"
                )
            warn(
                f"{name} is deprecated: files and their order are those of the dataframe.",
                DeprecationWarning,
            )
        if class_mode == "other":
            warn(
                '`class_mode="other"` is deprecated, please use `class_mode="raw"`.',
                DeprecationWarning,
            )
            class_mode = "raw"
        return DataFrameIterator(
            *(dataframe, directory, self, x_col, y_col, weight_col, target_size, color_mode),
            *(classes, class_mode, batch_size, shuffle, seed, self.data_format, save_to_dir),
            *(save_prefix, save_format, subset, interpolation, False, self.dtype),
            validate_filenames,
        )

    # Changes

    def get_random_transform(
        self, img_shape: Sequence[int], seed: int | None = None
    ) -> dict[str, Any]:
        """Parameters for `apply_transform`, drawn by NumPy's numbers, which ``seed`` restarts."""
        if seed is not None:
            np.random.seed(seed)
        return {
            "theta": _drawn(self.rotation_range) if self.rotation_range else 0,
            "tx": _drawn_shift(self.height_shift_range, img_shape[self.row_axis - 1]),
            "ty": _drawn_shift(self.width_shift_range, img_shape[self.col_axis - 1]),
            "shear": _drawn(self.shear_range) if self.shear_range else 0,
            **dict(zip(("zx", "zy"), drawn_zoom(self.zoom_range), strict=True)),
            "flip_horizontal": (np.random.random() < 0.5) * self.horizontal_flip,
            "flip_vertical": (np.random.random() < 0.5) * self.vertical_flip,
            "channel_shift_intensity": (
                _drawn(self.channel_shift_range) if self.channel_shift_range else None
            ),
            "brightness": (
                None if self.brightness_range is None else _drawn_between(self.brightness_range)
            ),
        }

    def apply_transform(self, x: Any, transform_parameters: Mapping[str, Any]) -> np.ndarray:
        """An image of rank 3 changed by parameters such as those of `get_random_transform`."""
        given = transform_parameters
        row, column, channel = self.row_axis - 1, self.col_axis - 1, self.channel_axis - 1
        x = apply_affine_transform(
            x,
            **{name: given[name] for name in _AFFINE if name in given},
            row_axis=row,
            col_axis=column,
            channel_axis=channel,
            fill_mode=self.fill_mode,
            cval=self.cval,
            order=self.interpolation_order,
        )
        if given.get("channel_shift_intensity") is not None:
            x = apply_channel_shift(x, given["channel_shift_intensity"], channel)
        if given.get("flip_horizontal", False):
            x = np.flip(x, column)
        if given.get("flip_vertical", False):
            x = np.flip(x, row)
        if given.get("brightness") is not None:
            x = apply_brightness_shift(x, given["brightness"], False)
        return x

    def random_transform(self, x: Any, seed: int | None = None) -> np.ndarray:
        """An image of rank 3 changed at random, by NumPy's numbers, which ``seed`` restarts."""
        return self.apply_transform(x, self.get_random_transform(x.shape, seed))

    # Scale

    def standardize(self, x: Any) -> Any:
        """An image, or a batch of them, of floats, brought to scale in its own memory."""
        if self.preprocessing_function:
            x = self.preprocessing_function(x)
        if self.rescale:
            x *= self.rescale
        if self.samplewise_center:
            x -= np.mean(x, keepdims=True)
        if self.samplewise_std_normalization:
            x /= np.std(x, keepdims=True) + 1e-6
        if self.featurewise_center and self._fitted("featurewise_center", self.mean):
            x -= self.mean
        name = "featurewise_std_normalization"
        if self.featurewise_std_normalization and self._fitted(name, self.std):
            x /= self.std + 1e-6
        if self.zca_whitening and self._fitted("zca_whitening", self.zca_whitening_matrix):
            flat = x.reshape(-1, np.prod(x.shape[-3:]))
            x = (flat @ self.zca_whitening_matrix).reshape(x.shape)
        return x

    @staticmethod
    def _fitted(name: str, found: Any) -> bool:
        if found is None:
            warn(
                f"This ImageDataGenerator specifies `{name}`, but it hasn't been fit on any "
                "training data. Fit it first by calling `.fit(numpy_data)`."
            )
        return found is not None

    def fit(self, x: Any, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Finds ``mean``, ``std`` and ``zca_whitening_matrix``, as far as they are used.

        They are of images of rank 4, after ``rescale``, and with ``augment`` as they are changed at
        random ``rounds`` times. Raises ValueError for another rank.
        """
        x = np.array(x, as_dtype(self.dtype).numpy_dtype)
        if x.ndim != 4:
            raise ValueError(
                f"Input to `.fit()` should have rank 4. Got array with shape: {x.shape}"
            )
        warn_of_channels("ImageDataGenerator.fit", x.shape, self.data_format)
        if seed is not None:
            np.random.seed(seed)
        if self.rescale:
            x *= self.rescale
        if augment:
            changed = [self.random_transform(each) for _ in range(rounds) for each in x]
            x = np.array(changed, x.dtype)
        places = (0, self.row_axis, self.col_axis)
        if self.featurewise_center:
            self.mean = np.mean(x, axis=places, keepdims=True)[0]
            x -= self.mean
        if self.featurewise_std_normalization:
            self.std = np.std(x, axis=places, keepdims=True)[0]
            x /= self.std + 1e-6
        if self.zca_whitening:
            flat = x.reshape(len(x), -1)
            directions, sizes, _ = np.linalg.svd(flat.T, full_matrices=False)
            scaled = directions * (np.sqrt(len(x)) / (sizes + self.zca_epsilon))
            self.zca_whitening_matrix = scaled @ directions.T


def _zoom_of(given: Any) -> list[float]:
    if isinstance(given, (float, int)):
        return [1 - given, 1 + given]
    if len(given) == 2 and all(isinstance(each, (float, int)) for each in given):
        return list(given)
    raise ValueError(
        f"`zoom_range` should be a float or a tuple or list of two floats. Received: {given}"
    )


def _drawn(most: float) -> float:
    return np.random.uniform(-most, most)


def _drawn_between(given: Sequence[float]) -> float:
    low, high = given
    return np.random.uniform(low, high)


def _drawn_shift(given: Any, size: int) -> Any:
    """A shift in pixels along an axis of ``size``: by a part of it, a whole number, or a choice."""
    if not given:
        return 0
    if isinstance(given, (float, np.floating)):
        shift: Any = _drawn(float(given))
    else:
        shift = np.random.choice(given) * np.random.choice([-1, 1])
    return shift * size if np.max(given) < 1 else shift
