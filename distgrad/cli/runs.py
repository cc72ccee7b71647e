"""The verbs that look at runs: ``runs ls|show|compare|verify``, and ``report``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from distgrad.report.run import Run

app = typer.Typer(
    help="List runs, show or compare them, check their checkpoints.", rich_markup_mode=None
)

Base = Annotated[Path, typer.Option("--dir", metavar="DIR", help="The folder that holds the runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
_RUN = "The folder of a run, its name, latest, or the name of a job: its newest"
Words = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...",
        help=f"{_RUN}.",
        show_default=False,
    ),
]
RUNS = Path("runs")


@app.command("ls")
def list_runs(base: Base = RUNS, as_json: AsJson = False) -> None:
    """List all runs with their state and last metrics, the newest last."""
    from distgrad.report import tables
    from distgrad.report.facts import epochs_done, headline, size
    from distgrad.report.run import date, runs_in

    runs = runs_in(base)
    if as_json:
        print(json.dumps([_summary(run) for run in runs], indent=1))
        return
    if not runs:
        print(f"there are no runs in {base}")
        return
    rows = []
    for run in runs:
        status = run.status
        code, epochs = status.get("exit_code"), status.get("epochs")
        rows.append(
            [
                run.name,
                date(run.started),
                run.state,
                f"{epochs_done(run)}" + (f"/{epochs}" if epochs else ""),
                str(status.get("step", 0)),
                headline(run),
                "" if code is None else str(code),
                size(run.bytes),
            ]
        )
    head = ["run", "started", "state", "epoch", "step", "metrics", "exit", "size"]
    tables.show(head, rows, whole=("run", "started"))


@app.command("show")
def show_run(
    word: Annotated[str, typer.Argument(metavar="RUN", help=f"{_RUN}.")] = "latest",
    base: Base = RUNS,
    as_json: AsJson = False,
) -> None:
    """Show one run in full: state, start, results, versions and job."""
    from distgrad.report import tables
    from distgrad.report.facts import facts, number
    from distgrad.report.run import date, find

    run = find(word, base)
    if as_json:
        print(json.dumps({**_summary(run), **_details(run)}, indent=1))
        return
    print(run.name)
    for title, rows in (
        ("", facts(run)),
        ("results", {name: number(value) for name, value in run.results.items()}),
        ("versions", {name: str(value) for name, value in run.environment.items()}),
        ("started by", {date(start["time"]): start["command"] for start in run.starts}),
    ):
        if rows:
            print(f"\n{title}" if title else "")
            tables.show(["", ""], [[name, value] for name, value in rows.items()])
    print(f"\njob\n{run.text}", end="")


@app.command()
def compare(words: Words, base: Base = RUNS, as_json: AsJson = False) -> None:
    """Set what differs in settings, and last metrics, side by side."""
    from distgrad.core.errors import UsageError
    from distgrad.report import tables
    from distgrad.report.facts import differences, facts, results

    runs = _found(words, base)
    if len(runs) < 2:
        raise UsageError("two runs or more are compared: name another one.")
    settings = differences(runs)
    if as_json:
        values = {name: [run.results.get(name) for run in runs] for name in results(runs)}
        names = [run.name for run in runs]
        print(json.dumps({"runs": names, "settings": settings, "metrics": values}, indent=1))
        return
    known = [facts(run) for run in runs]
    rows = [[name, *values] for name, values in {**settings, **results(runs)}.items()]
    for name in ("state", "duration", "samples per second", "weights sha256"):
        rows.append([name, *(each.get(name, "")[:16] for each in known)])
    tables.show(["", *(run.name for run in runs)], rows)


@app.command()
def verify(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help=f"{_RUN}. Without one, all runs.")
    ] = None,
    base: Base = RUNS,
    as_json: AsJson = False,
) -> int:
    """Check every checkpoint as resuming does. Exit code 4 where one is damaged."""
    from distgrad.core.errors import DataError
    from distgrad.report import tables
    from distgrad.report.run import runs_in

    found = [
        (run, path, wrong)
        for run in (_found(words, base) if words else runs_in(base))
        for path, wrong in run.damaged()
    ]
    damaged = [wrong for _, _, wrong in found if wrong]
    if as_json:
        values = [{"run": r.name, "checkpoint": p.name, "damage": w} for r, p, w in found]
        print(json.dumps(values, indent=1))
    else:
        rows = [[r.name, p.name, "damaged" if w else "whole", w or ""] for r, p, w in found]
        tables.show(["run", "checkpoint", "state", "damage"], rows)
        print(f"{len(found)} checkpoints, {len(damaged)} damaged")
    return DataError.exit_code if damaged else 0


def report(
    words: Words,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Where the page goes: report.html in the run, or here for several.",
            show_default=False,
        ),
    ] = None,
    base: Base = RUNS,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write it again until the runs have ended.")
    ] = False,
) -> None:
    """Draw runs into a page: curves, speed, settings, versions."""
    from distgrad.report import page

    runs = _found(words, base)
    path = output or (runs[0].path / "report.html" if len(runs) == 1 else Path("report.html"))
    page.write(runs, path)
    print(path, flush=True)
    while watch and any(run.state == "running" for run in runs):
        time.sleep(page.REFRESH)
        runs = _found(words, base)
        page.write(runs, path)


def _found(words: list[str], base: Path) -> list[Run]:
    from distgrad.report.run import find

    return [find(word, base) for word in words]


def _summary(run: Run) -> dict[str, Any]:
    status = run.status
    known = ("epoch", "epochs", "step", "exit_code", "error", "heartbeat", "metrics")
    return {
        "run": run.name,
        "path": str(run.path),
        "state": run.state,
        "started": run.started,
        **{name: status.get(name) for name in known},
        "bytes": run.bytes,
    }


def _details(run: Run) -> dict[str, Any]:
    return {
        "duration": run.duration,
        "status": run.status,
        "starts": run.starts,
        "checkpoints": [path.name for path in run.commits],
        "environment": run.environment,
        "config": run.config,
    }
