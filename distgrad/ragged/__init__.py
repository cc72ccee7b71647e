"""``tf.ragged``: tensors whose rows have unequal lengths, and what other operations do of them."""

from __future__ import annotations

# The last ones are for what they register: operations of ragged tensors, by their dense names.
from distgrad.core.later import absent as _absent
from distgrad.ragged import gathering, moving, reducing
from distgrad.ragged.elementwise import map_flat_values
from distgrad.ragged.joining import stack_rows as stack
from distgrad.ragged.making import (
    boolean_mask,
    constant,
    cross,
    range,
    row_splits_to_segment_ids,
    segment_ids_to_row_splits,
    stack_dynamic_partitions,
)
from distgrad.ragged.spec import RaggedTensorSpec
from distgrad.ragged.tensor import RaggedTensor

__all__ = [
    "boolean_mask",
    "constant",
    "cross",
    "map_flat_values",
    "range",
    "row_splits_to_segment_ids",
    "segment_ids_to_row_splits",
    "stack",
    "stack_dynamic_partitions",
]


__getattr__ = _absent(__name__)
