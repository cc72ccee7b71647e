"""Who is told of a run beside its folder: trackers, and the guard that keeps training from them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from distgrad.training.tensorboard import TensorBoard


class Tracker(Protocol):
    """Is told of a run on rank 0; whatever it raises, training goes on without it."""

    name: str

    def start(self, step: int) -> None:
        """A run begins, or goes on after ``step``: what is known of later steps is void."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Values by name after so many steps: ``batch_loss``, ``epoch_loss``, ``val_loss``..."""

    def finish(self, state: str) -> None:
        """The run has ended, in a state of ``status.json``."""


class Trackers:
    """Tells several trackers; the first failure of one is a warning, and its end."""

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        self._trackers = list(trackers)

    def start(self, step: int) -> None:
        self._tell("start", step)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """As for a `Tracker`; a value may be a list, whose parts get numbers."""
        if self._trackers:
            self._tell("log", step, dict(_scalars(values)))

    def finish(self, state: str) -> None:
        self._tell("finish", state)

    def _tell(self, event: str, *words: Any) -> None:
        for tracker in [*self._trackers]:
            try:
                getattr(tracker, event)(*words)
            except Exception as error:
                self._trackers.remove(tracker)
                print(
                    f"warning: {tracker.name} is told no more of this run, which goes on: {error}",
                    file=sys.stderr,
                    flush=True,
                )
                with contextlib.suppress(Exception):  # it may have files to close
                    tracker.finish("failed")


def trackers_of(folder: Path, names: Sequence[str]) -> Trackers:
    """The trackers that `chosen` has named, for the run in ``folder``."""
    return Trackers([TensorBoard(folder / "tb")] if TensorBoard.name in names else [])


def chosen(tensorboard: bool | Literal["auto"]) -> list[str]:
    """The names of the trackers that are asked for.

    Raises MissingExtraError where the package of one is not installed.
    """
    if tensorboard is True:
        TensorBoard.require()
    wanted = TensorBoard.installed() if tensorboard == "auto" else tensorboard
    return [TensorBoard.name] if wanted else []


def _scalars(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Sequence):
            yield from ((f"{name}_{i}", float(part)) for i, part in enumerate(value))
        else:
            yield name, float(value)
