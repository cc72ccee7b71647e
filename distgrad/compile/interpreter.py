"""The interpreter: a program's primitives bound one after the other, until a plan pays.

To plan a program takes about a hundred times as long as to run it, so that one which is run a few
times is not planned at all. The plan has the kernels of an eager run, as the interpreter has, and
the same bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.compile.numpy_exec import Executor, replaying_executor
from distgrad.compile.passes import drop_dead
from distgrad.compile.program import Apply, Call, Program, Read, Slot, Value, Write
from distgrad.core import recording
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor

TRIED = 10  # runs before the plan


class Interpreter:
    """Runs a program as ``Executor`` does; from the eleventh run on it is one."""

    def __init__(self, program: Program, arrays: Sequence[np.ndarray]) -> None:
        self._program = drop_dead(program)
        self._runs = 0
        self._lent = 0
        self.planned: Executor | None = None
        left = self._program.uses()
        self._last: list[list[Value]] = []  # the values that each instruction is the last to use
        for instruction in self._program.instructions:
            ended = []
            for value in instruction.values:
                left[value] -= 1
                if not left[value] and not value.constant:
                    ended.append(value)
            self._last.append(ended)

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        if self._runs == TRIED:
            self._runs += 1
            # What cannot be laid out goes on like this; a plan is made without other processes.
            with contextlib.suppress(Exception), recording.rehearsal():
                planned = replaying_executor(self._program, arrays)
                planned.lend(self._lent)
                self.planned = planned
        # A plan lays its inputs row by row, and how they lie decides bits of sums and products.
        if self.planned is not None and all(a.flags.c_contiguous for a in arrays):
            return self.planned(arrays)
        self._runs += 1
        return self._interpreted(arrays)

    def lend(self, count: int) -> None:
        """As ``Executor.lend``: of a plan, the last ``count`` outputs are no copies."""
        self._lent = count

    def _interpreted(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        made = dict(zip(self._program.inputs, map(Tensor, arrays), strict=True))

        def given(value: Any) -> Any:
            if type(value) is not Value:
                return value
            return Tensor(value.data) if value.constant else made[value]

        for instruction, ended in zip(self._program.instructions, self._last, strict=True):
            inputs = [given(value) for value in instruction.inputs]
            if isinstance(instruction, Apply):
                out = bind(instruction.primitive, *inputs, **instruction.params)
                made.update(
                    zip(instruction.outputs, out if type(out) is tuple else (out,), strict=True)
                )
            elif isinstance(instruction, Read):
                made[instruction.outputs[0]] = instruction.variable._read()
            elif isinstance(instruction, Write):
                instruction.variable._store(inputs[0]._data)
            elif isinstance(instruction, Slot):
                made[instruction.outputs[0]] = instruction.draw()
            elif isinstance(instruction, Call):
                instruction.run(*inputs)
            for value in ended:
                del made[value]
        return [given(value)._data.copy("K") for value in self._program.outputs]
