"""The verb that times a job."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from distgrad.cli import jobs


class Starter(StrEnum):
    local = "local"
    mpi = "mpi"


def bench(
    words: jobs.JobWords,
    workers: Annotated[
        str | None,
        typer.Option(
            "-n",
            "--workers",
            metavar="N[,N]...",
            help="Numbers of workers to compare; else 1 and all usable cores.",
            show_default=False,
        ),
    ] = None,
    launcher: Annotated[Starter, typer.Option(help="What starts the workers.")] = Starter.local,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Steps of a round; else as many as fill 0.4 s.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> int:
    """Time the steps of a job at several numbers of workers. No run is left behind.

    Times are of the slowest worker, in milliseconds a step: the median of rounds in which all
    numbers take turns, and their range. Set-up is from the start to the end of the first step.
    """
    import json
    import sys
    from pathlib import Path

    from distgrad import bench as benching
    from distgrad.core.errors import UsageError
    from distgrad.job import Job
    from distgrad.launcher import environ

    world = environ.detect()
    if world.is_rank:
        raise UsageError(
            f"{world.source} has started this process as rank {world.rank} of {world.world_size}: "
            "run distgrad bench by itself, with --launcher mpi if mpirun is to start the workers."
        )
    path, changes = jobs.split(words)
    config = jobs.read(path, changes)
    source = Path(path).read_text(encoding="utf-8")
    job = Job.from_config(config, source_yaml=source, overrides=tuple(changes))
    counts = benching.usual_counts(job) if workers is None else _numbers(workers)
    live = sys.stderr.isatty() and not as_json

    def say(text: str) -> None:
        if live:
            print(f"\r{text:<40}", end="", file=sys.stderr, flush=True)

    try:
        report = benching.measure(job, counts, launcher.value, steps=steps, say=say)
    finally:
        if live:
            print(f"\r{'':<40}\r", end="", file=sys.stderr, flush=True)
    print(json.dumps(report.as_dict(), indent=1) if as_json else report.table())
    return 0


def _numbers(text: str) -> list[int]:
    from distgrad.core.errors import UsageError

    words = text.split(",")
    if not all(word.strip().isdigit() and int(word) > 0 for word in words):
        raise UsageError(f"-n takes numbers of workers, such as 1,2,4; got {text!r}")
    return sorted({int(word) for word in words})
