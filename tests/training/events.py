"""Reads event files back, which tensorboardX cannot."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def read(folder: Path) -> Iterator[Any]:
    """All events in the files of a folder; every checksum must be right."""
    event = pytest.importorskip("tensorboardX.proto.event_pb2").Event
    from tensorboardX.record_writer import masked_crc32c

    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            data, content, head = content[12 : 12 + length], content[16 + length :], content
            assert struct.unpack("<I", head[8:12])[0] == masked_crc32c(head[:8])
            assert struct.unpack("<I", head[12 + length : 16 + length])[0] == masked_crc32c(data)
            yield event.FromString(data)


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of every tag in a folder, in the order in which they lie there."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in read(folder):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found
