"""``tf.TensorArray``: tensors by number, for loops that make one after the other."""

from __future__ import annotations

from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.shapes import TensorShape
from distgrad.core.tensor import Tensor
from distgrad.ops.constants import zeros
from distgrad.ops.shape import concat, split, stack, unstack


class TensorArray:
    """A list of tensors of one dtype, ``size`` long, or longer where ``dynamic_size`` is true.

    ``write`` and its like give the array itself, as in TensorFlow's eager mode. What was never
    written is zeros of the shape of the others. Raises InvalidArgumentError for a number out of
    range, TypeError or ValueError for a value of another dtype, ValueError for one of another shape
    than ``element_shape``, or than the first unless ``infer_shape`` is false.
    """

    def __init__(
        self,
        dtype: Any,
        size: Any = None,
        dynamic_size: bool | None = None,
        clear_after_read: bool | None = None,
        tensor_array_name: str | None = None,
        handle: Any = None,
        flow: Any = None,
        infer_shape: bool = True,
        element_shape: Any = None,
        colocate_with_first_write_call: bool = True,
        name: str | None = None,
    ) -> None:
        self.dtype = as_dtype(dtype)
        self.dynamic_size = bool(dynamic_size)
        self.element_shape = TensorShape(element_shape)
        self._alike = infer_shape
        self._items: list[Tensor | None] = [None] * (0 if size is None else int(size))

    def size(self, name: str | None = None) -> Tensor:
        """How many there are, an int32 scalar."""
        return as_tensor(len(self._items), "int32")

    def identity(self) -> TensorArray:
        """The array itself."""
        return self

    def write(self, index: Any, value: Any, name: str | None = None) -> TensorArray:
        """Puts a tensor at a number. Raises ValueError where its shape does not fit the others."""
        place, value = int(index), as_tensor(value, self.dtype)
        if not self.element_shape.is_compatible_with(value.shape):
            raise ValueError(
                f"TensorArray: a tensor of shape {value.shape} among those of {self.element_shape}"
            )
        if self._alike:
            self.element_shape = self.element_shape.merge_with(value.shape)
        if place >= len(self._items) and self.dynamic_size:
            self._items += [None] * (place + 1 - len(self._items))
        self._items[self._checked(place)] = value
        return self

    def read(self, index: Any, name: str | None = None) -> Tensor:
        """The tensor of a number."""
        return self._filled()[self._checked(int(index))]

    def stack(self, name: str | None = None) -> Tensor:
        """All of them along a new first axis."""
        if not self._items:
            return zeros((0, *(self.element_shape or ())), self.dtype)
        return stack(self._filled())

    def gather(self, indices: Any, name: str | None = None) -> Tensor:
        """Those of the numbers in a vector, along a new first axis."""
        items = self._filled()
        return stack([items[self._checked(int(i))] for i in as_tensor(indices)._host()])

    def concat(self, name: str | None = None) -> Tensor:
        """All of them one behind the other along their first axis."""
        return concat(self._filled(), 0)

    def unstack(self, value: Any, name: str | None = None) -> TensorArray:
        """Takes the rows of a tensor."""
        self._items = list(unstack(as_tensor(value, self.dtype)))
        return self

    def scatter(self, indices: Any, value: Any, name: str | None = None) -> TensorArray:
        """Puts the rows of a tensor at the numbers in a vector."""
        for index, row in zip(as_tensor(indices)._host(), unstack(as_tensor(value)), strict=True):
            self.write(index, row)
        return self

    def split(self, value: Any, lengths: Any, name: str | None = None) -> TensorArray:
        """Takes the parts of a tensor that are so many rows long."""
        self._items = list(split(as_tensor(value, self.dtype), list(as_tensor(lengths)._host()), 0))
        return self

    def close(self, name: str | None = None) -> None:
        """Forgets all of them."""
        self._items = []

    def __len__(self) -> int:
        return len(self._items)

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self._items):
            raise InvalidArgumentError(
                f"TensorArray: number {index} in an array of size {len(self._items)}; give "
                "dynamic_size=True for one that grows"
            )
        return index

    def _filled(self) -> list[Tensor]:
        shape: Any = next((t.shape for t in self._items if t is not None), self.element_shape)
        if any(t is None for t in self._items):
            if not shape.is_fully_defined():
                raise InvalidArgumentError("TensorArray: nothing was written, so no shape is known")
            return [zeros(shape, self.dtype) if t is None else t for t in self._items]
        return list(self._items)  # type: ignore[arg-type]
