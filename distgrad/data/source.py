"""Where samples come from: a few arrays of equal length, and the readers that a job names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distgrad.core.composite import Composite
from distgrad.data import composites
from distgrad.data.nest import leaves, map_leaves
from distgrad.data.nest import rows as rows_of

if TYPE_CHECKING:
    from distgrad.data.preparation import Preparation

SOURCES = (
    *("digits", "mnist", "fashion_mnist", "cifar10", "breast_cancer"),
    *("npz", "npy", "idx", "csv", "parquet", "text", "series"),
)


class ArraySource:
    """Samples as rows of arrays, or of ragged tensors, in memory.

    Raises ValueError for arrays of different lengths.
    """

    slow = False  # whether taking rows may wait for a disk, so that it is worth doing in advance

    def __init__(self, *arrays: Any) -> None:
        self.arrays: tuple[Any, ...] = tuple(
            array if isinstance(array, Composite) else np.asarray(array) for array in arrays
        )
        self._lengths = lengths = list(map(rows_of, self.arrays))
        if not self.arrays or -1 in lengths:
            raise ValueError("a source needs at least one array, each with a first dimension")
        if len(set(lengths)) > 1:
            raise ValueError(
                f"arrays have {', '.join(map(str, lengths))} samples; they need the same number"
            )

    def __len__(self) -> int:
        return self._lengths[0]

    def take(self, rows: np.ndarray | slice) -> tuple[np.ndarray, ...]:
        """The given rows of every array: copies in C order, or for a slice read-only views."""
        if isinstance(rows, slice):
            return tuple(_read_only(array[rows]) for array in self.arrays)
        return tuple(composites.take(array, rows) for array in self.arrays)

    def ordered(self, order: np.ndarray) -> Callable[[slice], tuple[np.ndarray, ...]]:
        """``take`` for the rows that stand at some places of an order."""
        return lambda where: self.take(order[where])


class Subset(ArraySource):
    """Some rows of another source; its ``arrays`` are those of all rows."""

    def __init__(self, source: ArraySource, rows: np.ndarray) -> None:
        super().__init__(*source.arrays)
        self.source = source
        self.rows = rows
        self.slow = source.slow

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: np.ndarray | slice) -> tuple[np.ndarray, ...]:
        return self.source.take(self.rows[rows])


class NestSource(ArraySource):
    """The same where samples are a nest of arrays, None among its parts included."""

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self.parts = parts
        super().__init__(*leaves(parts))
        self._flat = all(type(part) is np.ndarray for part in parts)
        self.slow = any(map(_on_disk, self.arrays))

    def take(self, rows: np.ndarray | slice) -> tuple[Any, ...]:
        if self._flat:
            return super().take(rows)
        found = iter(super().take(rows))
        return tuple(map_leaves(lambda _: next(found), part) for part in self.parts)


def _on_disk(array: Any) -> bool:
    """Whether an array looks into a file."""
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False


def _read_only(view: Any) -> Any:
    if isinstance(view, np.ndarray):
        view.flags.writeable = False  # of the view: the array behind it stays as it was
    return view


@dataclass(frozen=True)
class Splits:
    """The samples to train on and those held out, each ``(x, y)``; ``description`` is one line.

    ``preparation`` is what another file needs to become such samples.
    """

    train: ArraySource
    test: ArraySource
    description: str
    validation: ArraySource | None = None
    preparation: Preparation | None = None

    def parts(self) -> dict[str, ArraySource]:
        """All of them by what they are for."""
        named = {"training": self.train, "validation": self.validation, "test": self.test}
        return {name: source for name, source in named.items() if source is not None}


def load(
    spec: Mapping[str, Any],
    seed: int,
    *,
    allow_download: bool = True,
    announce: Callable[[str], None] = print,
) -> Splits:
    """Read the data that a job's ``data`` section names; its keys are those of the job's schema.

    - ``digits``, ``mnist``, ``fashion_mnist``: grey images (n, rows, columns), values 0 to 1, and
      ``cifar10``: coloured ones (n, 32, 32, 3). Without a path all but digits are in the Keras
      cache, where one rank (``allow_download``) downloads missing files and the others wait.
    - ``idx``: images and labels of IDX files; bytes become 0 to 1.
    - ``npz``, and ``npy``, which stay on disk: arrays as they are, but for a ``scale`` of npy.
    - ``breast_cancer``, ``csv``, ``parquet``: tables (n, features) and one label each.
    - ``text``: windows (n, sequence_length) of characters, and of those that follow them.
    - ``series``: windows (n, window, 1) of a time series, and the ``horizon`` values after them.

    With a ``validation_fraction`` that part of the training samples is held out, too.

    ``x`` is float32, or int32 for text; ``y`` is int32 for classes, else float32. Text and series
    hold out their end, the others samples drawn by ``seed``. Raises DataError that names the file
    and what to do, and MissingExtraError for parquet without pyarrow.
    """
    found = _read(spec, seed, allow_download, announce)
    fraction = spec.get("validation_fraction")
    if fraction is None:
        return found
    from distgrad.data import splits

    return splits.with_validation(spec, found, fraction, seed)


def _read(
    spec: Mapping[str, Any], seed: int, allow_download: bool, announce: Callable[[str], None]
) -> Splits:
    name = spec["source"]
    if name in ("digits", "mnist", "fashion_mnist", "cifar10", "idx"):
        from distgrad.data import images

        return images.load(spec, seed, allow_download, announce)
    if name in ("npz", "npy"):
        from distgrad.data import arrays

        return arrays.load(spec, seed)
    if name in ("breast_cancer", "csv", "parquet"):
        from distgrad.data import table

        return table.load(spec, seed)
    if name == "text":
        from distgrad.data import text

        return text.load(spec)
    if name == "series":
        from distgrad.data import series

        return series.load(spec)
    raise ValueError(f"data source {name!r} is not one of {', '.join(SOURCES)}")
