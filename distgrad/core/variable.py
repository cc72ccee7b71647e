"""Variables: named, mutable state whose reads a tape can follow."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core import dispatch, naming, recording
from distgrad.core.dispatch import as_tensor, backend_of
from distgrad.core.dtypes import DType, as_dtype, with_own_dtype
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, registry
from distgrad.core.reading import Reading
from distgrad.core.shapes import TensorShape, shape_of
from distgrad.core.tensor import Operand, Tensor, TensorRef, next_uid, text

_lending = threading.Lock()
_next_number = itertools.count().__next__
watchers: list[Callable[[Any], None]] = []  # told of each variable that is made
writers: list[Callable[[Any], None]] = []  # told of each variable before it is written


class Variable(Operand):
    """A mutable tensor of fixed dtype and shape (``tf.Variable``).

    ``initial_value`` is a tensor, an array, a nest of numbers, or a callable that returns one; it
    is copied. Where ``shape`` leaves sizes open, assigned values may have any. ``constraint`` is
    what optimizers apply after an update; synchronization and aggregation are kept and change
    nothing. Raises ValueError without an initial value, or for one that does not have ``shape``.
    """

    trainable: bool
    made_trainable = False  # whether a layer made it so, which may have frozen it since
    constraint: Any = None
    _kinds: tuple[Any, Any] = (None, None)
    _open_shape: TensorShape | None = None  # where not all of its sizes are fixed

    def __init__(
        self,
        initial_value: Any = None,
        trainable: bool | None = True,
        validate_shape: bool = True,
        caching_device: Any = None,
        name: str | None = None,
        *,
        dtype: Any = None,
        shape: Any = None,
        constraint: Any = None,
        synchronization: Any = None,
        aggregation: Any = None,
    ) -> None:
        if initial_value is None:
            raise ValueError("a Variable needs an initial_value")
        if callable(initial_value) and not isinstance(initial_value, (Tensor, Variable)):
            initial_value = initial_value()
        with recording.paused():
            value = as_tensor(initial_value, dtype)._data
        if shape is not None:
            wanted = TensorShape(shape)
            if not wanted.is_compatible_with(value.shape):
                raise ValueError(
                    f"an initial_value of shape {value.shape} for a variable of {shape}"
                )
            if not wanted.is_fully_defined():
                self._open_shape = wanted
        self._buffer = dispatch.moved(value, dispatch.current())
        self._scope, self._name = naming.prefix(), name or "Variable"
        self.trainable = trainable is None or bool(trainable)
        if constraint is not None:
            self.constraint = constraint
        if synchronization is not None or aggregation is not None:
            self._kinds = synchronization, aggregation
        self._value_ref: Any = None
        self._value_uid = 0  # of the tensor that is the whole value
        self._loans: list[weakref.ref[Tensor]] = []
        self._loans_limit = 64
        self._number = _next_number()  # variables are put in the order in which they were made
        if recording.active and recording.per_thread.capture is not None:
            recording.per_thread.capture.created(self)
        for told in watchers:
            told(self)

    # Reads lend the buffer; before a write, whoever still looks into it is given a copy.

    def _read(self) -> Tensor:
        """The value as a tensor that looks into the buffer; recorders are told."""
        value = self._value_ref() if self._value_ref is not None else None
        if value is None:
            value = self._lend_value()
        if recording.active:
            for recorder in recording.per_thread.stack:
                recorder.read_variable(self, value)
        return value

    def _untaped(self) -> Tensor:
        """The value as a tensor; of recorders a capture alone is told."""
        if not recording.active:
            return Tensor(self._buffer)
        with recording.paused():
            return self._read()

    def _lend_value(self) -> Tensor:
        """The one tensor that is the whole value, made anew after nobody held it any more."""
        with _lending:  # two threads that made one each would leave one that is never recalled
            value = self._value_ref() if self._value_ref is not None else None
            if value is None:
                value = Tensor(self._buffer)
                # Here, where nobody else can give it a number: the same one until a write, or the
                # order in which gradients are added up would hang on who still holds a read.
                value._uid = self._value_uid = self._value_uid or next_uid()
                value._lender = self
                self._value_ref = weakref.ref(value)
            return value

    def _lend(self, tensor: Tensor) -> None:
        tensor._lender = self
        loans = self._loans
        loans.append(weakref.ref(tensor))
        if len(loans) >= self._loans_limit:  # a variable only ever read must not collect dead ones
            self._loans = [ref for ref in loans if ref() is not None]
            self._loans_limit = 2 * len(self._loans) + 64

    def _recall_loans(self) -> None:
        for told in tuple(writers):  # another thread may take itself off meanwhile
            told(self)
        self._value_uid = 0
        if recording.active and recording.per_thread.capture is not None:
            recording.per_thread.capture.before_write(self)
        if self._value_ref is None and not self._loans:
            return
        borrowers = [ref() for ref in self._loans]
        if self._value_ref is not None:
            borrowers.append(self._value_ref())
        for tensor in borrowers:
            if tensor is not None:
                tensor._data = tensor._data.copy()
                tensor._lender = None
        self._loans.clear()
        self._value_ref = None

    def _write_part(self, part: Any, value: Any) -> Variable:
        """Writes to ``part``, a view into the buffer: ``v[1].assign(value)``."""
        if isinstance(value, Operand) and value.dtype != as_dtype(self._buffer.dtype):
            raise ValueError(f"cannot assign a {value.dtype.name} tensor to a slice of {self.name}")
        recording.refuse(f"{self.name} is written to in part")
        new = as_tensor(value, like=part.dtype)
        self._recall_loans()  # first, since ``new`` may look into the buffer
        try:
            part[...] = dispatch.beside(part, new._data)
        except ValueError as error:
            said = f"cannot assign to a slice of {self.name}: {error}"
            raise InvalidArgumentError(said) from None
        return self

    def _store(self, array: Any) -> None:
        """Writes an array of the right shape and dtype, or broadcastable to it."""
        self._recall_loans()
        if recording.active and recording.per_thread.capture is not None:
            recording.per_thread.capture.store(self, array)
        self._buffer[...] = dispatch.beside(self._buffer, array)

    def _relocate(self, buffer: Any) -> None:
        """Moves the value into ``buffer``, an array of the same shape and dtype (an arena view)."""
        self._recall_loans()
        buffer[...] = self._buffer
        self._buffer = buffer

    @property
    def name(self) -> str:
        return f"{self._scope}{self._name}:0"

    @property
    def shape(self) -> TensorShape:
        return shape_of(self._buffer.shape) if self._open_shape is None else self._open_shape

    @property
    def dtype(self) -> DType:
        return as_dtype(self._buffer.dtype)

    @property
    def ndim(self) -> int:
        return self._buffer.ndim

    @property
    def device(self) -> str:
        return Tensor(self._buffer).device

    @property
    def synchronization(self) -> Any:
        """What was given, AUTO by default: all processes have the same values in any case."""
        from distgrad.core.aggregation import VariableSynchronization

        return self._kinds[0] or VariableSynchronization.AUTO

    @property
    def aggregation(self) -> Any:
        """What was given, NONE by default."""
        from distgrad.core.aggregation import VariableAggregation

        return self._kinds[1] or VariableAggregation.NONE

    def get_shape(self) -> TensorShape:
        return self.shape

    @property
    def value(self) -> Reading:
        """``value()`` is the current value as a tensor, ``value`` what operations take for it."""
        return Reading(self)

    def read_value(self) -> Tensor:
        """The current value as a tensor; later assignments do not change it."""
        return self.value()

    def numpy(self) -> Any:
        """A copy of the value: an ndarray, or a NumPy scalar for rank 0."""
        recording.look(self)
        return Tensor(self._buffer).numpy()

    def _new_value(self, value: Any, any_size: bool = False) -> Any:
        if isinstance(value, (Tensor, Variable)):
            own = as_dtype(self._buffer.dtype)
            if value.dtype != own:
                raise ValueError(
                    f"cannot assign a {value.dtype.name} tensor to {self.name} of dtype "
                    f"{own.name}; use cast"
                )
            tensor = value._untaped() if isinstance(value, Variable) else value
        else:
            tensor = as_tensor(value, like=self._buffer.dtype)
        fits = any_size and self.shape.is_compatible_with(tensor._data.shape)
        if tensor._data.shape != self._buffer.shape and not fits:
            raise InvalidArgumentError(  # (a ValueError, as ``assign`` raises in TensorFlow)
                f"cannot assign a value of shape {tensor.shape} to {self.name} of shape "
                f"{self.shape}"
            )
        self._recall_loans()  # before the look at it: ``value`` may be a view of this buffer
        if recording.active and recording.per_thread.capture is not None:
            recording.per_thread.capture.value_of(tensor)
        return tensor._data

    def assign(
        self, value: Any, use_locking: bool = False, name: Any = None, read_value: bool = True
    ) -> Any:
        """Sets the value, and gives the variable, or None where ``read_value`` is false.

        Raises ValueError where shape or tensor dtype differ.
        """
        array = self._new_value(value, self._open_shape is not None)
        if array.shape != self._buffer.shape:
            recording.refuse(f"{self.name} takes another shape inside the function")
            self._buffer = dispatch.moved(array.copy(), backend_of(self._buffer))
        else:
            self._store(array)
        return self if read_value else None

    def assign_add(
        self, delta: Any, use_locking: bool = False, name: Any = None, read_value: bool = True
    ) -> Any:
        """Adds ``delta`` to the value; gives what ``assign`` does."""
        self._store(self._combined("add", delta))
        return self if read_value else None

    def assign_sub(
        self, delta: Any, use_locking: bool = False, name: Any = None, read_value: bool = True
    ) -> Any:
        """Subtracts ``delta`` from the value; gives what ``assign`` does."""
        self._store(self._combined("subtract", delta))
        return self if read_value else None

    def _combined(self, name: str, delta: Any) -> Any:
        other = Tensor(self._new_value(delta))
        with recording.paused():  # no tape follows an assignment; a capture does
            return bind(registry[name], self._read(), other)._data

    def scatter_nd_update(self, indices: Any, updates: Any, name: Any = None) -> Variable:
        """Writes ``updates`` at the positions given by the last axis of ``indices``.

        Raises InvalidArgumentError for a position outside the variable.
        """
        positions = self._positions(indices)
        array = self._buffer.copy()
        try:
            array[positions] = dispatch.beside(array, as_tensor(updates, like=array.dtype)._data)
        except (IndexError, ValueError) as error:
            raise InvalidArgumentError(f"scatter_nd_update of {self.name}: {error}") from None
        self._store(array)
        return self

    def scatter_nd_add(self, indices: Any, updates: Any, name: Any = None) -> Variable:
        """Adds ``updates`` at the positions given by the last axis of ``indices``; repeats add up.

        Raises InvalidArgumentError for a position outside the variable.
        """
        return self._scatter_add(indices, as_tensor(updates, like=self._buffer.dtype)._data)

    def scatter_nd_sub(self, indices: Any, updates: Any, name: Any = None) -> Variable:
        """Subtracts ``updates`` at the positions given by the last axis of ``indices``.

        Raises InvalidArgumentError for a position outside the variable.
        """
        return self._scatter_add(indices, -as_tensor(updates, like=self._buffer.dtype)._data)

    def _scatter_add(self, indices: Any, updates: Any) -> Variable:
        positions = self._positions(indices)
        array = self._buffer.copy()
        try:
            backend_of(array).add_at(array, positions, dispatch.beside(array, updates))
        except (IndexError, ValueError) as error:
            raise InvalidArgumentError(f"scatter into {self.name}: {error}") from None
        self._store(array)
        return self

    def _positions(self, indices: Any) -> tuple[Any, ...]:
        places = as_tensor(indices)._host()
        if places.dtype.kind not in "iu" or not places.ndim or places.shape[-1] > self.ndim:
            raise InvalidArgumentError(
                f"indices into {self.name} of shape {self.shape} are integers of shape (..., k) "
                f"with k <= {self.ndim}, not {places.dtype} of shape {places.shape}"
            )
        limits = np.array(self._buffer.shape[: places.shape[-1]])
        if ((places < 0) | (places >= limits)).any():
            raise InvalidArgumentError(f"an index lies outside {self.name} of shape {self.shape}")
        return tuple(dispatch.beside(self._buffer, axis) for axis in np.moveaxis(places, -1, 0))

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

    def __complex__(self) -> complex:
        return complex(self._read())

    def __index__(self) -> int:
        return self._read().__index__()

    def __format__(self, spec: str) -> str:
        return format(self.numpy(), spec) if spec else str(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        recording.look(self)
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
        twin._value_ref, twin._value_uid, twin._loans, twin._loans_limit = None, 0, [], 64
        twin._number = _next_number()
        return twin

    def __getstate__(self) -> dict:
        host = np.array(backend_of(self._buffer).to_numpy(self._buffer))
        state = {**self.__dict__, "_buffer": host}
        return state | {"_value_ref": None, "_value_uid": 0, "_loans": []}

    def __setstate__(self, state: dict) -> None:
        as_dtype(state["_buffer"].dtype)  # which this process may not know yet
        buffer = state["_buffer"]
        if not buffer.flags.writeable:  # Ray's store, or joblib, lends memory to read
            buffer = buffer.copy()
        here = dispatch.moved(with_own_dtype(buffer), dispatch.current())
        self.__dict__.update({**state, "_buffer": here, "_number": _next_number()})

    def __repr__(self) -> str:
        if recording.active and recording.hides(self):
            return f"<tf.Variable {self.name!r} shape={self.shape} dtype={self.dtype.name}>"
        shown = text(Tensor(self._buffer)._host(), repr)
        return (
            f"<tf.Variable {self.name!r} shape={self.shape} dtype={self.dtype.name}, numpy={shown}>"
        )
