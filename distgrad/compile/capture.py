"""Capture: a function's call as a program.

Differentiate first, record second: the function runs once, eagerly, with its tapes, and the
capture stands below them on the stack of recorders, where it sees every primitive that is bound.
What that run computes is thrown away, and variables and random streams are put back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from distgrad.backend.numpy import backend as numpy_backend
from distgrad.compile.program import Apply, Call, Instruction, Program, Read, Slot, Value, Write
from distgrad.compile.traced import Fallback, Traced, inside_kernel, plain, traced
from distgrad.core import dispatch, recording, tree
from distgrad.core.dispatch import as_tensor
from distgrad.core.scope import OutOfScope
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.user_line import user_line
from distgrad.core.variable import Variable

_CONSTANT_COPIED = 1 << 20  # bytes: larger constants are the caller's arrays themselves


class Trace(NamedTuple):
    """What one eager run gave: a program, or the run's own results where it had to count.

    ``result`` is the function's result; where there is a program, its tensors are the outputs, in
    ``tree.flatten`` order. ``reason``: why there cannot be one, where the run went on eagerly.
    """

    program: Program | None
    result: Any
    reason: str | None = None


class Capture:
    """A recorder of everything, at the bottom of the stack.

    It holds on to all it sees, so that an array or tensor is known by its identity.
    """

    def __init__(
        self,
        name: str,
        in_parts: bool = True,
        counts: Callable[[], None] | None = None,
        goes_on: bool = False,
    ) -> None:
        self.name = name
        self._counts = counts
        self._goes_on = goes_on
        self._put_off = False  # whether Python code was left to replays: the run cannot count then
        self.reason: str | None = None
        self.in_parts = in_parts
        self._backend = dispatch.current()
        self._on_device = self._backend is not numpy_backend
        self.outlived = False  # whether a tensor is kept beyond the call
        self.abandoned = False  # this run counts, and nothing is recorded: variables were made
        self.instructions: list[Instruction] = []
        self.inputs: list[Value] = []
        self._known: dict[int, Value] = {}  # by the identity of tensors and of arrays
        self._alive: list[Any] = []
        self._traced: list[Tensor] = []
        self._own: list[Tensor] = []  # of these, what arguments stand for and operations made
        self._saved: dict[int, tuple[Variable, Any]] = {}
        self._unstored: dict[int, tuple[Variable, str]] = {}
        self._states: dict[int, tuple[dict, dict]] = {}
        self._drawn: dict[bytes, Tensor] = {}

    # Values

    def input(self, array: Any) -> Tensor:
        """A tensor that stands for an argument; its value is what ``array`` is now."""
        tensor = Tensor(array)
        value = Value.like(array)
        self.inputs.append(value)
        self._learn(tensor, value)
        self._own.append(tensor)
        return tensor

    def _learn(self, tensor: Tensor, value: Value) -> None:
        """From now on ``tensor``, and its array, stand for ``value``."""
        if not self._on_device:
            tensor._data = traced(tensor._data)
        self._traced.append(tensor)
        self._know(tensor, value)

    def value_of(self, item: Any) -> Any:
        """The value that a tensor stands for; Python numbers stay as they are.

        A tensor that was there before is a constant. One that was computed from traced values, but
        by no primitive, cannot be known: the capture gives up.
        """
        if type(item) is not Tensor:
            return item
        found = self._known.get(id(item)) or self._known.get(id(item._data))
        if found is not None:
            self._know(item, found)
            return found
        if self.abandoned:
            return None
        array = item._data
        if isinstance(array, Traced):
            self.give_up(f"a tensor is made outside of any operation at {user_line()}")
            return None
        if type(array) in dispatch.backends and dispatch.backend_of(array) is not numpy_backend:
            array = dispatch.backend_of(array).to_numpy(array)  # passes compute with constants
        elif item._lender is not None or array.nbytes <= _CONSTANT_COPIED:
            array = array.copy()
        value = Value(array.shape, array.dtype, array)
        self._know(item, value)
        return value

    def _know(self, tensor: Tensor, value: Value) -> None:
        """Notes the tensor and the array that it looks into now: a write may give it a copy."""
        for item in (tensor, tensor._data):
            if id(item) not in self._known:
                self._known[id(item)] = value
                self._alive.append(item)

    # What bind, the variables and library code tell

    def record(self, primitive: Any, args: tuple, params: dict, out: Any) -> None:
        if self.abandoned:
            return
        inputs = tuple(self.value_of(arg) for arg in args)
        if self.reason is not None:
            return
        if all(type(v) is not Value or v.constant for v in inputs) and not primitive.effect:
            return  # a constant as well
        if primitive.varies:
            line = user_line()
            self.give_up(f"the shape of what {primitive.name} gives depends on values, at {line}")
            return
        tensors = (out,) if type(out) is Tensor else out
        outputs = tuple(Value.like(t._data) for t in tensors)
        self._append(Apply(inputs, outputs, primitive=primitive, params=params, line=user_line()))
        for tensor, value in zip(tensors, outputs, strict=True):
            self._learn(tensor, value)
        self._own += tensors

    def read_variable(self, variable: Variable, value: Tensor) -> None:
        if self.abandoned or id(value) in self._known or self._is_open(variable):
            return
        made, line = Value.like(value._data), user_line()
        if self._has(variable):
            self._append(Read((), (made,), variable=variable, line=line))
        else:  # of another device: a copy at each replay
            self._append(Slot((), (made,), draw=lambda: Tensor(variable._buffer), line=line))
        self._learn(value, made)

    def before_write(self, variable: Variable) -> None:
        if self.abandoned or self._is_open(variable):
            return
        if id(variable) not in self._saved:
            self._saved[id(variable)] = variable, plain(variable._buffer).copy()
        self._unstored[id(variable)] = variable, user_line()

    def _is_open(self, variable: Variable) -> bool:
        """Gives up where a variable may have another shape at the next call."""
        if variable._open_shape is not None:
            shape = variable._open_shape
            self.give_up(f"{variable.name} of shape {shape} is used at {user_line()}")
        return variable._open_shape is not None

    def store(self, variable: Variable, array: Any) -> None:
        if self.abandoned:
            return
        if not self._has(variable):
            self.give_up(f"{variable.name}, on another device, is written to at {user_line()}")
            return
        value = self._known.get(id(array))
        buffer = variable._buffer
        if value is None or (value.shape, value.dtype) != (buffer.shape, buffer.dtype):
            self.give_up(f"{variable.name} is written to in part at {user_line()}")
            return
        self._append(Write((value,), variable=variable, line=user_line()))
        self._unstored.pop(id(variable), None)

    def created(self, variable: Variable) -> None:
        """A variable was made: that happens once, so that this run is one that counts."""
        if not self.abandoned:
            if any(isinstance(i, Call) and i.writes for i in self.instructions):
                raise Fallback(
                    f"a variable is made after an update, at {user_line()}; make it before"
                )
            if self._put_off:
                raise Fallback(
                    f"a variable is made after something was printed, at {user_line()}", once=True
                )
            if self._counts is not None:
                if recording.per_thread.left_out:
                    raise Fallback(
                        "a variable is made after an operation over all processes, at "
                        f"{user_line()}; make it before",
                        once=True,
                    )
                self._counts()
            self.abandoned = True

    def call(
        self,
        fn: Callable[..., None],
        args: tuple,
        kwargs: dict,
        *,
        writes: bool,
        traced: bool = True,
    ) -> None:
        if self.abandoned:
            fn(*args, **kwargs)
            return
        leaves = tree.flatten((args, kwargs))
        if not writes:  # by the time of the call a variable may have its next value
            leaves = [leaf._read() if isinstance(leaf, Variable) else leaf for leaf in leaves]
        places = [i for i, leaf in enumerate(leaves) if type(leaf) is Tensor]
        for leaf in leaves:
            if isinstance(leaf, Operand) and not isinstance(leaf, (Tensor, Variable)):
                self.give_up(f"{type(leaf).__name__} is used by Python code, at {user_line()}")
        inputs = tuple(self.value_of(leaves[i]) for i in places)
        if self.reason is not None:
            fn(*args, **kwargs)
            return
        kept = [None if type(leaf) is Tensor else leaf for leaf in leaves]  # not their arrays
        flat = not kwargs and not any(map(tree.is_nested, args))
        given = None if flat else tree.unflatten((args, kwargs), kept)
        run = functools.partial(_call, fn, given, kept, places)
        label = getattr(fn, "__qualname__", type(fn).__name__)
        self._put_off |= writes or not traced
        self._append(
            Call(
                inputs,
                run=run,
                label=label,
                writes=writes,
                any_shape=getattr(fn, "any_shape", False),
                apart=getattr(fn, "apart", False),
                line=user_line(),
            )
        )
        if writes:
            self._forget_reads()
        elif traced:  # what it finds wrong must be said before others stumble over it
            with recording.suspended():
                run(*[Tensor(plain(leaves[i]._data)) for i in places])

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether a tensor has the same value at each replay."""
        value = self._known.get(id(tensor)) or self._known.get(id(tensor._data))
        return value is None or value.constant

    def may_write(self, variable: Variable) -> bool:
        """Whether replays may write to a variable, itself or by Python code."""
        calls = (i for i in self.instructions if isinstance(i, Call))
        return id(variable) in self._saved or any(i.writes and not i.apart for i in calls)

    def _has(self, variable: Variable) -> bool:
        """Whether a variable lies where the program is to run."""
        return type(plain(variable._buffer)) is self._backend.array_type

    def _forget_reads(self) -> None:
        """Variables may have changed: what reads them from now on reads them anew."""
        for tensor in self._traced:
            lender = tensor._lender
            if lender is None or lender._value_ref is None:
                continue
            if lender._value_ref() is tensor:
                lender._value_ref = None
                lender._lend(tensor)

    def slot(self, draw: Callable[[], Any], state: dict | None) -> Any:
        if self.abandoned:
            return draw()
        if state is not None and id(state) not in self._states:
            self._states[id(state)] = state, dict(state)
        tensor = draw()
        if state is not None:  # a key that is drawn again, to recompute, is the same key
            tensor = self._drawn.setdefault(plain(tensor._data).tobytes(), tensor)
        if id(tensor) not in self._known:
            value = Value.like(tensor._data)
            self._append(Slot((), (value,), draw=draw, line=user_line()))
            self._learn(tensor, value)
        return tensor

    def look(self, operand: Tensor | Variable) -> None:
        """Refuses a look at a value; on a CPU, traced arrays of tensors do so themselves."""
        if (isinstance(operand, Variable) or self._on_device) and self.hides(operand):
            self.give_up(f"the value of a tensor is read at {user_line()}")

    def hides(self, operand: Tensor | Variable) -> bool:
        """Whether the value of ``operand`` is another one at each replay."""
        if self.abandoned or inside_kernel():
            return False
        if isinstance(operand, Variable):
            return True
        if not self._on_device:
            return isinstance(operand._data, Traced)
        value = self._known.get(id(operand)) or self._known.get(id(operand._data))
        return value is not None and not value.constant

    def refuse(self, reason: str) -> None:
        if not self.abandoned:
            self.give_up(f"{reason}, at {user_line()}")

    def give_up(self, reason: str) -> None:
        """There can be no program. The run goes on eagerly and counts, so that what Python does in
        it happens once; Fallback where nobody wants that, or something was left out so far."""
        if not self._goes_on or self._put_off or recording.per_thread.left_out:
            raise Fallback(reason)
        if self._counts is not None:
            self._counts()
        self.abandoned, self.reason = True, reason

    def _append(self, instruction: Instruction) -> None:
        self.instructions.append(instruction)

    # Start and end

    def __enter__(self) -> Capture:
        if recording.per_thread.capture is not None:
            raise RuntimeError("a capture is going on already")
        recording.push(self)
        stack = recording.per_thread.stack
        stack.insert(0, stack.pop())
        recording.per_thread.capture = self
        return self

    def __exit__(self, *exc: object) -> None:
        recording.per_thread.capture = None
        recording.remove(self)
        if not self.abandoned:
            self._undo()
        for tensor in self._traced:
            tensor._data = plain(tensor._data)

    def _undo(self) -> None:
        for variable, saved in self._saved.values():
            variable._recall_loans()
            variable._buffer[...] = saved
        for state, saved in self._states.values():
            state.clear()
            state.update(saved)

    def forget(self) -> None:
        """Takes their values from the tensors of a run that does not count."""
        for tensor in self._own:
            data = tensor._data
            tensor._data = OutOfScope(data.shape, data.dtype, self.name)

    def finish(self, result: Any) -> Program:
        """The program that gives the tensors of ``result``."""
        for variable, line in self._unstored.values():
            raise Fallback(f"{variable.name} is written to in part at {line}")
        leaves = tree.flatten(result)
        outputs = tuple(self.value_of(leaf) for leaf in leaves if type(leaf) is Tensor)
        return Program(self.name, tuple(self.inputs), tuple(self.instructions), outputs).verify()


def _call(fn: Any, given: Any, leaves: list[Any], places: list[int], *tensors: Tensor) -> None:
    filled = list(leaves)
    for place, tensor in zip(places, tensors, strict=True):
        filled[place] = tensor
    if given is None:
        fn(*filled)
        return
    args, kwargs = tree.unflatten(given, filled)
    fn(*args, **kwargs)


def trace(
    fn: Callable[..., Any],
    arrays: Sequence[Any],
    name: str = "program",
    in_parts: bool = True,
    counts: Callable[[], None] | None = None,
    goes_on: bool = False,
    check: Callable[[Any], None] = lambda result: None,
    forgets: bool = False,
) -> Trace:
    """Runs ``fn`` on tensors of these arrays, and gives the program of what it did.

    ``fn`` returns a nest of tensors, variables and plain Python values. Raises Fallback where that
    cannot be a program. The run has no effect on variables and random streams, unless it made
    variables: then it counts as a call (``counts`` is told), its result is given, and there is no
    program. So does, where ``goes_on``, one that turns out to be no program, or whose result
    ``check`` refuses with Fallback. With ``in_parts`` there are small operations to fuse, else
    those of an eager run. Where it ``forgets``, tensors of a run that does not count raise
    ScopeError wherever they are used later, as in TensorFlow.
    """
    capture = Capture(name, in_parts, counts, goes_on)
    backend = dispatch.current()
    if backend is not numpy_backend:
        arrays = [a if type(a) is backend.array_type else backend.asarray(a) for a in arrays]
    with capture:
        result = fn(*[capture.input(array) for array in arrays])
        result = tree.map_structure(lambda v: as_tensor(v) if isinstance(v, Operand) else v, result)
        program = None
        if not capture.abandoned:
            try:
                check(result)
                program = capture.finish(result)
            except Fallback as fallback:
                capture.give_up(fallback.reason)
    if forgets and program is not None:
        capture.forget()
    return Trace(program, result, capture.reason)
