"""Batches of images that lie in files: those of a folder, with one within it for each class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core.dtypes import as_dtype
from distgrad.core.user_line import warn
from distgrad.keras.backend import floatx
from distgrad.keras.layers.core import data_format_of
from distgrad.keras.preprocessing.image.iterator import Iterator
from distgrad.keras.utils.folders import files_in
from distgrad.keras.utils.images import img_to_array, load_img
from distgrad.launcher.environ import detect

_CHANNELS = {"rgb": 3, "rgba": 4, "grayscale": 1}


class FilesIterator(Iterator):
    """Base of batches of image files: what is done to each, and the targets of a batch.

    Those who derive from it set ``filenames``, ``filepaths``, ``labels`` and ``sample_weight``, and
    ``classes`` and ``class_indices`` where the class mode asks for them, before ``_begin``.
    """

    allowed_class_modes: frozenset[str | None]
    filenames: list[str]
    filepaths: list[str]
    sample_weight: Any = None
    class_indices: dict[str, int]
    labels: Any

    def __init__(
        self,
        image_data_generator: Any,
        target_size: tuple[int, int],
        color_mode: str,
        class_mode: str | None,
        data_format: str | None,
        save_to_dir: Any,
        save_prefix: str,
        save_format: str,
        subset: str | None,
        interpolation: str,
        keep_aspect_ratio: bool,
        dtype: Any,
    ) -> None:
        if color_mode not in _CHANNELS:
            raise ValueError(
                f'Invalid color mode: {color_mode}; expected "rgb", "rgba", or "grayscale".'
            )
        if class_mode not in self.allowed_class_modes:
            known = sorted(map(str, self.allowed_class_modes))
            raise ValueError(f"Invalid class_mode: {class_mode}; expected one of: {known}")
        if subset not in (None, "training", "validation"):
            raise ValueError(f'Invalid subset name: {subset}; expected "training" or "validation".')
        self.image_data_generator = image_data_generator
        self.target_size: tuple[int, int] = (target_size[0], target_size[1])
        self.color_mode, self.class_mode, self.subset = color_mode, class_mode, subset
        self.data_format, channels = data_format_of(data_format), (_CHANNELS[color_mode],)
        last = self.data_format == "channels_last"
        self.image_shape = (*self.target_size, *channels) if last else channels + self.target_size
        self.save_to_dir, self.save_prefix = save_to_dir, save_prefix
        self.save_format = save_format
        self.interpolation, self.keep_aspect_ratio = interpolation, keep_aspect_ratio
        self.dtype = dtype or floatx()
        self.split: tuple[float, float] | None = None
        if subset is not None:
            share = image_data_generator._validation_split
            self.split = (0, share) if subset == "validation" else (share, 1)

    def _begin(self, found: str, batch_size: int, shuffle: bool, seed: int | None) -> None:
        """Counts the files, and says so."""
        self.samples = len(self.filenames)
        if detect().rank == 0:
            print(f"Found {self.samples} {found}.", flush=True)
        super().__init__(self.samples, batch_size, shuffle, seed)

    def _part(self, size: int) -> slice:
        """Which of ``size`` files are in the subset."""
        first, last = self.split or (0, 1)
        return slice(int(first * size), int(last * size))

    def _get_batches_of_transformed_samples(self, index_array: np.ndarray) -> Any:
        dtype = as_dtype(self.dtype).numpy_dtype
        batch = np.zeros((len(index_array), *self.image_shape), dtype)
        for row, index in enumerate(index_array):
            image = load_img(
                self.filepaths[index],
                color_mode=self.color_mode,
                target_size=self.target_size,
                interpolation=self.interpolation,
                keep_aspect_ratio=self.keep_aspect_ratio,
            )
            batch[row] = self._transformed(img_to_array(image, self.data_format))
        self._save(batch, index_array)
        if self.class_mode is None:
            return batch
        targets = self._targets(batch, index_array)
        if self.sample_weight is None:
            return batch, targets
        return batch, targets, self.sample_weight[index_array]

    def _targets(self, batch: np.ndarray, index_array: np.ndarray) -> Any:
        if self.class_mode == "input":
            return batch.copy()
        if self.class_mode == "multi_output":
            return [output[index_array] for output in self.labels]
        if self.class_mode == "raw":
            return self.labels[index_array]
        numbers = [self.labels[index] for index in index_array]
        if self.class_mode != "categorical":
            return np.array(numbers, batch.dtype)
        targets = np.zeros((len(numbers), len(self.class_indices)), batch.dtype)
        for row, number in zip(targets, numbers, strict=True):
            row[number] = 1
        return targets


class DirectoryIterator(FilesIterator):
    """Batches of the images in a folder, and of the numbers of the folders that they lie in.

    ``class_mode`` is "categorical" (rows with a single 1), "binary" or "sparse" (numbers, as
    floats), "input" (the images themselves) or None (images alone). ``subset`` is "training" or
    "validation": the first files of each class, as many as the generator's ``validation_split``
    says. Raises ValueError for other words, FileNotFoundError where there is no such folder,
    MissingExtraError (an ImportError) without Pillow.
    """

    allowed_class_modes = frozenset({"categorical", "binary", "sparse", "input", None})

    def __init__(
        self,
        directory: Any,
        image_data_generator: Any,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: str | None = None,
        save_to_dir: Any = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            image_data_generator=image_data_generator,
            target_size=target_size,
            color_mode=color_mode,
            class_mode=class_mode,
            data_format=data_format,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            subset=subset,
            interpolation=interpolation,
            keep_aspect_ratio=keep_aspect_ratio,
            dtype=dtype,
        )
        self.directory = directory
        names = list(
            classes or sorted(each.name for each in os.scandir(directory) if each.is_dir())
        )
        self.num_classes = len(names)
        self.class_indices = {name: number for number, name in enumerate(names)}
        endings = tuple(f".{each}" for each in self.white_list_formats)
        self.filepaths, numbers = [], []
        for number, name in enumerate(names):
            paths = files_in(Path(directory) / name, follow_links, endings)
            paths = paths[self._part(len(paths))]
            self.filepaths += paths
            numbers += [number] * len(paths)
        warn_of_tiff(self.filepaths)
        self.filenames = [os.path.relpath(path, directory) for path in self.filepaths]
        self.labels = self.classes = np.array(numbers, np.int32)
        found = f"images belonging to {self.num_classes} classes"
        self._begin(found, batch_size, shuffle, seed)


def warn_of_tiff(paths: Sequence[str]) -> None:
    """Warns where there are .tiff files, which Pillow may not read as they are meant."""
    if any(path.lower().endswith(".tiff") for path in paths):
        warn(
            'Using ".tiff" files with multiple bands will cause distortion. Please verify your '
            "output."
        )
