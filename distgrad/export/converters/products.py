"""Products of matrices as ONNX operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.export.converters import converter
from distgrad.export.graph import Edge, Graph
from distgrad.ops.image import interpolation_matrix


@converter("dot")
def _(to: Graph, a: Edge, b: Edge, *, transpose_a: bool, transpose_b: bool) -> Edge:
    a = _transposed(to, a) if transpose_a else a
    b = _transposed(to, b) if transpose_b else b
    return to.node("MatMul", a, b)


def _transposed(to: Graph, x: Edge) -> Edge:
    rank = len(x.shape)
    return to.arranged(x, (*range(rank - 2), rank - 1, rank - 2))


@converter("interpolate")
def _(to: Graph, x: Edge, *, axis: int, transpose: bool, **sizes: Any) -> Edge:
    weights = interpolation_matrix(**sizes)
    matrix = to.constant((weights if transpose else weights.T).astype(x.dtype))
    rank = len(x.shape)
    if axis == rank - 1:
        return to.node("MatMul", x, matrix)
    last = [i for i in range(rank) if i != axis] + [axis]
    product = to.node("MatMul", to.node("Transpose", x, perm=last), matrix)
    return to.node("Transpose", product, perm=np.argsort(last).tolist())
