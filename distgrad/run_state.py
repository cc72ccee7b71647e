"""The state of a run: the same on all ranks at the start, and committed under variable names.

So any number of workers can take it up.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from distgrad import keras, resuming
from distgrad.comm.communicator import Communicator
from distgrad.compile import eager
from distgrad.core import timeline
from distgrad.core.variable import Variable
from distgrad.job import Job
from distgrad.training import checkpoint
from distgrad.training.commits import Commits
from distgrad.training.handshake import environment
from distgrad.training.loop import Cursor
from distgrad.training.programs import ExecutorName
from distgrad.training.sharded import SlotParts
from distgrad.training.step import TrainStep

DISK = 10  # times the limit of a collective: for how long rank 0 may read or write meanwhile


class RunState:
    """The weights of a model and its optimizer's state, as a commit has them, and its commits.

    ``cursor`` is where the run stands.
    """

    def __init__(
        self,
        job: Job,
        communicator: Communicator,
        model: keras.Sequential,
        step: TrainStep,
        executor: ExecutorName,
        folder: Path,
        commit: checkpoint.Commit | None,
    ) -> None:
        self.job = job
        self.communicator = communicator
        self.model = model
        self.step = step
        self.executor: ExecutorName = executor
        self.cursor = Cursor() if commit is None else self._restored(commit)
        saved_step = -1 if commit is None else self.cursor.step
        self.commits = Commits(folder / "checkpoints", job.keep_last, self._missed, saved_step)
        self.at_miss: Callable[[str], None] = lambda text: None  # told of a commit that failed
        self._broadcast()

    @timeline.timed("checkpoint")
    def save(self, *, last: bool = False) -> None:
        """Commits the state after the current step; all ranks call it, and have settled others.

        They wait until the ``last`` one is written. A disk that does not take one is a warning,
        unless it is the last commit or one of several such in a row.
        """
        step = self.cursor.step
        parts = self._in_parts()  # on all ranks: only rank 0 knows what has been saved
        if self.communicator.rank == 0 and step != self.commits.saved_step:
            save = self.commits.save_last if last else self.commits.save
            save(step, *self._whole(parts))
        if last:
            self._wait()

    def settle(self) -> None:
        """Waits until the newest commit is written; all ranks call it.

        Before the last step of an interval, so that a kill costs less than two of them.
        """
        if self.communicator.rank == 0:
            self.commits.settle()
        self._wait()

    def weights_sha256(self) -> str:
        """The hash of the weights, by which runs are compared."""
        paths = self.model.variable_paths()
        return checkpoint.weights_sha256({path: v.numpy() for path, v in paths.items()})

    def _restored(self, commit: checkpoint.Commit) -> Cursor:
        restore(self.model, commit)
        if isinstance(self.step.slots, SlotParts):
            for name in self.step.slots.names:
                paths = self._slot_paths(name)
                self.step.slots.load(name, [commit.arrays["optimizer"][path] for path in paths])
        return Cursor(**commit.state["cursor"])

    def _broadcast(self) -> None:
        """Everyone begins with the bits of rank 0."""
        for variables in state_variables(self.model).values():
            for path in sorted(variables):
                value = np.array(variables[path].numpy())
                self.communicator.broadcast(value)
                variables[path].assign(value)

    def _slot_paths(self, name: str) -> list[str]:
        paths = {id(variable): path for path, variable in self.model.variable_paths().items()}
        return [f"{paths[id(trained)]}/{name}" for trained in self.step.variables]

    def _in_parts(self) -> dict[str, np.ndarray]:
        """On rank 0 the optimizer's state that is kept in parts; all ranks must call it."""
        found: dict[str, np.ndarray] = {}
        if isinstance(self.step.slots, SlotParts):
            for name in self.step.slots.names:
                whole = self.step.slots.gather(name)
                if whole is not None:
                    found.update(zip(self._slot_paths(name), whole, strict=True))
        return found

    def _wait(self) -> None:
        """Until rank 0 is here, which may have waited for its disk."""
        self.communicator.barrier(timeout=DISK * self.communicator.timeout)

    def _whole(self, parts: Mapping[str, np.ndarray]) -> tuple[checkpoint.Arrays, dict[str, Any]]:
        """What a commit holds: copies of the arrays, the ``parts`` among them, and all else."""
        arrays = {
            file: {path: np.asarray(variable.numpy()) for path, variable in variables.items()}
            for file, variables in state_variables(self.model).items()
        }
        arrays["optimizer"] |= parts
        state = {
            "cursor": asdict(self.cursor),
            "seed": self.job.seed,
            "virtual_shards": self.job.virtual_shards or self.communicator.world_size,
            "config_hash": self.job.config_hash,
            "executor": self.executor,
            "kernels": eager.used(),
            "job": resuming.decides_bits(self.job),
            "environment": environment(),
        }
        return arrays, state

    def _missed(self, text: str) -> None:
        print(f"warning: {text}", file=sys.stderr, flush=True)
        self.at_miss(text)


def state_variables(model: keras.Sequential) -> dict[str, dict[str, Variable]]:
    """What a commit holds of a model and its optimizer, under names that no worker count changes.

    Slots that the optimizer has given up, to be kept in parts, are not there.
    """
    paths, optimizer = model.variable_paths(), model.optimizer
    assert optimizer is not None
    names = {id(variable): path for path, variable in paths.items()}
    state = dict(optimizer.scalars)
    for name, slot in optimizer.slots.items():
        for trained, variable in zip(optimizer.trained, slot, strict=True):
            state[f"{names[id(trained)]}/{name}"] = variable
    return {"model": paths, "optimizer": state}


def restore(model: keras.Sequential, commit: checkpoint.Commit) -> None:
    """Gives a model and its optimizer, which is built, the values of a commit."""
    for file, variables in state_variables(model).items():
        for path, variable in variables.items():
            variable.assign(commit.arrays[file][path])
