"""What is told of runs in words: facts, differing settings, numbers that fit into a column."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

from distgrad.report.run import Run, date

_SHORT = 60  # letters of a section in a table


def facts(run: Run) -> dict[str, str]:
    """What there is to know of a run beside its job and its curves, by name."""
    status, samples = run.status, sum(line["samples"] for line in run.paces)
    seconds = sum(line["seconds"] for line in run.paces)
    epochs = status.get("epochs") or run.config.get("train", {}).get("epochs")
    duration, resumes = run.duration, max(0, len(run.starts) - 1)
    found: dict[str, Any] = {
        "state": run.state,
        "error": status.get("error"),
        "exit code": status.get("exit_code"),
        "started": date(run.started),
        "duration": None if duration is None else clock(duration),
        "epochs": f"{epochs_done(run)} of {epochs}",
        "steps": f"{status.get('step', 0):,}",
        "workers": status.get("world_size"),
        "launcher": status.get("launcher"),
        "virtual shards": status.get("virtual_shards"),
        "resumed": None
        if not run.starts
        else {0: "never", 1: "once"}.get(resumes, f"{resumes} times"),
        "samples per second": f"{samples / seconds:,.0f}" if seconds else None,
        "checkpoints": len(run.commits),
        "folder": f"{run.path} ({size(run.bytes)})",
        "job hash": status.get("config_hash"),
        "weights sha256": status.get("weights_sha256"),
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def epochs_done(run: Run) -> int:
    """How many epochs a run has ended."""
    status = run.status
    return status.get("epoch", 0) + (1 if status.get("state") == "finished" else 0)


def differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The settings in which the jobs of runs differ, by their place in the YAML: one value each."""
    return dict(_differences("", [run.config for run in runs]))


def results(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The last values of the metrics of runs, by name: one each."""
    names = dict.fromkeys(name for run in runs for name in run.results)
    order = sorted(names, key=lambda name: (name.startswith("test_"), name.startswith("val_")))
    return {
        name: [number(run.results[name]) if name in run.results else "" for run in runs]
        for name in order
    }


def headline(run: Run) -> str:
    """The metrics by which a run is known: those of the test, or as far as it has come.

    Where it has failed, the reason.
    """
    interrupted = run.status.get("exit_code") == 130
    error = str(run.status.get("error") or "")
    if run.state in ("failed", "diverged") and error and not interrupted:
        return _cut(error.splitlines()[0])
    tested = {name: v for name, v in run.results.items() if name.startswith("test_")}
    return "  ".join(f"{name} {number(v)}" for name, v in (tested or run.results).items())


def number(value: float) -> str:
    """A number for a column: four digits that mean something."""
    return f"{value:.4f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.4g}"


def clock(seconds: float) -> str:
    """A duration: 0.8 s, 2:05 min, 3:20:00 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def size(count: float) -> str:
    """A number of bytes: 12 kB, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _differences(place: str, values: Sequence[Any]) -> Iterator[tuple[str, list[str]]]:
    """As far down as there is the same kind of thing on all sides."""
    if all(isinstance(value, dict) for value in values):
        if len({_kind(value) for value in values}) == 1:
            for key in dict.fromkeys(key for value in values for key in value):
                inner = f"{place}.{key}" if place else str(key)
                yield from _differences(inner, [value.get(key) for value in values])
            return
    elif all(isinstance(value, list) and any(map(_kind, value)) for value in values):
        for number, parts in enumerate(zip_longest(*values)):
            yield from _differences(f"{place}.{number}", parts)
        return
    if any(value != values[0] for value in values):
        yield place, [_short(value) for value in values]


def _kind(value: Any) -> Any:
    """What a section is, where it says so."""
    return value.get("type") or value.get("source") if isinstance(value, dict) else None


def _short(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if (kind := _kind(value)) is None:
        return json.dumps(value)
    text = " ".join([str(kind), *(f"{k}={_short(v)}" for k, v in value.items() if v != kind)])
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 3]}..."
