"""What a check has found."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

State = Literal["ok", "warning", "skipped", "failed"]


@dataclass(frozen=True)
class Finding:
    """One check: what was seen, and in one line what to do about it.

    ``warning`` works, but not as well as it could; ``skipped`` is not installed; ``failed`` is
    there and does not work.
    """

    state: State
    detail: str
    advice: str = ""
    name: str = ""
    seconds: float = 0.0

    def named(self, name: str, seconds: float) -> Finding:
        return replace(self, name=name, seconds=round(seconds, 2))

    def __str__(self) -> str:
        line = f"{self.state:<8} {self.name:<8} {self.detail}"
        return f"{line}\n{'':<18}-> {self.advice}" if self.advice else line


def ok(detail: str) -> Finding:
    return Finding("ok", detail)


def warning(detail: str, advice: str) -> Finding:
    return Finding("warning", detail, advice)


def skipped(detail: str, advice: str = "") -> Finding:
    return Finding("skipped", detail, advice)


def failed(detail: str, advice: str = "") -> Finding:
    return Finding("failed", detail, advice)


def last_words(log: Path) -> str:
    """The last error that the processes of a check have written, else their last line."""
    with contextlib.suppress(OSError):
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
        errors = [line.partition("error: ")[2] for line in lines if "error: " in line]
        return next(reversed(errors or [line for line in lines if line]), "")
    return ""
