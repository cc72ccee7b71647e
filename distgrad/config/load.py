"""Read a job: its file, the base under it, the overrides over it."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from distgrad.config import shipped
from distgrad.config.document import (
    Document,
    Override,
    apply_override,
    merge,
    parse,
    parse_override,
)
from distgrad.config.errors import ConfigError, did_you_mean, listing
from distgrad.config.schema import Config, validate


def load(path: str | pathlib.Path, overrides: Sequence[str | Override] = ()) -> Config:
    """The job in a YAML file, with ``key.sub=value`` overrides applied in their order.

    ``base: other.yaml``, relative to the file, is a job that this one changes: sections merge,
    lists and values are replaced, and a base has no base of its own. Raises ConfigError with every
    mistake.
    """
    document = _read(pathlib.Path(path))
    problems: list[str] = []
    for number, override in enumerate(overrides):
        try:
            parsed = parse_override(override) if isinstance(override, str) else override
        except ConfigError as error:
            problems += error.problems
        else:
            if isinstance(document.value, dict):
                apply_override(document, parsed, number)
    try:
        config = validate(document)
    except ConfigError as error:
        raise ConfigError([*error.problems, *problems]) from None
    if problems:
        raise ConfigError(problems)
    return config


def _read(path: pathlib.Path) -> Document:
    document = parse(_text(path), str(path))
    if not isinstance(document.value, dict) or "base" not in document.value:
        return document
    place = document.mark(("base",)).text
    name = document.value.pop("base")
    if not isinstance(name, str) or not name:
        raise ConfigError([f"{place}: base: must be the name of another job file"])
    below = path.parent / pathlib.Path(name).expanduser()
    if circle := _circle(path, below):
        raise ConfigError([f"{place}: base: the bases go round in a circle: {circle}"])
    try:
        base = parse(_text(below), str(below), source=1)
    except ConfigError as error:
        if below.is_file():
            raise
        raise ConfigError(f"{place}: base: {problem}" for problem in error.problems) from None
    if not isinstance(base.value, dict):
        raise ConfigError([f"{place}: base: {below} is not a job of `key: value` lines"])
    if "base" in base.value:
        second = base.mark(("base",)).text
        raise ConfigError([f"{second}: base: a base cannot have a base of its own; merge the two"])
    return merge(base, document)


def _circle(path: pathlib.Path, below: pathlib.Path) -> str:
    """The chain of bases that comes back to one of its files, as text; empty if there is none."""
    chain = [path]
    while below.is_file():
        again = any(below.samefile(known) for known in chain)
        chain.append(below)
        if again:
            return " -> ".join(map(str, chain))
        try:
            value = parse(_text(below), str(below)).value
        except ConfigError:  # told where it is read
            break
        name = value.get("base") if isinstance(value, dict) else None
        if not isinstance(name, str):
            break
        below = below.parent / pathlib.Path(name).expanduser()
    return ""


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([_missing(path)]) from None
    except UnicodeDecodeError as error:
        detail = f"{error.reason} at byte {error.start}"
        raise ConfigError([f"{path}: not UTF-8 text: {detail}"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None


def _missing(path: pathlib.Path) -> str:
    """The message for a file that is not there: what is there instead."""
    folders = [path.parent, pathlib.Path("configs")]
    jobs = next(filter(None, (sorted(folder.glob("*.yaml")) for folder in folders)), [])
    if not jobs:
        ours = (
            did_you_mean(str(path), shipped.jobs()) or f"; distgrad has {listing(shipped.jobs())}"
        )
        return f"{path}: no such job file, and no other *.yaml in {path.parent} or configs{ours}"
    hint = did_you_mean(path.name, [job.name for job in jobs])
    there = f"there are {listing(map(str, jobs))}"
    return f"{path}: no such job file" + (f"{hint} ({there})" if hint else f"; {there}")
