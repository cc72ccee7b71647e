"""The desync alarm: every rank must have the same bits in its variables."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.comm.transport import name_ranks
from distgrad.core import timeline
from distgrad.core.dispatch import backend_of
from distgrad.core.errors import DesyncError
from distgrad.core.variable import Variable


class DesyncAlarm:
    """Compares the bits of ``variables`` over all ranks, every so many steps.

    ``every`` is 0 for never, else it compares after the ``first`` ones, too, in which differences
    of optimizers show; ``paths`` names variables better than they name themselves. Raises
    DesyncError on every rank, naming the first variable that differs and the ranks that have
    something else than the most.
    """

    def __init__(
        self,
        variables: Sequence[Variable],
        communicator: Communicator,
        every: int = 100,
        paths: Mapping[str, Variable] | None = None,
        first: int = 0,
    ) -> None:
        self.variables = list(variables)
        self.communicator = communicator
        self.every = every
        self.first = first
        self._names = {id(variable): path for path, variable in (paths or {}).items()}

    def after(self, step: int) -> None:
        """Compares if it is time, after ``step`` steps."""
        if self.every and (step <= self.first or step % self.every == 0):
            self.compare(step)

    def name(self, variable: Variable) -> str:
        return self._names.get(id(variable), variable.name)

    @timeline.timed("compare weights")
    def compare(self, step: int) -> None:
        """Compares now; all ranks must call it."""
        found = self.difference()
        if found is not None:
            within = min(self.every or step, step)
            where = f"the {within} steps before" if within > 1 else "that step"
            raise DesyncError(
                f"the ranks no longer have the same weights after step {step}: {found}. The first "
                f"difference in order; its cause lies in {where}."
            )

    def difference(self) -> str | None:
        """The first variable that differs, and where; all ranks must call it."""
        if self.communicator.world_size == 1:
            return None
        rank, size = self.communicator.rank, self.communicator.world_size
        everyone = np.zeros((size, len(self.variables)), np.int64)
        everyone[rank] = [digest(variable) for variable in self.variables]
        self.communicator.allgather(everyone)
        if (everyone == everyone[rank]).all():  # nearly always
            return None
        for variable, found in zip(self.variables, everyone.T.tolist(), strict=True):
            if len(set(found)) > 1:
                return f"{self.name(variable)} {_division(found)}"
        return None


def digest(variable: Variable) -> int:
    """A checksum of the bits: CRC-32, which never misses a difference within 32 bits in a row."""
    array = variable._buffer
    host = np.ascontiguousarray(backend_of(array).to_numpy(array))
    return zlib.crc32(host.reshape(-1).view(np.uint8).data)


def _division(found: Sequence[int]) -> str:
    groups: dict[int, list[int]] = {}
    for rank, value in enumerate(found):
        groups.setdefault(value, []).append(rank)
    most, *others = sorted(groups.values(), key=lambda ranks: -len(ranks))
    if len(most) == len(others[0]):  # nobody knows who is right
        return "differs between " + " and ".join(map(name_ranks, (most, *others)))
    odd = [rank for ranks in others for rank in ranks]
    return f"differs on {name_ranks(odd)} from {name_ranks(most)}"
