"""What goes into the networks of ImageNet, and what comes out: scaled pixels, names of classes."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.keras import backend, settings
from distgrad.keras.utils.files import get_file

_CLASSES = (
    "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json",
    "c2c37ea517e94d9795004a39431a14cb",
)
_FORMATS = ("channels_first", "channels_last")
_MEANS_BGR = (103.939, 116.779, 123.68)  # of ImageNet's pixels, from 0 to 255
MEANS = (0.485, 0.456, 0.406)  # of ImageNet's pixels in RGB, from 0 to 1
DEVIATIONS = (0.229, 0.224, 0.225)


def preprocess_input(x: Any, data_format: str | None = None, mode: str = "caffe") -> Any:
    """Pixels from 0 to 255 as a network takes them: images in RGB, alone or in batches.

    "caffe" makes BGR of them and takes ImageNet's mean away; "tf" scales to -1 to 1; "torch" scales
    to 0 to 1 and by ImageNet's mean and deviation. An array of floats is changed in place, as by
    Keras; integers become ``floatx``; a tensor, or one that a model is described by, gives one.
    Raises ValueError for another mode or data format.
    """
    if mode not in ("caffe", "tf", "torch"):
        raise ValueError(f"Expected mode to be one of `caffe`, `tf` or `torch`, not {mode!r}")
    chosen = settings.image_data_format if data_format is None else data_format
    if chosen not in _FORMATS:
        raise ValueError(f"Expected data_format to be one of {_FORMATS}, not {data_format!r}")
    given = isinstance(x, np.ndarray)
    if given and not issubclass(x.dtype.type, np.floating):
        x = x.astype(backend.floatx(), copy=False)
    if mode == "tf":
        x /= 127.5
        x -= 1.0
        return x
    if mode == "torch":
        x /= 255.0
    axis = -1 if chosen == "channels_last" else int(len(x.shape) > 3)
    return (_scale_array if given else _scale_tensor)(x, axis, mode == "torch")


def _scale_array(x: np.ndarray, axis: int, torch: bool) -> np.ndarray:
    x = x if torch else np.flip(x, axis)  # a view: what it is given is overwritten
    channels = np.moveaxis(x, axis, 0)
    for i in range(3):
        channels[i] -= (MEANS if torch else _MEANS_BGR)[i]
        if torch:
            channels[i] /= DEVIATIONS[i]
    return x


def _scale_tensor(x: Any, axis: int, torch: bool) -> Any:
    from distgrad.keras import ops

    def along(numbers: tuple[float, ...]) -> Any:
        sizes = [1] * len(x.shape)
        sizes[axis] = 3
        return ops.convert_to_tensor(np.reshape(numbers, sizes), dtype=x.dtype)

    if torch:
        return (x - along(MEANS)) / along(DEVIATIONS)
    return ops.take(x, [2, 1, 0], axis=axis) - along(_MEANS_BGR)


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, Any]]]:
    """Of each row of ``(samples, 1000)`` the likeliest classes: ``(id, name, probability)``.

    The names are downloaded once, into ``~/.keras/models``. Raises ValueError for another shape,
    DataError where the file cannot be had.
    """
    if len(preds.shape) != 2 or preds.shape[1] != 1000:
        raise ValueError(
            "`decode_predictions` expects a batch of predictions (i.e. a 2D array of shape "
            f"(samples, 1000)), not an array of shape {tuple(preds.shape)}"
        )
    names = _class_names()
    rows = np.asarray(preds)
    best = [row.argsort()[-top:][::-1] for row in rows]
    found = [
        [(*names[str(i)], row[i]) for i in indices] for row, indices in zip(rows, best, strict=True)
    ]
    return [sorted(row, key=lambda each: each[2], reverse=True) for row in found]


def correct_pad(
    inputs: Any, kernel_size: int | tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Borders with which a stride of 2 makes of an image what "same" did in TensorFlow 1."""
    first = 1 if settings.image_data_format == "channels_last" else 2
    odd = [1 if n is None else 1 - n % 2 for n in inputs.shape[first : first + 2]]
    kernels = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    high, wide = (size // 2 for size in kernels)
    return (high - odd[0], high), (wide - odd[1], wide)


@functools.cache
def _class_names() -> dict[str, tuple[str, str]]:
    url, digest = _CLASSES
    path = get_file("imagenet_class_index.json", url, cache_subdir="models", file_hash=digest)
    return {index: tuple(names) for index, names in json.loads(Path(path).read_text()).items()}
