"""The Tensor: an immutable array with TensorFlow's manners."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from distgrad.core import recording
from distgrad.core.dtypes import DType, as_dtype, with_own_dtype
from distgrad.core.scope import OutOfScope
from distgrad.core.shapes import TensorShape, shape_of

next_uid = itertools.count(1).__next__


class Operand:
    """What Tensor and Variable share: Python's operators.

    ``distgrad.ops.operators`` installs them, since it knows the primitives.
    """

    __slots__ = ()

    promotes = False  # whether its operators take operands of other dtypes

    # ndarray <op> Tensor asks the Tensor. No __array_ufunc__ = None: np.sin(tensor) is an ndarray.
    __array_priority__ = 100

    if TYPE_CHECKING:

        @property
        def shape(self) -> TensorShape: ...
        @property
        def dtype(self) -> DType: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __rfloordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __rmod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __rand__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __ror__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __rxor__(self, other: Any) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __pos__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __eq__(self, other: Any) -> Any: ...
        def __ne__(self, other: Any) -> Any: ...
        def __getitem__(self, key: Any) -> Tensor: ...


class Tensor(Operand):
    """An immutable n-dimensional array on one device.

    ``Tensor(array)`` takes over the array it is given; use ``distgrad.constant`` to copy one in.
    """

    # _uid is 0 until a recorder needs to tell this tensor apart from others; ids are never reused.
    # None on most tensors (to ask for a slot that is not set takes ten times as long): _lender,
    # whose memory this one looks into (a variable's, or a batch's), _logits, the input of the
    # softmax or sigmoid activation that made it, and _keras_mask, which of its time steps count.
    __slots__ = ("__weakref__", "_data", "_keras_mask", "_lender", "_logits", "_uid")

    _keras_mask: Any
    _lender: Any
    _logits: Any

    def __init__(self, data: Any) -> None:
        self._data = data
        self._uid = 0
        self._lender = self._logits = self._keras_mask = None

    @property
    def shape(self) -> TensorShape:
        return shape_of(self._data.shape)

    @property
    def dtype(self) -> DType:
        return as_dtype(self._data.dtype)

    @property
    def ndim(self) -> int:
        return self._data.ndim

    @property
    def device(self) -> str:
        if isinstance(self._data, np.ndarray):
            return "/CPU:0"
        from distgrad.core.dispatch import backend_of  # which needs this module

        return backend_of(self._data).device_of(self._data)

    def get_shape(self) -> TensorShape:
        return self.shape

    def set_shape(self, shape: Any) -> None:
        """Raises ValueError unless the shape, None in it for any size, is the tensor's own."""
        wanted = TensorShape(shape)
        if not wanted.is_compatible_with(self._data.shape):
            raise ValueError(f"a tensor of shape {self._data.shape} has not shape {wanted}")

    def numpy(self) -> Any:
        """A copy of the value: an ndarray, or a NumPy scalar for rank 0."""
        array = self._host()
        return array.copy() if array.ndim else array[()]

    def _host(self) -> np.ndarray:
        data = self._data
        if recording.active:
            recording.look(self)
        if type(data) is np.ndarray:
            return data
        return data.get() if hasattr(data, "get") else data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._host(), dtype=dtype, copy=True)

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self._data.copy().__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self._data.__dlpack_device__()

    def ref(self) -> TensorRef:
        """A hashable handle that equals another handle of the same object."""
        return TensorRef(self)

    # While a function is captured, text shows what is known of a tensor then, as in a tf.function.
    def _is_symbolic(self) -> bool:
        return type(self._data) is OutOfScope or (bool(recording.active) and recording.hides(self))

    def __repr__(self) -> str:
        if self._is_symbolic():
            return f"<tf.Tensor 'traced:0' shape={self.shape} dtype={self.dtype.name}>"
        value = text(self._host(), repr)
        return f"<tf.Tensor: shape={self.shape}, dtype={self.dtype.name}, numpy={value}>"

    def __str__(self) -> str:
        if self._is_symbolic():
            return f'Tensor("traced:0", shape={self.shape}, dtype={self.dtype.name})'
        value = text(self._host(), str)
        return f"tf.Tensor({value}, shape={self.shape}, dtype={self.dtype.name})"

    def __format__(self, spec: str) -> str:
        if not spec and self._is_symbolic():
            return str(self)
        return format(self.numpy(), spec)

    def _scalar(self, wanted: str) -> Any:
        if self._data.size != 1:
            raise TypeError(
                f"only a tensor of one element can become {wanted}; this one has shape {self.shape}"
            )
        return self._host().reshape(())[()]

    def __float__(self) -> float:
        return float(self._scalar("a float"))

    def __int__(self) -> int:
        return int(self._scalar("an int"))

    def __complex__(self) -> complex:
        return complex(self._scalar("a complex"))

    def __index__(self) -> int:
        if not self.dtype.is_integer:
            raise TypeError(f"a {self.dtype.name} tensor cannot be used as an index")
        if self.ndim:
            raise TypeError(f"only a scalar is an index; this tensor has shape {self.shape}")
        return int(self._scalar("an index"))

    def __bool__(self) -> bool:
        if self._data.size != 1:
            raise ValueError(
                f"the truth value of a tensor of shape {self.shape} is ambiguous; "
                "use reduce_any or reduce_all"
            )
        return bool(self._host().reshape(())[()])

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("a scalar tensor has no len()")
        return self._data.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise TypeError("a scalar tensor cannot be iterated over")
        return (self[i] for i in range(len(self)))

    def __hash__(self) -> int:
        raise TypeError("Tensor is unhashable; use tensor.ref() as the key")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError("a Tensor cannot be written to; use tensor_scatter_nd_update or a Variable")

    def assign(self, value: Any) -> Any:
        """Writes to the variable that this tensor is a slice of: ``v[1].assign(x)``."""
        if self._lender is None:
            raise AttributeError("assign works on a Variable or on a slice of one; this is neither")
        variable, part = self._lender, self._data
        return variable._write_part(part, value)

    def __deepcopy__(self, memo: dict) -> Tensor:
        return Tensor(self._data.copy())

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._host().copy(), self.dtype)


def _restored(array: np.ndarray, dtype: DType) -> Tensor:
    """A tensor from another process; its dtype comes along, since this one may not know it yet."""
    return Tensor(with_own_dtype(array))


def text(array: np.ndarray, form: Callable[[Any], str]) -> str:
    """An array as TensorFlow prints it: several lines start on a line of their own."""
    if not array.ndim:
        return repr(array.item()) if form is repr else str(array[()])
    shown = form(array)
    return "\n" + shown if "\n" in shown else shown


class TensorRef:
    """Hashable handle of a Tensor or Variable (``tensor.ref()``)."""

    __slots__ = ("_object",)

    def __init__(self, obj: Any) -> None:
        self._object = obj

    def deref(self) -> Any:
        return self._object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TensorRef) and self._object is other._object

    def __hash__(self) -> int:
        return id(self._object)
