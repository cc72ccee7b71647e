"""Event files for TensorBoard, through the optional package tensorboardX."""

from __future__ import annotations

import importlib.util
import os
import platform
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core.errors import MissingExtraError

_LENGTH = struct.Struct("<Q4x")  # of a record: its bytes, and the checksum of that number
_EPOCH = "epoch_"
_OTHER_NAMES = {"float16": "HALF", "float32": "FLOAT", "float64": "DOUBLE"}  # of dtypes
_PARTS = {"val_": "validation", "test_": "test"}


class TensorBoard:
    """Scalars in event files, in ``train``, ``validation`` and ``test`` below a folder.

    The values of all parts have the names of those in ``train``, so that TensorBoard draws them
    into one chart; all lie at steps, counted from the start of the run. A point is on disk as soon
    as it is told. (tensorboardX's own writer would wait for ever for a thread that a full disk has
    ended, and its files wait for the disk at each flush.)
    """

    name = "TensorBoard"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, EventFile] = {}

    @staticmethod
    def installed() -> bool:
        return importlib.util.find_spec("tensorboardX") is not None

    @staticmethod
    def require() -> None:
        """Raises MissingExtraError where tensorboardX is not installed."""
        _module()

    def start(self, step: int) -> None:
        """Takes the points away that the run makes again."""
        _module()  # which takes a tenth of a second: not in the first step
        for path in sorted(self.folder.glob("*/events.out.tfevents.*")):
            _cut(path, step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        parts: dict[str, dict[str, float]] = {}
        for name, value in values.items():
            part, tag = _place(name)
            parts.setdefault(part, {})[tag] = value
        for part, scalars in parts.items():
            if part not in self._files:
                self._files[part] = EventFile(self.folder / part)
            self._files[part].write(step, scalars)

    def finish(self, state: str) -> None:
        files, self._files = self._files, {}
        for file in files.values():
            file.close()


class EventFile:
    """A new file of events in a folder, each written as it comes. Its name ends in ``suffix``.

    Raises MissingExtraError.
    """

    def __init__(self, folder: Path, suffix: str = "") -> None:
        _module()
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.record_writer import masked_crc32c

        self._event, self._summary, self._checksum = Event, Summary, masked_crc32c
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time():017.6f}.{platform.node()}{suffix}"
        self._file = open(folder / name, "xb", buffering=0)  # noqa: SIM115 (closed by close)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        values = [self._summary.Value(tag=tag, simple_value=v) for tag, v in scalars.items()]
        self.add(step, self._summary(value=values))

    def add(self, step: int, summary: Any) -> None:
        """Writes a Summary, such as the functions of ``tensorboardX.summary`` make."""
        self._write(self._event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Any) -> None:
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        checksums = [struct.pack("<I", self._checksum(each)) for each in (length, data)]
        self._file.write(length + checksums[0] + data + checksums[1])


def summaries() -> Any:
    """The module ``tensorboardX.summary``. Raises MissingExtraError."""
    _module()
    from tensorboardX import summary

    return summary


def tensor_summary(tag: str, array: np.ndarray, dtype: str, metadata: Any) -> Any:
    """A Summary of one array of numbers; ``metadata`` is a SummaryMetadata, its bytes, or None."""
    from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboardX.proto.tensor_pb2 import TensorProto
    from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboardX.proto.types_pb2 import DataType

    kind = DataType.Value(f"DT_{_OTHER_NAMES.get(dtype, dtype.upper())}")
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in array.shape])
    tensor = TensorProto(
        dtype=kind, tensor_shape=shape, tensor_content=np.ascontiguousarray(array).tobytes()
    )
    told = getattr(metadata, "SerializeToString", lambda: metadata or b"")()
    value = Summary.Value(tag=tag, tensor=tensor, metadata=SummaryMetadata.FromString(told))
    return Summary(value=[value])


def summary_writer() -> Any:
    """The class ``tensorboardX.SummaryWriter``. Raises MissingExtraError."""
    return _module().SummaryWriter


def _module() -> Any:
    try:
        import tensorboardX
    except ImportError:
        raise MissingExtraError(
            "TensorBoard needs tensorboardX: pip install 'distgrad[tb]'"
        ) from None
    return tensorboardX


def _place(name: str) -> tuple[str, str]:
    """Which file a value belongs to, and its name there."""
    for prefix, part in _PARTS.items():
        if name.startswith(prefix):
            return part, _EPOCH + name.removeprefix(prefix)
    return "train", name


def _cut(path: Path, step: int) -> None:
    """Shortens an event file to what a run that goes on after ``step`` does not make again."""
    from tensorboardX.proto.event_pb2 import Event

    if step == 0:
        path.unlink()
        return
    content, kept = path.read_bytes(), 0
    for data, end in _records(content):
        event = Event.FromString(data)
        ended = any(value.tag.startswith(_EPOCH) for value in event.summary.value)
        if event.step > step or (event.step == step and ended):  # the end comes after the commit
            break
        kept = end
    if kept < len(content):
        os.truncate(path, kept)


def _records(content: bytes) -> Iterator[tuple[bytes, int]]:
    """The whole records of an event file, each with the place where it ends."""
    start = 0
    while start + _LENGTH.size <= len(content):
        (length,) = _LENGTH.unpack_from(content, start)
        begin = start + _LENGTH.size
        start = begin + length + 4  # its own checksum
        if start > len(content):  # cut off by a kill
            return
        yield content[begin : begin + length], start
