"""The tape of a function that is captured under another one, and the block made of what it saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad.compile.capture import Capture
from distgrad.core import recording
from distgrad.core.block import Block, Held, Output
from distgrad.core.primitive import Primitive, bind, registry
from distgrad.core.tape import Entry, GradientTape
from distgrad.core.targets import number_of
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable


class Within(GradientTape):
    """A tape that follows what the one ``around`` does: of ``arguments`` those marked ``given``."""

    def __init__(
        self, around: GradientTape, arguments: Sequence[Tensor], given: Sequence[bool]
    ) -> None:
        super().__init__(watch_accessed_variables=around._watch_accessed)
        self._forget()
        self._around = around
        self._watched = len(around._roots)
        self._arguments = list(arguments)
        self._tracked = {number_of(a) for a, yes in zip(arguments, given, strict=True) if yes}
        self._begun: Capture | None = recording.per_thread.capture
        self.read: dict[int, tuple[Variable, bool]] = {}  # each variable, and whether followed
        self._values: list[Tensor] = []  # of these: a second read gives the same one while it lives
        self.constants: list[Tensor] = []  # what is neither given nor computed
        self._taken = set(self._tracked)  # numbers of arguments and results

    @property
    def capture(self) -> Capture | None:
        """What a program is being made by; None where the run counts."""
        return None if self._begun is None or self._begun.abandoned else self._begun

    # What bind and the variables call

    def record(self, primitive: Primitive, args: tuple, params: dict, out: Any) -> None:
        for arg in args:
            if type(arg) is not Tensor or arg._uid in self._tracked:
                continue
            capture = self.capture
            if capture is not None and capture.is_constant(arg):
                self.constants.append(arg)
            if arg._uid in self._around._tracked:
                recording.refuse("a tape follows what comes in by no argument")
                self._tracked.add(arg._uid)
        super().record(primitive, args, params, out)

    def read_variable(self, variable: Variable, value: Tensor) -> None:
        if id(variable) not in self.read:
            followed = self._around._follows(variable)
            self.read[id(variable)] = variable, followed
            if followed:
                self._variables.setdefault(id(variable), (variable, []))
        self._values.append(value)
        super().read_variable(variable, value)

    # The end

    def alone(self, leaf: Any) -> Any:
        """A result as a tensor that is no input, nor another result; so is the input behind it."""
        if type(leaf) is not Tensor or leaf._uid not in self._tracked:
            return leaf
        made = leaf
        if leaf._uid in self._taken or leaf._uid in self._roots:
            made = bind(registry["identity"], leaf)
            made._keras_mask = leaf._keras_mask
        self._taken.add(made._uid)
        if leaf._logits is not None:
            name, logits = leaf._logits
            made._logits = name, self.alone(logits)
        return made

    def hand_over(self, given: Sequence[Tensor]) -> None:
        """Gives the tape around what was recorded, as if that had been there instead.

        ``given`` are the arguments themselves, for which others may have stood.
        """
        around = self._around
        if around._entries is None:
            return
        numbers = {}
        for argument, original in zip(self._arguments, given, strict=True):
            if argument is not original and argument._uid:
                numbers[argument._uid] = argument._uid = original._uid
        for plan, inputs, saved, outputs in self._entries or ():
            of = tuple([(numbers.get(uid, uid), shape) for uid, shape in inputs])
            around._entries.append(Entry(plan, of, saved, outputs))
        around._has_blocks |= self._has_blocks
        around._tracked |= self._tracked
        around._roots |= self._roots
        for variable, uids in self._variables.values():
            known = around._variables.setdefault(id(variable), (variable, []))[1]
            known += [uid for uid in uids if uid not in known]

    def block(self, results: Sequence[Tensor]) -> tuple[Block, list[Tensor]] | None:
        """The block, and the tensors that calls hold beside arguments, variables and results.

        None where the run counts, or is made to, as there cannot be one.
        """
        capture = self.capture
        if capture is None:
            return None
        entries, needed = self._leading_to(results)
        asked: dict[int, Tensor] = {}  # by identity
        fault = self._fault(capture, entries, asked)
        if fault is not None:
            recording.refuse(fault)
            return None
        lent = {value._uid: value for value in self._values}
        read = [(variable, lent[uids[0]]) for variable, uids in self._variables.values() if uids]
        arguments = [
            i
            for i, argument in enumerate(self._arguments)
            if id(argument) in asked or argument._uid in needed
        ]
        of_results = [i for i, result in enumerate(results) if id(result) in asked]
        held = [self._arguments[i] for i in arguments]
        held += [value for _, value in read]
        sources = len(held)
        held += [results[i] for i in of_results]
        known = set(map(id, held))
        others = [tensor for key, tensor in asked.items() if key not in known]
        held += others
        uids = [tensor._uid if tensor._uid in self._tracked else 0 for tensor in held]
        places = {id(tensor): Held(place) for place, tensor in enumerate(held)}
        block = Block(
            [(plan, of, _with_places(saved, places), made) for plan, of, saved, made in entries],
            arguments=arguments,
            variables=[variable for variable, _ in read],
            results=of_results,
            uids=uids,
            inputs=[place for place in range(sources) if uids[place] in needed],
            outputs=[
                Output(i, result._uid, result._data.shape, result._data.dtype)
                for i, result in enumerate(results)
                if result._uid in needed
            ],
        )
        return block, others

    def _leading_to(self, results: Sequence[Tensor]) -> tuple[list[Any], set[int]]:
        """The entries by which followed results come about, and the numbers of all they read."""
        needed = {result._uid for result in results if result._uid in self._tracked}
        entries = []
        for entry in reversed(self._entries or ()):
            made = entry[3]
            uids = (made,) if type(made) is int else [uid for uid, _, _ in made]
            if not needed.isdisjoint(uids):
                entries.append(entry)
                needed.update([uid for uid, _ in entry[1]])
        return entries[::-1], needed

    def _fault(
        self, capture: Capture, entries: Sequence[Any], asked: dict[int, Tensor]
    ) -> str | None:
        """Why there can be no block; notes the tensors of a call that rules ask for."""
        if capture.outlived:
            return "a tensor is kept beyond the call"
        if len(self._around._roots) > self._watched:
            return "the tape around is told to watch"
        for variable, uids in self._variables.values():
            if len(uids) > 1 or capture.may_write(variable):
                return f"{variable.name}, which a tape follows, may be written to"
        for plan, _, saved, _ in entries:
            if not _ask(saved, capture, asked):
                return f"a rule of {plan.primitive.name} is a function of its own"
        return None


def _ask(item: Any, capture: Capture, asked: dict[int, Tensor]) -> bool:
    """Notes the tensors of a call in ``item``; False for a function, which may hold others."""
    if type(item) is Tensor:
        if not capture.is_constant(item):
            asked[id(item)] = item
        return True
    if type(item) in (tuple, list):
        return all([_ask(part, capture, asked) for part in item])
    return not callable(item) or isinstance(item, type)


def _with_places(item: Any, places: dict[int, Held]) -> Any:
    """What a rule asked for, with places for the tensors of a call."""
    if type(item) in (tuple, list):
        return type(item)([_with_places(part, places) for part in item])
    return places.get(id(item), item) if type(item) is Tensor else item
