"""What generated loops share: primitives as operations, and functions to be called."""

from __future__ import annotations

import ctypes
import functools
import struct
import sys
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distgrad.compile.llvm import engine
from distgrad.compile.llvm.expr import Expression, Unsupported
from distgrad.compile.llvm.ir import FLOATS, INTEGERS, TYPES, Emitter, Scalar
from distgrad.compile.passes.fusion import reduction
from distgrad.compile.program import Apply, Value, alike, once

if TYPE_CHECKING:
    from distgrad.compile.llvm.parts import Cut


def supporting() -> Callable[[Apply], bool]:
    """``supported`` for the instructions of one program, in which many are alike."""
    known: dict[Hashable, bool] = {}
    return lambda each: once(known, alike(each, {}), lambda: supported(each))


def supported(instruction: Apply) -> bool:
    """Whether the generator has operations for this primitive on these types."""
    if reduction(instruction) is not None:
        return instruction.outputs[0].dtype.name in TYPES
    if instruction.name == "is_class":
        return instruction.inputs[0].dtype.name in INTEGERS
    try:
        write_one(Emitter(), instruction, _stand_ins(instruction))
    except (Unsupported, KeyError):
        return False
    return True


def _stand_ins(instruction: Apply) -> dict[Value, Scalar]:
    return {
        v: Scalar("%x", "i1" if v.dtype == np.bool_ else loaded_type(v)) for v in instruction.values
    }


def loaded_type(value: Value) -> str:
    """The type of an array's elements in memory."""
    type_ = _LOADED.get(value.dtype)
    if type_ is None:
        raise Unsupported(value.dtype.name)
    return type_


_LOADED = {np.dtype(name): type_ for name, type_ in (TYPES | INTEGERS).items()}


def write_one(emitter: Emitter, instruction: Apply, known: dict[Value, Scalar]) -> Scalar:
    """What a primitive makes of its inputs."""
    if len(instruction.outputs) != 1:
        raise Unsupported("several results")
    (out,) = instruction.outputs
    primitive = instruction.primitive
    type_ = loaded_type(out) if out.dtype != np.bool_ else "i1"
    if primitive.name == "cast":
        (x,) = instruction.inputs
        return _cast(emitter, known[x], type_)
    types = {known[v].type for v in instruction.values} - {"i1"}
    working = types.pop() if types else type_
    if types or type_ not in (working, "i1"):
        raise Unsupported("two types of numbers")
    if primitive.expr is None:
        raise Unsupported(primitive.name)
    given = (known[v] if type(v) is Value else v for v in instruction.inputs)
    names = dict(zip(primitive.arg_names, given, strict=True)) | instruction.params
    made = Expression(emitter, working, names).write(primitive.expr)
    if made.type != type_:
        raise Unsupported(f"{made.type} for {type_}")
    return made


_SIZES = {"i1": 1, "i32": 32, "i64": 64}


def _cast(emitter: Emitter, x: Scalar, type_: str) -> Scalar:
    """A value in another type, where LLVM does what NumPy does: not from floats to integers."""
    if x.type == type_:
        return x
    if type_ == "i1":
        nothing = emitter.number(0, x.type)
        return emitter.compare("une" if x.type in FLOATS else "ne", x, nothing)
    if x.type in FLOATS and type_ in FLOATS:
        return emitter.cast("fpext" if type_ == "double" else "fptrunc", x, type_)
    if x.type in FLOATS:
        raise Unsupported(f"{x.type} as {type_}")
    if type_ in FLOATS:
        return emitter.cast("uitofp" if x.type == "i1" else "sitofp", x, type_)
    wider = _SIZES[type_] > _SIZES[x.type]
    op = "trunc" if not wider else "zext" if x.type == "i1" else "sext"
    return emitter.cast(op, x, type_)


class Native:
    """A generated function, called on arrays; or bound once to arrays that stay.

    It takes the address of a table: of the arrays' addresses, and of whole numbers behind them.
    What is given in place of its own address makes it when it is needed. ``cut`` says how a call
    can be shared by threads, if it can.
    """

    __name__ = "native"

    def __init__(
        self,
        address: int | Callable[[], int],
        numbers: Sequence[int] = (),
        cut: Cut | None = None,
    ) -> None:
        self.cut = cut
        self._given = address
        self._numbers = tuple(numbers)

    @functools.cached_property
    def address(self) -> int:
        """Where its code lies."""
        return self._given if isinstance(self._given, int) else self._given()

    @functools.cached_property
    def _function(self) -> Any:
        return engine.PROTOTYPE(self.address)

    def __call__(self, *arrays: np.ndarray) -> None:
        self.at(*map(address_of, arrays), *self._numbers)

    def at(self, *entries: int) -> None:
        """The same for addresses, with whole numbers behind them."""
        self._function(_packer(len(entries))(*entries))

    def on(self, table: int | bytes) -> None:
        """The same for a table that lies at this address, or is in these bytes."""
        self._function(table)

    def table(self, arrays: Sequence[np.ndarray]) -> Any:
        """The table for these arrays."""
        entries = (*map(address_of, arrays), *self._numbers)
        return (ctypes.c_void_p * len(entries))(*entries)

    def bound(self, arrays: Sequence[np.ndarray]) -> Callable[[], Any]:
        """The same for these arrays, whose memory must not move."""
        table = self.table(arrays)
        return kept(self._function, ctypes.addressof(table), (table, arrays))

    def keeping(self, entries: Sequence[int], keep: Any) -> tuple[Callable[[], Any], Any]:
        """A call with these entries in a table, which keeps ``keep`` alive; and that table."""
        table = (ctypes.c_void_p * len(entries))(*entries)
        return kept(self._function, ctypes.addressof(table), (table, keep)), table


class _Place(ctypes.c_void_p):
    """An address, and what must stay for it."""

    keep: Any


def kept(function: Callable[[Any], Any], address: int, keep: Any) -> Callable[[], Any]:
    """A call of machine code on a table that lies at an address; ``keep`` stays with it."""
    place = _Place(address)
    place.keep = keep
    return functools.partial(function, place)


@functools.cache
def _packer(count: int) -> Callable[..., bytes]:
    """A table as bytes: a ctypes array of the same takes several times as long to make."""
    return struct.Struct(f"{count}Q").pack


def _interface(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _field(array: np.ndarray) -> int:
    """The same by a look into the object: the pointer is the first field behind its head."""
    return ctypes.c_size_t.from_address(id(array) + object.__basicsize__).value


def _is_first_field() -> bool:
    if sys.implementation.name != "cpython":
        return False
    samples = [np.zeros(3), np.zeros((4, 5))[1:, 2:]]
    return all(_field(a) == _interface(a) for a in samples)


# Where the array's first element lies, which does not keep the array alive. The attribute makes a
# dict of six entries at each look, and a kernel call takes several.
address_of: Callable[[np.ndarray], int] = _field if _is_first_field() else _interface
# What tells machine code where an array is: the object itself, where it can look into that.
found_at: Callable[[np.ndarray], int] = id if address_of is _field else address_of
