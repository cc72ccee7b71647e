"""Numbers of categories as vectors, and numbers as categories."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from distgrad.core.composite import Composite, values_of
from distgrad.core.dispatch import as_tensor
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.keras.backend import floatx
from distgrad.keras.layers import symbolic
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.calling import calls
from distgrad.keras.layers.core import one_of, whole_number
from distgrad.ops.casting import cast
from distgrad.ops.indexing import one_hot
from distgrad.ops.layout import beside
from distgrad.ops.logic import less, logical_not
from distgrad.ops.reduce import reduce_max, reduce_sum
from distgrad.ops.shape import expand_dims, squeeze
from distgrad.sparse import counting, mixed, reducing

MODES = ("int", "one_hot", "multi_hot", "count")


def encoded(
    numbers: Any, mode: str, depth: int, dtype: Any, weights: Any = None, sparse: bool = False
) -> Any:
    """Category numbers, in ragged rows as well, as themselves, or as vectors of ``depth``.

    The vectors may be ``sparse``.

    "one_hot": a vector for each number (in place of a last axis of 1); "multi_hot" and "count": one
    for each sample, that is for the last axis, with 1 or the count of each category. A sparse
    tensor has a number where it has a value.
    """
    if isinstance(numbers, Composite) and numbers.kind == "ragged":
        rows: Any = numbers
        if mode in ("int", "one_hot") or len(rows.flat_values.shape) > 1:
            return rows.with_flat_values(encoded(rows.flat_values, mode, depth, dtype))
        if isinstance(rows.values, Composite):
            return rows.with_values(encoded(rows.values, mode, depth, dtype))
        numbers = rows.to_tensor(-1)  # a number that is none, and counts for nothing
    if mode == "int":
        return cast(numbers, dtype)
    given = isinstance(numbers, SparseTensor)
    shape = mixed.shape_of(numbers)
    numbers = numbers if shape else expand_dims(numbers, 0)
    if mode == "one_hot" and len(shape) > 1 and shape[-1] == 1:
        numbers = mixed.squeeze(numbers, -1) if given else squeeze(numbers, -1)
    if sparse or given:
        made: Any = counting.one_hot(numbers, depth, dtype=dtype, weights=weights)
        if mode != "one_hot":
            reduced = reducing.reduce_max if mode == "multi_hot" else reducing.reduce_sum
            made = reduced(made, -2, output_is_sparse=True)
        return made if sparse else mixed.densified(made)
    if mode == "one_hot":
        return one_hot(numbers, depth, dtype=dtype)
    hot = one_hot(numbers, depth, dtype=dtype)
    if weights is not None:
        hot = hot * expand_dims(cast(as_tensor(weights), dtype), -1)
    return reduce_max(hot, -2) if mode == "multi_hot" else reduce_sum(hot, -2)


def only_vectors(sparse: Any, mode: str) -> bool:
    """Whether vectors are to be sparse. Raises ValueError where there are none, but numbers."""
    if sparse and mode == "int":
        raise ValueError(
            "`sparse` may only be true if `output_mode` gives vectors, as 'multi_hot' does. "
            f"Received: sparse={sparse} and output_mode={mode}"
        )
    return bool(sparse)


class OnLists(Layer):
    """Base of layers that take a Python list of numbers, as an array, where others refuse it."""

    def __call__(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        if args and isinstance(args[0], (list, tuple)) and not symbolic.symbols(args[0]):
            args = (np.asarray(args[0]), *args[1:])
        return super().__call__(*args, training=training, **kwargs)


class CategoryEncoding(OnLists):
    """Numbers of categories below ``num_tokens`` as vectors: "one_hot", "multi_hot" or "count".

    With ``sparse`` they are a SparseTensor. Raises ValueError for another mode, a ``num_tokens``
    that is not a positive int, and for ``count_weights`` without "count", or with ragged rows.
    Numbers outside the range count for nothing.
    """

    casts_inputs = False
    takes_kinds = ("ragged", "sparse")

    def __init__(
        self,
        num_tokens: int | None = None,
        output_mode: str = "multi_hot",
        sparse: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sparse = bool(sparse)
        self.num_tokens = whole_number("num_tokens", num_tokens)
        self.output_mode = one_of("output_mode", output_mode, *MODES[1:])

    def call(self, inputs: Any, count_weights: Any = None) -> Any:
        if count_weights is not None and self.output_mode != "count":
            raise ValueError(f"count_weights need output_mode 'count', not {self.output_mode!r}")
        numbers = cast(inputs, np.int32)
        ragged = isinstance(numbers, Composite) and numbers.kind == "ragged"
        if ragged and count_weights is not None:
            raise ValueError(f"{self.name!r}: ragged rows take no count_weights: use to_tensor()")
        mode, depth = self.output_mode, self.num_tokens
        return encoded(numbers, mode, depth, self.compute_dtype, count_weights, self.sparse)


class Discretization(OnLists):
    """Numbers as those of the bins they lie in: bin i goes from boundary i - 1 up to boundary i.

    The boundaries are given, or found by ``adapt`` such that ``num_bins`` bins hold about as many
    samples each (to ``epsilon`` of them). ``output_mode`` is "int", "one_hot", "multi_hot" or
    "count", whose vectors may be ``sparse``. Raises ValueError unless one of ``bin_boundaries`` and
    ``num_bins`` is given.
    """

    casts_inputs = True
    takes_kinds = ("ragged", "sparse")
    _not_in_config = (*Layer._not_in_config, "trainable")  # Keras takes none

    def __init__(
        self,
        bin_boundaries: Sequence[float] | None = None,
        num_bins: int | None = None,
        epsilon: float = 0.01,
        output_mode: str = "int",
        sparse: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (bin_boundaries is None) == (num_bins is None):
            raise ValueError(
                f"bin_boundaries {bin_boundaries!r} and num_bins {num_bins!r}: give one of them"
            )
        self.num_bins = None if num_bins is None else whole_number("num_bins", num_bins)
        self.bin_boundaries = None if bin_boundaries is None else sorted(map(float, bin_boundaries))
        self.epsilon = epsilon
        self.output_mode = one_of("output_mode", output_mode, *MODES)
        self.sparse = only_vectors(sparse, output_mode)
        self.reset_state()

    @classmethod
    def from_config(cls, config: Any) -> Any:
        """A layer of these settings; of both, ``bin_boundaries`` are what ``adapt`` has found."""
        given = dict(config)
        found = given.pop("bin_boundaries") if given.get("num_bins") is not None else None
        layer = super().from_config(given)
        layer.bin_boundaries = found or layer.bin_boundaries
        return layer

    def adapt(self, data: Any, steps: int | None = None) -> None:
        """Finds boundaries from an array, a Dataset or batches; ``steps`` of them at most.

        Raises ValueError where boundaries were given, or for no data.
        """
        self.reset_state()
        for batch in batches(data, steps):
            self.update_state(batch)
        if not self._summary.size:
            raise ValueError(f"{self.name!r}: adapt was given no data")
        self.finalize_state()

    def reset_state(self) -> None:
        """Forgets what ``update_state`` has summed up; the boundaries stay."""
        self._summary = np.zeros((2, 0), np.float32)

    def update_state(self, data: Any) -> None:
        """Sums up the samples of one batch. Raises ValueError where boundaries were given."""
        if self.num_bins is None:
            raise ValueError(f"{self.name!r} was given its bin_boundaries: it does not adapt")
        for batch in batches(data):
            found = np.sort(np.asarray(batch, np.float32).reshape(-1))
            # As many samples stand for themselves, and those beside them, as epsilon asks for.
            stride = max(found.size * self.epsilon, 1)
            kept = found[int(stride - 1) :: int(stride)]
            more = np.stack([kept, np.full_like(kept, stride)])
            summary = np.concatenate([more, self._summary], axis=1)
            self._summary = _compressed(summary[:, np.argsort(summary[0])], self.epsilon)

    def finalize_state(self) -> None:
        """Finds the boundaries in what was summed up, if anything was."""
        if self.num_bins is not None and self._summary.size:
            self.bin_boundaries = _compressed(self._summary, 1 / self.num_bins)[0, :-1].tolist()

    def call(self, x: Any) -> Any:
        boundaries = self.bin_boundaries
        if boundaries is None:
            if not calls.trial or self.num_bins is None:
                raise ValueError(f"{self.name!r} has no boundaries yet: call adapt(data) first")
            boundaries = [0.0] * (self.num_bins - 1)  # for the shape of what will come
        bins = _bins(values_of(x), boundaries)
        placed = x.with_flat_values(bins) if isinstance(x, Composite) else bins
        dtype = np.int32 if self.output_mode == "int" else self.compute_dtype
        return encoded(placed, self.output_mode, len(boundaries) + 1, dtype, sparse=self.sparse)


def _bins(x: Tensor, boundaries: list[float]) -> Tensor:
    bounds = beside(x, np.asarray(boundaries, x._data.dtype))
    above = cast(logical_not(less(expand_dims(x, -1), bounds)), np.int32)  # nan: the last bin
    return reduce_sum(above, -1)


def _compressed(summary: np.ndarray, epsilon: float) -> np.ndarray:
    """Values and how many samples each stands for, of a share of ``epsilon`` each."""
    if summary.shape[1] * epsilon < 1:
        return summary
    shares = epsilon + np.arange(0.0, 1.0, epsilon)
    counted = summary[1].cumsum()
    values = np.interp(shares, counted / counted[-1], summary[0])
    counts = np.interp(shares, counted / counted[-1], counted)
    return np.stack([values, np.diff(counts, prepend=0)]).astype(np.float32)


def batches(data: Any, steps: int | None = None) -> Iterator[np.ndarray]:
    """The arrays in what ``adapt`` is given: one array, or a Dataset or other batches of them."""
    if isinstance(data, (Tensor, Variable)):
        data = data.numpy()
    if isinstance(data, Composite):  # each row is a sample of its own
        for row in range(int(data.shape[0])):
            yield from batches(data[row][None])
        return
    if isinstance(data, (list, tuple)) or hasattr(data, "__array__"):  # pandas has it, too
        yield np.asarray(data)
        return
    if isinstance(data, str) or not isinstance(data, Iterable):
        raise ValueError(f"adapt takes an array, a Dataset or batches, not {data!r}")
    for number, batch in enumerate(data):
        if number == steps:
            return
        first = batch[0] if isinstance(batch, tuple) else batch
        if isinstance(first, Composite):
            yield from batches(first)
            continue
        yield np.asarray(first.numpy() if isinstance(first, Tensor) else first)


def older_mode(mode: str) -> str:
    """The name of an output mode, for the one that it had in TensorFlow 2."""
    return {"binary": "multi_hot", "tf-idf": "tf_idf"}.get(mode, mode)


def default_dtype(mode: str) -> str:
    """Of what gives numbers of categories, or vectors."""
    return "int64" if mode == "int" else floatx()
