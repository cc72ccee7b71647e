"""Lowering: a kernel as the NumPy calls it consists of, each with a place for its result.

A kernel is run once on arrays that note down what is done with them. What they cannot note (a
look at a value, a function without ``out``) leaves the kernel whole: it is then called as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from distgrad.compile.program import Apply
from distgrad.compile.steps import Buffer, Step, View, mapped
from distgrad.core.dtypes import kind_of
from distgrad.core.errors import InvalidArgumentError


class Opaque(Exception):
    """A kernel that cannot be noted down."""


class Notes:
    """What is noted while one kernel runs."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._roots: list[tuple[int, int, Buffer]] = []
        self._alive: list[Any] = []

    def own(self, array: np.ndarray, buffer: Buffer) -> None:
        """The memory of ``array`` is that of ``buffer``."""
        low, high = np.lib.array_utils.byte_bounds(array)
        self._roots.append((low, high, buffer))
        self._alive.append(array)

    def place(self, array: np.ndarray) -> View | None:
        """Where an array lies, None if in no buffer."""
        low, high = np.lib.array_utils.byte_bounds(array)
        for start, stop, buffer in reversed(self._roots):
            if start <= low and high <= stop:
                address = array.__array_interface__["data"][0]
                return View(buffer, address - start, array.shape, array.strides, array.dtype)
        return None

    def ref(self, item: Any) -> Any:
        """An argument of a step; an array that no step made is a constant of the kernel."""
        if isinstance(item, np.ndarray):
            found = self.place(item)
            if found is None and isinstance(item, _Noted):
                raise Opaque("an array from nowhere")
            return item if found is None else found
        if type(item) in (list, tuple):
            return type(item)(self.ref(part) for part in item)
        return item

    def made(self, result: Any) -> np.ndarray:
        """A new array with the layout of ``result``, in a buffer of its own."""
        array = np.asarray(result)
        if not array.size or array.dtype.hasobject:
            raise Opaque("nothing in it")
        low, high = np.lib.array_utils.byte_bounds(array)
        if high - low != array.nbytes:
            raise Opaque("an array with gaps")
        self.own(array, Buffer(array.nbytes))
        return array.view(_Noted)

    def note(
        self, fn: Any, args: Any, kwargs: dict, out: Any, *, into: bool, elementwise: bool = False
    ) -> None:
        place = self.place(out)
        if place is None:
            raise Opaque("written to an array from elsewhere")
        given = {k: self.ref(v) for k, v in kwargs.items()}
        refs = tuple(self.ref(a) for a in args)
        self.steps.append(Step(fn, refs, given, place, into, elementwise))

    def copy(self, source: Any, result: np.ndarray, **kwargs: Any) -> np.ndarray:
        """``result`` is a copy of ``source``."""
        made = self.made(result)
        self.note(np.copyto, (made, source), kwargs, made, into=False)
        return made


class _Current(threading.local):
    notes: Notes


_current = _Current()


def _plain(item: Any) -> Any:
    if isinstance(item, _Noted):
        return item.view(np.ndarray)
    if type(item) in (list, tuple):
        return type(item)(_plain(part) for part in item)
    return item


def _usual(key: str, value: Any) -> bool:
    """Whether a ufunc's keyword has its default, or says how a result lies, which ``out`` does."""
    if key == "order":
        return True
    return (key == "where" and value is True) or (key in ("dtype", "initial") and value is None)


def _looked_at(self: Any, *args: Any) -> Any:
    raise Opaque("a value is looked at")


class _Noted(np.ndarray):
    """An array whose operations are noted; views of it are noted by where they lie."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        fn = ufunc if method == "__call__" else getattr(ufunc, method)
        notes = _current.notes
        if method == "at":
            fn(*map(_plain, inputs))
            notes.note(fn, inputs, {}, inputs[0], into=False)
            return None
        if method not in ("__call__", "reduce", "accumulate") or ufunc.nout != 1:
            raise Opaque(f"{ufunc.__name__}.{method}")
        given = {k: v for k, v in kwargs.items() if k != "out" and not _usual(k, v)}
        (out,) = kwargs.get("out") or (None,)
        plain = {k: _plain(v) for k, v in given.items()}
        made: Any
        if out is None:
            made = notes.made(fn(*map(_plain, inputs), **plain))
        else:
            fn(*map(_plain, inputs), out=_plain(out), **plain)
            made = out
        elementwise = method == "__call__" and ufunc.signature is None
        notes.note(fn, inputs, given, made, into=True, elementwise=elementwise)
        return made

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """A function that is not noted itself: an array from it would pass for a constant."""
        made = super().__array_function__(func, types, args, kwargs)
        for part in made if isinstance(made, (list, tuple)) else (made,):
            if part is None or type(part) is np.ndarray or isinstance(part, np.generic):
                raise Opaque(f"{func.__name__} is not noted")
        return made

    __bool__ = __int__ = __float__ = __complex__ = __index__ = _looked_at
    item = tolist = _looked_at
    sort = partition = fill = put = _looked_at  # type: ignore[assignment]

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if not isinstance(part, np.ndarray):
            raise Opaque("a value is looked at")
        return part

    def __setitem__(self, key: Any, value: Any) -> None:
        part = super().__getitem__(key)
        if not isinstance(part, np.ndarray) or not np.shares_memory(part, self):
            raise Opaque("written to at scattered places")
        np.copyto(_plain(part), _plain(value))
        _current.notes.note(np.copyto, (part, value), {}, part, into=False)

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        result = _plain(self).astype(dtype, *args, **kwargs)
        if np.shares_memory(result, self):
            return self
        return _current.notes.copy(self, result, casting="unsafe")

    def copy(self, order: Any = "C") -> Any:
        return _current.notes.copy(self, _plain(self).copy(order))

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        result = super().reshape(*shape, **kwargs)
        if np.shares_memory(result, self):
            return result
        if kwargs or not result.flags.c_contiguous:
            raise Opaque("another order")
        flat = _current.notes.copy(self, np.array(_plain(self), order="C"))
        return np.ndarray.reshape(flat, *shape)


class _Namespace:
    """NumPy, with the functions that have no ``out`` or make arrays out of nothing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def _filled(self, array: np.ndarray, value: Any) -> Any:
        made = _current.notes.made(array)
        _current.notes.note(np.copyto, (made, _typed(value, made)), {}, made, into=False)
        return made

    def asarray(self, array: Any, dtype: Any = None) -> Any:
        if not isinstance(array, _Noted):
            return np.asarray(array, dtype)
        return array if dtype is None else array.astype(dtype, copy=False)

    def broadcast_to(self, array: Any, shape: Any) -> Any:
        return np.broadcast_to(array, shape, subok=True)

    def ascontiguousarray(self, array: Any) -> Any:
        return array if array.flags.c_contiguous else array.copy()

    def zeros(self, shape: Any, dtype: Any = float) -> Any:
        return self._filled(np.zeros(shape, dtype), 0)

    def ones(self, shape: Any, dtype: Any = float) -> Any:
        return self._filled(np.ones(shape, dtype), 1)

    def empty(self, shape: Any, dtype: Any = float) -> Any:
        return _current.notes.made(np.zeros(shape, dtype))

    def zeros_like(self, x: Any, dtype: Any = None) -> Any:
        return self._filled(np.zeros_like(_plain(x), dtype), 0)

    def empty_like(self, x: Any, dtype: Any = None) -> Any:
        return _current.notes.made(np.zeros_like(_plain(x), dtype))

    def full(self, shape: Any, value: Any, dtype: Any = None) -> Any:
        return self._filled(np.full(shape, value, dtype), value)

    def full_like(self, x: Any, value: Any, dtype: Any = None) -> Any:
        return self._filled(np.full_like(_plain(x), value, dtype), value)

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        made = _current.notes.made(np.where(_plain(condition), _plain(x), _plain(y)))
        _current.notes.note(np.copyto, (made, _typed(y, made)), {}, made, into=False)
        given = {"where": condition}
        _current.notes.note(np.copyto, (made, _typed(x, made)), given, made, into=False)
        return made

    @property
    def lib(self) -> Any:
        return SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=_as_strided))

    def argmax(self, array: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
        return self._reduced(np.argmax, array, axis, keepdims)

    def argmin(self, array: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
        return self._reduced(np.argmin, array, axis, keepdims)

    def _reduced(self, fn: Any, array: Any, axis: Any, keepdims: bool) -> Any:
        made = _current.notes.made(fn(_plain(array), axis, keepdims=keepdims))
        _current.notes.note(fn, (array, axis), {"keepdims": keepdims}, made, into=True)
        return made

    def take_along_axis(self, array: Any, indices: Any, axis: int) -> Any:
        return self._copied(np.take_along_axis, array, indices, axis)

    def take(self, array: Any, indices: Any, axis: int | None = None) -> Any:
        if isinstance(indices, _Noted) and indices.dtype != np.intp:
            indices = indices.astype(np.intp)  # NumPy would, at each call
        made = _current.notes.made(np.take(_plain(array), _plain(indices), axis))
        _current.notes.note(_take, (array, indices, axis), {}, made, into=True)
        return made

    def _copied(self, fn: Any, *args: Any) -> Any:
        made = _current.notes.made(fn(*map(_plain, args)))
        _current.notes.note(_Copied(fn), args, {}, made, into=True)
        return made

    def put_along_axis(self, array: Any, indices: Any, values: Any, axis: int) -> None:
        np.put_along_axis(_plain(array), _plain(indices), _plain(values), axis)
        args = (array, indices, values, axis)
        _current.notes.note(np.put_along_axis, args, {}, array, into=False)

    def concatenate(self, arrays: Any, axis: int = 0) -> Any:
        made = _current.notes.made(np.concatenate(_plain(list(arrays)), axis))
        _current.notes.note(np.concatenate, (list(arrays), axis), {}, made, into=True)
        return made

    concat = concatenate

    def copyto(self, out: Any, source: Any, **kwargs: Any) -> None:
        np.copyto(_plain(out), _plain(source), **{k: _plain(v) for k, v in kwargs.items()})
        _current.notes.note(np.copyto, (out, source), kwargs, out, into=False)


class _Copied:
    """A function without ``out``, that has one."""

    def __init__(self, fn: Callable[..., np.ndarray]) -> None:
        self.fn = fn
        self.__name__ = fn.__name__

    def __call__(self, *args: Any, out: np.ndarray) -> None:
        try:
            np.copyto(out, self.fn(*args))
        except IndexError as error:
            raise InvalidArgumentError(f"{self.__name__}: {error}") from error


def _take(array: np.ndarray, indices: Any, axis: int | None, *, out: np.ndarray) -> None:
    """``np.take``; NumPy itself makes a copy of ``out`` where it has to look for wrong indices."""
    size = array.size if axis is None else array.shape[axis]
    low, high = np.min(indices), np.max(indices)
    if low < -size or high >= size:
        wrong = low if low < -size else high
        where = "" if axis is None else f" for axis {axis}"
        raise InvalidArgumentError(f"take: index {wrong} is out of bounds{where} with size {size}")
    np.take(array, indices, axis, out=out, mode="wrap")


def _as_strided(x: Any, shape: Any, strides: Any) -> Any:
    return np.lib.stride_tricks.as_strided(x, shape, strides, subok=True)


def _typed(value: Any, array: np.ndarray) -> Any:
    """A Python number in the dtype of the array that it is written to."""
    return value if isinstance(value, np.ndarray) else array.dtype.type(value)


_namespace = _Namespace()


class Lowered(NamedTuple):
    """The steps of a kernel, and where they leave its results."""

    steps: list[Step]
    outputs: tuple[View, ...]


def lower(instruction: Apply, values: tuple[Any, ...]) -> Lowered | None:
    """The steps of an instruction on inputs like ``values``: arrays, and Python numbers.

    Inputs stand in the steps as buffers of kind "argument", owned by their position; a view's
    offset is that from the first element. The steps give the bits that the kernel gives for
    ``values``; None where it cannot be taken apart.
    """
    if instruction.primitive.host:
        return None
    notes = Notes()
    blanks, first = [], {}
    for position, value in enumerate(values):
        if not isinstance(value, np.ndarray):
            blanks.append(value)
            continue
        if not value.size:
            return None
        blank = like(value)
        if kind_of(value.dtype) not in "fc":  # an index must stay in range
            blank[...] = value
        buffer = Buffer(0, "argument", position)
        notes.own(blank, buffer)
        first[buffer] = notes.place(blank).offset  # type: ignore[union-attr]
        blanks.append(blank.view(_Noted))
    primitive = instruction.primitive
    _current.notes = notes
    try:
        with np.errstate(all="ignore"):
            out = primitive.kernel(_namespace, *blanks, **instruction.params)
            results = out if primitive.multiple else (out,)
            outputs = [notes.place(array) for array in results]
    except Exception:  # whatever a kernel may raise on zeros, or on arrays of this kind
        return None

    def moved(view: View) -> View:
        start = first.get(view.buffer)
        return view if start is None else view._replace(offset=view.offset - start)

    steps = [mapped(step, moved) for step in notes.steps]
    if None in outputs or any(s.out is None or s.out.buffer.kind == "argument" for s in steps):
        return None
    lowered = Lowered(steps, tuple(map(moved, outputs)))  # type: ignore[arg-type]
    return lowered if _agrees(lowered, instruction, values) else None


def like(array: np.ndarray, fill: int = 0) -> np.ndarray:
    """An array of this shape, dtype and strides in memory of its own; its bytes are ``fill``."""
    low, high = np.lib.array_utils.byte_bounds(array)
    offset = array.__array_interface__["data"][0] - low
    memory = np.full(high - low, fill, np.uint8)
    return np.ndarray(array.shape, array.dtype, memory, offset, array.strides)


def _agrees(lowered: Lowered, instruction: Apply, values: tuple[Any, ...]) -> bool:
    """Whether the steps give the kernel's bits, in its layout, for ``values``."""
    primitive = instruction.primitive
    made = primitive.kernel(np, *values, **instruction.params)
    wanted = list(map(np.asarray, made if primitive.multiple else (made,)))
    memory: dict[Buffer, Any] = {}

    def array(view: View) -> np.ndarray:
        if view.buffer.kind == "argument":
            whole = values[view.buffer.owner]
            return np.lib.stride_tricks.as_strided(
                _at(whole, view), view.shape, view.strides, writeable=False
            )
        if view.buffer not in memory:
            memory[view.buffer] = np.full(view.buffer.nbytes, 0xA5, np.uint8)
        return view.of(memory[view.buffer])

    for step in lowered.steps:
        step.run(array)
    return all(same(array(v), w) for v, w in zip(lowered.outputs, wanted, strict=True))


def _at(whole: np.ndarray, view: View) -> np.ndarray:
    """An array whose first element is the view's."""
    low, high = np.lib.array_utils.byte_bounds(whole)
    address = whole.__array_interface__["data"][0]
    memory = np.asarray(_Raw(low, high - low, whole))
    return np.ndarray((), view.dtype, memory, address - low + view.offset)


class _Raw:
    """The bytes of an array, from the lowest address on."""

    def __init__(self, address: int, nbytes: int, keep: Any) -> None:
        self.keep = keep
        self.__array_interface__ = {
            "data": (address, True),
            "shape": (nbytes,),
            "typestr": "|u1",
            "version": 3,
        }


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have the same bits in the same layout."""
    if (a.shape, a.dtype) != (b.shape, b.dtype) or a.tobytes() != b.tobytes():
        return False
    strides = zip(a.shape, a.strides, b.strides, strict=True)
    return all(n <= 1 or s == t for n, s, t in strides)
