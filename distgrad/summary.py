"""``tf.summary``: what a loop of one's own writes for TensorBoard, through tensorboardX.

Nothing is written without a writer in force, and only by the first of several processes.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from distgrad.core import naming, recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.training import timeline, world
from distgrad.training.tensorboard import EventFile, summaries, tensor_summary

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
    "write",
]


class _InForce(threading.local):
    """What counts in a thread."""

    writer: SummaryWriter | None = None
    step: Any = None
    condition: Any = True


_now = _InForce()
_NO_SCOPE = re.compile(r"[^-_/.A-Za-z0-9]")  # what no name of a scope has


class SummaryWriter:
    """Writes events into the folder ``logdir``; one for None writes nothing."""

    def __init__(self, logdir: Path | None, suffix: str = "") -> None:
        self._logdir, self._suffix = logdir, suffix
        self._file: EventFile | None = None
        self._closed = False

    def _open(self) -> EventFile | None:
        if self._file is None and self._logdir is not None:
            self._file = EventFile(self._logdir, self._suffix)
        return self._file

    @contextmanager
    def as_default(self, step: Any = None) -> Iterator[SummaryWriter]:
        """The block's summaries are written here; ``step`` is theirs where they state none."""
        before = _now.writer, _now.step
        self.set_as_default(step)
        try:
            yield self
        finally:
            _now.writer, _now.step = before

    def set_as_default(self, step: Any = None) -> None:
        """All summaries from here on are written here. Raises RuntimeError once it is closed."""
        self.init()
        _now.writer = self
        if step is not None:
            _now.step = step

    def init(self) -> None:
        """Raises RuntimeError once it is closed; the file is made with the first summary."""
        if self._closed:
            raise RuntimeError(f"the writer of {self._logdir} is closed: make another one")

    def flush(self) -> None:
        """Nothing: each summary is on disk as soon as it is told."""

    def close(self) -> None:
        """Closes the file; nothing is written after that."""
        self._closed = True
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

    The name of its file ends in ``filename_suffix``. Raises MissingExtraError where tensorboardX is
    not installed.
    """
    summaries()
    folder = Path(logdir) if world.communicator().rank == 0 else None
    return SummaryWriter(folder, filename_suffix or "")


def create_noop_writer() -> SummaryWriter:
    """A writer that writes nothing."""
    return SummaryWriter(None)


def scalar(name: str, data: Any, step: Any = None, description: str | None = None) -> bool:
    """Writes one number under its name in the name scope in force; whether it did.

    Raises ValueError where no step is known.
    """
    name = naming.prefix() + name
    return _write(step, data, lambda value: [summaries().scalar(name, float(value))])


def histogram(
    name: str, data: Any, step: Any = None, buckets: int | None = None, description: Any = None
) -> bool:
    """Writes how values are distributed; whether it did. Raises ValueError without a step."""
    name = naming.prefix() + name
    bins = 30 if buckets is None else buckets
    return _write(
        step, data, lambda values: [summaries().histogram(name, np.asarray(values).ravel(), bins)]
    )


def image(
    name: str, data: Any, step: Any = None, max_outputs: int = 3, description: Any = None
) -> bool:
    """Writes the first images of a batch (k, height, width, channels), uint8 or floats in [0, 1];
    whether it did. Raises ValueError without a step, or for another shape."""
    name = naming.prefix() + name

    def images(values: Any) -> Iterator[Any]:
        batch = np.asarray(values)
        if batch.ndim != 4:
            raise ValueError(f"images have shape (k, height, width, channels), not {batch.shape}")
        for i, each in enumerate(batch[:max_outputs]):
            tag = f"{name}/image/{i}" if min(len(batch), max_outputs) > 1 else f"{name}/image"
            yield summaries().image(tag, each, dataformats="HWC")

    return _write(step, data, images)


def text(name: str, data: Any, step: Any = None, description: str | None = None) -> bool:
    """Writes a text; whether it did. Raises ValueError without a step."""
    name = naming.prefix() + name
    return _write(step, data, lambda value: [summaries().text(name, str(value))])


def write(
    tag: str, tensor: Any, step: Any = None, metadata: Any = None, name: str | None = None
) -> bool:
    """Writes a tensor of numbers under ``tag`` as it is; whether it did.

    ``metadata`` is a SummaryMetadata, or its bytes. Raises ValueError without a step.
    """

    def made(value: Any) -> list[Any]:
        array = np.asarray(value)
        return [tensor_summary(tag, array, as_dtype(array.dtype).name, metadata)]

    return _write(step, as_tensor(tensor), made)


def _write(step: Any, data: Any, make: Callable[[Any], Iterable[Any]]) -> bool:
    writer, condition = _now.writer, _now.condition
    if writer is None:
        return False
    at = _now.step if step is None else step
    if at is None:
        raise ValueError("no step: give step=, or say tf.summary.experimental.set_step(step)")

    def write(values: Any, at: Any) -> bool:
        if not _holds(condition):
            return False
        if step is None and isinstance(at, int) and _now.step is not None:
            at = _now.step  # this is a captured function, run again: it may have been set anew
        file = writer._open()
        for made in make(values) if file is not None else ():
            file.add(int(at), made)  # type: ignore[union-attr]
        return file is not None

    return recording.tell(write, data, at) is not False


def flush(writer: SummaryWriter | None = None, name: str | None = None) -> None:
    """Nothing: each summary is on disk as soon as it is told."""


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
    return _now.writer is not None and _holds(_now.condition)


def _holds(condition: Any) -> bool:
    return bool(condition() if callable(condition) else condition)


def _set_step(step: Any) -> None:
    _now.step = step


@contextmanager
def _summary_scope(
    name: str | None, default_name: str = "summary", values: Any = None
) -> Iterator[tuple[str, str]]:
    """Context of a summary's name scope: gives its tag in the scope in force, and that scope."""
    tag = naming.prefix() + (name or default_name)
    with naming.name_scope(_NO_SCOPE.sub("", name or "") or default_name) as scope:
        yield tag, scope


experimental = SimpleNamespace(
    get_step=lambda: _now.step, set_step=_set_step, summary_scope=_summary_scope
)


def trace_on(graph: bool = True, profiler: bool = False, profiler_outdir: Any = None) -> None:
    """Begins a timeline in ``profiler_outdir``, as ``tf.profiler.experimental.start`` does, where
    ``profiler``; there are no graphs to write."""
    if profiler and profiler_outdir is not None:
        timeline.start(Path(profiler_outdir, timeline.NAME), world.communicator())


def trace_export(name: str, step: Any = None, profiler_outdir: Any = None) -> None:
    """Ends a timeline that ``trace_on`` has begun; it is in its file then."""
    timeline.end()


def trace_off() -> None:
    """Ends a timeline that ``trace_on`` has begun."""
    timeline.end()
