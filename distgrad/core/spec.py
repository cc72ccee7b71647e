"""TensorSpec: what is known of a tensor before there is one."""

from __future__ import annotations

from typing import Any

from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import DType, of_input, string
from distgrad.core.shapes import TensorShape
from distgrad.core.tensor import Operand
from distgrad.core.texts import as_strings, is_text


class TensorSpec:
    """Shape and dtype of a tensor; None in the shape stands for any size, as a shape for any."""

    def __init__(self, shape: Any, dtype: Any = "float32", name: str | None = None) -> None:
        self.shape = TensorShape(shape)
        self.dtype: DType = of_input(dtype)
        self.name = name

    @classmethod
    def from_tensor(cls, tensor: Any, name: str | None = None) -> TensorSpec:
        """The spec of a tensor, or an array of texts: its own shape and dtype."""
        return cls(tensor.shape, string if is_text(tensor) else tensor.dtype, name)

    @classmethod
    def from_spec(cls, spec: TensorSpec, name: str | None = None) -> TensorSpec:
        """A spec like another one, by another name where one is given."""
        return cls(spec.shape, spec.dtype, name or spec.name)

    def is_compatible_with(self, spec_or_tensor: Any) -> bool:
        """Whether a tensor (or another spec) has this dtype and fits this shape."""
        value = spec_or_tensor
        if isinstance(value, Composite):
            return False
        if not isinstance(value, (Operand, TensorSpec)):
            value = as_strings(value) if is_text(value) else as_tensor(value)
        if value.dtype != self.dtype:
            return False
        return self.shape.is_compatible_with(value.shape)

    def is_subtype_of(self, other: Any) -> bool:
        """Whether every tensor of this spec is one of ``other``, which has its name if any."""
        same = isinstance(other, TensorSpec) and other.dtype == self.dtype
        named = same and self.name in (None, other.name)
        return named and self.shape.is_subtype_of(other.shape)

    def most_specific_common_supertype(self, others: Any) -> TensorSpec | None:
        """The spec with None for sizes in which these differ; None for other dtypes or names."""
        shape = self.shape
        for other in others:
            if not isinstance(other, TensorSpec):
                return None
            if (other.dtype, other.name) != (self.dtype, self.name):
                return None
            shape = shape.most_specific_compatible_shape(other.shape)
        return TensorSpec(shape, self.dtype, self.name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TensorSpec):
            return NotImplemented
        mine, others = ((s.shape, s.dtype, s.name) for s in (self, other))
        return mine == others

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype))

    def __repr__(self) -> str:
        return f"TensorSpec(shape={self.shape}, dtype=tf.{self.dtype.name}, name={self.name!r})"
