"""Element types, as a TensorFlow user knows them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

# NumPy's kinds of the floats that tensors hold. bfloat16 is of kind "V" to it, in which there are
# also records of users: they never get into a tensor.
FLOATS = "fV"
INEXACT = "fVc"


def kind_of(dtype: Any) -> str:
    """NumPy's kind of a dtype; "f" for bfloat16, which NumPy takes for bytes of no meaning."""
    kind: str = dtype.kind
    if kind == "V" and dtype.name == "bfloat16":
        _bfloat16()  # an array of a user's may be the first there is
        return "f"
    return kind


def is_floating(dtype: Any) -> bool:
    """Whether a NumPy dtype is one of real floating-point numbers, bfloat16 among them."""
    return kind_of(dtype) == "f"


def is_number(dtype: Any) -> bool:
    """Whether arrays of a NumPy dtype can become tensors."""
    return kind_of(dtype) in "biufc"


def with_own_dtype(array: np.ndarray) -> np.ndarray:
    """The array with the one object that NumPy has for its dtype.

    An array from a pickle has an equal one, and so has what is computed of it; much is asked by
    ``is`` here, since that is the fastest.
    """
    own = np.dtype(array.dtype.type)
    return array.view(own) if array.dtype is not own and array.dtype == own else array


class DType:
    """An element type: equals its name, its NumPy dtype and itself."""

    __slots__ = ("as_numpy_dtype", "name", "numpy_dtype")

    def __init__(self, name: str, numpy_dtype: Any = None) -> None:
        self.name = name
        self.numpy_dtype = np.dtype(numpy_dtype or name)
        self.as_numpy_dtype = self.numpy_dtype.type

    @property
    def is_floating(self) -> bool:
        return is_floating(self.numpy_dtype)

    @property
    def is_integer(self) -> bool:
        return self.numpy_dtype.kind in "iu"

    @property
    def is_bool(self) -> bool:
        return self.numpy_dtype.kind == "b"

    @property
    def is_complex(self) -> bool:
        return self.numpy_dtype.kind == "c"

    @property
    def is_unsigned(self) -> bool:
        return self.numpy_dtype.kind == "u"

    @property
    def is_numeric(self) -> bool:
        """Whether it is one of numbers: every one but bool."""
        return not self.is_bool

    @property
    def is_numpy_compatible(self) -> bool:
        return True

    @property
    def is_quantized(self) -> bool:
        return False

    @property
    def base_dtype(self) -> DType:
        """Itself: there are no references to tensors here."""
        return self

    @property
    def real_dtype(self) -> DType:
        """That of the parts of complex numbers; itself for others."""
        return {"complex64": float32, "complex128": float64}.get(self.name, self)

    @property
    def limits(self) -> tuple[Any, Any]:
        """The range that an image of this dtype has: (0, 1) for floats, else 0 to the largest."""
        if self.is_integer:
            return 0, self.max
        return (False, True) if self.is_bool else (0, 1)

    def is_compatible_with(self, other: Any) -> bool:
        """Whether ``other``, a dtype or what stands for one, is the same."""
        return self == as_dtype(other)

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return self.numpy_dtype.itemsize

    @property
    def min(self) -> Any:
        """The smallest number; TypeError where there is no order."""
        return False if self.is_bool else self._ordered().min

    @property
    def max(self) -> Any:
        """The largest number; TypeError where there is no order."""
        return True if self.is_bool else self._ordered().max

    def _ordered(self) -> Any:
        if self.is_complex:
            raise TypeError(f"{self.name} has no smallest and no largest number")
        return limits(self.numpy_dtype)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DType):
            return self.name == other.name
        if other == self.name:
            return True
        if other is None or other is int:
            return False
        try:
            return self.numpy_dtype == as_dtype(other).numpy_dtype
        except TypeError:
            return self.name == "string" and getattr(other, "kind", None) in ("S", "U", "O")

    def __hash__(self) -> int:
        return hash(self.numpy_dtype)

    def __str__(self) -> str:
        return f"<dtype: '{self.name}'>"

    def __repr__(self) -> str:
        return f"tf.{self.name}"  # as TensorFlow's

    def __reduce__(self) -> tuple[Any, ...]:
        return of_input, (self.name,)


def limits(dtype: np.dtype) -> Any:
    """``np.finfo`` or ``np.iinfo`` of a dtype; for bfloat16 what ml_dtypes has in its place."""
    if dtype.kind == "V":
        import ml_dtypes

        return ml_dtypes.finfo(dtype)
    return np.finfo(dtype) if dtype.kind in "fc" else np.iinfo(dtype)


float16 = half = DType("float16")
float32 = DType("float32")
float64 = double = DType("float64")
int8 = DType("int8")
int16 = DType("int16")
int32 = DType("int32")
int64 = DType("int64")
uint8 = DType("uint8")
uint16 = DType("uint16")
uint32 = DType("uint32")
uint64 = DType("uint64")
bool_ = DType("bool")
complex64 = DType("complex64")
complex128 = DType("complex128")
string = DType("string", str)  # of inputs and elements of datasets: no tensor holds texts

_ALL = [
    float16, float32, float64, int8, int16, int32, int64,
    uint8, uint16, uint32, uint64, bool_, complex64, complex128,
]  # fmt: skip
_OF_PYTHON: dict[Any, DType] = {float: float32, int: int32, "float": float32}
_BY_NUMPY = {dtype.numpy_dtype: dtype for dtype in _ALL}
_BY_NUMBER = {  # in TensorFlow's files, and in ``tf.zeros(1, 1)`` of a guide
    1: float32, 2: float64, 3: int32, 4: uint8, 5: int16, 6: int8, 8: complex64, 9: int64,
    10: bool_, 17: uint16, 18: complex128, 19: float16, 22: uint32, 23: uint64,
}  # fmt: skip

if TYPE_CHECKING:
    bfloat16: DType
# Called when bfloat16 is first asked for.
when_bfloat16: list[Callable[[], None]] = []


@functools.cache
def _bfloat16() -> DType:
    """bfloat16, at its first use: whoever does without it pays nothing for it."""
    import ml_dtypes  # noqa: F401 (tells NumPy of its dtypes)

    made = DType("bfloat16")
    _ALL.append(made)
    _BY_NUMPY[made.numpy_dtype] = made
    for tell in when_bfloat16:
        tell()
    return made


def __getattr__(name: str) -> Any:
    if name == "bfloat16":
        return _bfloat16()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def as_dtype(type_value: Any) -> DType:
    """The DType for a name, a NumPy dtype, a Python type, a DType or TensorFlow's number of one.

    Raises TypeError for anything that is not an element type distgrad knows. A Python ``float``,
    or its name, is float32 and a Python ``int`` is int32, as in TensorFlow.
    """
    if isinstance(type_value, DType) and type_value is not string:
        return type_value
    if (
        type_value is float
        or type_value is int
        or (isinstance(type_value, str) and type_value == "float")
    ):
        return _OF_PYTHON[type_value]
    try:
        if type_value is None:  # which is float64 to NumPy
            raise TypeError
        return _BY_NUMPY[np.dtype(type_value)]
    except (TypeError, KeyError):
        if type(type_value) is int and type_value in _BY_NUMBER:
            return _BY_NUMBER[type_value]
        if getattr(type_value, "name", getattr(type_value, "__name__", type_value)) == "bfloat16":
            return _bfloat16()
        if type_value == "string":
            raise TypeError(
                "no tensor holds texts: keep them in NumPy arrays, which models of Input(dtype="
                "tf.string) take; StringLookup and TextVectorization make numbers of them"
            ) from None
        names = ", ".join(dict.fromkeys([*(d.name for d in _ALL), "bfloat16"]))
        raise TypeError(f"{type_value!r} is not an element type; use one of {names}") from None


def of_input(type_value: Any) -> DType:
    """`as_dtype` for what may be an array of texts, as an input of a model: that is ``string``."""
    of_texts = isinstance(type_value, np.dtype) and type_value.kind in "USO"
    return string if of_texts or type_value in (str, "string", "str") else as_dtype(type_value)
