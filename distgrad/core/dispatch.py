"""From what a caller passes to what a kernel takes: backends, conversion, dtype rules.

Dtypes are never promoted between tensors. Python numbers are weak: they take the dtype of the
tensor beside them and reach the kernel as Python numbers. Arrays and lists beside a tensor are
converted to its dtype.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.backend.base import Backend, OutOfMemory
from distgrad.backend.numpy import backend as numpy_backend
from distgrad.core.dtypes import as_dtype, is_number, kind_of
from distgrad.core.errors import DeviceLostError, DeviceMemoryError, InvalidArgumentError
from distgrad.core.straight import Noted
from distgrad.core.tensor import Tensor

backends: dict[type, Backend] = {np.ndarray: numpy_backend}
arrays = frozenset((*backends, Noted))
# Makes one tensor of a nest with tensors in it, by operations; ``ops.shape`` puts its own here.
pack: Any = None
# The namespace of the only backend there is; None once a second one has been registered.
only_namespace: Any = np


# Where arrays are made outside of any ``device`` context; None: as DISTGRAD_DEVICE says, which is
# looked at when the first array is made.
default: Backend | None = numpy_backend


class _InForce(threading.local):
    backend: Backend | None = None  # of this thread's innermost ``device`` context


in_force = _InForce()


def register(backend: Backend) -> None:
    """Makes the arrays of a second library known; from now on ``bind`` asks where arrays lie."""
    global arrays, only_namespace
    backends[backend.array_type] = backend
    arrays, only_namespace = frozenset((*backends, Noted)), None


def forget(array_type: type) -> None:
    """Undoes ``register``, for tests."""
    global arrays, only_namespace
    backends.pop(array_type, None)
    arrays = frozenset((*backends, Noted))
    only_namespace = np if len(backends) == 1 else None


def current() -> Backend:
    """Where new arrays are made."""
    if only_namespace is not None:
        return numpy_backend
    if in_force.backend is not None:
        return in_force.backend
    if default is not None:
        return default
    from distgrad.core.devices import use_default

    return use_default()


def backend_of(array: Any) -> Backend:
    """The backend of an array; NumPy's for anything else."""
    return backends.get(type(array), numpy_backend)


def backend_over(namespace: Any) -> Backend:
    """The backend with this array namespace; NumPy's for one that nobody has registered."""
    return next((b for b in backends.values() if b.xp is namespace), numpy_backend)


def in_caches(namespace: Any) -> bool:
    """Whether work in pieces that fit a core's caches pays: on a CPU, not where a call launches."""
    return namespace is np


@functools.lru_cache(8)  # NumPy says of a name that it has not only after a search
def launches(namespace: Any) -> bool:
    """Whether its calls are launches on a GPU; what stands for NumPy in a capture is none."""
    return hasattr(namespace, "cuda")


def moved(array: Any, backend: Backend) -> Any:
    """A copy of ``array`` where ``backend`` has its arrays."""
    source = backend_of(array)
    if source is backend:
        return array.copy()
    return backend.asarray(source.to_numpy(array))


def beside(array: Any, value: Any) -> Any:
    """``value``, an array or a number, in the library of ``array``."""
    kind = type(value)
    if only_namespace is not None or kind is type(array) or kind not in backends:
        return value
    return moved(value, backends[type(array)])


def together(creates: bool, data: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """Where an operation runs, as an array namespace, and its arguments there.

    Arrays of NumPy beside one on a device are copied there. Without any array, or where the
    operation ``creates`` from a key, it runs where new arrays are made.
    """
    found: Backend | None = None
    for item in data:
        backend = backends.get(type(item))
        if backend is not None and (found is None or found is numpy_backend):
            found = backend
    if found is None or (creates and found is numpy_backend):
        return current().xp, data
    if found is numpy_backend:
        return found.xp, data
    return found.xp, [found.asarray(a) if type(a) is np.ndarray else a for a in data]


def explained(operation: str, error: Exception) -> Exception | None:
    """What to raise for an error that a device has raised inside ``operation``, if it has."""
    for backend in backends.values():
        known = backend.explain(operation, error)
        if known is not None:
            memory = isinstance(known, OutOfMemory)
            return DeviceMemoryError(str(known)) if memory else DeviceLostError(str(known))
    return None


def namespace(data: Sequence[Any]) -> Any:
    """The array namespace that the arrays among ``data`` belong to."""
    for item in data:
        backend = backends.get(type(item))
        if backend is not None:
            return backend.xp
    return numpy_backend.xp


def as_tensor(value: Any, dtype: Any = None, like: np.dtype | None = None) -> Tensor:
    """``value`` as a Tensor: tensors pass through, a variable is read, the rest is copied in.

    ``dtype`` is demanded; ``like`` is the dtype of a tensor beside it, to which arrays are cast.
    Raises TypeError where a Python value cannot hold in ``dtype`` without loss of its kind, and
    ValueError for None, ragged nests, objects, or a tensor of another dtype.
    """
    if type(value) is Tensor:
        tensor = value
    elif hasattr(value, "_read"):
        tensor = value._read()
    elif like is not None and isinstance(value, (np.ndarray, np.generic)):
        return Tensor(current().asarray(value, like))
    elif isinstance(value, (list, tuple)) and _holds_tensor(value):
        return pack(value, dtype if dtype is not None else like)
    elif only_namespace is None and type(value) in backends and type(value) is not np.ndarray:
        wanted = value.dtype if dtype is None and like is None else as_dtype(dtype or like)
        return Tensor(value.astype(getattr(wanted, "numpy_dtype", wanted), copy=True))
    else:
        return Tensor(current().asarray(_to_array(value, dtype if dtype is not None else like)))
    if dtype is not None and tensor._data.dtype != as_dtype(dtype).numpy_dtype:
        raise ValueError(
            f"a {tensor.dtype.name} tensor cannot be converted to {as_dtype(dtype).name}; use cast"
        )
    return tensor


def register_tensor_conversion_function(
    base_type: type | tuple[type, ...],
    conversion_func: Callable[..., Any],
    priority: int = 100,
) -> None:
    """Lets objects of a class, or of several, be given wherever a tensor is.

    ``conversion_func(value, dtype, name, as_ref)`` returns their tensor. Of a class that has one
    already the last one counts, whatever its ``priority``. Raises TypeError for what is no class or
    no callable, and for Python's and NumPy's numbers.
    """
    kinds = base_type if isinstance(base_type, tuple) else (base_type,)
    if not callable(conversion_func):
        raise TypeError(f"conversion_func is callable, not {conversion_func!r}")
    for kind in kinds:
        if not isinstance(kind, type) or issubclass(kind, (int, float, np.generic, np.ndarray)):
            raise TypeError(f"tensors are made of objects of a class of one's own, not {kind!r}")
        kind._read = lambda value: as_tensor(conversion_func(value, None, None, False))  # type: ignore[attr-defined]


def _to_array(value: Any, dtype: Any) -> np.ndarray:
    wanted = None if dtype is None else as_dtype(dtype).numpy_dtype
    if value is None:
        raise ValueError("None cannot be converted to a tensor")
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        if not is_number(array.dtype):
            raise _no_numbers(f"an array of dtype {array.dtype}", array.dtype)
        if wanted is None and array.dtype.isnative:
            return array
        return array.astype(array.dtype.newbyteorder("=") if wanted is None else wanted)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{value!r} cannot be converted to a tensor: {error}") from None
    kind = kind_of(array.dtype)
    if array.size == 0 and wanted is None:
        return array.astype(np.float32)
    if wanted is None:
        return _default(array, value)
    if kind not in "biufc":
        raise TypeError(f"{value!r} cannot be converted to {wanted}")
    if array.size and (
        (kind == "f" and wanted.kind in "biu")
        or (kind == "c" and wanted.kind != "c")
        or (kind in "iu" and wanted.kind == "b")
    ):
        raise TypeError(f"{value!r} cannot be converted to {wanted} without loss; use cast")
    return _checked(array, wanted, value)


def _no_numbers(what: str, dtype: np.dtype) -> ValueError:
    texts = " of numbers: keep texts in NumPy arrays, or give a lookup layer"
    more = texts if dtype.kind in "SU" else ""
    return ValueError(f"{what} cannot be converted to a tensor{more}")


def _holds_tensor(values: Any) -> bool:
    """Whether a tensor or a variable lies in a nest of lists."""
    for value in values:
        kind = type(value)
        if kind is float or kind is int:  # nearly always, and lists can be long
            continue
        if kind is Tensor or hasattr(value, "_read"):
            return True
        if isinstance(value, (list, tuple)) and _holds_tensor(value):
            return True
    return False


def _default(array: np.ndarray, value: Any) -> np.ndarray:
    """Floats become float32 or what the first of them is, if that is NumPy's; integers int32,
    or int64 where they need it, whatever they are in NumPy."""
    first, kind = value, kind_of(array.dtype)
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    if kind not in "biufc":
        raise _no_numbers(repr(value), array.dtype)
    if kind == "f":
        wanted = getattr(first, "dtype", np.dtype(np.float32))
        return _checked(array, wanted if kind_of(wanted) == "f" else np.dtype(np.float32), value)
    if kind == "c":
        return array if hasattr(first, "dtype") else array.astype(np.complex128)
    if kind in "iu" and array.min() >= -(2**31) and array.max() < 2**31:
        return array.astype(np.int32)
    return array.astype(np.int64) if kind == "i" else array


def _checked(array: np.ndarray, wanted: np.dtype, value: Any) -> np.ndarray:
    if wanted.kind in "iu" and array.dtype.kind in "iu" and array.size:
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise ValueError(f"{value!r} does not fit in {wanted}")
    with np.errstate(over="ignore"):  # said below, as an error
        result = array.astype(wanted)
    floats = kind_of(wanted) == kind_of(array.dtype) == "f"
    if floats and np.any(np.isinf(result) & ~np.isinf(array)):
        raise ValueError(f"{value!r} does not fit in {wanted}")
    return result


_NUMBERS = (bool, int, float, complex)


def truths(value: Any) -> Any:
    """What is not 0 in an array of NumPy, where bools are wanted; anything else as it is.

    A list without a number in it, which would be one of floats, is one of bools.
    """
    if isinstance(value, (list, tuple)) and _bare(value):
        return np.zeros(np.shape(value), bool)
    return value != 0 if isinstance(value, (np.ndarray, np.generic)) else value


def _bare(nest: list | tuple) -> bool:
    return all([isinstance(part, (list, tuple)) and _bare(part) for part in nest])


def convert(primitive: Any, args: tuple) -> list:
    """The arguments of a primitive as tensors of one dtype and weak Python numbers."""
    match = primitive.match
    if primitive.kinds == "b":
        args = tuple([truths(a) for a in args])
    if match is None:
        args = match_dtypes(primitive.name, args)  # type: ignore[assignment]
    else:
        args = [a if type(a) is Tensor or i in match else as_tensor(a) for i, a in enumerate(args)]  # type: ignore[assignment]
        if match:
            peers = match_dtypes(primitive.name, [args[i] for i in match])
            for position, value in zip(match, peers, strict=True):
                args[position] = value  # type: ignore[index]
    if primitive.kinds is not None and args:
        first = args[match[0] if match else 0]
        if type(first) is not Tensor:
            first = next(a for a in args if type(a) is Tensor)
        if first._data.dtype.kind not in primitive.kinds:
            raise InvalidArgumentError(
                f"{primitive.name} does not take {first.dtype.name} tensors; use cast"
            )
    return args  # type: ignore[return-value]


def match_dtypes(name: str, args: Sequence[Any]) -> list:
    """Tensors of one dtype; Python numbers stay as they are where a tensor stands beside them.

    Raises InvalidArgumentError where two tensors differ in dtype, or a Python float meets an
    integer tensor.
    """
    result = [a if type(a) is Tensor or not hasattr(a, "_read") else a._read() for a in args]
    dtype = None
    for value in result:
        if type(value) is Tensor:
            if dtype is None:
                dtype = value._data.dtype
            elif value._data.dtype != dtype:
                raise InvalidArgumentError(
                    f"{name}: tensors of {dtype} and {value._data.dtype} do not mix; use cast"
                )
    if dtype is None:
        nests = [isinstance(v, (list, tuple)) and _holds_tensor(v) for v in result]
        if any(nests):
            packed = [as_tensor(v) if n else v for v, n in zip(result, nests, strict=True)]
            return match_dtypes(name, packed)
        return _match_untyped(result)
    for i, value in enumerate(result):
        if type(value) is Tensor:
            continue
        if type(value) in _NUMBERS:
            result[i] = weak(name, value, dtype)
        else:
            result[i] = as_tensor(value, like=dtype)
    return result


# Python numbers of several kinds, and no tensor: the widest kind wins.
_WEAK_ORDER = {"bool": 0, "int32": 1, "int64": 2, "float32": 3}


def _wider(kind: str, dtype: np.dtype) -> bool:
    return "biufc".index(kind) > "biufc".index(kind_of(dtype))


def _match_untyped(args: list) -> list:
    """No tensor among them: the first array sets the dtype, else Python's own rules do.

    A Python number of a wider kind than that array's sets it in its place.
    """
    for value in args:
        if isinstance(value, (np.ndarray, np.generic)):
            like = np.asarray(value).dtype
            if not is_number(like):
                raise _no_numbers(f"an array of dtype {like}", like)
            for other in args:
                if type(other) in _NUMBERS and _wider(kind_of(np.asarray(other).dtype), like):
                    like = as_tensor(other)._data.dtype
            return [as_tensor(v, like=like) for v in args]
    tensors = [as_tensor(v) for v in args]
    widest = max((t._data.dtype for t in tensors), key=lambda d: _WEAK_ORDER.get(d.name, 9))
    return [t if t._data.dtype == widest else Tensor(t._data.astype(widest)) for t in tensors]


def weak(name: str, value: Any, dtype: np.dtype) -> Any:
    """A Python number beside a tensor of ``dtype``: the same number, of the tensor's kind."""
    kind = kind_of(dtype)
    if kind == "f":
        if type(value) is complex:
            raise InvalidArgumentError(f"{name}: {value!r} does not mix with {dtype}; use cast")
        return float(value)
    if kind == "c":
        return value
    if kind == "b":
        if type(value) is not bool:
            raise InvalidArgumentError(f"{name}: {value!r} does not mix with {dtype}; use cast")
        return value
    if type(value) in (float, complex):
        raise InvalidArgumentError(f"{name}: {value!r} does not mix with {dtype}; use cast")
    limits = np.iinfo(dtype)
    if not limits.min <= value <= limits.max:
        raise InvalidArgumentError(f"{name}: {value!r} does not fit in {dtype}")
    return int(value)
