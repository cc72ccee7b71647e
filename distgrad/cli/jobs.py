"""Jobs on the command line: how one is named and changed, and the verbs that only look at it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from distgrad.cli.words import split as split_words

if TYPE_CHECKING:
    from distgrad.config import Config, Override

app = typer.Typer(
    help="Check a job, show it, begin one of your own, print its schema.",
    rich_markup_mode=None,
)
JobWords = Annotated[
    list[str],
    typer.Argument(
        metavar="JOB.yaml [KEY.SUB=VALUE]...",
        help="The job file, or a name of `distgrad config ls`, and values to change in it, in any "
        "order.",
        show_default=False,
    ),
]


@app.command()
def validate(words: JobWords) -> None:
    """Check a job; every mistake is shown with its line."""
    path, changes = split(words)
    config = read(path, changes)
    print(f"{path}: {config.name} is a valid job")


@app.command()
def show(words: JobWords) -> None:
    """Print a job as YAML with every default filled in."""
    path, changes = split(words)
    print(read(path, changes).to_yaml(), end="")


@app.command()
def schema() -> None:
    """Print the JSON Schema of job files. Editors read it (configs/schema.json)."""
    import json

    from distgrad.config.editors import json_schema

    print(json.dumps(json_schema(), indent=2))


def split(words: Sequence[str]) -> tuple[str, list[str]]:
    """The job file and the overrides; what has an equals sign, and is no file, is an override.

    The name of a job that comes with distgrad stands for its file, where there is no such file.
    """
    from distgrad.config import shipped

    (named,), changes = split_words(words, "one job file is needed")
    path = named if os.path.isfile(named) else str(shipped.jobs().get(named, named))
    return path, changes


def read(path: str, overrides: Sequence[str | Override]) -> Config:
    """The job of a file, with changes from the command line."""
    from distgrad.config import load

    return load(path, overrides)


def is_stream(path: str) -> bool:
    """Whether a job comes from a pipe, as of ``<(...)``, or from stdin: it can be read once."""
    return path.startswith("/dev/") or (os.path.exists(path) and not os.path.isfile(path))
