"""``tf.sparse``: what examples of several lengths give, made dense and back, and work on it.

Places and shapes are plain numbers of the host; gradients flow through the values.
"""

from __future__ import annotations

# The operations are for what they register: those of dense tensors that take sparse ones.
from distgrad.core.later import absent as _absent
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.sparse import operations
from distgrad.sparse.counting import bincount
from distgrad.sparse.crossing import cross, cross_hashed
from distgrad.sparse.elementwise import add, map_values, maximum, minimum
from distgrad.sparse.making import eye, fill_empty_rows, from_dense, to_dense, to_indicator
from distgrad.sparse.moving import (
    concat,
    expand_dims,
    mask,
    reorder,
    reset_shape,
    reshape,
    retain,
    slice,
    split,
    transpose,
)
from distgrad.sparse.products import sampled_addmm, sparse_dense_matmul
from distgrad.sparse.reducing import reduce_max, reduce_sum, softmax
from distgrad.sparse.segments import segment_mean, segment_sqrt_n, segment_sum

__all__ = [
    "SparseTensor",
    "add",
    "bincount",
    "concat",
    "cross",
    "cross_hashed",
    "expand_dims",
    "eye",
    "fill_empty_rows",
    "from_dense",
    "map_values",
    "mask",
    "maximum",
    "minimum",
    "reduce_max",
    "reduce_sum",
    "reorder",
    "reset_shape",
    "reshape",
    "retain",
    "sampled_addmm",
    "segment_mean",
    "segment_sqrt_n",
    "segment_sum",
    "slice",
    "softmax",
    "sparse_dense_matmul",
    "split",
    "to_dense",
    "to_indicator",
    "transpose",
]


__getattr__ = _absent(__name__)
