"""Rows of a table, several added up for each example (``tf.nn.embedding_lookup_sparse``)."""

from __future__ import annotations

from typing import Any

from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.ops.arithmetic import square
from distgrad.ops.casting import cast, ones_like
from distgrad.ops.nn import embedding_lookup
from distgrad.ops.powers import sqrt
from distgrad.ops.segment import segment_sum
from distgrad.ops.shape import reshape

_COMBINERS = ("mean", "sqrtn", "sum")


def embedding_lookup_sparse(
    params: Any,
    sp_ids: SparseTensor,
    sp_weights: SparseTensor | None,
    combiner: str | None = None,
    max_norm: float | None = None,
    name: str | None = None,
    allow_fast_lookup: bool = False,
) -> Tensor:
    """The rows of ``params`` at the ids of each row of ``sp_ids``, weighted and combined.

    ``combiner`` is "mean" (default; the sum over that of the weights), "sqrtn" (over the root of
    the sum of their squares) or "sum"; without ``sp_weights``, of the places of ``sp_ids``, each
    weighs 1. Rows after the last one that has an id are left out, as in TensorFlow. Raises
    ValueError for another combiner, TypeError where ids are not sparse.
    """
    combiner = "mean" if combiner is None else combiner
    if combiner not in _COMBINERS:
        raise ValueError(f"combiner must be one of {', '.join(_COMBINERS)}, not {combiner!r}")
    if not isinstance(sp_ids, SparseTensor):
        raise TypeError(f"sp_ids must be a SparseTensor, not {sp_ids!r}")
    segments = sp_ids.indices[:, 0]
    rows = embedding_lookup(params, sp_ids.values, max_norm)
    if sp_weights is None:
        weights = ones_like(rows[:, 0])
    else:
        weights = cast(sp_weights.values, rows.dtype)
    each = (-1, *[1] * (len(rows.shape) - 1))
    total = segment_sum(rows * reshape(weights, each), segments)
    if combiner == "sum":
        return total
    if combiner == "mean":
        return total / reshape(segment_sum(weights, segments), each)
    return total / reshape(sqrt(segment_sum(square(weights), segments)), each)
