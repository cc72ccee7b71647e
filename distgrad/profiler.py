"""``tf.profiler``: the timeline of a part of a script, written for chrome://tracing and Perfetto.

``experimental.start(logdir)`` and ``stop()`` record the spans of this process between them into
``timeline.json`` there; several processes share the file, in which each is a row.
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, NamedTuple

from distgrad.core.timeline import span
from distgrad.training import timeline, world

__all__ = ["experimental"]


class ProfilerOptions(NamedTuple):
    """What TensorFlow's profiler is told of what to trace; here it changes nothing."""

    host_tracer_level: int = 2
    python_tracer_level: int = 0
    device_tracer_level: int = 1
    delay_ms: int | None = None


def start(logdir: str | os.PathLike[str], options: Any = None) -> None:
    """Records a timeline into ``timeline.json`` in the folder ``logdir``, until ``stop``.

    Raises AlreadyExistsError where one is being recorded, UsageError where it cannot be written.
    """
    timeline.start(os.path.join(logdir, timeline.NAME), world.communicator())


def stop(save: bool = True) -> None:
    """Ends what ``start`` has begun, which is in its file then, whatever ``save`` says.

    Raises UnavailableError where nothing is being recorded.
    """
    timeline.stop()


class Profile:
    """Context in which a timeline is recorded, as between ``start`` and ``stop``."""

    def __init__(self, logdir: str | os.PathLike[str], options: Any = None) -> None:
        self._logdir, self._options = logdir, options

    def __enter__(self) -> None:
        start(self._logdir, self._options)

    def __exit__(self, *exc: object) -> None:
        stop()


class Trace(span):
    """Context that is a span of this name in a timeline that is being recorded.

    What else it is given, such as ``step_num``, is shown beside it.
    """

    def set_metadata(self, **details: Any) -> None:
        """Adds to what is shown beside it."""
        self.details.update(details)


experimental = SimpleNamespace(
    Profile=Profile, ProfilerOptions=ProfilerOptions, Trace=Trace, start=start, stop=stop
)
