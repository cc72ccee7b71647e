"""Runs as one page of HTML that needs nothing beside itself: no server, no scripts, no links."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from distgrad.core import files
from distgrad.core.errors import UsageError
from distgrad.report.facts import differences, facts, number, results
from distgrad.report.plots import COLOURS, charts
from distgrad.report.run import Run, date

_MARK = '<meta name="generator" content="distgrad report">'
REFRESH = 5  # seconds after which the page of a run that goes on loads itself again

_CSS = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto;
  max-width: 1180px; padding: 1.2rem 1.5rem 3rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
p.note { color: #666; margin: .1rem 0 1rem; }
.state { font-size: .85rem; font-weight: 600; padding: .1rem .55rem; border-radius: 1rem;
  vertical-align: middle; background: #e8e8e8; }
.done { background: #d6f0e4; color: #00573f; } .running { background: #d9ebf8; color: #004a75; }
.failed, .diverged, .dead { background: #fbe0d3; color: #8a3600; }
.preempted { background: #fdf0cc; color: #6b4d00; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.tile { border: 1px solid #ddd; border-radius: .5rem; padding: .5rem .9rem; min-width: 7rem; }
.tile b { display: block; font-size: 1.25rem; } .tile span { color: #666; font-size: .85rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr));
  gap: 1.2rem 2rem; }
figure { margin: 0; break-inside: avoid; } figcaption { font-weight: 600; margin-bottom: .2rem; }
svg { width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .22rem 1.1rem .22rem 0; border-bottom: 1px solid #e6e6e6;
  vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; white-space: nowrap; } tbody th { font-weight: 400; color: #555; }
.chip { display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem;
  margin-right: .4rem; vertical-align: -.05rem; }
pre { background: #f6f6f6; padding: .8rem 1rem; border-radius: .4rem; font-size: .82rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; font-weight: 600; margin-top: .6rem; }
@media print { body { max-width: none; padding: 0; font-size: 12px; }
  .charts { grid-template-columns: 1fr 1fr; } details { display: none; } }
"""


def page(runs: Sequence[Run]) -> str:
    """The page of one run, or of several drawn over each other."""
    several = len(runs) > 1
    title = f"{len(runs)} runs" if several else runs[0].name
    going_on = any(run.state == "running" for run in runs)
    refresh = f'<meta http-equiv="refresh" content="{REFRESH}">' if going_on else ""
    head = f"<h1>{escape(title)} {'' if several else _state(runs[0])}</h1>"
    body = [
        head,
        f'<p class="note">{_note(going_on)}</p>',
        _legend(runs) if several else _tiles(runs[0]),
        _section("Settings that differ", _table(differences(runs), runs) if several else ""),
        _section("Results", _table(results(runs), runs) if several else ""),
        _section("Curves", _figures(runs)),
        _section("Runs" if several else "The run", _table(_facts(runs), runs)),
        _section("Started by", "".join(_commands(run, several) for run in runs)),
        _section("Versions", _table(_versions(runs), runs)),
        _section("The job" if not several else "The jobs", "".join(map(_job, runs))),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{_MARK}{refresh}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head><body>\n"
        + "\n".join(filter(None, body))
        + "\n</body></html>\n"
    )


def write(runs: Sequence[Run], path: Path) -> None:
    """Writes the page of runs. Raises UsageError where another file is in its place."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file, as in -o {path / 'report.html'}.")
    if path.exists() and _MARK not in path.read_text(errors="replace")[:1000]:
        raise UsageError(f"{path} is not a page of ours: name another file with -o.")
    try:
        files.replace(path, page(runs))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error}") from None


def _note(going_on: bool) -> str:
    made = f"Made {date(time.time())} by distgrad report"
    return f"{made}; the page loads itself again every {REFRESH} s." if going_on else f"{made}."


def _state(run: Run) -> str:
    return f'<span class="state {run.state}">{run.state}</span>'


def _chip(place: int) -> str:
    return f'<span class="chip" style="background:{COLOURS[place % len(COLOURS)]}"></span>'


def _legend(runs: Sequence[Run]) -> str:
    items = [
        f"<tr><td>{_chip(place)}{place + 1}</td><td>{escape(run.name)}</td>"
        f"<td>{_state(run)}</td></tr>"
        for place, run in enumerate(runs)
    ]
    return f'<div class="wide"><table><tbody>{"".join(items)}</tbody></table></div>'


def _tiles(run: Run) -> str:
    known = facts(run)
    names = ("duration", "epochs", "steps", "samples per second")
    values = {name: known[name] for name in names if name in known}
    values |= {name.replace("_", " "): number(value) for name, value in run.results.items()}
    tiles = (
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in values.items()
    )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>{content}" if content else ""


def _figures(runs: Sequence[Run]) -> str:
    drawn = [
        f"<figure><figcaption>{escape(chart.title)}</figcaption>{chart.svg}</figure>"
        for chart in charts(runs)
    ]
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else ""


def _table(rows: Mapping[str, Sequence[str]], runs: Sequence[Run]) -> str:
    if not rows:
        return ""
    head = ""
    if len(runs) > 1:
        cells = "".join(f"<th>{_chip(place)}{place + 1}</th>" for place in range(len(runs)))
        head = f"<thead><tr><th></th>{cells}</tr></thead>"
    body = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, cells in rows.items()
    )
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'


def _facts(runs: Sequence[Run]) -> dict[str, list[str]]:
    return _side_by_side([facts(run) for run in runs])


def _versions(runs: Sequence[Run]) -> dict[str, list[str]]:
    return _side_by_side([{k: str(v) for k, v in run.environment.items()} for run in runs])


def _side_by_side(columns: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: [column.get(name, "") for column in columns] for name in names}


def _commands(run: Run, named: bool) -> str:
    lines = []
    for start in run.starts:
        count = start.get("world_size", 1)
        workers = "1 worker" if count == 1 else f"{count} workers"
        lines += [
            f"{date(start['time'])}  from step {start['step']:,}, {workers}",
            "  " + start["command"],
        ]
    name = f"<b>{escape(run.name)}</b>" if named and lines else ""
    return f"{name}<pre>{escape(chr(10).join(lines))}</pre>" if lines else ""


def _job(run: Run) -> str:
    return (
        f"<details><summary>{escape(run.name)}: resolved.yaml</summary>"
        f"<pre>{escape(run.text)}</pre></details>"
    )
