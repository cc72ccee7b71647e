"""Shapes, as a TensorFlow user knows them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np


class TensorShape(Sequence):
    """A shape: a sequence of ints, equal to a tuple of them, with TensorFlow's names.

    None among them is a size that is not known; of ``TensorShape(None)`` not even the rank is.
    Raises TypeError for a size that is no whole number, ValueError for a negative one.
    """

    __slots__ = ("_sizes",)
    _sizes: tuple[Any, ...]

    def __new__(cls, dims: Any = ()) -> TensorShape:
        if dims is None:
            return UNKNOWN
        if isinstance(dims, TensorShape):
            return dims
        sizes = (dims,) if isinstance(dims, (int, np.integer)) else dims
        return shape_of([_size(n) for n in sizes])

    def __bool__(self) -> bool:
        """Whether the rank is known: a scalar's is."""
        return True

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._sizes)

    @property
    def rank(self) -> Any:
        return len(self._sizes)

    ndims = rank

    @property
    def dims(self) -> Any:
        return list(self)

    def as_list(self) -> list[int]:
        return list(self)

    def num_elements(self) -> Any:
        return int(np.prod(self, dtype=np.int64)) if self.is_fully_defined() else None

    def is_fully_defined(self) -> bool:
        return None not in self

    def is_compatible_with(self, other: Any) -> bool:
        """Whether some shape is both; None stands for any size."""
        other = TensorShape(other)
        return other is UNKNOWN or (
            len(self) == len(other)
            and all(None in (a, b) or a == b for a, b in zip(self, other, strict=True))
        )

    def is_subtype_of(self, other: Any) -> bool:
        """Whether every shape that this one stands for is one that ``other`` stands for."""
        other = TensorShape(other)
        return other is UNKNOWN or (
            len(self) == len(other)
            and all(b is None or a == b for a, b in zip(self, other, strict=True))
        )

    def merge_with(self, other: Any) -> TensorShape:
        """The shape with the sizes that either knows; ValueError where they differ."""
        other = TensorShape(other)
        self.assert_is_compatible_with(other)
        if other is UNKNOWN:
            return self
        return shape_of(b if a is None else a for a, b in zip(self, other, strict=True))

    def most_specific_compatible_shape(self, other: Any) -> TensorShape:
        """The shape with None where the two differ, and unknown where their ranks do."""
        other = TensorShape(other)
        if other is UNKNOWN or len(self) != len(other):
            return UNKNOWN
        return shape_of(a if a == b else None for a, b in zip(self, other, strict=True))

    def concatenate(self, other: Any) -> TensorShape:
        other = TensorShape(other)
        return UNKNOWN if other is UNKNOWN else shape_of((*self, *other))

    def __add__(self, other: Any) -> TensorShape:
        return self.concatenate(other)

    def __radd__(self, other: Any) -> TensorShape:
        return TensorShape(other).concatenate(self)

    def with_rank(self, rank: int) -> TensorShape:
        """Itself; ValueError for another rank."""
        self.assert_has_rank(rank)
        return self

    def with_rank_at_least(self, rank: int) -> TensorShape:
        """Itself; ValueError for a lower rank."""
        return self._if(len(self) >= rank, f"rank {rank} or more")

    def with_rank_at_most(self, rank: int) -> TensorShape:
        """Itself; ValueError for a higher rank."""
        return self._if(len(self) <= rank, f"rank {rank} or less")

    def assert_has_rank(self, rank: int) -> None:
        """Raises ValueError for another rank."""
        self._if(len(self) == rank, f"rank {rank}")

    def assert_same_rank(self, other: Any) -> None:
        """Raises ValueError unless ``other`` has the same rank."""
        other = TensorShape(other)
        self._if(other is UNKNOWN or len(self) == len(other), f"the rank of {other}")

    def assert_is_compatible_with(self, other: Any) -> None:
        """Raises ValueError unless some shape is both."""
        other = TensorShape(other)
        self._if(self.is_compatible_with(other), f"the sizes of {other}")

    def assert_is_fully_defined(self) -> None:
        """Raises ValueError where a size is None."""
        self._if(self.is_fully_defined(), "a number for every size")

    def _if(self, holds: bool, wanted: str) -> TensorShape:
        if not holds:
            raise ValueError(f"a shape with {wanted} is needed, not {self}")
        return self

    def __getitem__(self, key: Any) -> Any:
        item = self._sizes[key]
        return shape_of(item) if isinstance(key, slice) else item

    def __eq__(self, other: object) -> bool:
        if type(other) is TensorShape:
            return self._sizes == other._sizes
        return isinstance(other, (tuple, list)) and self._sizes == tuple(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._sizes)

    def __reduce__(self) -> tuple[Any, ...]:
        return TensorShape, (self._sizes,)

    def __repr__(self) -> str:
        return f"TensorShape({list(self)})"

    def __str__(self) -> str:
        return repr(self._sizes)


def _size(given: Any) -> int | None:
    if given is None:
        return None
    try:
        size = operator.index(given)
    except TypeError:
        raise TypeError(f"a size is a whole number or None, not {given!r}") from None
    if size < 0:
        raise ValueError(f"a size is 0 or more, not {size}; None is one that is not known")
    return size


class _OfAnyRank(TensorShape):
    """``TensorShape(None)``."""

    __slots__ = ()
    rank = ndims = dims = None

    def as_list(self) -> NoReturn:
        raise ValueError("of a shape of unknown rank no sizes are known")

    def __iter__(self) -> Iterator[Any]:
        self.as_list()

    def __len__(self) -> int:
        self.as_list()

    def __bool__(self) -> bool:
        return False

    def num_elements(self) -> None:
        return None

    def is_fully_defined(self) -> bool:
        return False

    def is_compatible_with(self, other: Any) -> bool:
        return True

    def is_subtype_of(self, other: Any) -> bool:
        return TensorShape(other) is self

    def merge_with(self, other: Any) -> TensorShape:
        return TensorShape(other)

    def most_specific_compatible_shape(self, other: Any) -> TensorShape:
        return self

    def concatenate(self, other: Any) -> TensorShape:
        return self

    def with_rank(self, rank: int) -> TensorShape:
        return shape_of([None] * rank)

    def with_rank_at_least(self, rank: int) -> TensorShape:
        return self

    with_rank_at_most = with_rank_at_least

    def assert_has_rank(self, rank: int) -> None:
        return

    def assert_same_rank(self, other: Any) -> None:
        return

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, slice):
            return None
        start, stop = key.start or 0, key.stop
        if stop is None or start < 0 or stop < 0 or key.step not in (None, 1):
            return self
        return shape_of([None] * max(stop - start, 0))

    def __eq__(self, other: object) -> bool:
        return other is self or other is None

    def __hash__(self) -> int:
        return hash(None)

    def __reduce__(self) -> tuple[Any, ...]:
        return TensorShape, (None,)

    def __repr__(self) -> str:
        return "TensorShape(None)"

    def __str__(self) -> str:
        return "<unknown>"


def shape_of(sizes: Iterable[Any]) -> TensorShape:
    """A TensorShape of sizes, without a look at what they are: every ``tensor.shape`` is one."""
    made = object.__new__(TensorShape)
    made._sizes = sizes if type(sizes) is tuple else tuple(sizes)
    return made


UNKNOWN: TensorShape = object.__new__(_OfAnyRank)
UNKNOWN._sizes = ()
