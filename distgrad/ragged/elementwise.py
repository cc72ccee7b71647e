"""Operations element by element: of ragged tensors of the same rows, or that broadcast to such."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from distgrad.core.composite import of_family
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import DType
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Operand, Tensor
from distgrad.ops.operators import install
from distgrad.ragged import partition
from distgrad.ragged.converting import flat_axes
from distgrad.ragged.indexing import getitem, take_rows
from distgrad.ragged.tensor import RaggedTensor, as_tensor_or_ragged

# The modules whose operations are all element by element, but for those registered by themselves.
_FAMILIES = [
    *["activations", "arithmetic", "bessel", "casting", "clipping", "complex", "division"],
    *["exponential", "gamma_slopes", "logic", "powers", "rounding", "shifts", "special"],
    "trigonometric",
]


class _Level(NamedTuple):
    """One axis of an operand, above which it has so many rows."""

    lengths: np.ndarray
    uniform: bool

    @property
    def broadcasts(self) -> bool:
        """Whether its one element stands for any number."""
        return self.uniform and bool((self.lengths == 1).all())


def map_flat_values(op: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``op`` of the innermost values of ragged arguments, in their rows; others stay as they are.

    Arguments may be nests. Without a ragged one it is ``op`` itself. Raises ValueError where the
    rows of ragged arguments differ, or ``op`` gives another number of values.
    """
    found: list[RaggedTensor] = []

    def flat(value: Any) -> Any:
        if isinstance(value, RaggedTensor):
            found.append(value)
            return value.flat_values
        if isinstance(value, dict):
            return {key: flat(part) for key, part in value.items()}
        return type(value)(map(flat, value)) if type(value) in (list, tuple) else value

    made = op(*map(flat, args), **{name: flat(value) for name, value in kwargs.items()})
    if not found:
        return made
    if not all(_same_rows(found[0], other) for other in found[1:]):
        raise InvalidArgumentError("map_flat_values: ragged arguments have other rows")
    if tuple(made.shape)[:1] != tuple(found[0].flat_values.shape)[:1]:
        raise ValueError(
            "tf.ragged.map_flat_values requires that the output of `op` have the same "
            "outer-dimension size as flat_values of any ragged inputs. (output shape: "
            f"{made.shape}; expected outer dimension size: {found[0].flat_values.shape[0]})"
        )
    return found[0].with_flat_values(made)


@of_family(
    "distgrad.debugging",
    "distgrad.strings",
    "distgrad.ragged.texts",
    *[f"distgrad.ops.{m}" for m in _FAMILIES],
)
def elementwise(op: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``op`` of arguments that are broadcast to one shape; numbers and options stay as they are."""
    given: dict[Any, Any] = dict(enumerate(args)) | kwargs
    places = [key for key, value in given.items() if _has_axes(value)]
    flat, rows = broadcast([given[key] for key in places])
    given.update(zip(places, flat, strict=True))
    return rows.with_flat_values(
        op(*[given[i] for i in range(len(args))], **{name: given[name] for name in kwargs})
    )


def broadcast(operands: Sequence[Any]) -> tuple[list[Any], RaggedTensor]:
    """The innermost values of operands in one shape, and a ragged tensor of its rows.

    Raises InvalidArgumentError where an axis has other sizes, and is not one of size 1 throughout:
    a ragged axis is not, even where all its rows have one element.
    """
    ragged = [x for x in operands if isinstance(x, RaggedTensor)]
    if len(ragged) == len(operands) and all(_same_rows(ragged[0], x) for x in ragged[1:]):
        return [x.flat_values for x in ragged], ragged[0]
    like = ragged[0].dtype
    tensors = [_dense(x, like) for x in operands]
    rank = max(len(x.shape) for x in tensors)
    depth = max(rank - len(x.shape) + x.ragged_rank for x in ragged)
    levels = [_levels(x, rank, depth) for x in tensors]
    # Of each operand the row that belongs to each row of the result, one axis after the other.
    rows = [np.zeros(1, np.int64) for _ in tensors]
    splits: list[tuple[np.ndarray, bool]] = []
    for axis in range(depth + 1):
        here = [each[axis] for each in levels]
        lengths, uniform = _common(here, rows)
        within, at = partition.ranges(np.zeros_like(lengths), lengths)
        above = partition.row_ids(at)
        for i, level in enumerate(here):
            start = partition.of_lengths(level.lengths)[:-1][rows[i]][above]
            rows[i] = start if level.broadcasts else start + within
        splits.append((at, uniform))
    flat = [_picked(x, row, depth, rank) for x, row in zip(tensors, rows, strict=True)]
    made: Any = np.zeros(len(rows[0]), np.int8)  # in place of values
    for at, uniform in reversed(splits[1:]):
        size = int(at[1]) if uniform and len(at) > 1 else None
        made = RaggedTensor(made, at, size)
    return flat, made


def _has_axes(value: Any) -> bool:
    """Whether it is a tensor of one axis or more, or what makes one."""
    if isinstance(value, RaggedTensor):
        return True
    return isinstance(value, (Operand, np.ndarray, list, tuple)) and bool(np.ndim(value))  # type: ignore[arg-type]


def _dense(value: Any, like: DType) -> Any:
    """Arrays and lists take the dtype beside them, as they do beside a tensor; bools stay."""
    found = as_tensor_or_ragged(value)
    if type(found) is not Tensor or isinstance(value, Operand) or found.dtype.is_bool:
        return found
    return as_tensor(value, like=like.numpy_dtype)


def _same_rows(one: RaggedTensor, other: RaggedTensor) -> bool:
    pairs = zip(one.partitions, other.partitions, strict=False)
    return one.ragged_rank == other.ragged_rank and all(
        a is b or np.array_equal(a, b) for a, b in pairs
    )


def _levels(x: Any, rank: int, depth: int) -> list[_Level]:
    """The first ``depth + 1`` axes, where axes of size 1 are put before to get ``rank``."""
    found = [_Level(np.ones(1, np.int64), True)] * (rank - len(x.shape))
    count, sizes = 1, tuple(x.shape)
    if isinstance(x, RaggedTensor):
        found.append(_Level(np.array([sizes[0]]), True))
        for splits, size in zip(x.partitions, sizes[1:], strict=False):
            found.append(_Level(partition.lengths_of(splits), size is not None))
        count, *sizes = x.flat_values.shape
    for size in sizes:
        found.append(_Level(np.full(count, size), True))
        count *= size
    return found[: depth + 1]


def _common(levels: list[_Level], rows: list[np.ndarray]) -> tuple[np.ndarray, bool]:
    """The lengths of an axis of the result, and whether its rows are of one length."""
    found = [(level, row) for level, row in zip(levels, rows, strict=True) if not level.broadcasts]
    if not found:
        return np.ones(len(rows[0]), np.int64), True
    lengths, *others = [level.lengths[row] for level, row in found]
    for other in others:
        if not np.array_equal(lengths, other):
            raise InvalidArgumentError(
                "Unable to broadcast: dimension size mismatch in dimension: rows of the lengths "
                f"{lengths.tolist()} beside {other.tolist()}"
            )
    return lengths, all(level.uniform for level, _ in found)


def _picked(x: Any, rows: np.ndarray, depth: int, rank: int) -> Any:
    """The innermost values for these rows of the first ``depth + 1`` axes."""
    ragged = isinstance(x, RaggedTensor)
    flat = x.flat_values if ragged else x
    own = depth + 1 - (rank - len(x.shape)) - (x.ragged_rank if ragged else 0)
    if own <= 0:  # it has none of these axes
        return flat
    if own > 1:
        flat = flat_axes(flat, own)
    count = int(flat.shape[0])
    if count == 1 or (count == len(rows) and np.array_equal(rows, np.arange(count))):
        return flat
    return take_rows(flat, rows)


install(RaggedTensor)  # Python's operators, all but that of an index
RaggedTensor.__getitem__ = getitem  # type: ignore[assignment, method-assign]
