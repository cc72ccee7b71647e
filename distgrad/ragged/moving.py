"""Operations that put the elements of ragged tensors in other places, or apply to each row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core import tree
from distgrad.core.composite import of_composites
from distgrad.core.errors import InvalidArgumentError
from distgrad.ops import arithmetic, control, indexing, layout, linalg, logic, nn, shape
from distgrad.ops.shape import one_axis
from distgrad.ops.shape import reshape as reshape_dense
from distgrad.ragged import partition
from distgrad.ragged.elementwise import elementwise
from distgrad.ragged.joining import concat, stack_rows
from distgrad.ragged.spec import RaggedTensorSpec
from distgrad.ragged.tensor import RaggedTensor, as_tensor_or_ragged, as_values


@of_composites(layout.tile)
def tile(input: RaggedTensor, multiples: Any, name: str | None = None) -> Any:
    times = [int(n) for n in np.asarray(multiples)]
    if len(times) != len(input.shape):
        raise ValueError(f"tile: {len(times)} multiples for the rank {len(input.shape)}")
    made: Any = input
    for axis, count in enumerate(times):
        if count != 1:
            made = concat([made] * count, axis) if count else _emptied(made, axis)
    return made


def _emptied(x: Any, axis: int) -> Any:
    keys = [slice(None)] * axis + [slice(0)]
    return x[tuple(keys)]


@of_composites(layout.reverse)
def reverse(tensor: RaggedTensor, axis: Any, name: str | None = None) -> Any:
    made: Any = tensor
    for each in np.atleast_1d(np.asarray(axis, np.int64)):
        at = one_axis("reverse", each, len(tensor.shape))
        made = made[(*[slice(None)] * at, slice(None, None, -1))]
    return made


@of_composites(shape.split)
def split(
    value: RaggedTensor, num_or_size_splits: Any, axis: int = 0, num: Any = None, name: Any = None
) -> list[Any]:
    at = one_axis("split", axis, len(value.shape))
    size = value.shape[at]
    if size is None:
        raise ValueError(f"split: axis {axis} is ragged, of rows that cannot be split alike")
    if np.ndim(num_or_size_splits):
        sizes = [int(n) for n in np.asarray(num_or_size_splits)]
    else:
        sizes = [size // int(num_or_size_splits)] * int(num_or_size_splits)
    if sum(sizes) != size:
        raise InvalidArgumentError(f"split: {num_or_size_splits!r} of the size {size}")
    ends = np.cumsum(sizes).tolist()
    keys = [slice(end - n, end) for n, end in zip(sizes, ends, strict=True)]
    return [value[(*[slice(None)] * at, key)] for key in keys]


@of_composites(logic.where)
def where(condition: Any, x: Any = None, y: Any = None, name: str | None = None) -> Any:
    if (x is None) != (y is None):
        raise ValueError("where needs both x and y, or neither")
    if x is not None:
        return elementwise(logic.where, condition, x, y)
    places = condition.to_sparse()
    return indexing.gather(places.indices, logic.where(places.values)[:, 0])


@of_composites(indexing.one_hot)
def one_hot(
    indices: RaggedTensor,
    depth: int,
    on_value: Any = None,
    off_value: Any = None,
    axis: int | None = None,
    dtype: Any = None,
    name: str | None = None,
) -> Any:
    if axis not in (None, -1) and axis <= indices.ragged_rank:
        raise ValueError("axis must be greater than indices.ragged_rank")
    inner = axis if axis in (None, -1) else axis - indices.ragged_rank
    hot = indexing.one_hot(indices.flat_values, depth, on_value, off_value, inner, dtype)
    return indices.with_flat_values(hot)


@of_composites(linalg.matmul)
def matmul(
    a: Any, b: Any, transpose_a: Any = False, transpose_b: Any = False, *options: Any
) -> Any:
    """Each pair of matrices is multiplied by itself; their rows must be of one length."""
    a, b = as_tensor_or_ragged(a), as_tensor_or_ragged(b)
    rank = len(a.shape)
    if rank != len(b.shape):
        raise ValueError("`a` and `b` must have the same rank.")
    options = (transpose_a, transpose_b, *options)
    if rank == 2:
        return linalg.matmul(_matrix(a), _matrix(b), *options)
    made = [matmul(one, other, *options) for one, other in zip(list(a), list(b), strict=True)]
    columns = b.shape[-2 if transpose_b or any(options[3:4]) else -1]  # (the adjoint of b)
    if rank == 3 and columns is not None and made:
        return RaggedTensor.from_row_lengths(shape.concat(made, 0), [len(each) for each in made])
    return stack_rows(made)


def _matrix(value: Any) -> Any:
    if not isinstance(value, RaggedTensor):
        return value
    if len(set(partition.lengths_of(value._splits).tolist())) > 1:
        raise InvalidArgumentError(
            "The matrices in `a` and `b` may not be ragged in their innermost dimension."
        )
    return value.to_tensor()


@of_composites(nn.dropout)
def dropout(
    x: RaggedTensor, rate: float, noise_shape: Any = None, seed: Any = None, name: Any = None
) -> RaggedTensor:
    if noise_shape is not None:
        raise ValueError("noise_shape is not supported yet for RaggedTensor x")
    return x.with_flat_values(nn.dropout(x.flat_values, rate, None, seed))


@of_composites(control.map_fn)
def map_fn(
    fn: Callable[[Any], Any],
    elems: Any,
    dtype: Any = None,
    parallel_iterations: int | None = None,
    back_prop: bool = True,
    swap_memory: bool = False,
    infer_shape: bool = True,
    name: str | None = None,
    fn_output_signature: Any = None,
) -> Any:
    """Results are ragged where they are said to be, where they are, or where their sizes differ."""
    signature = dtype if fn_output_signature is None else fn_output_signature
    leaves = [list(as_values(leaf)) for leaf in tree.flatten(elems)]
    if len(set(map(len, leaves))) != 1:
        raise ValueError(f"map_fn: the first dimensions differ: {list(map(len, leaves))}")
    rows = zip(*leaves, strict=True)
    made = [fn(tree.pack_sequence_as(elems, row)) for row in rows]
    if not made:
        raise ValueError("map_fn over a ragged tensor without rows cannot know its result")
    columns = list(zip(*map(tree.flatten, made), strict=True))
    specs = tree.flatten(signature) if signature is not None else [None] * len(columns)
    found = [_rows_of(column, spec) for column, spec in zip(columns, specs, strict=True)]
    return tree.pack_sequence_as(made[0], found)


def _rows_of(values: Any, spec: Any) -> Any:
    values = [as_tensor_or_ragged(value) for value in values]
    ragged = isinstance(spec, RaggedTensorSpec) or len({tuple(v.shape) for v in values}) > 1
    return (stack_rows if ragged else shape.stack)(values)


@of_composites(arithmetic.add_n)
def add_n(inputs: Any, name: str | None = None) -> Any:
    return elementwise(lambda *values: arithmetic.add_n(values), *inputs)


@of_composites(shape.reshape)
def reshape(tensor: RaggedTensor, shape: Any, name: str | None = None) -> Any:
    """All values of a ragged tensor in a dense shape."""
    return reshape_dense(tensor.flat_values, shape)
