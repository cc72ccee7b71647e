"""Commits of a run, which are written while it trains on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from distgrad.core import timeline
from distgrad.core.errors import DataError
from distgrad.training import checkpoint
from distgrad.training.checkpoint import Arrays


class Commits:
    """Commits of a run to a disk that may be slow, or full for a while.

    One at a time is written, by a thread of its own; what goes wrong there is told by the next
    call. ``saved_step`` is the step of the newest one that lies on the disk, -1 for none.

    Args:
        folder: where they lie.
        keep_last: how many are kept.
        warn: is told of each that the disk has not taken.
        saved_step: that of the commit with which the run begins.
    """

    misses_allowed = 3  # in a row; the last of them ends the run
    pause = 1.0  # seconds before the first attempt to repeat a commit that nothing comes after

    def __init__(
        self, folder: Path, keep_last: int, warn: Callable[[str], None], saved_step: int = -1
    ) -> None:
        self.folder = folder
        self.keep_last = keep_last
        self.warn = warn
        self.saved_step = saved_step
        self.misses = 0
        self._writer: ThreadPoolExecutor | None = None
        self._written: tuple[int, Future[None]] | None = None

    def save(self, step: int, arrays: Arrays, state: Mapping[str, Any]) -> None:
        """Begins to write a commit, once the one before it is written.

        The arrays are the writer's from here on. Raises DataError as ``settle`` does.
        """
        self.settle()
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._written = step, self._writer.submit(self._write, step, arrays, state)

    def save_last(self, step: int, arrays: Arrays, state: Mapping[str, Any]) -> None:
        """Saves what nothing comes after: waits for it, and tries again at once.

        Raises DataError.
        """
        pause = self.pause
        while True:
            self.save(step, arrays, state)
            self.settle()
            if self.saved_step == step:
                return
            time.sleep(pause)
            pause *= 2

    def look(self) -> None:
        """Settles what has come to its end by now. Raises DataError as ``settle`` does."""
        if self._written is not None and self._written[1].done():
            self.settle()

    def settle(self) -> None:
        """Waits until nothing is being written, and tells what became of it.

        Commits before one that is missed are untouched. Raises DataError where it is one miss too
        many.
        """
        if self._written is None:
            return
        step, future = self._written
        error = future.exception()
        self._written = None
        if isinstance(error, OSError):
            self._missed(step, error)
        elif error is not None:
            raise error
        else:
            self.misses, self.saved_step = 0, step

    def _write(self, step: int, arrays: Arrays, state: Mapping[str, Any]) -> None:
        with timeline.span(f"write checkpoint {step}"):
            checkpoint.save(self.folder, step, arrays, state, self.keep_last)

    def _missed(self, step: int, error: OSError) -> None:
        self.misses += 1
        found = checkpoint.commits(self.folder)
        newest = f"the newest one is {found[-1]}" if found else "there is none yet"
        text = f"the checkpoint of step {step} cannot be written ({error}); {newest}"
        if self.misses >= self.misses_allowed:
            raise DataError(
                f"{text}. {self.misses} in a row are too many: make room, and go on with "
                "--resume auto."
            ) from None
        self.warn(f"{text}. Training goes on, and tries again (miss {self.misses}).")
