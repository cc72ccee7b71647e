"""What users give to fit, evaluate and predict, as batches that a worker can run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np

from distgrad.core import tree
from distgrad.core.composite import Composite
from distgrad.core.sparse_tensor import is_scipy, of_scipy
from distgrad.core.tensor import Tensor
from distgrad.core.texts import as_texts, holds_texts
from distgrad.core.variable import Variable
from distgrad.data import composites, nest
from distgrad.data.dataset import Dataset
from distgrad.data.loader import BatchLoader, Loader, is_stream
from distgrad.data.source import NestSource
from distgrad.keras.models.arguments import batch_size_of, fraction_of, warn_of_batch_size
from distgrad.training.handshake import checksum

DEFAULT_BATCH_SIZE = 32
_LOOKED_AT = 16  # rows


def unpack_x_y_sample_weight(data: Any) -> tuple[Any, Any, Any]:
    """``(x,)``, ``(x, y)``, ``(x, y, sample_weight)`` or ``x`` alone as three, None where missing.

    Raises ValueError for more than three.
    """
    parts = tuple(data) if isinstance(data, (tuple, list)) else (data,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"data has {len(parts)} parts; it needs (x, y, sample_weight) at most")
    x, y, weight = (*parts, None, None)[:3]
    return x, y, weight


class Feed:
    """The batches of ``x, y, sample_weight``, or of a dataset, generator or sequence ``x``.

    Raises ValueError where there is no data, lengths differ, or targets come beside a dataset, and
    TypeError for a ``batch_size`` that is no int. ``composite`` says whether there are ragged or
    sparse tensors.
    """

    _source: NestSource | None = None  # one for all passes, so that it need lie on a device once

    def __init__(
        self, x: Any, y: Any = None, sample_weight: Any = None, batch_size: int | None = None
    ) -> None:
        if x is None:
            raise ValueError("no data: x is None")
        if isinstance(x, (str, bytes)):
            raise ValueError(f"x is {x!r}: give arrays, or a dataset of batches")
        self.batch_size = batch_size = batch_size_of("batch_size", batch_size)
        self.parts: tuple[Any, ...] | None = None  # of arrays; None where batches come ready-made
        if is_arrays(x):
            given = [x, y, sample_weight]
            while given[-1] is None:
                given.pop()
            self.parts = (as_arrays(given[0], texts=True), *map(as_arrays, given[1:]))
            self.size = _length(self.parts)
            self.first: tuple[Any, ...] = _rows(self.parts, slice(0, 1))
            self.composite = composites.has(self.first)
            return
        if y is not None or sample_weight is not None:
            raise ValueError(
                f"x is a {type(x).__name__}, whose batches hold targets and weights themselves: y "
                "and sample_weight must not be given beside it"
            )
        warn_of_batch_size(batch_size, type(x).__name__)
        self.batches = x
        if is_stream(x):
            first = next(x, None)
            if first is None:
                raise ValueError("the generator gave no batch")
            self.batches = chain([first], x)
            first = tree.map_structure(of_scipy, first)
        else:
            first = BatchLoader(x, 1, range(1), steps_per_epoch=1).first()  # 1: it may be endless
            if first is None:
                raise ValueError(
                    "the data holds no batch: is it cut by take, skip or shard, or has it fewer "
                    "samples than a batch and drop_remainder=True?"
                )
        self.first = tuple(first) if isinstance(first, (tuple, list)) else (first,)
        self.composite = composites.has(self.first)

    @property
    def first_batch(self) -> tuple[Any, ...]:
        """The rows of the first batch, where it is cut from arrays."""
        assert self.parts is not None
        return _rows(self.parts, slice(0, self.batch_size or DEFAULT_BATCH_SIZE))

    def loader(
        self,
        virtual_shards: int,
        shards: range,
        seed: int = 0,
        shuffle: bool = False,
        steps: int | None = None,
        first_epoch: int = 0,
    ) -> Any:
        """One worker's batches, in ``steps`` per epoch where that is given.

        The data begin then with number ``first_epoch``.
        Without a batch size, those of arrays have as many samples as so many steps take for all.
        """
        if self.parts is None:
            return BatchLoader(self.batches, virtual_shards, shards, seed, steps, first_epoch)
        if self._source is None:
            self._source = NestSource(self.parts)
        in_steps = DEFAULT_BATCH_SIZE if steps is None else -(-self.size // steps)
        size = self.batch_size or in_steps
        loader = Loader(self._source, size, virtual_shards, shards, seed, shuffle)
        if steps is not None:
            loader.steps_per_epoch = min(steps, loader.steps_per_epoch)
            loader.first_epoch = first_epoch
        return loader

    def split(self, fraction: float) -> Feed:
        """Takes the last part of the samples away and returns it. Raises ValueError."""
        fraction = fraction_of("validation_split", fraction)
        if self.parts is None:
            raise ValueError("validation_split needs arrays; give validation_data beside a dataset")
        cut = int(self.size * (1 - fraction))
        if not 0 < cut < self.size:
            raise ValueError(f"validation_split {fraction} of {self.size} samples leaves no part")
        held = Feed.__new__(Feed)
        held.batch_size, held.parts = self.batch_size, _rows(self.parts, slice(cut, None))
        held.size, held.first, held.composite = self.size - cut, self.first, self.composite
        self.parts, self.size = _rows(self.parts, slice(0, cut)), cut
        return held

    def describe(self) -> dict[str, Any]:
        """What must be the same on every rank."""
        if self.parts is not None:
            leaves = nest.leaves(self.parts)
            shapes = [f"{list(leaf.shape)} {leaf.dtype}" for leaf in leaves]
            return {"batch_size": self.batch_size, "arrays": shapes}
        counts = isinstance(self.batches, Dataset)
        size = int(self.batches.cardinality()) if counts else None
        first = [f"{rows} rows" for rows in map(nest.rows, nest.leaves(self.first)) if rows >= 0]
        return {"kind": type(self.batches).__name__, "batches": size, "first_batch": first}

    def digest(self) -> list[int]:
        """Numbers that differ where another rank was given other samples.

        They are of a few rows of arrays, or of the targets in the first batch of a dataset, which
        random layers and functions leave alone. Nothing is known of generators and sequences.
        """
        if self.parts is not None:
            rows = np.unique(np.linspace(0, self.size - 1, _LOOKED_AT).astype(np.int64))
            return [checksum(composites.take(leaf, rows)) for leaf in nest.leaves(self.parts)]
        if not isinstance(self.batches, Dataset):
            return []
        return [checksum(leaf) for leaf in nest.leaves(self.first[1:2])]


def is_arrays(x: Any) -> bool:
    """Whether ``x`` is an array, or a nest of them, and not something that gives batches."""
    if isinstance(x, (np.ndarray, Tensor, Variable)) or hasattr(x, "__array__") or is_scipy(x):
        return True
    if isinstance(x, dict):
        return all(map(is_arrays, x.values()))
    if isinstance(x, (list, tuple)):
        return True
    return not (isinstance(x, (Dataset, Iterator)) or hasattr(x, "__getitem__") or _iterable(x))


def as_arrays(value: Any, texts: bool = False) -> Any:
    """A nest whose leaves are arrays; a list of arrays is a nest, one of numbers an array.

    Ragged and sparse tensors stay what they are, SciPy's sparse arrays become such, and None stays
    for an input that is left out. Raises ValueError for what is no array of numbers, nor of
    ``texts`` where these may be inputs.
    """
    value = of_scipy(value)
    if value is None:
        return None
    if isinstance(value, dict):
        return {key: as_arrays(part, texts) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and value and all(map(_is_input, value)):
        return tuple([as_arrays(part, texts) for part in value])
    if isinstance(value, Composite):
        return value
    array = value._host() if isinstance(value, Tensor) else np.asarray(value)
    if texts and array.dtype.kind in "OSU" and holds_texts(array):
        return as_texts(array)
    return _of_objects(value, array) if array.dtype == object else array


def _is_input(value: Any) -> bool:
    return value is None or hasattr(value, "shape")


def _of_objects(value: Any, array: np.ndarray) -> np.ndarray:
    """Numbers that pandas hands over as objects: those of its nullable types. ValueError others."""
    kinds = getattr(value, "dtypes", None)
    if kinds is None:
        what = "texts" if any(isinstance(v, str) for v in array.flat) else "data of unequal parts"
        raise ValueError(f"no array of numbers can hold {type(value).__name__} {what}{_NUMBERED}")
    columns = kinds.items() if hasattr(kinds, "items") else [(value.name, kinds)]
    wrong = [f"{name!r} ({kind})" for name, kind in columns if kind.kind not in "biuf"]
    if wrong:
        raise ValueError(f"these columns hold no numbers: {', '.join(wrong)}{_NUMBERED}")
    found: np.ndarray = value.to_numpy(dtype=np.float64, na_value=np.nan)
    return found


_NUMBERED = "; make numbers of texts first, with StringLookup or pandas.factorize"


def _iterable(x: Any) -> bool:
    return hasattr(x, "__iter__")


def _rows(parts: tuple[Any, ...], where: slice) -> tuple[Any, ...]:
    return tuple(nest.map_leaves(lambda array: array[where], part) for part in parts)


def _length(parts: tuple[Any, ...]) -> int:
    sizes = {
        name: sorted(set(map(nest.rows, nest.leaves(part))))
        for name, part in zip(("x", "y", "sample_weight"), parts, strict=False)
        if part is not None
    }
    lengths = {size for each in sizes.values() for size in each}
    if -1 in lengths:
        name = next(name for name, each in sizes.items() if -1 in each)
        raise ValueError(
            f"{name} has no first axis, that of the samples: give arrays, or a dataset of batches"
        )
    if len(lengths) != 1:
        raise ValueError(
            "x, y and sample_weight differ in length: "
            + ", ".join(
                f"{name} has {' and '.join(map(str, each))}" for name, each in sizes.items()
            )
        )
    (size,) = lengths
    if size == 0:
        raise ValueError("x holds no samples")
    return size
