"""Batches of images that an `ImageDataGenerator` has changed, without end or by number."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator as PythonIterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from distgrad.core.dtypes import as_dtype
from distgrad.core.user_line import warn
from distgrad.data.loader import Repeatable
from distgrad.keras.backend import floatx
from distgrad.keras.layers.core import data_format_of
from distgrad.keras.utils import PyDataset
from distgrad.keras.utils.images import array_to_img

_one_at_a_time = threading.RLock()  # of the threads that draw from numbers of a seed


@contextmanager
def numbers_of(seed: int) -> PythonIterator[None]:
    """Context in which NumPy's random numbers are those of a seed; those around it go on after."""
    with _one_at_a_time:
        outer = np.random.get_state()
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(outer)


class Iterator(PyDataset, Repeatable):
    """Base of batches of images: define ``_get_batches_of_transformed_samples(index_array)``.

    ``next`` gives batches without end, an index the batch at that place of an epoch; both count
    ``total_batches_seen``, on which and on ``seed`` random numbers depend; without a seed they are
    NumPy's. ``fit``, ``evaluate`` and ``predict`` take what ``iterate`` gives, which has no such
    count, so that all workers see the same batches, also after a restart.
    """

    white_list_formats = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")

    # What takes images through a generator sets these.
    image_data_generator: Any = None
    save_to_dir: Any = None
    save_prefix = ""
    save_format = "png"
    data_format = "channels_last"

    def __init__(self, n: int, batch_size: int, shuffle: bool, seed: int | None) -> None:
        super().__init__()
        self.n, self.batch_size, self.shuffle, self.seed = n, batch_size, shuffle, seed
        self.batch_index = self.total_batches_seen = 0
        self.index_array: np.ndarray | None = None

    def _get_batches_of_transformed_samples(self, index_array: np.ndarray) -> Any:
        """The batch of the samples with these numbers."""
        raise NotImplementedError(
            f"{type(self).__name__} does not define _get_batches_of_transformed_samples"
        )

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __getitem__(self, idx: int) -> Any:
        if not -len(self) <= idx < len(self):
            raise ValueError(
                f"Asked to retrieve element {idx}, but the Sequence has length {len(self)}"
            )
        with self._numbers():
            self.total_batches_seen += 1
            if self.index_array is None:
                self._set_index_array()
            return self._batch(idx % len(self))

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        with self._numbers():
            if self.batch_index == 0:
                self._set_index_array()
            self.total_batches_seen += 1
            place, last = self.batch_index, self.batch_index + 1 >= len(self)
            self.batch_index = 0 if last else place + 1
            return self._batch(place)

    def iterate(self, epoch: int, seed: int = 0) -> PythonIterator[Any]:
        """The batches of one epoch; ``seed`` is for an iterator that was given none."""
        begun, order = epoch * len(self), None
        for place in range(len(self)):
            self.index_array, self.total_batches_seen = order, begun + place
            with numbers_of(begun + place + (seed if self.seed is None else self.seed)):
                batch = self[place]
            order = self.index_array
            yield batch
        self.on_epoch_end()

    def on_epoch_end(self) -> None:
        """Puts the samples in a new order."""
        with self._numbers():
            self._set_index_array()

    def reset(self) -> None:
        """Lets ``next`` begin an epoch."""
        self.batch_index = 0

    def _numbers(self) -> AbstractContextManager[None]:
        """Context with the random numbers of the next batch."""
        if self.seed is None:
            return nullcontext()
        return numbers_of(self.seed + self.total_batches_seen)

    def _set_index_array(self) -> None:
        self.index_array = np.random.permutation(self.n) if self.shuffle else np.arange(self.n)

    def _batch(self, place: int) -> Any:
        assert self.index_array is not None
        start = place * self.batch_size
        return self._get_batches_of_transformed_samples(
            self.index_array[start : start + self.batch_size]
        )

    def _transformed(self, image: np.ndarray) -> np.ndarray:
        """One image as the generator changes it at random."""
        generator = self.image_data_generator
        if not generator:
            return image
        drawn = generator.get_random_transform(image.shape)
        changed: np.ndarray = generator.standardize(generator.apply_transform(image, drawn))
        return changed

    def _save(self, batch: np.ndarray, index_array: np.ndarray) -> None:
        """Writes the images of a batch to the folder that was given for them, if one was."""
        if not self.save_to_dir:
            return
        for image, index in zip(batch, index_array, strict=True):
            name = f"{self.save_prefix}_{index}_{np.random.randint(10**7)}.{self.save_format}"
            array_to_img(image, self.data_format).save(os.path.join(self.save_to_dir, name))


class NumpyArrayIterator(Iterator):
    """Batches of the images ``x``, an array of rank 4, with ``y`` and ``sample_weight``.

    ``x`` may be a pair ``(images, other)``: an array, or a list of them, that goes beside the
    images as it is. ``subset`` is "training" or "validation", of which the latter are the first
    samples, as many as the generator's ``validation_split`` says. Raises ValueError for other
    words, another rank and different lengths, and where the subsets have different classes, unless
    ``ignore_class_split``.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        image_data_generator: Any,
        batch_size: int = 32,
        shuffle: bool = False,
        sample_weight: Any = None,
        seed: int | None = None,
        data_format: str | None = None,
        save_to_dir: Any = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        ignore_class_split: bool = False,
        dtype: Any = None,
    ) -> None:
        self.data_format = data_format_of(data_format)
        self.dtype = dtype or floatx()
        others: list[np.ndarray] = []
        if isinstance(x, (list, tuple)):
            if len(x) != 2:
                raise ValueError(
                    f"a {type(x).__name__} `x` is (images, other arrays), not {len(x)} things; "
                    "make one array of images with np.stack"
                )
            x, other = x
            others = [np.asarray(each) for each in (other if isinstance(other, list) else [other])]
        self._of_equal_length(x, y, sample_weight, others)
        images = np.asarray(x, as_dtype(self.dtype).numpy_dtype)
        targets = None if y is None else np.asarray(y)
        weights = None if sample_weight is None else np.asarray(sample_weight)
        if subset is not None:
            if subset not in ("training", "validation"):
                raise ValueError(
                    f'Invalid subset name: {subset}; expected "training" or "validation".'
                )
            cut = int(len(images) * image_data_generator._validation_split)
            classes = [] if targets is None else [targets[:cut], targets[cut:]]
            if not ignore_class_split and len({tuple(np.unique(each)) for each in classes}) > 1:
                raise ValueError(
                    "Training and validation subsets have different number of classes after the "
                    "split. If your numpy arrays are sorted by the label, you might want to "
                    "shuffle them."
                )
            part = slice(cut) if subset == "validation" else slice(cut, None)
            images, others = images[part], [each[part] for each in others]
            targets = None if targets is None else targets[part]
            weights = None if weights is None else weights[part]
        if images.ndim != 4:
            raise ValueError(
                "Input data in `NumpyArrayIterator` should have rank 4. You passed an array with "
                f"shape {images.shape}"
            )
        warn_of_channels("NumpyArrayIterator", images.shape, self.data_format)
        self.x, self.x_misc, self.y, self.sample_weight = images, others, targets, weights
        self.image_data_generator = image_data_generator
        self.save_to_dir, self.save_prefix = save_to_dir, save_prefix
        self.save_format = save_format
        super().__init__(len(images), batch_size, shuffle, seed)

    @staticmethod
    def _of_equal_length(x: Any, y: Any, weight: Any, others: list[np.ndarray]) -> None:
        for other in others:
            if len(x) != len(other):
                raise ValueError(
                    "All of the arrays in `x` should have the same length. Found a pair with: "
                    f"len(x[0]) = {len(x)}, len(x[?]) = {len(other)}"
                )
        for name, beside, what in (("y", y, "(labels) "), ("sample_weight", weight, "")):
            if beside is not None and len(x) != len(beside):
                raise ValueError(
                    f"`x` (images tensor) and `{name}` {what}should have the same length. Found: "
                    f"x.shape = {np.shape(x)}, {name}.shape = {np.shape(beside)}"
                )

    def _get_batches_of_transformed_samples(self, index_array: np.ndarray) -> Any:
        batch = np.zeros((len(index_array), *self.x.shape[1:]), self.x.dtype)
        for row, index in enumerate(index_array):
            batch[row] = self._transformed(self.x[index].copy())
        self._save(batch, index_array)
        x = [batch, *(each[index_array] for each in self.x_misc)] if self.x_misc else batch
        if self.y is None:
            return x
        if self.sample_weight is None:
            return x, self.y[index_array]
        return x, self.y[index_array], self.sample_weight[index_array]


def warn_of_channels(what: str, shape: tuple[int, ...], data_format: str) -> None:
    """Warns of images that have another number of channels than images do."""
    axis = 3 if data_format == "channels_last" else 1
    if shape[axis] not in (1, 3, 4):
        warn(
            f"{what} is set to use the data format convention "
            f'"{data_format}" (channels on axis {axis}), i.e. expected either 1, 3, or 4 channels '
            f"on axis {axis}. However, it was passed an array with shape {shape} "
            f"({shape[axis]} channels)."
        )
