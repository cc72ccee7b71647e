"""A second thread that moves buckets while the backward pass goes on.

On a device it has a stream of its own: a job there waits for what the sender had given the device,
and the sender's stream, at the end, for all jobs.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from distgrad.core import dispatch, timeline

Job = Callable[[], None]

# Seconds that a failed step waits for the job under way: the others may still answer. What is left
# then ends with the world, or at its own deadline at the latest.
_PATIENCE = 1.0


class Courier:
    """Context in which jobs run one after the other in a thread of their own.

    The end of the context waits for all of them, so that no thread outlives a step. Each job must
    have a deadline of its own. After one that fails the others are dropped; its error is raised by
    the next ``send``, or by the end of the context. An error of the caller comes first.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Job, Any] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._dropped = False
        self._backend = dispatch.current()
        self._last: Any = None  # the end of all jobs on the device
        self.waited = 0.0  # seconds at the end of the context
        self._thread = threading.Thread(target=self._work, name="courier", daemon=True)

    def __enter__(self) -> Courier:
        self._thread.start()
        return self

    def send(self, job: Job) -> None:
        """Puts a job behind the others. Raises the error of one that has failed."""
        if self._error is not None:
            raise self._error
        self._jobs.put((job, self._backend.mark()))

    @timeline.timed("wait for communication")
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._dropped = self._dropped or error is not None
        self._jobs.put(None)
        begun = time.perf_counter()
        self._thread.join(None if error is None else _PATIENCE)
        self.waited = time.perf_counter() - begun
        if error is None and self._error is not None:
            raise self._error
        if not self._thread.is_alive():
            self._backend.after(self._last)

    def _work(self) -> None:
        self._backend.enter_thread()  # of several GPUs, each thread chooses one
        with self._backend.stream("courier"):
            while (sent := self._jobs.get()) is not None:
                if self._dropped:
                    continue
                job, mark = sent
                try:
                    self._backend.after(mark)
                    job()
                except BaseException as error:
                    self._error, self._dropped = error, True
            self._last = self._backend.mark()
