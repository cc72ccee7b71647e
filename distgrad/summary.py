"""``tf.summary``: what a loop of one's own writes for TensorBoard, through tensorboardX.

Nothing is written without a writer in force, and only by the first of several processes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from distgrad.training import world
from distgrad.training.tensorboard import summary_writer

__all__ = [
    "SummaryWriter",
    "create_file_writer",
    "create_noop_writer",
    "experimental",
    "flush",
    "histogram",
    "image",
    "record_if",
    "scalar",
    "should_record_summaries",
    "text",
    "trace_export",
    "trace_off",
    "trace_on",
]


class _InForce(threading.local):
    """What counts in a thread."""

    writer: SummaryWriter | None = None
    step: Any = None
    condition: Any = True


_now = _InForce()


class SummaryWriter:
    """Writes events into the folder ``logdir``; one for None writes nothing."""

    def __init__(self, logdir: str | None) -> None:
        self._logdir = logdir
        self._file: Any = None

    def _open(self) -> Any:
        if self._file is None and self._logdir is not None:
            self._file = summary_writer()(self._logdir)
        return self._file

    @contextmanager
    def as_default(self, step: Any = None) -> Iterator[SummaryWriter]:
        """The block's summaries are written here; ``step`` is theirs where they state none."""
        before = _now.writer, _now.step
        self.set_as_default(step)
        try:
            yield self
        finally:
            self.flush()
            _now.writer, _now.step = before

    def set_as_default(self, step: Any = None) -> None:
        """All summaries from here on are written here."""
        _now.writer = self
        if step is not None:
            _now.step = step

    def init(self) -> None:
        """Nothing: the file is made with the first summary."""

    def flush(self) -> None:
        """Writes out what is there."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Writes out what is there, and closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = self._logdir = None


def create_file_writer(
    logdir: Any,
    max_queue: int | None = None,
    flush_millis: int | None = None,
    filename_suffix: str | None = None,
    name: str | None = None,
) -> SummaryWriter:
    """A writer of events in the folder ``logdir``, which ``as_default`` puts in force.

    Raises MissingExtraError where tensorboardX is not installed.
    """
    summary_writer()
    return SummaryWriter(os.fspath(logdir) if world.communicator().rank == 0 else None)


def create_noop_writer() -> SummaryWriter:
    """A writer that writes nothing."""
    return SummaryWriter(None)


def scalar(name: str, data: Any, step: Any = None, description: str | None = None) -> bool:
    """Writes one number; whether it did. Raises ValueError where no step is known."""
    return _write(step, lambda file, at: file.add_scalar(name, float(data), at))


def histogram(
    name: str, data: Any, step: Any = None, buckets: int | None = None, description: Any = None
) -> bool:
    """Writes how values are distributed; whether it did. Raises ValueError without a step."""
    return _write(step, lambda file, at: file.add_histogram(name, np.asarray(data), at))


def image(
    name: str, data: Any, step: Any = None, max_outputs: int = 3, description: Any = None
) -> bool:
    """Writes the first images of a batch (k, height, width, channels), uint8 or floats in [0, 1];
    whether it did. Raises ValueError without a step, or for another shape."""

    def write(file: Any, at: int) -> None:
        batch = np.asarray(data)
        if batch.ndim != 4:
            raise ValueError(f"images have shape (k, height, width, channels), not {batch.shape}")
        for i, each in enumerate(batch[:max_outputs]):
            tag = f"{name}/image/{i}" if min(len(batch), max_outputs) > 1 else f"{name}/image"
            file.add_image(tag, each, at, dataformats="HWC")

    return _write(step, write)


def text(name: str, data: Any, step: Any = None, description: str | None = None) -> bool:
    """Writes a text; whether it did. Raises ValueError without a step."""
    return _write(step, lambda file, at: file.add_text(name, str(data), at))


def _write(step: Any, write: Callable[[Any, int], Any]) -> bool:
    writer = _now.writer
    if writer is None or not should_record_summaries():
        return False
    at = _now.step if step is None else step
    if at is None:
        raise ValueError("no step: give step=, or say tf.summary.experimental.set_step(step)")
    file = writer._open()
    if file is not None:
        write(file, int(at))
    return file is not None


def flush(writer: SummaryWriter | None = None, name: str | None = None) -> None:
    """Writes out what is there: that of the writer in force, by default."""
    chosen = writer or _now.writer
    if chosen is not None:
        chosen.flush()


@contextmanager
def record_if(condition: Any) -> Iterator[None]:
    """Summaries in the block are written where ``condition``, or what it returns, is true."""
    before, _now.condition = _now.condition, condition
    try:
        yield
    finally:
        _now.condition = before


def should_record_summaries() -> bool:
    """Whether a writer is in force and no ``record_if`` says otherwise."""
    condition = _now.condition
    return _now.writer is not None and bool(condition() if callable(condition) else condition)


def _set_step(step: Any) -> None:
    _now.step = step


experimental = SimpleNamespace(get_step=lambda: _now.step, set_step=_set_step)


def trace_on(graph: bool = True, profiler: bool = False, profiler_outdir: Any = None) -> None:
    """Does nothing: there are no graphs to write."""


def trace_export(name: str, step: Any = None, profiler_outdir: Any = None) -> None:
    """Does nothing: there are no graphs to write."""


def trace_off() -> None:
    """Does nothing."""
