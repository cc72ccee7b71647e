"""The NumPy executor: straight-line Python that calls NumPy with a place for each result.

It gives the bits of eager execution: the same kernels, on arrays of the same layout.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.compile import memory
from distgrad.compile.passes import simplify
from distgrad.compile.program import Program
from distgrad.compile.schedule import Compiler, Schedule
from distgrad.compile.steps import Buffer, Step, View, mapped
from distgrad.core.variable import Variable

_copied = np.ndarray.__copy__  # in its own order, as copy("K"), in half the time


class Executor:
    """Runs a program: ``executor(arrays)`` gives its outputs as fresh arrays.

    ``arrays`` are the inputs, of the shapes and dtypes that it was made with. Threads may run it
    at the same time; each then has memory of its own.

    With ``groups`` of output positions there are only frames (see ``frame``): the outputs of the
    groups are written to arrays that the caller gives.
    """

    def __init__(
        self,
        program: Program,
        arrays: Sequence[np.ndarray],
        compiler: Compiler | None = None,
        groups: Sequence[Sequence[int]] = (),
        as_eager: bool = False,
    ) -> None:
        self.schedule = Schedule(program, arrays, compiler, as_eager)
        self.groups = tuple(map(tuple, groups))
        _keep_small_inputs(self.schedule)
        _give_away(self.schedule, [position for group in groups for position in group])
        self.source, self._names = _source(self.schedule, self.groups)
        self._flat = _laid_flat(self.schedule)
        self._homes, self.nbytes = _plan(self.schedule)
        self._code = compile(self.source, f"<{program.name}>", "exec")
        self._idle: list[Frame] = []
        self._lent = 0

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        try:
            frame = self._idle.pop()  # one step for threads, as append is
        except IndexError:
            frame = self.frame()
        if self._lent:
            return self._lend(frame, frame(arrays))
        try:
            return list(map(_copied, frame(arrays)))
        finally:
            self._idle.append(frame)

    def lend(self, count: int) -> None:
        """From now on the last ``count`` outputs are no copies.

        They look into the memory of a frame, which runs again when all of them are gone.
        """
        self._lent = count
        self._memory: Any = ctypes.c_ubyte * self.nbytes

    def _lend(self, frame: Frame, outputs: list[np.ndarray]) -> list[np.ndarray]:
        lender = self._memory.from_buffer(frame.block)  # alive while an array looks into it
        kept = len(outputs) - self._lent
        made = list(map(_copied, outputs[:kept]))
        for output, view in zip(outputs[kept:], self.schedule.outputs[kept:], strict=True):
            if view.buffer.kind != "temporary":
                made.append(_copied(output))
            else:
                start = self._homes[view.buffer] + view.offset
                made.append(np.ndarray(view.shape, view.dtype, lender, start, view.strides))
        weakref.finalize(lender, self._idle.append, frame).atexit = False
        return made

    def block(self) -> np.ndarray:
        """Memory for frames."""
        return memory.block(self.nbytes)

    def frame(
        self, places: Mapping[int, np.ndarray] | None = None, block: np.ndarray | None = None
    ) -> Frame:
        """The program bound to memory: ``places`` of the outputs in groups, and a block.

        The block holds ``nbytes`` bytes at least; frames that share one must not run at a time.
        """
        return Frame(self, places or {}, self.block() if block is None else block)


class Frame:
    """A program bound to memory: ``frame(arrays)`` gives its outputs, good until the next run.

    ``told(number)``, if given, is called as soon as the outputs of a group are there, in the order
    of the groups.
    """

    def __init__(
        self, executor: Executor, places: Mapping[int, np.ndarray], block: np.ndarray
    ) -> None:
        self._executor = executor
        self._places = places
        self.block = block
        self._told: Callable[[int], None] | None = None
        self._bind()

    def _bind(self) -> None:
        executor = self._executor
        # Under this name the numeric warnings of NumPy are off, as they are for all kernels.
        space: dict[str, Any] = {"__name__": "distgrad.compile.generated", "ndarray": np.ndarray}
        self._bound: list[tuple[Variable, Any]] = []
        for item, name in executor._names.items():
            if isinstance(item, View):
                space[name] = self._array(item)
            elif isinstance(item, _Bound):
                space[name] = item.fn.bound([self._array(view) for view in item.views])
            else:
                space[name] = item.value
        space["tell"] = self._tell
        exec(executor._code, space)
        self._run: Callable[..., None] = space["run"]
        given = {p for group in executor.groups for p in group}
        self._outputs: list[Any] = [
            self._places[position]
            if position in given
            else view
            if view.buffer.kind == "input"
            else self._array(view)
            for position, view in enumerate(executor.schedule.outputs)
        ]
        self._looks_into_inputs = any(isinstance(o, View) for o in self._outputs)

    def _array(self, view: View) -> np.ndarray:
        buffer = view.buffer
        if buffer.kind == "temporary":
            start = self._executor._homes[buffer]
            return view.of(self.block[start : start + max(buffer.nbytes, 1)])
        if buffer.kind == "output":
            return view.of(self._places[buffer.owner])
        if buffer.kind == "variable":
            self._bound.append((buffer.owner, buffer.owner._buffer))
            return view.of(buffer.owner._buffer)
        return view.of(buffer.owner)

    def _tell(self, group: int) -> None:
        if self._told is not None:
            self._told(group)

    def __call__(
        self, arrays: Sequence[np.ndarray], told: Callable[[int], None] | None = None
    ) -> list[np.ndarray]:
        for variable, buffer in self._bound:
            if variable._buffer is not buffer:  # moved into an arena
                self._bind()
                break
        for i in self._executor._flat:
            if not arrays[i].flags.c_contiguous:
                arrays = list(arrays)
                arrays[i] = np.ascontiguousarray(arrays[i])
        self._told = told
        self._run(*arrays)
        if not self._looks_into_inputs:
            return self._outputs
        return [o.of(arrays[o.buffer.owner]) if isinstance(o, View) else o for o in self._outputs]


def numpy_executor(
    program: Program, arrays: Sequence[np.ndarray], groups: Sequence[Sequence[int]] = ()
) -> Executor:
    """The executor that is the oracle for others, with the passes that keep every bit."""
    return Executor(simplify(program), arrays, None, groups)


def replaying_executor(program: Program, arrays: Sequence[np.ndarray]) -> Executor:
    """The same, with the kernels that eager operations have in this process: their bits."""
    return Executor(simplify(program), arrays, as_eager=True)


# Memory

_SMALL = 1 << 16  # bytes of an input that is cheaper to copy than to be told where it lies


def _keep_small_inputs(schedule: Schedule) -> None:
    """Gives small inputs of generated functions a place of their own, to be bound to once."""
    copies: dict[Buffer, Step] = {}
    generated = [step for step in schedule.steps if hasattr(step.fn, "bound")]
    read = {view.buffer for step in generated for view in step.mentions}
    for view in schedule.inputs:
        if view.buffer in read and view.buffer.nbytes <= _SMALL:
            own = View(Buffer(view.buffer.nbytes), *view[1:])
            copies[view.buffer] = Step(np.copyto, (own, view), {}, own, False, False)
    if not copies:
        return

    def moved(view: View) -> View:
        copy = copies.get(view.buffer)
        return view if copy is None else view._replace(buffer=copy.args[0].buffer)

    steps = [mapped(step, moved) for step in schedule.steps]
    schedule.steps = [*copies.values(), *steps]
    schedule.outputs = [moved(view) for view in schedule.outputs]


def _laid_flat(schedule: Schedule) -> list[int]:
    """The inputs that must lie in C order: all but those that are only copied."""
    flat = {view.buffer.owner for view in schedule.outputs if view.buffer.kind == "input"}
    for step in schedule.steps:
        copied = step.fn is np.copyto and not step.kwargs
        for view in step.mentions:
            if view.buffer.kind == "input" and not (copied and view in schedule.inputs):
                flat.add(view.buffer.owner)
    return sorted(flat)


def _give_away(schedule: Schedule, positions: Sequence[int]) -> None:
    """Lets outputs be computed where the caller wants them, where they have a buffer alone.

    For the others a copy is added, right after what makes them.
    """
    for position in positions:
        view = schedule.outputs[position]
        buffer = view.buffer
        whole = buffer.nbytes == int(np.prod(view.shape, dtype=np.int64)) * view.dtype.itemsize
        plain = View(Buffer(0), 0, view.shape, c_strides(view), view.dtype)
        if buffer.kind == "temporary" and whole and plain[1:] == view[1:]:
            buffer.kind, buffer.owner = "output", position
            continue
        target = Buffer(buffer.nbytes, "output", position)
        out = plain._replace(buffer=target)
        last = max((i for i, s in enumerate(schedule.steps) if _mentions(s, buffer)), default=-1)
        schedule.steps.insert(last + 1, Step(np.copyto, (out, view), {}, out, False, False))
        schedule.outputs[position] = out


def c_strides(view: View) -> tuple[int, ...]:
    """A view's strides in bytes, if it lay in C order."""
    strides, size = [], view.dtype.itemsize
    for n in reversed(view.shape):
        strides.append(size)
        size *= n
    return tuple(reversed(strides))


def _mentions(step: Step, buffer: Buffer) -> bool:
    return any(view.buffer is buffer for view in step.mentions)


def _plan(schedule: Schedule) -> tuple[dict[Buffer, int], int]:
    """Where each temporary buffer starts in the block, and the size of the block."""
    first: dict[Buffer, int] = {}
    last: dict[Buffer, int] = {}
    for index, step in enumerate(schedule.steps):
        for view in step.mentions:
            first.setdefault(view.buffer, index)
            last[view.buffer] = index
    for view in schedule.outputs:
        first.setdefault(view.buffer, len(schedule.steps))
        last[view.buffer] = len(schedule.steps)
    home = _in_place(schedule.steps, first, last)
    roots = [b for b in first if b.kind == "temporary" and home.get(b, b) is b]
    lives = [memory.Lifetime(b.nbytes, first[b], last[b]) for b in roots]
    layout = memory.plan(lives)
    start = dict(zip(roots, layout.offsets, strict=True))
    return {b: start[home.get(b, b)] for b in first if b.kind == "temporary"}, layout.nbytes


def _in_place(
    steps: Sequence[Step], first: dict[Buffer, int], last: dict[Buffer, int]
) -> dict[Buffer, Buffer]:
    """Results that are written over an argument nobody needs any more, and that argument."""
    home: dict[Buffer, Buffer] = {}
    for index, step in enumerate(steps):
        out = step.out
        if not step.elementwise or out is None or first[out.buffer] != index:
            continue
        if out.buffer.kind != "temporary":
            continue
        for view in step.args:
            if not isinstance(view, View) or view._replace(buffer=out.buffer) != out:
                continue
            root = home.get(view.buffer, view.buffer)
            alone = all(o == view for o in step.mentions if home.get(o.buffer, o.buffer) is root)
            if root.kind != "temporary" or last[root] != index or root.nbytes != out.buffer.nbytes:
                continue
            if alone:
                home[out.buffer] = root
                last[root] = last[out.buffer]
                break
    return home


# Code


class _Bound:
    """A generated function on views that stay where they are."""

    def __init__(self, fn: Any, views: tuple[View, ...]) -> None:
        self.fn = fn
        self.views = views


class _Constant:
    """Something that the code refers to by name."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _source(schedule: Schedule, groups: Sequence[Sequence[int]]) -> tuple[str, dict[Any, str]]:
    """The code of a schedule, and the name of each view and object in it."""
    return _Writer(schedule, groups).finish()


def ends_of(schedule: Schedule, groups: Sequence[Sequence[int]]) -> list[int]:
    """For each group the step after which it, and all before it, are there."""
    last: dict[Buffer, int] = {}
    for index, step in enumerate(schedule.steps):
        for view in step.mentions:
            last[view.buffer] = index
    ends, end = [], 0
    for group in groups:
        end = max([end, *(last.get(schedule.outputs[p].buffer, 0) for p in group)])
        ends.append(end)
    return ends


def _quicker(step: Step) -> Step:
    """A call of NumPy's as one that gives the same bits and takes half the time for small arrays.

    A number beside arrays of its dtype is an array, too, and ``dot`` multiplies two matrices.
    """
    if not isinstance(step.fn, np.ufunc) or step.kwargs or step.out is None:
        return step
    views = [a for a in step.args if isinstance(a, View)]
    dtype = views[0].dtype
    if dtype.kind != "f" or any(view.dtype != dtype for view in views):
        return step
    if step.fn is np.matmul:
        matrices = dtype.char in "fd" and all(map(_whole_matrix, views))
        if not matrices or not step.out.contiguous or {v.shape for v in views} == {(1, 1)}:
            return step  # of two numbers, a zero may have another sign
        return step._replace(fn=np.dot, args=(*step.args, step.out), passes_out=False)
    args = [np.asarray(a, dtype) if type(a) in (int, float) else a for a in step.args]
    return step._replace(args=tuple(args))


def _whole_matrix(view: View) -> bool:
    """Whether it lies row after row or column after column: others are multiplied otherwise."""
    turned = view._replace(shape=view.shape[::-1])
    return len(view.shape) == 2 and view.strides in (c_strides(view), c_strides(turned)[::-1])


class _Writer:
    def __init__(self, schedule: Schedule, groups: Sequence[Sequence[int]]) -> None:
        self._names: dict[Any, str] = {}
        self._counts: dict[str, int] = {}
        self._functions: dict[Any, str] = {}
        self._inputs: dict[View, str] = {}
        self._head: list[str] = []
        self._schedule = schedule
        self._whole = {view: f"x{view.buffer.owner}" for view in schedule.inputs}
        self._body: list[str] = []
        ends = ends_of(schedule, groups)
        for index, step in enumerate(schedule.steps):
            self._body.append(self._step(step))
            self._body += [f"tell({number})" for number, end in enumerate(ends) if end == index]

    def finish(self) -> tuple[str, dict[Any, str]]:
        arguments = ", ".join(f"x{i}" for i in range(len(self._schedule.inputs)))
        lines = [f"def run({arguments}):", *self._head, *self._body]
        return "\n    ".join([*lines, "return"]) + "\n", self._names

    def _step(self, step: Step) -> str:
        if hasattr(step.fn, "bound") and all(v.buffer.kind != "input" for v in step.mentions):
            return f"{self._name(_Bound(step.fn, step.args), 'n')}()"
        step = _quicker(step)
        args = [self._argument(a) for a in step.args]
        if step.fn is np.copyto and not step.kwargs and len(args) == 2:
            return f"{args[0]}[...] = {args[1]}"  # the same, in half the time
        kwargs = [f"{k}={self._argument(v)}" for k, v in step.kwargs.items()]
        if step.out is not None and step.passes_out:
            kwargs.append(f"out={self._argument(step.out)}")
        return f"{self._function(step.fn)}({', '.join(args + kwargs)})"

    def _function(self, fn: Any) -> str:
        owner = getattr(fn, "__self__", None)
        key = (id(owner), fn.__name__) if isinstance(owner, np.ufunc) else id(fn)
        if key not in self._functions:
            name = getattr(fn, "__name__", "call")
            if isinstance(owner, np.ufunc):
                name = f"{owner.__name__}_{name}"
            name = "".join(c if c.isalnum() else "_" for c in name)
            name += "_" * name[1:].isdigit()  # k0 is a Bessel function, and the name of a value
            taken = set(self._functions.values())
            number = next(n for n in range(len(taken) + 1) if f"{name}{n or ''}" not in taken)
            self._functions[key] = f"{name}{number or ''}"
            self._names[_Constant(fn)] = self._functions[key]
        return self._functions[key]

    def _argument(self, item: Any) -> str:
        if isinstance(item, View):
            return self._view(item)
        if type(item) in (list, tuple):
            inner = ", ".join(map(self._argument, item))
            return f"[{inner}]" if type(item) is list else f"({inner},)" if item else "()"
        if item is None or type(item) in (bool, int):
            return repr(item)
        if type(item) is float and math.isfinite(item):
            return repr(item)
        return self._name(_Constant(item), "k")

    def _name(self, key: Any, letter: str) -> str:
        if key not in self._names:
            self._counts[letter] = self._counts.get(letter, -1) + 1
            self._names[key] = f"{letter}{self._counts[letter]}"
        return self._names[key]

    def _view(self, view: View) -> str:
        if view.buffer.kind != "input":
            return self._name(view, "a")
        if view in self._whole:
            return self._whole[view]
        if view not in self._inputs:
            name = self._inputs[view] = f"x{view.buffer.owner}_{len(self._inputs)}"
            dtype = self._name(_Constant(view.dtype), "k")
            self._head.append(
                f"{name} = ndarray({view.shape}, {dtype}, x{view.buffer.owner}, {view.offset}, "
                f"{view.strides})"
            )
        return self._inputs[view]
