"""What a timeline says, read back: its events, and the spans of each row in their nest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]


def events(path: Path) -> list[Event]:
    """All events of a timeline: whole JSON, each with what the format asks for."""
    found = json.loads(path.read_text())
    assert isinstance(found, list)
    for event in found:
        assert event["ph"] in ("M", "X") and isinstance(event["name"], str)
        assert isinstance(event["pid"], int) and isinstance(event.get("args", {}), dict)
        if event["ph"] == "X":
            assert isinstance(event["tid"], int) and event["ts"] >= 0 and event["dur"] >= 0
            assert (8 * event["ts"]).is_integer() and (8 * event["dur"]).is_integer()
    return found


def spans(path: Path, name: str = "") -> list[Event]:
    """The spans whose names begin so, in the order of their time."""
    found = [e for e in events(path) if e["ph"] == "X" and e["name"].startswith(name)]
    return sorted(found, key=lambda e: (e["ts"], -e["dur"]))


def processes(path: Path) -> dict[int, str]:
    """The names of the processes."""
    named = [e for e in events(path) if e["name"] == "process_name"]
    assert len(named) == len({e["pid"] for e in named})
    return {e["pid"]: e["args"]["name"] for e in named}


def nested(path: Path) -> Iterator[tuple[Event, Event | None]]:
    """Each span and the one that it lies in; every row is checked to be a nest."""
    open_spans: dict[tuple[int, int], list[Event]] = {}
    for event in spans(path):
        row = open_spans.setdefault((event["pid"], event["tid"]), [])
        while row and event["ts"] >= _end(row[-1]):
            row.pop()
        if row:
            assert _end(event) <= _end(row[-1]), (event, row[-1])
        yield event, row[-1] if row else None
        row.append(event)


def check_that_ranks_agree(path: Path) -> int:
    """Nobody leaves an exchange before all have entered it; the number of exchanges."""
    calls: dict[Any, list[Event]] = {}
    for event in spans(path):
        if "call" in event.get("args", {}) and not event["name"].startswith("broadcast"):
            calls.setdefault((event["name"], event["args"]["call"]), []).append(event)
    ranks = len(processes(path))
    whole = [each for each in calls.values() if len(each) == ranks]
    for each in whole:
        assert max(e["ts"] for e in each) <= min(map(_end, each)) + 5.0, each
    return len(whole)


def _end(event: Event) -> float:
    return event["ts"] + event["dur"]
