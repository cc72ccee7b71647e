"""What layers assign to their own state (moving averages, counters) while a shard runs.

Every virtual shard of a step starts from the same state. What one assigns is kept apart and undone;
the step then takes the mean over all shards, so that no worker's state depends on which shards it
has run.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable, Sequence
from typing import Any

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import TreeSum
from distgrad.core.dispatch import backend_of
from distgrad.core.variable import Variable


class _Running(threading.local):
    """The shard that this thread runs."""

    share: float = 1.0


running = _Running()


def share() -> float:
    """The part of the batch's samples that the running shard holds; 1 outside of a step."""
    return running.share


class shard:
    """Context in which one shard runs, with ``share`` of the batch's samples.

    Afterwards ``written`` has what was assigned to any of ``variables``, by the id of the variable,
    and the variables have the values from before again.
    """

    def __init__(self, share: float, variables: Sequence[Variable] = ()) -> None:
        self.share = share
        self.variables = variables
        self.written: dict[int, Any] = {}

    def __enter__(self) -> shard:
        self._outer = running.share
        running.share = self.share
        # A write gives every borrower a copy of what was there: that is how it shows.
        self._before = [variable._lend_value() for variable in self.variables]
        return self

    def __exit__(self, *exc: object) -> None:
        running.share = self._outer
        for variable, before in zip(self.variables, self._before, strict=True):
            if before._lender is None:
                self.written[id(variable)] = variable._buffer.copy()
                variable._store(before._data)
        self._before = []  # no loans any more

    def pause(self) -> None:
        """Lets the variables have their values from before, while others run."""
        self.__exit__()

    def resume(self) -> None:
        """Gives the variables again what was assigned before ``pause``."""
        written, self.written = self.written, {}
        self.__enter__()
        for variable in self.variables:
            if id(variable) in written:
                variable._store(written[id(variable)])

    def leave_out(self, others: Container[int]) -> None:
        """Lets variables of these ids keep what they are assigned."""
        both = zip(self.variables, self._before, strict=True)
        kept = [(variable, before) for variable, before in both if id(variable) not in others]
        self.variables = [variable for variable, _ in kept]
        self._before = [before for _, before in kept]


class StateMean:
    """Variables that layers assign themselves: each shard's proposal, and the mean over them.

    A shard counts by its share of the samples. One that assigned nothing proposes what was there.
    """

    def __init__(self, variables: Sequence[Variable], virtual_shards: int) -> None:
        self.variables = list(variables)
        self._virtual_shards = virtual_shards
        self._trees: dict[tuple[int, ...], TreeSum] = {}
        self._proposals: list[tuple[int, float, dict[int, Any]]] = []

    def start(self) -> None:
        self._proposals.clear()

    def propose(self, index: int, share: float, written: dict[int, Any]) -> None:
        """Keeps what one shard has assigned."""
        self._proposals.append((index, share, written))

    def among(self, written: Container[int]) -> list[bool]:
        """Which of the variables are among those of these ids."""
        return [id(variable) in written for variable in self.variables]

    def take(self, written: dict[int, Any]) -> None:
        """Assigns what the only shard there is has assigned."""
        chosen = [variable for variable in self.variables if id(variable) in written]
        for variable in chosen:
            variable._recall_loans()
        pairs = [(variable._buffer, written[id(variable)]) for variable in chosen]
        if pairs:
            backend_of(pairs[0][0]).copy_each(pairs)

    def reduce(
        self, written: Iterable[Any], communicator: Communicator, present: Iterable[int]
    ) -> None:
        """Assigns the mean to those that any shard of any worker has written."""
        positions = tuple(i for i, any_shard in enumerate(written) if any_shard)
        if not positions:
            return
        chosen = [self.variables[i] for i in positions]
        if positions not in self._trees:
            size = sum(variable._buffer.size for variable in chosen)
            dtype = np.complex128 if any(_is_complex(each) for each in chosen) else np.float64
            self._trees[positions] = TreeSum(self._virtual_shards, size, dtype)
        tree = self._trees[positions]
        tree.start(present)
        for index, share, values in self._proposals:
            flat = tree.buffer()
            for variable, view in zip(chosen, _cut(flat, chosen), strict=True):
                value = values.get(id(variable), variable._buffer)
                view[...] = share * backend_of(value).to_numpy(value)
            tree.push(index, flat)
        total = np.empty(tree.size, tree.dtype)
        communicator.reduce_tree(tree, total)
        for variable, view in zip(chosen, _cut(total, chosen), strict=True):
            old = variable._buffer
            mean = view if _is_complex(variable) else view.real
            mean = np.rint(mean) if old.dtype.kind in "iub" else mean
            variable._store(backend_of(old).asarray(mean, old.dtype))


def _is_complex(variable: Variable) -> bool:
    return variable._buffer.dtype.kind == "c"


def _cut(flat: np.ndarray, variables: Sequence[Variable]) -> Iterable[np.ndarray]:
    start = 0
    for variable in variables:
        stop = start + variable._buffer.size
        yield flat[start:stop].reshape(variable._buffer.shape)
        start = stop
