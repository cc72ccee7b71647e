"""What `gpu.py` has measured so far: in a file, so that it outlives the process that measures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Record:
    """Milliseconds of steps by workload and contender, and why contenders are missing.

    With a ``path`` it begins with what lies there, and every change is kept there: who was at work
    when a process ended is known to the next one.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.results: dict[str, dict[str, list[float]]] = {}
        self.left_out: dict[str, dict[str, str]] = {}
        self.at_work: tuple[str, str] | None = None  # the workload and the contender
        if path is not None and path.exists():
            known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            self.results, self.left_out = known["results"], known["left_out"]
            self.at_work = tuple(known["at_work"]) if known["at_work"] else None

    def begin(self, workload: str, contender: str) -> None:
        self.at_work = workload, contender
        self._keep()

    def end(self) -> None:
        self.at_work = None
        self._keep()

    def put(self, workload: str, found: dict[str, list[float]]) -> None:
        """Adds what was found, in place of what was known of the same contenders."""
        known = self.results.setdefault(workload, {})
        known.update({name: list(times) for name, times in found.items() if times})
        for name in known:
            self.left_out.get(workload, {}).pop(name, None)
        self._keep()

    def leave_out(self, workload: str, contender: str, reason: str) -> None:
        """Notes why it was not timed; times that a process before has found stay."""
        if contender not in self.results.get(workload, {}):
            self.left_out.setdefault(workload, {})[contender] = reason
        self._keep()

    def drop(self, workload: str, contender: str, reason: str) -> None:
        """Forgets its times, which are wrong, or nobody can tell."""
        self.results.get(workload, {}).pop(contender, None)
        self.leave_out(workload, contender, reason)

    def reasons(self) -> list[str]:
        """A line of Markdown for each contender that was left out."""
        return [
            f"- {workload}, without {contender}: {reason.splitlines()[0][:200] if reason else '?'}"
            for workload, reasons in self.left_out.items()
            for contender, reason in reasons.items()
        ]

    def _keep(self) -> None:
        if self._path is None:
            return
        text = json.dumps(
            {"results": self.results, "left_out": self.left_out, "at_work": self.at_work}
        )
        new = self._path.with_name(f"{self._path.name}.new")
        new.write_text(text, encoding="utf-8")
        new.replace(self._path)
