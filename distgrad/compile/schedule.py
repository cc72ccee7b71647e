"""Schedules: a program as NumPy calls on views of buffers, in order.

The program is run once on the way, on the arguments of a call, which shows the layout of every
value; layouts are kept, since sums and matrix products depend on them to the last bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from distgrad.compile import eager
from distgrad.compile.lower import Lowered, lower
from distgrad.compile.passes.fusion import Fused
from distgrad.compile.program import (
    Apply,
    Call,
    Instruction,
    Program,
    Read,
    Slot,
    Value,
    Write,
    literal,
    once,
)
from distgrad.compile.steps import Buffer, Step, View, bound, repeated
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import Primitive
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable


class Compiler(NamedTuple):
    """What a program's parts become instead of NumPy calls.

    ``group`` and each of ``primitives`` (by name) turn an instruction into steps that write the
    given views; None leaves it as it is. ``finish`` may change the steps of the whole. ``example``
    calls NumPy's kernel of a primitive once, to see what it gives: threads of BLAS would take many
    times as long for that on a busy machine.
    """

    group: Callable[[Fused, dict[Value, View]], list[Step] | None]
    primitives: Mapping[str, Callable[[Apply, dict[Value, View]], list[Step] | None]]
    finish: Callable[[Sequence[Step]], list[Step]]
    example: Callable[..., Any]


class Schedule:
    """Steps, and where a program's inputs and outputs lie.

    With ``as_eager`` a primitive has the kernel of the eager path, where that is not NumPy's.
    Buffers are of kind "input" (owned by their position), "variable", "constant" (by the variable
    or the array), or "temporary".
    """

    def __init__(
        self,
        program: Program,
        arrays: Sequence[np.ndarray],
        compiler: Compiler | None = None,
        as_eager: bool = False,
    ) -> None:
        self.program = program
        copied: set[Read] = set()
        lowered: dict[Any, Lowered | None] = {}
        while True:  # a second time where a read must outlive a write to its variable
            build = _Build(program, arrays, compiler, copied, as_eager, lowered)
            late = build.late_reads()
            if not late:
                break
            copied |= late
        self.steps = build.steps if compiler is None else compiler.finish(build.steps)
        self.inputs = [build.places[v] for v in program.inputs]
        self.outputs = [build.places[v] for v in program.outputs]
        self.whole = build.whole  # primitives that could not be taken apart


class _Build:
    def __init__(
        self,
        program: Program,
        arrays: Sequence[np.ndarray],
        compiler: Compiler | None,
        copied: set[Read],
        as_eager: bool,
        lowered: dict[Any, Lowered | None],
    ) -> None:
        self.program = program
        self._lowered = lowered
        self._as_eager = as_eager
        self.steps: list[Step] = []
        self.places: dict[Value, View] = {}
        self.whole: list[str] = []
        self._compiler = compiler
        self._copied = copied
        self._arrays: dict[Value, np.ndarray] = {}
        self._reads: list[tuple[Read, Buffer, int]] = []  # and the step before which it stands
        self._barriers: list[tuple[int, Variable | None]] = []
        self._left = program.uses()
        for i, (value, array) in enumerate(zip(program.inputs, arrays, strict=True)):
            self._own(value, np.asarray(array, order="C"), Buffer(array.nbytes, "input", i))
        for instruction in program.instructions:
            for value in instruction.values:
                self._constant(value)
            self._add(instruction)
            self._release(instruction.values)
        for value in program.outputs:
            self._constant(value)

    def _release(self, values: Iterable[Value]) -> None:
        for value in values:
            self._left[value] -= 1
            if not self._left[value]:
                self._arrays.pop(value, None)

    def _constant(self, value: Value) -> None:
        if not value.constant or value in self.places:
            return
        data = value.data if self._compiler is not None else repeated(value.data)
        data = data if data.flags.forc else np.asarray(data, order="C")
        view = self._own(value, data, Buffer(data.nbytes, "constant", data))
        array = self._arrays[value] = np.broadcast_to(data, value.shape)
        self.places[value] = view._replace(shape=array.shape, strides=array.strides)

    def _own(self, value: Value, array: np.ndarray, buffer: Buffer) -> View:
        """``value`` has a buffer of its own, with the layout of ``array``."""
        low, high = np.lib.array_utils.byte_bounds(array)
        if array.size and high - low != array.nbytes:  # gaps, or one element many times
            array = np.asarray(array, order="C")
            low = array.__array_interface__["data"][0]
        offset = array.__array_interface__["data"][0] - low if array.size else 0
        view = View(buffer, offset, array.shape, array.strides, array.dtype)
        self.places[value], self._arrays[value] = view, array
        return view

    def _add(self, instruction: Instruction) -> None:
        if isinstance(instruction, Fused):
            self._add_fused(instruction)
        elif isinstance(instruction, Apply):
            self._add_apply(instruction)
        elif isinstance(instruction, Read):
            self._add_read(instruction)
        elif isinstance(instruction, Slot):
            (value,) = instruction.outputs
            # Any key will do to learn the layout; a draw would change what comes next.
            array = np.ones(value.shape, value.dtype)
            self._make(value, array, _Draw(instruction))
        elif isinstance(instruction, Write):
            self._barriers.append((len(self.steps), instruction.variable))
            self._step(_Assign(instruction.variable), self._views(instruction.inputs))
        elif isinstance(instruction, Call):
            if instruction.writes:
                self._barriers.append((len(self.steps), None))
            self._step(_Python(instruction), self._views(instruction.inputs))
        else:
            raise TypeError(f"no schedule for {instruction!r}")

    def _views(self, inputs: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(self.places[v] if type(v) is Value else v for v in inputs)

    def _step(self, fn: Any, args: tuple[Any, ...]) -> None:
        self.steps.append(Step(fn, args, {}, None, False, False))

    def _make(self, value: Value, array: np.ndarray, fn: Any, *args: Any) -> None:
        """A step that writes ``value`` through ``out``."""
        place = self._own(value, array, Buffer(array.nbytes))
        self.steps.append(Step(fn, args, {}, place, True, False))

    def _add_read(self, read: Read) -> None:
        (value,) = read.outputs
        buffer = Buffer(read.variable._buffer.nbytes, "variable", read.variable)
        view = self._own(value, read.variable._buffer, buffer)
        self._reads.append((read, buffer, len(self.steps)))
        if read in self._copied:
            self._make(value, self._arrays[value], _copy, view)

    def _add_fused(self, fused: Fused) -> None:
        if self._compiler is not None:
            for instruction in fused.body:
                self._run(instruction)
            for value in fused.outputs:
                array = self._arrays[value]
                self._own(value, array, Buffer(array.nbytes))
            steps = self._compiler.group(fused, self.places)
            if steps is not None:
                self.steps += steps
                return
        for instruction in fused.body:
            self._add_apply(instruction)
        for instruction in fused.body:
            for value in set(instruction.outputs).difference(fused.outputs):
                del self._arrays[value]

    def _run(self, instruction: Apply) -> None:
        for value, array in zip(instruction.outputs, self._results(instruction), strict=True):
            self._arrays[value] = array

    def _inputs(self, instruction: Apply) -> tuple[Any, ...]:
        return tuple(self._arrays[v] if type(v) is Value else v for v in instruction.inputs)

    def _results(self, instruction: Apply) -> list[np.ndarray]:
        primitive = instruction.primitive
        with np.errstate(all="ignore"):
            call = functools.partial(primitive.kernel, np, **instruction.params)
            inputs = self._inputs(instruction)
            out = call(*inputs) if self._compiler is None else self._compiler.example(call, *inputs)
        return list(map(np.asarray, out if primitive.multiple else (out,)))

    def _add_apply(self, instruction: Apply) -> None:
        inputs = self._inputs(instruction)
        for value in instruction.values:
            self._constant(value)
        if self._compiler is not None and self._add_generated(instruction):
            return
        if self._as_eager and self._add_eager(instruction):
            return
        lowered = self._lower(instruction, inputs)
        results = self._results(instruction)
        if lowered is not None:
            places = {
                buffer: self.places[instruction.inputs[buffer.owner]]
                if buffer.kind == "argument"
                else View(Buffer(buffer.nbytes), 0, (), (), np.dtype("V"))
                for buffer in _buffers(lowered)
            }
            self.steps += [bound(step, places) for step in lowered.steps]
            for value, view, array in zip(
                instruction.outputs, lowered.outputs, results, strict=True
            ):
                place = places[view.buffer]
                view = view._replace(buffer=place.buffer, offset=place.offset + view.offset)
                self.places[value], self._arrays[value] = view, array
            return
        self.whole.append(instruction.name)
        views = self._views(instruction.inputs)
        kernel = _Whole(instruction.primitive, instruction.params)
        if len(results) == 1:
            self._make(instruction.outputs[0], results[0], kernel, *views)
            return
        outs = [
            self._own(value, array, Buffer(array.nbytes))
            for value, array in zip(instruction.outputs, results, strict=True)
        ]
        self._step(kernel.many, (outs, *views))

    def _lower(self, instruction: Apply, inputs: tuple[Any, ...]) -> Lowered | None:
        """``lower``, once for all instructions alike: loops and layers repeat them."""
        key = instruction.name, *map(_kind, inputs), *map(_kind, instruction.params.items())
        return once(self._lowered, key, lambda: lower(instruction, inputs))

    def _add_eager(self, instruction: Apply) -> bool:
        """A primitive that the eager path has another kernel for."""
        inputs = self._inputs(instruction)
        kernel = eager.chosen(instruction.primitive, inputs, instruction.params)
        if kernel is None:
            return False
        views = self._views(instruction.inputs)
        places = [
            self._own(value, array, Buffer(array.nbytes))
            for value, array in zip(instruction.outputs, self._results(instruction), strict=True)
        ]
        if instruction.primitive.multiple:
            self._step(_Several(kernel, instruction.params), (places, *views))
        else:
            self.steps.append(Step(kernel, views, instruction.params, places[0], True, False))
        return True

    def _add_generated(self, instruction: Apply) -> bool:
        """A primitive that has a generated form, in place of its kernel."""
        if instruction.name == "split_at":
            self._add_parts(instruction)
            return True
        compile_ = self._compiler.primitives.get(instruction.name)  # type: ignore[union-attr]
        if compile_ is None:
            return False
        for value, array in zip(instruction.outputs, self._results(instruction), strict=True):
            self._own(value, array, Buffer(array.nbytes))
        steps = compile_(instruction, self.places)
        if steps is not None:
            self.steps += steps
            return True
        for value in instruction.outputs:
            del self.places[value], self._arrays[value]
        return False

    def _add_parts(self, split: Apply) -> None:
        """Parts of an array as views of it: no step writes over an array that is still in use."""
        (x,) = split.inputs
        place, whole, axis = self.places[x], self._arrays[x], split.params["axis"]
        start = 0
        for value in split.outputs:
            stop = start + value.shape[axis]
            array = whole[(slice(None),) * axis + (slice(start, stop),)]
            offset = place.offset + start * place.strides[axis]
            self._arrays[value] = array
            self.places[value] = place._replace(
                offset=offset, shape=value.shape, strides=place.strides
            )
            start = stop

    def late_reads(self) -> set[Read]:
        """Reads whose view of the variable is looked at after the variable may have changed."""
        last: dict[Buffer, int] = {}
        for index, step in enumerate(self.steps):
            for view in step.mentions:
                last[view.buffer] = index
        for value in self.program.outputs:
            last[self.places[value].buffer] = len(self.steps)
        late = set()
        for read, buffer, made in self._reads:
            for index, variable in self._barriers:
                # A call may write while it reads; a write has its new value by then.
                end = last.get(buffer, -1) + (variable is None)
                if made <= index < end and (variable is None or variable is read.variable):
                    late.add(read)
        return late - self._copied


def _buffers(lowered: Lowered) -> set[Buffer]:
    views = [view for step in lowered.steps for view in step.mentions]
    return {view.buffer for view in (*views, *lowered.outputs)}


def _kind(item: Any) -> Any:
    """What the steps of a kernel depend on, of an input or a parameter."""
    if isinstance(item, np.ndarray):
        return item.shape, item.strides, item.dtype
    if type(item) is tuple:
        return tuple(map(_kind, item))
    return literal(item)


# What a step calls, where that is no function of NumPy


def _copy(array: np.ndarray, *, out: np.ndarray) -> None:
    np.copyto(out, array)


class _Whole:
    """A primitive as it is, with its results copied to their places."""

    def __init__(self, primitive: Primitive, params: dict[str, Any]) -> None:
        self._kernel = primitive.kernel
        self._native = primitive.native
        self._params = params
        self.__name__ = primitive.name

    def __call__(self, *args: Any, out: np.ndarray) -> None:
        if self._native is None or not self._native((out,), args, self._params):
            np.copyto(out, self._results(args))

    def many(self, outs: Sequence[np.ndarray], *args: Any) -> None:
        for out, result in zip(outs, self._results(args), strict=True):
            np.copyto(out, result)

    def _results(self, args: tuple[Any, ...]) -> Any:
        try:
            return self._kernel(np, *args, **self._params)
        except (ValueError, IndexError, TypeError, OverflowError) as error:
            raise InvalidArgumentError(f"{self.__name__}: {error}") from error


class _Several:
    """A kernel of the eager path that has several results."""

    def __init__(self, kernel: Callable[..., Any], params: dict[str, Any]) -> None:
        self._kernel = kernel
        self._params = params
        self.__name__ = kernel.__name__

    def __call__(self, outs: Sequence[np.ndarray], *args: Any) -> None:
        self._kernel(*args, out=tuple(outs), **self._params)


class _Draw:
    """A slot: what Python gives this time."""

    __name__ = "slot"

    def __init__(self, slot: Slot) -> None:
        self._draw = slot.draw

    def __call__(self, *, out: np.ndarray) -> None:
        np.copyto(out, self._draw()._data)


class _Assign:
    """A write to a variable; whoever looks at its old value keeps that."""

    __name__ = "assign"

    def __init__(self, variable: Variable) -> None:
        self._variable = variable

    def __call__(self, array: np.ndarray) -> None:
        self._variable._store(array)


class _Python:
    """A call of Python code, on tensors that are good for as long as it takes."""

    def __init__(self, call: Call) -> None:
        self._run = call.run
        self.__name__ = call.label

    def __call__(self, *arrays: np.ndarray) -> None:
        self._run(*map(Tensor, arrays))
