"""One rank of a job that is timed, or who starts its ranks: ``python -m distgrad.bench.rank SPEC``.

The rank trains as ever, by the worker's own loop. An observer of that loop keeps the time, and
stops it between two steps until it is told how many more to make.
"""

from __future__ import annotations

import json
import pickle
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distgrad.bench.spec import Spec
from distgrad.comm.communicator import Communicator
from distgrad.comm.rendezvous import split_address
from distgrad.launcher import base, environ, threads
from distgrad.launcher.connect import run_rank
from distgrad.launcher.process import die_with_parent
from distgrad.training.loop import Observer, TrainingLoop

_PATIENCE = 900.0  # seconds for the next word of who measures


class Meter(Observer):
    """Times the steps of a loop and tells by ``lines``: once after the first, then after each turn.

    A turn begins with a step that does not count, by which the ranks come together.
    """

    def __init__(
        self, lines: Any, loop: TrainingLoop, communication: Callable[[], float] | None
    ) -> None:
        self.lines, self.loop, self.communication = lines, loop, communication
        self._steps = 0  # of this turn that count; of the first none
        self._restart()

    def _restart(self) -> None:
        self._done = -1  # the first does not count
        self._data = self._step = self._communicated = 0.0
        self._samples = 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._before, self._communicated_before = self.loop.cursor.samples, self._so_far()
        self._begun = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._done >= 0:
            self._step += time.perf_counter() - self._begun
            self._data += self.loop.waited
            self._communicated += self._so_far() - self._communicated_before
            self._samples += self.loop.cursor.samples - self._before
        self._done += 1
        if self._done >= self._steps:
            self._tell()
            self._listen()

    def _so_far(self) -> float:
        return 0.0 if self.communication is None else self.communication()

    def _tell(self) -> None:
        answer = {
            "now": time.monotonic(),
            "data": self._data,
            "step": self._step,
            "communication": None if self.communication is None else self._communicated,
            "samples": self._samples,
            "memory": peak_memory(),
        }
        print(json.dumps(answer), file=self.lines, flush=True)

    def _listen(self) -> None:
        line = self.lines.readline()
        if not line:
            raise SystemExit(0)  # on all ranks: who measures has seen enough
        self._restart()
        self._steps = int(line)


def peak_memory() -> int:
    """Bytes of this process in memory, at most; of this program alone, where Linux tells."""
    try:
        text = Path("/proc/self/status").read_text()
        return int(text.partition("VmHWM:")[2].split()[0]) << 10
    except (OSError, ValueError, IndexError):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most << 10


def main(path: str) -> int:
    """One rank of a timed job, or what starts all of them: the process's exit code."""
    spec: Spec = pickle.loads(Path(path).read_bytes())
    job, world = spec.job, environ.detect()
    if not world.is_rank and (job.workers > 1 or spec.launcher != "local"):
        die_with_parent()
        launcher = base.choose(spec.launcher, spec.launcher, world)
        words = [sys.executable, "-m", "distgrad.bench.rank", path]
        return launcher.start(base.Program(words, job.workers, threads=job.threads_per_worker))
    if not world.is_rank:
        die_with_parent()

    def train(communicator: Communicator) -> int:
        from distgrad import worker

        threads.limit(job.threads_per_worker)
        with socket.create_connection(split_address(spec.address), _PATIENCE) as connection:
            lines = connection.makefile("rw")
            hello = {"token": spec.token, "rank": communicator.rank, "now": time.monotonic()}
            print(json.dumps(hello), file=lines, flush=True)
            return worker.main(job, communicator, lambda *loop: Meter(lines, *loop))

    return run_rank(world, train)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
