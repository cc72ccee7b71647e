"""A function under a tape: its operations as one program forwards, and as others backwards.

The function is captured under a tape of its own; what the rules of its operations will ask for is
given by the program beside its results, and the tape around gets one entry, a `Block`. The bits
are those of an eager run: programs have its kernels, and add cotangents up in its order.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.compile.captured import Captured
from distgrad.compile.within import Within
from distgrad.core import recording, tree
from distgrad.core.block import Asked, Block
from distgrad.core.gradients import Graph
from distgrad.core.primitive import bind, registry
from distgrad.core.tape import GradientTape
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable

_WAYS = 4  # of a function, that differ in what tapes follow; then it runs eagerly

Make = Callable[[Callable[..., Any]], Captured]


class Taped:
    """Runs ``fn`` under a tape; ``make`` gives the programs of a function."""

    def __init__(self, fn: Callable[..., Any], make: Make) -> None:
        self._fn = fn
        self._make = make
        self._ways: dict[tuple[bool, ...], list[_Way]] = {}  # by the arguments followed

    def run(self, args: tuple, kwargs: dict) -> Any:
        """A call while somebody records: by programs if that is one tape, and nobody else."""
        tape, *others = recording.per_thread.stack
        flat = not kwargs and all([type(arg) is Tensor for arg in args])
        leaves = args if flat else _tensors((args, kwargs))
        if others or not isinstance(tape, GradientTape) or isinstance(tape, Graph):
            return self._fn(*args, **kwargs)
        if any(map(_remembers, leaves)):
            return self._fn(*args, **kwargs)
        followed = tuple([leaf._uid in tape._tracked for leaf in leaves])
        ways = self._ways.setdefault(followed, [])
        way = next((way for way in ways if way.fits(tape)), None)
        if way is None:
            if len(ways) == _WAYS:
                return self._fn(*args, **kwargs)
            way = _Way(self._fn, followed, self._make)
            ways.append(way)
        return way.run(tape, leaves, args, kwargs)

    @property
    def traced(self) -> int:
        """How often the function was traced."""
        return sum(way.captured.traced for ways in self._ways.values() for way in ways)


class _Way:
    """The programs of a function under tapes that follow the same of what it is given and reads."""

    def __init__(self, fn: Callable[..., Any], followed: tuple[bool, ...], make: Make) -> None:
        self._fn = fn
        self._followed = followed
        self._make = make
        self.captured = make(functools.update_wrapper(functools.partial(_Way._taped, self), fn))
        self._variables: dict[int, tuple[Variable, bool]] = {}  # those read, and whether followed
        self._constants: list[weakref.ref[Tensor]] = []  # which nobody followed
        self._per_thread = threading.local()

    def fits(self, tape: GradientTape) -> bool:
        """Whether ``tape`` follows what was followed, and nothing else."""
        for variable, followed in self._variables.values():
            if tape._follows(variable) is not followed:
                return False
        alive = [constant for ref in self._constants if (constant := ref()) is not None]
        if len(alive) < len(self._constants):
            self._constants = list(map(weakref.ref, alive))
        return not any([constant._uid in tape._tracked for constant in alive])

    def run(self, tape: GradientTape, leaves: Sequence[Tensor], args: tuple, kwargs: dict) -> Any:
        self._per_thread.call = tape, leaves
        with recording.suspended():
            result, notes, others, block = self.captured.run(args, kwargs)
        if block is None:  # it ran eagerly, and told the tape
            return result
        results = _tensors(result)
        for tensor, (name, logits, mask) in zip(results, notes, strict=False):  # none, or all
            tensor._logits = None if name is None else (name, logits)
            tensor._keras_mask = mask
        results += _logits(notes)
        tape._record_block(block.entry(leaves, results, others))
        return result

    def _taped(self, *args: Any, **kwargs: Any) -> Any:
        """The result, what its tensors remember, what a block holds beside these, and the block.

        Without a block, the tape around is told of the operations.
        """
        around, leaves = self._per_thread.call
        tape = Within(around, _tensors((args, kwargs)), self._followed)
        with tape:
            result = self._fn(*args, **kwargs)
            if tape.capture is not None:
                result = tree.map_structure(tape.alone, result)
        notes = list(map(_note, _tensors(result)))
        found = tape.block([*_tensors(result), *_logits(notes)])
        if found is None:
            tape.hand_over(leaves)
            return result, [], [], None
        self._variables.update(tape.read)
        self._constants += map(weakref.ref, tape.constants)
        block, others = found
        block.run = _programs(block, self._make)
        if all([part is None for note in notes for part in note]):
            notes = []
        return result, notes, others, block


def _programs(block: Block, make: Make) -> Callable[..., list[Any]]:
    """The walk of a block by a program for each set of cotangents that is there and asked for."""
    known: dict[Any, Captured] = {}

    def run(asked: Asked, *tensors: Tensor) -> list[Any]:
        turned, flat = [], list(tensors)
        for i, tensor in enumerate(tensors):
            if not tensor._data.flags.c_contiguous:
                order = _order(tensor._data)
                turned.append((i, order))
                flat[i] = Tensor(tensor._data.transpose(order))
        key = asked, *turned
        captured = known.get(key)
        if captured is None:
            captured = known[key] = make(functools.partial(_turned_back, block, asked, turned))
        return captured.run(tuple(flat), {})

    return run


def _order(array: np.ndarray) -> tuple[int, ...]:
    """The axes as they lie in memory, the one with the widest steps first."""
    return tuple(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))


def _turned_back(
    block: Block, asked: Asked, turned: Sequence[tuple[int, tuple]], *flat: Tensor
) -> list[Any]:
    """The walk, given arrays as they lie in memory: plans take them so, and rules as they were."""
    tensors = list(flat)
    for i, order in turned:
        back = tuple(order.index(axis) for axis in range(len(order)))
        tensors[i] = bind(registry["permute"], flat[i], perm=back)
    return block.walk(asked, *tensors)


def _tensors(nest: Any) -> list[Tensor]:
    return [leaf for leaf in tree.flatten(nest) if type(leaf) is Tensor]


def _remembers(tensor: Tensor) -> bool:
    """Whether layers and losses know more of it than a program does."""
    return tensor._logits is not None or tensor._keras_mask is not None


def _note(tensor: Tensor) -> tuple[str | None, Tensor | None, Tensor | None]:
    """The activation that made a tensor, its input, and the mask."""
    return (*(tensor._logits or (None, None)), tensor._keras_mask)


def _logits(notes: Sequence[tuple[Any, Any, Any]]) -> list[Tensor]:
    return [logits for _, logits, _ in notes if logits is not None]
