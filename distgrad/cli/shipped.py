"""The verbs for the jobs that come with distgrad."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def ls() -> None:
    """List the jobs that come with distgrad. `distgrad train NAME` trains one."""
    from distgrad.config import shipped

    jobs = shipped.jobs()
    width = max(map(len, jobs))
    for name, path in jobs.items():
        print(f"{name:<{width}}  {shipped.described(path)}")


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = Path(
        "job.yaml"
    ),
    name: Annotated[
        str, typer.Option("--from", metavar="NAME", help="A job of `distgrad config ls`.")
    ] = "digits",
) -> None:
    """Write a job of your own, with comments. It begins as one of those of distgrad."""
    from distgrad.config import shipped
    from distgrad.core.errors import UsageError

    jobs = shipped.jobs()
    if name not in jobs:
        raise UsageError(f"--from {name}: no such job; there are {', '.join(jobs)}")
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(shipped.template(jobs[name]))
    except FileExistsError:
        raise UsageError(f"{file} exists: name another file, or remove it first") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from None
    print(f"{file}: change it, then: distgrad train {file}")
