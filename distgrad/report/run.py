"""A run as its folder tells it, whether it goes on, has ended or has died."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from distgrad.core.errors import DataError, UsageError
from distgrad.training import checkpoint
from distgrad.training.run_folder import find_run_folder, is_run_folder

# Seconds without a heartbeat after which a run is taken for dead; the second where its process,
# on this host, is gone.
_SILENT = 60.0
_GONE = 3.0

Series = tuple[list[float], list[float]]  # places and values


class Run:
    """The run in a folder; each file is read when it is first asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.status = _json(path / "status.json")

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.resolve().name

    @property
    def state(self) -> str:
        """As in ``status.json``, but ``done`` for finished, and ``dead`` without a heartbeat."""
        state = self.status.get("state", "dead")
        if state == "finished":
            return "done"
        return "dead" if state == "running" and not self._alive() else state

    def _alive(self) -> bool:
        silence = time.time() - self.status.get("heartbeat", 0.0)
        here = self.status.get("host") == platform.node()
        if silence > _GONE and here and not _exists(self.status.get("pid", 0)):
            return False
        return silence <= _SILENT

    @property
    def started(self) -> float:
        """When it began, in seconds since 1970."""
        first = next(_lines(self.path / "timing.jsonl"), {})
        return first.get("time") or (self.path / "resolved.yaml").stat().st_mtime

    @property
    def duration(self) -> float | None:
        """Seconds at work, without the time between a death and the resumption; None: unknown."""
        begun, last, total = None, 0.0, 0.0
        for line in self.timing:
            if line["kind"] == "start":
                total += last - begun if begun is not None else 0.0
                begun = line["time"]
            last = line["time"]
        if begun is None:
            return None
        return total + max(last, self.status.get("heartbeat", last)) - begun

    @cached_property
    def config(self) -> dict[str, Any]:
        """The job with every default, as it was when the run began."""
        from distgrad.config.document import parse

        path = self.path / "resolved.yaml"
        return parse(self.text, str(path)).value or {}

    @cached_property
    def text(self) -> str:
        """The job as YAML."""
        return (self.path / "resolved.yaml").read_text(encoding="utf-8")

    @cached_property
    def environment(self) -> dict[str, Any]:
        return _json(self.path / "env.json")

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        return list(_lines(self.path / "metrics.jsonl"))

    @cached_property
    def timing(self) -> list[dict[str, Any]]:
        return list(_lines(self.path / "timing.jsonl"))

    @property
    def starts(self) -> list[dict[str, Any]]:
        """How it was started, and started again."""
        return [line for line in self.timing if line["kind"] == "start"]

    @cached_property
    def paces(self) -> list[dict[str, Any]]:
        """The timing of steps, without the first ones of each start, which warm up."""
        found, warm = [], False
        for line in self.timing:
            if line["kind"] == "steps" and warm:
                found.append(line)
            warm = line["kind"] == "steps"
        return found

    @property
    def results(self) -> dict[str, float]:
        """The last value of each metric, numbers alone."""
        values = self.status.get("metrics") or {}
        return {name: value for name, value in values.items() if _is_number(value)}

    @property
    def bytes(self) -> int:
        """What the folder takes."""
        found = 0
        for folder, _, files in os.walk(self.path):
            for file in files:
                try:
                    found += os.lstat(os.path.join(folder, file)).st_size
                except OSError:  # replaced meanwhile
                    continue
        return found

    @property
    def commits(self) -> list[Path]:
        return checkpoint.commits(self.path / "checkpoints")

    def by_step(self, name: str) -> Series:
        """What every step has logged under a name."""
        return _series(self.metrics, "step", name)

    def by_epoch(self, name: str, *, steps: bool = False) -> Series:
        """What every epoch has, at its number from 1 or at its last step."""
        epochs, values = _series(self.metrics, "epoch", name, "step" if steps else "epoch")
        return [epoch if steps else epoch + 1 for epoch in epochs], values

    def at_end(self, name: str) -> float | None:
        """What the end of the run has."""
        values = _series(self.metrics, "final", name)[1]
        return values[-1] if values else None

    @property
    def metric_names(self) -> list[str]:
        """The loss, and what else epochs are measured by."""
        lines = (line for line in self.metrics if line["kind"] in ("epoch", "final"))
        names = {
            name.removeprefix("val_").removeprefix("test_"): None
            for line in lines
            for name, value in line.items()
            if _is_number(value) and name not in ("step", "epoch")
        }
        return ["loss", *sorted(set(names) - {"loss"})]

    def damaged(self) -> list[tuple[Path, str | None]]:
        """Every checkpoint, checked as for resuming, and what is wrong with it; None: nothing."""
        found: list[tuple[Path, str | None]] = []
        for path in self.commits:
            try:
                checkpoint.load(path)
                found.append((path, None))
            except DataError as error:
                found.append((path, str(error)))
        return found


def runs_in(base: Path) -> list[Run]:
    """The runs in a folder, the oldest first. Raises UsageError where there is no such folder."""
    if not base.is_dir():
        raise UsageError(f"there is no folder {base}: run in the folder above it, or name --dir.")
    found = [Run(path) for path in base.iterdir() if not path.is_symlink() and is_run_folder(path)]
    return sorted(found, key=lambda run: (run.started, run.name))


def find(word: str, base: Path) -> Run:
    """The run that a word means (`find_run_folder`). Raises UsageError where there is none."""
    return Run(find_run_folder(word, base))


def date(seconds: float) -> str:
    """A time as people here read it."""
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that can be read; the last one may be half written."""
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    yield json.loads(line)
    except OSError:
        return


def _series(lines: list[dict[str, Any]], kind: str, name: str, place: str = "step") -> Series:
    found = [
        (line[place], line[name])
        for line in lines
        if line["kind"] == kind and _is_number(line.get(name))
    ]
    return [at for at, _ in found], [value for _, value in found]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0
