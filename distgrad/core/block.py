"""Blocks: what a tape keeps of a call that ran as one program.

A block stands in a tape as one entry with several outputs. It knows the entries of the operations
inside, with places for the tensors of each call, so that a walk which meets it does what those
entries would: by a program where nobody records, and else one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from distgrad.core.backward import as_cotangent, backward, path_from
from distgrad.core.indexed_slices import IndexedSlices, joined
from distgrad.core.targets import number_of
from distgrad.core.tensor import Tensor, next_uid
from distgrad.core.variable import Variable

# Which cotangents of outputs, and then of inputs, are there, and which of inputs are wanted.
Asked = tuple[tuple[bool, ...], tuple[bool, ...]]


class Held(NamedTuple):
    """A tensor that rules ask for: the one at ``place`` among those that a call holds."""

    place: int


class Output(NamedTuple):
    """A followed result: that at ``place`` among those of a call, under the number it had."""

    place: int
    uid: int
    shape: tuple[int, ...]
    dtype: Any


class Block:
    """The entries of a call, with `Held` for its tensors, and with the numbers of the first call.

    A call holds, in this order, its arguments at ``arguments``, the values of ``variables``, its
    results at ``results`` and what else its rules ask for. ``uids`` are the numbers that these
    had, 0 where they are not followed; ``inputs`` are the places of those that the outputs are
    differentiated by. ``run`` is `walk`, or a program of it.
    """

    def __init__(
        self,
        entries: Sequence[Any],
        arguments: Sequence[int],
        variables: Sequence[Variable],
        results: Sequence[int],
        uids: Sequence[int],
        inputs: Sequence[int],
        outputs: Sequence[Output],
    ) -> None:
        self.entries = tuple(entries)
        self.arguments = tuple(arguments)
        self.variables = tuple(variables)
        self.results = tuple(results)
        self.uids = tuple(uids)
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.others = len(self.uids) - len(arguments) - len(variables) - len(results)
        self.run: Callable[..., list[Any]] = self.walk

    def entry(
        self, arguments: Sequence[Tensor], results: Sequence[Tensor], others: Sequence[Tensor]
    ) -> Any:
        """A tape's entry for a call with these arguments and results."""
        held = [arguments[place] for place in self.arguments]
        held += [variable._read() for variable in self.variables]
        held += [results[place] for place in self.results]
        outputs = []
        for place, _, shape, dtype in self.outputs:
            outputs.append((number_of(results[place]), shape, dtype))
        inputs = tuple([(held[i]._uid, held[i]._data.shape) for i in self.inputs])
        return self, inputs, [*held, *others], tuple(outputs)

    def through(
        self, held: list[Tensor], given: list[Any], known: list[Any], wanted: list[bool]
    ) -> list[Any]:
        """The cotangents of the wanted inputs, None for others: what is known, and what is added.

        ``given`` are those of the outputs, None where there is none, as in ``known``.
        """
        tensors = [Tensor(tensor._data) for tensor in held]  # none of them a variable's
        there = [*given, *known]
        tensors += [g for g in there if g is not None]
        made = self.run((tuple([g is not None for g in there]), tuple(wanted)), *tensors)
        shapes = [held[place]._data.shape for place in self.inputs]
        return [
            IndexedSlices(value[0], value[1], shape) if type(value) is tuple else value
            for value, shape in zip(made, shapes, strict=True)
        ]

    def walk(self, asked: Asked, *tensors: Tensor) -> list[Any]:
        """``through``, told what is there and wanted; of IndexedSlices gives values and indices."""
        there, wanted = asked
        more = iter(tensors[len(self.uids) :])
        sources = [self.uids[place] for place in self.inputs]
        numbers = [*(output.uid for output in self.outputs), *sources]
        cotangents = {
            uid: next(more) for uid, is_there in zip(numbers, there, strict=True) if is_there
        }
        asked_for = {uid for uid, is_wanted in zip(sources, wanted, strict=True) if is_wanted}
        entries = [(p, i, _filled(saved, tensors), o) for p, i, saved, o in self.entries]
        path, reached = path_from(entries, asked_for)
        backward(reversed(path), reached, cotangents, asked_for)
        found = [joined(as_cotangent(cotangents.get(uid))) for uid in sources]
        flat = [(g.values, g.indices) if type(g) is IndexedSlices else g for g in found]
        return [g if uid in asked_for else None for uid, g in zip(sources, flat, strict=True)]

    def expanded(
        self, inputs: tuple, held: list[Tensor], outputs: tuple
    ) -> tuple[list[Any], set[int]]:
        """The entries of a call, with the numbers of its own tensors; and these numbers."""
        numbers = {self.uids[place]: uid for place, (uid, _) in zip(self.inputs, inputs)}  # noqa: B905
        numbers |= {output.uid: uid for output, (uid, *_) in zip(self.outputs, outputs)}  # noqa: B905
        for uid, tensor in zip(self.uids, held):  # noqa: B905 (all of one length)
            if uid:
                numbers[uid] = number_of(tensor)

        def number(uid: int) -> int:
            return numbers.get(uid) or numbers.setdefault(uid, next_uid())

        entries = []
        for plan, sources, saved, made in self.entries:
            of = tuple([(number(uid), shape) for uid, shape in sources])
            if type(made) is int:
                out: Any = number(made)
            else:
                out = tuple([(number(uid), shape, dtype) for uid, shape, dtype in made])
            entries.append((plan, of, _filled(saved, held), out))
        return entries, set(numbers.values())


def _filled(item: Any, tensors: Sequence[Tensor]) -> Any:
    """What rules asked for, with the tensors of a call in their places."""
    if type(item) is Held:
        return tensors[item.place]
    if type(item) in (tuple, list):
        return type(item)([_filled(part, tensors) for part in item])
    return item
