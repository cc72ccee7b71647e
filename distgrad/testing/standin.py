"""A stand-in for a second array library: NumPy underneath, and as strict as CuPy on top.

Its arrays refuse to become NumPy arrays by themselves, do not mix with them, and have the methods
that CuPy documents; its namespace has the functions that CuPy documents. What runs on it runs on a
GPU as far as the Python code is concerned: ``with standin.registered(): ...``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from distgrad.backend.base import Backend
from distgrad.backend.numpy import backend as numpy_backend
from distgrad.core import dispatch


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Functions that CuPy 13 and later document under the names and with the meaning of NumPy's.
CUPY = _names(
    """
    abs absolute add all angle any arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh
    argmax argmin argsort argwhere array asarray ascontiguousarray bitwise_and bitwise_not
    bitwise_or bitwise_xor broadcast_arrays broadcast_to cbrt ceil clip concatenate conj copysign
    cos cosh count_nonzero cross cumprod cumsum diag diagonal divide dot einsum empty empty_like
    equal exp exp2 expand_dims expm1 eye flip floor floor_divide fmod full full_like greater
    greater_equal hypot imag invert isfinite isinf isnan isposinf isneginf kron left_shift less
    less_equal linspace log log10 log1p log2 logaddexp logical_and logical_not logical_or
    logical_xor matmul max maximum mean meshgrid min minimum moveaxis multiply nan_to_num negative
    nextafter nonzero not_equal ones ones_like outer pad power prod put_along_axis real reciprocal
    remainder repeat reshape result_type right_shift rint roll round searchsorted sign signbit sin
    sinh sort split sqrt square squeeze stack std subtract sum swapaxes take take_along_axis tan
    tanh tensordot tile trace transpose tri tril triu trunc unique var where zeros zeros_like
    lib.stride_tricks.as_strided linalg.cholesky linalg.det linalg.eigh linalg.eigvalsh linalg.inv
    linalg.norm linalg.pinv linalg.qr linalg.slogdet linalg.solve linalg.svd fft.fft fft.fft2
    fft.fftn fft.ifft fft.ifft2 fft.ifftn fft.irfft fft.irfft2 fft.irfftn fft.rfft fft.rfft2
    fft.rfftn
    """
)
# Of a ufunc, what CuPy has of ``at`` (cupy.ufunc.at).
_WHOLE = ("int32", "int64", "uint32", "uint64")
# The dtypes that each takes. (CuPy rounds the largest of doubles to floats: see cuda_rows.py.)
UFUNC_AT = {
    "add": (*_WHOLE, "float16", "float32", "float64"),
    "subtract": ("int32", "uint32"),
    "maximum": (*_WHOLE, "float32", "float64"),
    "minimum": (*_WHOLE, "float32", "float64"),
}
# Names borrowed from NumPy itself.
CONSTANTS = _names(
    """
    bool_ complex64 complex128 dtype e finfo float16 float32 float64 iinfo inf int8 int16 int32
    int64 nan ndindex newaxis pi uint8 uint16 uint32 uint64
    """
)
# Functions of cupyx.scipy.special, without i0e and its like, which overflow there.
CUPY_SPECIAL = _names(
    """
    betainc digamma entr erf erfc erfcinv erfcx erfinv expi expit gamma gammainc gammaincc gammaln
    i0 i1 j0 j1 k0 k1 log_ndtr log_softmax logit logsumexp ndtr ndtri polygamma psi rel_entr sinc
    softmax xlog1py xlogy y0 y1 zeta
    """
)
# Keywords that NumPy has and CuPy's functions do not take.
REFUSED = frozenset(["initial", "where", "casting", "subok", "signature"])
_METHODS = _names(
    """
    all any argmax argmin argsort astype clip cumprod cumsum diagonal dot fill max mean min
    nonzero prod ravel repeat reshape round sort squeeze std sum swapaxes take trace transpose var
    view
    """
)
_OPERATORS = [
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
]


# Functions and methods that look at no element: they give another view of the same memory, or new.
_BLIND = _names(
    """
    broadcast_to diagonal empty_like expand_dims moveaxis ones_like ravel reshape squeeze swapaxes
    transpose view zeros_like
    """
)


class Order:
    """When work is done: at once. A stand-in for a device may have it done later."""

    noting = False  # whether work is noted for later, again and again

    def wait(self) -> None:
        """Returns when what was put off before is done; comes before a look at elements."""

    def later(self, work: Callable[[], object]) -> None:
        """Takes work of which nothing but the elements of an existing array is expected."""
        work()

    def made(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        """``fn(*args, **kwargs)``, which looks at elements and gives arrays."""
        self.wait()
        return fn(*args, **kwargs)

    def host(self, what: str) -> None:
        """Comes before a look of the host at elements, or a copy from there."""
        self.wait()

    def copies(self) -> None:
        """Comes before a copy from the host."""

    def by_name(self, name: str) -> None:
        """Comes before a function by name, which another library may do."""

    def allocates(self) -> None:
        """Comes before memory is taken."""


order = Order()


class Address:
    """As ``cupy.cuda.MemoryPointer``: an address, and what keeps its memory."""

    def __init__(self, ptr: int, keep: Any) -> None:
        self.ptr, self.keep = ptr, keep

    def __add__(self, offset: int) -> Address:
        return Address(self.ptr + offset, self.keep)

    def array(self, shape: Any, dtype: Any, strides: Any) -> np.ndarray:
        steps = None if strides is None else tuple(strides)
        interface = {"data": (self.ptr, False), "shape": tuple(shape), "strides": steps}
        holder = _Interface()
        holder.__array_interface__ = {**interface, "typestr": np.dtype(dtype).str, "version": 3}
        holder.keep = self.keep
        return np.asarray(holder).view(dtype)  # bfloat16's typestr says its size alone


class _Interface:
    __array_interface__: dict[str, Any]
    keep: Any


class Array:
    """An array of the stand-in: a NumPy array that only its own library reaches.

    As CuPy's, it can be made of a shape, a dtype, a pointer and strides.
    """

    __array_ufunc__ = None  # a NumPy scalar beside it asks the reflected operator

    def __init__(
        self, data: Any, dtype: Any = None, memptr: Address | None = None, strides: Any = None
    ) -> None:
        self._data = data if memptr is None else memptr.array(data, dtype, strides)

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("NumPy was called on an array of another library; use its own namespace")

    __array_function__ = __array__

    def __getattr__(self, name: str) -> Any:
        if name in _METHODS:
            return _Function(getattr(self._data, name), name, is_method=True)
        raise AttributeError(f"arrays of the stand-in have no {name!r}")

    shape = property(lambda self: self._data.shape)
    dtype = property(lambda self: self._data.dtype)
    ndim = property(lambda self: self._data.ndim)
    size = property(lambda self: self._data.size)
    strides = property(lambda self: self._data.strides)
    itemsize = property(lambda self: self._data.itemsize)
    nbytes = property(lambda self: self._data.nbytes)
    flags = property(lambda self: self._data.flags)
    base = property(lambda self: self._data.base)
    T = property(lambda self: _wrap(self._data.T))
    real = property(
        lambda self: _wrap(self._data.real),
        lambda self, value: _set_part(self._data.real, plain_of(value)),
    )
    imag = property(
        lambda self: _wrap(self._data.imag),
        lambda self, value: _set_part(self._data.imag, plain_of(value)),
    )

    def get(self) -> np.ndarray:
        """The values on the host."""
        order.host("D2H transfers")
        return self._data.copy()

    def copy(self) -> Array:
        """The same values in memory of its own."""
        order.allocates()
        made = Array(np.empty_like(self._data))
        order.later(lambda: np.copyto(made._data, self._data))
        return made

    def item(self, *args: Any) -> Any:
        order.host("D2H transfers")
        return self._data.item(*args)

    def __getitem__(self, key: Any) -> Any:
        index = plain_of(key)
        if not _has_array(key):
            return _wrap(self._data[index])
        if _has_mask(index):
            order.host("synchronous API calls")
        return _wrap(order.made(self._data.__getitem__, index))

    def __setitem__(self, key: Any, value: Any) -> None:
        given = plain_of(key), plain_of(value)
        if not _has_array(key):  # shapes are looked at at once
            wanted, shape = self._data[given[0]].shape, np.shape(given[1])
            while len(shape) > len(wanted) and shape[0] == 1:
                shape = shape[1:]
            np.broadcast_to(np.broadcast_to(0, shape), wanted)
        order.later(lambda: self._data.__setitem__(*given))

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __index__(self) -> int:
        return self.get().__index__()

    def __repr__(self) -> str:
        return f"standin.Array({self._data!r})"

    __hash__ = None  # type: ignore[assignment]


def _define(name: str, in_place: bool) -> None:
    def operator(self: Array, *others: Any) -> Any:
        order.by_name(name)
        given = [plain_of(other) for other in others]
        if in_place:
            order.later(lambda: getattr(self._data, name)(*given))
            return self
        return _wrap(order.made(getattr(self._data, name), *given))

    setattr(Array, name, operator)


for _name in _OPERATORS:
    for _prefix in ("", "r", "i"):
        _define(f"__{_prefix}{_name}__", in_place=_prefix == "i")
for _name in ("neg", "pos", "abs", "invert", "eq", "ne", "lt", "le", "gt", "ge"):
    _define(f"__{_name}__", in_place=False)


def plain_of(value: Any) -> Any:
    """What NumPy is given for an argument; its own arrays are refused, as CuPy refuses them."""
    if isinstance(value, Array):
        return value._data
    if isinstance(value, np.ndarray):
        raise TypeError("an array of NumPy beside one of another library")
    if isinstance(value, (tuple, list)):
        return type(value)(plain_of(v) for v in value)
    return value


def _set_part(part: np.ndarray, value: Any) -> None:
    order.later(lambda: np.copyto(part, value))


def _has_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, np.ndarray) and part.dtype == bool for part in parts)


def _has_array(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_has_array, value))
    return isinstance(value, Array) or (isinstance(value, dict) and _has_array([*value.values()]))


def _wrap(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_wrap(v) for v in value)
    if isinstance(value, list):
        return [_wrap(v) for v in value]
    # CuPy has no scalars: a full reduction is an array of rank 0.
    return Array(np.asarray(value)) if isinstance(value, (np.ndarray, np.generic)) else value


class _Function:
    """A function that takes and gives arrays of the stand-in."""

    def __init__(self, fn: Any, name: str, is_method: bool = False) -> None:
        self.fn, self.name, self.is_method = fn, name, is_method

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for word in REFUSED & set(kwargs):
            raise TypeError(f"CuPy's {self.name} takes no {word!r}")
        order.by_name(self.name)
        out = kwargs.get("out")
        given = [plain_of(value) for value in args]
        plain = {key: plain_of(value) for key, value in kwargs.items()}
        if out is not None:
            order.later(lambda: self.fn(*given, **plain))
            return out
        return _wrap(self._made(given, plain, _has_array([args, kwargs])))

    def _made(self, given: list[Any], plain: dict[str, Any], looks: bool) -> Any:
        blind = self.name in _BLIND or not (self.is_method or looks)
        if blind and not order.noting:
            return self.fn(*given, **plain)
        return order.made(self.fn, *given, **plain)

    def at(self, array: Any, indices: Any, *values: Any) -> None:
        if self.name not in UFUNC_AT:
            raise AttributeError(f"CuPy has no {self.name}.at")
        if array.dtype.name not in UFUNC_AT[self.name]:
            raise TypeError(f"CuPy's {self.name}.at takes no {array.dtype}")
        given = [plain_of(array), plain_of(indices), *map(plain_of, values)]
        order.later(lambda: self.fn.at(*given))


class Namespace:
    """The functions of an array library, by the names that CuPy documents; notes those used."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._made: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name in self._made:
            return self._made[name]
        path = self._prefix + name
        if path in CONSTANTS:
            return getattr(np, name)
        if path == "asarray":
            made: Any = asarray
        elif path in CUPY:
            target: Any = np
            for part in path.split("."):
                target = getattr(target, part)
            made = _Function(target, path)
        elif any(known.startswith(path + ".") for known in CUPY):
            made = Namespace(path + ".")
        else:
            raise AttributeError(f"{path} is not among the functions that CuPy documents")
        self._made[name] = made
        return made


class _Special:
    def __getattr__(self, name: str) -> Any:
        if name not in CUPY_SPECIAL:
            raise AttributeError(f"{name} is not among the functions of cupyx.scipy.special")
        return _Function(getattr(numpy_backend.special, name), name)


def asarray(value: Any, dtype: Any = None) -> Array:
    """``value`` (also an array of NumPy) as an array of the stand-in."""
    if isinstance(value, Array):
        return Array(order.made(np.array, value._data, dtype=dtype))
    order.copies()
    return Array(np.array(value, dtype=dtype))


class StandIn(Backend):
    name = "standin"
    xp = Namespace()
    array_type = Array
    special = _Special()

    def asarray(self, value: Any, dtype: Any = None) -> Array:
        return asarray(value, dtype)

    def to_numpy(self, array: Array) -> np.ndarray:
        return array.get()

    def random_uniform(self, key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        return _wrap(numpy_backend.random_uniform(plain_of(key), shape, dtype))

    def random_normal(self, key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        return _wrap(numpy_backend.random_normal(plain_of(key), shape, dtype))

    def random_integers(self, key: Any, low: int, high: int, shape: tuple, dtype: Any) -> Any:
        return _wrap(numpy_backend.random_integers(plain_of(key), low, high, shape, dtype))

    def random_permutation(self, key: Any, n: int) -> Any:
        return _wrap(numpy_backend.random_permutation(plain_of(key), n))

    def solve_triangular(self, matrix: Any, rhs: Any, *, lower: bool, transpose: bool) -> Any:
        solved = numpy_backend.solve_triangular(
            plain_of(matrix), plain_of(rhs), lower=lower, transpose=transpose
        )
        return _wrap(solved)


backend = StandIn()


@contextmanager
def registered() -> Iterator[StandIn]:
    """Context in which arrays of the stand-in are known beside NumPy's."""
    known, namespace = dispatch.backends.get(Array), dispatch.only_namespace
    dispatch.register(backend)
    try:
        yield backend
    finally:
        if known is not None:
            dispatch.register(known)
        else:
            dispatch.forget(Array)
        dispatch.only_namespace = namespace
