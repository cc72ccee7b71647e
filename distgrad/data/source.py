"""Where samples come from: a few arrays of equal length, and the readers that a job names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distgrad.core.errors import DataError
from distgrad.data.mnist import KEYS as SPLIT_KEYS
from distgrad.data.mnist import load_mnist, read_mnist
from distgrad.data.npz import check_pairs, read_npz
from distgrad.data.shard import stratified_split


class ArraySource:
    """Samples as rows of arrays in memory. Raises ValueError for arrays of different lengths."""

    def __init__(self, *arrays: np.ndarray) -> None:
        self.arrays = tuple(np.asarray(array) for array in arrays)
        if not self.arrays or any(array.ndim == 0 for array in self.arrays):
            raise ValueError("a source needs at least one array, each with a first dimension")
        lengths = [len(array) for array in self.arrays]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"arrays have {', '.join(map(str, lengths))} samples; they need the same number"
            )

    def __len__(self) -> int:
        return len(self.arrays[0])

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """The rows at ``indices`` of every array, as copies in C order."""
        return tuple(np.take(array, indices, axis=0) for array in self.arrays)


@dataclass(frozen=True)
class Splits:
    """The samples to train on and those held out, each ``(x, y)``; ``description`` is one line."""

    train: ArraySource
    test: ArraySource
    description: str


def load(
    spec: Mapping[str, Any],
    seed: int,
    *,
    allow_download: bool = True,
    announce: Callable[[str], None] = print,
) -> Splits:
    """Read the data that a job's ``data`` section names.

    - ``{source: digits, test_fraction}``: 1,797 images (8, 8) of handwritten digits, 0 to 1.
    - ``{source: mnist, path}``: images (28, 28), 0 to 1; without ``path`` from the Keras cache,
      where one rank (``allow_download``) downloads a missing file and the others wait.
    - ``{source: npz, path, test_fraction}``: ``x_train, y_train, x_test, y_test`` of a file, or its
      ``x, y``, of which ``test_fraction`` is held out. Values are not scaled.

    ``x`` is float32; ``y`` is int32 where the file has integers, else float32. ``seed`` draws the
    split. Raises DataError that names the file and what to do.
    """
    match spec["source"]:
        case "digits":
            return _digits(spec["test_fraction"], seed)
        case "mnist":
            return _mnist(spec.get("path"), allow_download, announce)
        case "npz":
            return _npz(spec["path"], spec.get("test_fraction"), seed)
        case other:
            raise ValueError(f"data source {other!r} is not one of digits, mnist, npz")


def _digits(test_fraction: float, seed: int) -> Splits:
    import importlib.resources

    resource = importlib.resources.files("distgrad.data") / "digits.csv.gz"
    try:
        with importlib.resources.as_file(resource) as path:
            rows = np.loadtxt(path, delimiter=",", dtype=np.int32)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{resource} cannot be read ({error}); install distgrad again") from error
    images = (rows[:, :-1].astype(np.float32) / 16).reshape(-1, 8, 8)
    return _hold_out("digits", images, rows[:, -1], test_fraction, seed)


def _mnist(path: str | None, allow_download: bool, announce: Callable[[str], None]) -> Splits:
    if path:
        arrays = read_mnist(path)
    else:
        arrays = load_mnist(announce=announce, allow_download=allow_download)
    return _own_splits(path or "mnist", arrays, scale=255)


def _npz(path: str, test_fraction: float | None, seed: int) -> Splits:
    arrays = read_npz(path, SPLIT_KEYS, ("x", "y"))
    check_pairs(path, arrays)
    if "x" not in arrays:
        return _own_splits(path, arrays)
    if test_fraction is None:
        raise DataError(f"{path} has x and y, no test part of its own: give data.test_fraction")
    x = _as_inputs(f"{path}: x", arrays["x"])
    y = _as_targets(f"{path}: y", arrays["y"])
    return _hold_out(path, x, y, test_fraction, seed)


def _hold_out(name: str, x: np.ndarray, y: np.ndarray, test_fraction: float, seed: int) -> Splits:
    """Split at random; class labels keep their shares, other targets have no classes to keep."""
    classes = y if y.ndim == 1 and y.dtype.kind == "i" else np.zeros(len(y), dtype=np.int32)
    try:
        train, test = stratified_split(classes, test_fraction, seed)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error
    return _splits(name, ArraySource(x[train], y[train]), ArraySource(x[test], y[test]))


def _own_splits(name: str, arrays: dict[str, np.ndarray], scale: int = 1) -> Splits:
    """The train and test parts of a file that has both."""
    sources = {}
    for part in ("train", "test"):
        x = _as_inputs(f"{name}: x_{part}", arrays[f"x_{part}"])
        y = _as_targets(f"{name}: y_{part}", arrays[f"y_{part}"])
        sources[part] = ArraySource(x if scale == 1 else x / scale, y)
    for train, test, key in zip(sources["train"].arrays, sources["test"].arrays, "xy", strict=True):
        if train.shape[1:] != test.shape[1:]:
            raise DataError(
                f"{name}: a sample of {key}_train has shape {train.shape[1:]} but one of "
                f"{key}_test {test.shape[1:]}; they need the same"
            )
    return _splits(name, sources["train"], sources["test"])


def _splits(name: str, train: ArraySource, test: ArraySource) -> Splits:
    shape = " x ".join(map(str, train.arrays[0].shape[1:])) or "scalar"
    description = f"{name}: {len(train)} training and {len(test)} test samples, {shape}"
    return Splits(train, test, description)


def _as_inputs(where: str, array: np.ndarray) -> np.ndarray:
    """``array`` as float32, every value of it finite."""
    if array.dtype.kind not in "fiub":
        raise DataError(f"{where} has dtype {array.dtype}; save numbers, not text or objects")
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        index = ", ".join(map(str, bad[0]))
        raise DataError(
            f"{where} has {len(bad)} values that are no finite float32 numbers, the first at "
            f"[{index}] ({array[tuple(bad[0])]}); replace them or leave those samples out"
        )
    return values


def _as_targets(where: str, array: np.ndarray) -> np.ndarray:
    """Class labels as int32, any other targets as float32."""
    if array.dtype.kind not in "iu":
        return _as_inputs(where, array)
    limits = np.iinfo(np.int32)
    if array.size and (array.min() < limits.min or array.max() > limits.max):
        raise DataError(
            f"{where} has integers from {array.min()} to {array.max()}; int32 is needed"
        )
    return array.astype(np.int32)
