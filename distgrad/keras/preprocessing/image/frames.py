"""Batches of the images that the rows of a pandas DataFrame name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.user_line import warn
from distgrad.keras.preprocessing.image.files import FilesIterator

_OF_CLASSES = ("binary", "categorical", "sparse")


class DataFrameIterator(FilesIterator):
    """Batches of the files in the column ``x_col``, in ``directory``, with targets of ``y_col``.

    ``class_mode`` is "categorical" (rows with a 1 for each class: ``y_col`` has texts, or lists of
    them), "binary" or "sparse" (numbers of the texts' classes), "raw" (the values), "multi_output"
    (those of several columns), "input" (the images themselves) or None (images alone). Rows of
    other classes than the given ones, and of files that are no images, are left out. ``weight_col``
    has weights. ``subset`` is "training" or "validation": the first rows, as many as the
    generator's ``validation_split`` says. Raises ValueError for other words and numbers of classes,
    TypeError for values of another type.
    """

    allowed_class_modes = frozenset({*_OF_CLASSES, "input", "multi_output", "raw", None})

    def __init__(
        self,
        dataframe: Any,
        directory: Any = None,
        image_data_generator: Any = None,
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
        data_format: str | None = "channels_last",
        save_to_dir: Any = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: Any = "float32",
        validate_filenames: bool = True,
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
        self.directory = directory or ""
        frame = dataframe
        _check(frame, class_mode, x_col, y_col, weight_col, classes)
        if validate_filenames:
            frame = self._of_images(frame, x_col)
        found = f"{'validated' if validate_filenames else 'non-validated'} image filenames"
        names: list[str] = []
        if class_mode in _OF_CLASSES:
            given = [_names_of(value) for value in frame[y_col]]
            names = list(dict.fromkeys(classes or sorted({each for row in given for each in row})))
            frame = frame[np.array([bool({*row} & {*names}) for row in given], bool)]
            found += f" belonging to {len(names)} classes"
        frame = frame.iloc[self._part(len(frame))]
        if class_mode in _OF_CLASSES:
            self.class_indices = {name: number for number, name in enumerate(names)}
            self.labels = self.classes = [self._numbers_of(value) for value in frame[y_col]]
        elif class_mode == "multi_output":
            self.labels = [np.array(frame[column].tolist()) for column in y_col]
        elif class_mode == "raw":
            self.labels = frame[y_col].to_numpy()
        self.sample_weight = frame[weight_col].to_numpy() if weight_col else None
        self.filenames = frame[x_col].tolist()
        self.filepaths = [os.path.join(self.directory, name) for name in self.filenames]
        self._begin(found, batch_size, shuffle, seed)

    def _of_images(self, frame: Any, x_col: str) -> Any:
        """The rows of files that are there, and called as images are."""
        paths = [os.path.join(self.directory, name) for name in frame[x_col]]
        valid = np.array(
            [
                path.lower().endswith(self.white_list_formats) and os.path.isfile(path)
                for path in paths
            ],
            bool,
        )
        if not valid.all():
            warn(
                f'Found {(~valid).sum()} invalid image filename(s) in x_col="{x_col}". These '
                "filename(s) will be ignored."
            )
        return frame[valid]

    def _numbers_of(self, value: Any) -> Any:
        """The number of a class, or those of several."""
        if isinstance(value, str):
            return self.class_indices[value]
        return [self.class_indices[each] for each in value if each in self.class_indices]


def _names_of(value: Any) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


def _check(
    frame: Any,
    class_mode: str | None,
    x_col: str,
    y_col: Any,
    weight_col: str | None,
    classes: Sequence[str] | None,
) -> None:
    """Raises ValueError or TypeError where the columns do not fit the class mode."""
    if class_mode == "multi_output" and not isinstance(y_col, list):
        raise TypeError(
            f'If class_mode="{class_mode}", y_col must be a list. Received {type(y_col).__name__}.'
        )
    if not all(isinstance(value, str) for value in frame[x_col]):
        raise TypeError(f"All values in column x_col={x_col} must be strings.")
    if class_mode in _OF_CLASSES:
        several = class_mode == "categorical"
        kinds = (str, list, tuple) if several else str
        if not all(isinstance(value, kinds) for value in frame[y_col]):
            said = "type string, list or tuple" if several else "strings"
            raise TypeError(
                f'If class_mode="{class_mode}", y_col="{y_col}" column values must be {said}. '
                "Make texts of numbers with .astype(str)."
            )
    elif classes:
        warn(f'`classes` will be ignored given the class_mode="{class_mode}"')
    if class_mode == "binary":
        count = len(set(classes or frame[y_col]))
        if count != 2:
            raise ValueError(
                f'If class_mode="binary" there must be 2 classes. Found {count} classes.'
            )
    if weight_col and not issubclass(frame[weight_col].dtype.type, np.number):
        raise TypeError(f"Column weight_col={weight_col} must be numeric.")
