"""A word where one rank keeps the others waiting, step after step."""

from __future__ import annotations

import platform
import statistics
import sys
import time
from typing import Any

from distgrad.comm.communicator import Communicator
from distgrad.training.loop import Observer, TrainingLoop

_FIRST, _EVERY = 20, 100  # steps after which the ranks compare
_SPARED = 2  # steps at the start, in which programs are made
_LEAST = 1.0  # seconds that a rank must have worked: about less nobody cares
# Times as long as the others take: with shards that cannot be shared out evenly it may be twice.
_SLOWER = 2.5


class Stragglers(Observer):
    """Compares how long the ranks work in their steps: in them, and waiting for their data.

    What they wait for each other does not count. Where one takes 2.5 times as long as the others
    do, rank 0 says so: after 20 steps of more than a second, or as soon as there are that many
    seconds; once for each rank. All ranks must have one for the same steps.
    """

    def __init__(self, loop: TrainingLoop, communicator: Communicator) -> None:
        self.loop = loop
        self.communicator = communicator
        self._steps = 0
        self._since = _SPARED  # steps before those that are summed up
        self._worked = 0.0
        self._began = self._waited = 0.0
        self._named: set[int] = set()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._waited = self.loop.step.waited
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._steps += 1
        if self._steps <= _SPARED:
            return
        waited = self.loop.step.waited - self._waited
        self._worked += time.perf_counter() - self._began - waited + self.loop.waited
        if self._steps == _FIRST or self._steps % _EVERY == 0:
            self._compare()

    def _compare(self) -> None:
        everyone = self.communicator.allgather_object((self._worked, platform.node()))
        worked = [seconds for seconds, _ in everyone]
        most = max(worked)
        if most < _LEAST:
            return
        slow = worked.index(most)
        usual = statistics.median(worked[:slow] + worked[slow + 1 :])
        if most > _SLOWER * usual and slow not in self._named:
            self._named.add(slow)
            self._say(slow, everyone[slow][1], most, usual)
        self._since, self._worked = self._steps, 0.0

    def _say(self, slow: int, host: str, most: float, usual: float) -> None:
        if self.communicator.rank != 0:
            return
        last = self.loop.cursor.step
        first = last - (self._steps - self._since) + 1
        print(
            f"warning: rank {slow} on {host} keeps the others waiting: in steps {first} to {last} "
            f"it has worked for {most:.1f} s, the others for {usual:.1f} s.",
            file=sys.stderr,
            flush=True,
        )
