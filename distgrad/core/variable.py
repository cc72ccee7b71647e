"""Variables: named, mutable state whose reads a tape can follow."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor, backend_of
from distgrad.core.dtypes import DType, TensorShape, as_dtype
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, registry
from distgrad.core.tensor import Operand, Tensor, TensorRef


class Variable(Operand):
    """A mutable tensor of fixed shape and dtype (``tf.Variable``).

    ``initial_value`` is a tensor, an array, a nest of numbers, or a callable that returns one; it
    is copied. Raises ValueError without one.
    """

    def __init__(
        self,
        initial_value: Any = None,
        trainable: bool = True,
        validate_shape: bool = True,
        caching_device: Any = None,
        name: str | None = None,
        dtype: Any = None,
        shape: Any = None,
    ) -> None:
        if initial_value is None:
            raise ValueError("a Variable needs an initial_value")
        if callable(initial_value) and not isinstance(initial_value, (Tensor, Variable)):
            initial_value = initial_value()
        with recording.paused():
            value = as_tensor(initial_value, dtype)._data
        self._buffer = value.copy()
        self._name = name or "Variable"
        self.trainable = bool(trainable)
        self._value_ref: Any = None
        self._loans: list[weakref.ref[Tensor]] = []

    # Reads lend the buffer; before a write, whoever still looks into it is given a copy.

    def _read(self) -> Tensor:
        """The value as a tensor that looks into the buffer; recorders are told."""
        value = self._value_ref() if self._value_ref is not None else None
        if value is None:
            value = Tensor(self._buffer)
            value._lender = self
            self._value_ref = weakref.ref(value)
        if recording.active:
            for recorder in recording.stack():
                recorder.read_variable(self, value)
        return value

    def _lend(self, tensor: Tensor) -> None:
        tensor._lender = self
        self._loans.append(weakref.ref(tensor))

    def _recall_loans(self) -> None:
        borrowers = [ref() for ref in self._loans]
        if self._value_ref is not None:
            borrowers.append(self._value_ref())
        for tensor in borrowers:
            if tensor is not None:
                tensor._data = tensor._data.copy()
                tensor._lender = None
        self._loans.clear()
        self._value_ref = None

    def _store(self, array: Any) -> None:
        """Writes an array of the right shape and dtype, or broadcastable to it."""
        self._recall_loans()
        self._buffer[...] = array

    def _relocate(self, buffer: Any) -> None:
        """Moves the value into ``buffer``, an array of the same shape and dtype (an arena view)."""
        self._recall_loans()
        buffer[...] = self._buffer
        self._buffer = buffer

    @property
    def name(self) -> str:
        return f"{self._name}:0"

    @property
    def shape(self) -> TensorShape:
        return TensorShape(self._buffer.shape)

    @property
    def dtype(self) -> DType:
        return as_dtype(self._buffer.dtype)

    @property
    def ndim(self) -> int:
        return self._buffer.ndim

    @property
    def device(self) -> str:
        return Tensor(self._buffer).device

    def get_shape(self) -> TensorShape:
        return self.shape

    def value(self) -> Tensor:
        """The current value as a tensor; later assignments do not change it."""
        # A tensor of its own: one taken outside a tape must not stand for a read inside it.
        return bind(registry["identity"], self._read())

    def read_value(self) -> Tensor:
        """The current value as a tensor; later assignments do not change it."""
        return self.value()

    def numpy(self) -> Any:
        """A copy of the value: an ndarray, or a NumPy scalar for rank 0."""
        return Tensor(self._buffer).numpy()

    def _new_value(self, value: Any) -> Any:
        if isinstance(value, (Tensor, Variable)):
            if value.dtype != self.dtype:
                raise ValueError(
                    f"cannot assign a {value.dtype.name} tensor to {self.name} of dtype "
                    f"{self.dtype.name}; use cast"
                )
            array = value._buffer if isinstance(value, Variable) else value._data
        else:
            array = as_tensor(value, like=self._buffer.dtype)._data
        if array.shape != self._buffer.shape:
            raise ValueError(
                f"cannot assign a value of shape {array.shape} to {self.name} of shape "
                f"{self._buffer.shape}"
            )
        return array

    def assign(self, value: Any, use_locking: bool = False, name: Any = None) -> Variable:
        """Sets the value. Raises ValueError where shape or tensor dtype differ."""
        self._store(self._new_value(value))
        return self

    def assign_add(self, delta: Any, use_locking: bool = False, name: Any = None) -> Variable:
        """Adds ``delta`` to the value."""
        self._store(self._buffer + self._new_value(delta))
        return self

    def assign_sub(self, delta: Any, use_locking: bool = False, name: Any = None) -> Variable:
        """Subtracts ``delta`` from the value."""
        self._store(self._buffer - self._new_value(delta))
        return self

    def scatter_nd_update(self, indices: Any, updates: Any, name: Any = None) -> Variable:
        """Writes ``updates`` at the positions given by the last axis of ``indices``.

        Raises InvalidArgumentError for a position outside the variable.
        """
        positions = tuple(np.moveaxis(as_tensor(indices)._host(), -1, 0))
        self._update(positions, updates)
        return self

    def _update(self, key: Any, value: Any) -> Variable:
        array = self._buffer.copy()
        try:
            array[key] = as_tensor(value, like=array.dtype)._data
        except (IndexError, ValueError) as error:
            raise InvalidArgumentError(f"cannot assign to {self.name}[{key}]: {error}") from None
        self._store(array)
        return self

    def __len__(self) -> int:
        return len(Tensor(self._buffer))

    def __iter__(self) -> Any:
        return iter(self._read())

    def __bool__(self) -> bool:
        return bool(self._read())

    def __float__(self) -> float:
        return float(self._read())

    def __int__(self) -> int:
        return int(self._read())

    def __index__(self) -> int:
        return self._read().__index__()

    def __format__(self, spec: str) -> str:
        return format(self.numpy(), spec) if spec else str(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(backend_of(self._buffer).to_numpy(self._buffer), dtype=dtype, copy=True)

    def _inplace(self, other: Any) -> Any:
        raise RuntimeError(
            f"{self.name} cannot be changed with +=, -=, *= or /=: use assign_add or assign_sub, "
            "or write v = v + x for a tensor"
        )

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ifloordiv__ = __imod__ = __ipow__ = _inplace
    __imatmul__ = _inplace

    def __hash__(self) -> int:
        raise TypeError("Variable is unhashable; use variable.ref() as the key")

    def ref(self) -> TensorRef:
        """A hashable handle that equals another handle of the same object."""
        return TensorRef(self)

    def __deepcopy__(self, memo: dict) -> Variable:
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(self.__dict__)
        twin._buffer = self._buffer.copy()
        twin._value_ref, twin._loans = None, []
        return twin

    def __getstate__(self) -> dict:
        host = np.array(backend_of(self._buffer).to_numpy(self._buffer))
        return {**self.__dict__, "_buffer": host, "_value_ref": None, "_loans": []}

    def __repr__(self) -> str:
        value = self.numpy()
        shown = repr(value) if self.ndim else str(value)
        return (
            f"<tf.Variable {self.name!r} shape={self.shape} dtype={self.dtype.name}, numpy={shown}>"
        )
