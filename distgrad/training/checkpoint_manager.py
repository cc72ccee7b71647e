"""CheckpointManager: the latest checkpoints of a folder are kept, older ones deleted."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from distgrad.core.errors import DataError
from distgrad.core.user_line import warn
from distgrad.training import object_checkpoint, world
from distgrad.training.checkpoint import MANIFEST
from distgrad.training.object_checkpoint import Checkpoint, State


def checkpoints_iterator(
    checkpoint_dir: Any,
    min_interval_secs: float = 0,
    timeout: float | None = None,
    timeout_fn: Callable[[], bool] | None = None,
) -> Iterator[str]:
    """The paths of the checkpoints of a folder, each as another process makes it the latest.

    There are ``min_interval_secs`` between them at least. It ends after ``timeout`` seconds without
    a new one (never for None), unless ``timeout_fn`` is given and says False.
    """
    last = None
    while True:
        since = time.monotonic()
        while (path := object_checkpoint.latest_checkpoint(checkpoint_dir)) in (None, last):
            left = 1.0 if timeout is None else since + timeout - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(left, 1.0))
        if path is not None and path != last:
            last = path
            yield path
            time.sleep(max(since + min_interval_secs - time.monotonic(), 0))
        elif timeout_fn is None or timeout_fn():
            return


class CheckpointManager:
    """Saves ``checkpoint`` into ``directory`` as ``ckpt-1``, ..., of which so many are kept.

    ``max_to_keep`` None keeps all. ``keep_checkpoint_every_n_hours`` spares one in so many hours.
    With ``checkpoint_interval``, ``save`` does nothing until ``step_counter`` (a variable) has come
    that much further than at the last one, or than ``last_checkpoint_step``. ``init_fn`` is for
    ``restore_or_initialize``. A manager goes on where another one of that folder has stopped; what
    ``Checkpoint.save`` has written there it may restore, and does not delete.
    Raises ValueError for settings out of range.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        directory: Any,
        max_to_keep: int | None,
        keep_checkpoint_every_n_hours: float | None = None,
        checkpoint_name: str = "ckpt",
        step_counter: Any = None,
        checkpoint_interval: int | None = None,
        init_fn: Callable[[], Any] | None = None,
        last_checkpoint_step: int | None = None,
    ) -> None:
        if max_to_keep is not None and max_to_keep <= 0:
            raise ValueError(f"max_to_keep must be 1 or more, or None for all, not {max_to_keep}")
        if checkpoint_interval is not None and step_counter is None:
            raise ValueError("checkpoint_interval needs a step_counter, which says how far one is")
        self.checkpoint = checkpoint
        self.directory = str(directory)
        self.checkpoint_interval = checkpoint_interval
        self._max_to_keep = max_to_keep
        self._hours = keep_checkpoint_every_n_hours
        self._name = checkpoint_name
        self._step_counter = step_counter
        self._init_fn = init_fn
        self._last_step = last_checkpoint_step
        self._preserved = time.time()
        self._times: dict[str, float] = {}
        self._latest = object_checkpoint.latest_checkpoint(directory)
        state = object_checkpoint.get_checkpoint_state(directory)
        if state is not None and state.times:  # without, Checkpoint.save wrote it: none is ours
            self._preserved = state.last_preserved or self._preserved
            pairs = zip(state.all_model_checkpoint_paths, state.times, strict=True)
            self._times = {path: at for path, at in pairs if (Path(path) / MANIFEST).exists()}

    @property
    def checkpoints(self) -> list[str]:
        """The paths of those that are kept, the oldest first, and deleted in time."""
        return list(self._times)

    @property
    def latest_checkpoint(self) -> str | None:
        """The path of the newest one; None where there is none."""
        return self._latest

    def save(
        self, checkpoint_number: Any = None, check_interval: bool = True, options: Any = None
    ) -> str | None:
        """Saves, and deletes what is too old; the path, or None within the interval.

        The number is that of the call, or ``checkpoint_number``.
        """
        step = None if self._step_counter is None else int(self._step_counter)
        if check_interval and self._is_early(step):
            return None
        self.checkpoint.save_counter.assign_add(1)
        number = self.checkpoint.save_counter if checkpoint_number is None else checkpoint_number
        path = self.checkpoint.write(str(Path(self.directory) / f"{self._name}-{int(number)}"))
        self._last_step, self._latest = step, path
        self._times.pop(path, None)
        self._times[path] = time.time()
        gone = self._outdated()
        times = list(self._times.values())
        state = State(path, self.checkpoints, times, self._preserved)
        object_checkpoint.write_state(Path(self.directory), state)
        if world.communicator().rank == 0:  # once nothing names them any more
            for each in gone:
                shutil.rmtree(each, ignore_errors=True)
        return path

    def sync(self) -> None:
        """Nothing: what was saved is on disk."""

    def _is_early(self, step: int | None) -> bool:
        if self.checkpoint_interval is None or step is None or self._last_step is None:
            return False
        return step - self._last_step < self.checkpoint_interval

    def _outdated(self) -> list[str]:
        gone = []
        while self._max_to_keep is not None and len(self._times) > self._max_to_keep:
            path = next(iter(self._times))
            when = self._times.pop(path)
            if self._hours and when - 3600 * self._hours >= self._preserved:
                self._preserved = when  # it stays, though no longer in the list
            else:
                gone.append(path)
        return gone

    def restore_or_initialize(self) -> str | None:
        """Restores the newest checkpoint that is whole and returns its path.

        Those that are damaged are named in a warning. Without any, calls ``init_fn`` and returns
        None. Raises DataError where all are damaged.
        """
        latest = [] if self._latest is None else [self._latest]
        paths = [*(path for path in self.checkpoints if path not in latest), *latest]
        for path in reversed(paths):
            try:
                self.checkpoint.restore(path)
            except DataError as error:
                if path == paths[0]:
                    raise
                warn(f"{error} Going back to the one before it.")
                continue
            if self._step_counter is not None:
                self._last_step = int(self._step_counter)
            return path
        if self._init_fn is not None:
            self._init_fn()
        return None
