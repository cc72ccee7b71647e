"""Predictions as files, written as they come: CSV, JSON lines, .npy and .npz."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from distgrad.core import files
from distgrad.core.errors import DataError, UsageError
from distgrad.trained import arrays
from distgrad.trained.outputs import Outputs

ENDINGS = (".csv", ".jsonl", ".npy", ".npz")


def check(target: str, endings: tuple[str, ...], force: bool, source: str | None = None) -> None:
    """Raises UsageError for a file that cannot be written as asked; ``-`` is stdout.

    What is read, ``source``, is never written over.
    """
    if target == "-":
        return
    path = Path(target)
    if path.suffix not in endings:
        raise UsageError(f"-o {target}: its ending must be one of {', '.join(endings)}")
    if not path.parent.is_dir():
        raise UsageError(f"-o {target}: there is no folder {path.parent}")
    read = None if source is None else Path(source).expanduser()
    if read is not None and read.exists() and path.exists() and path.samefile(read):
        raise UsageError(f"-o {target} is the file to read: name another one.")
    if path.exists() and not force:
        raise UsageError(f"-o {target} exists: add --force to replace it. Nothing was changed.")


def write(target: str, outputs: Outputs, batches: Iterator[np.ndarray]) -> int:
    """Writes the outputs of a model, in order; returns how many samples they were.

    Classes are written by name with their probabilities, other outputs as they are. Raises
    DataError where the disk does not take them; a file is there whole or not at all.
    """
    ending = Path(target).suffix
    if ending in (".npy", ".npz"):
        with _opened(target, "wb") as file:
            if ending == ".npy":
                return arrays.write_npy(file, outputs, batches)
            return arrays.write_npz(file, outputs, batches, Path(target).parent)
    rows: Callable[..., int] = _json_lines if ending == ".jsonl" else _csv
    with _opened(target, "w") as file:
        return rows(file, outputs, batches)


def write_text(target: str, pieces: Iterator[str]) -> None:
    """Writes a text as it comes. Raises DataError as `write`."""
    with _opened(target, "w") as file:
        for piece in pieces:
            file.write(piece)
            file.flush()


def _csv(file: IO[str], outputs: Outputs, batches: Iterator[np.ndarray]) -> int:
    rows = csv.writer(file, lineterminator="\n")
    names = list(outputs.classes)
    count = 0
    for found in batches:
        values = found.reshape(-1, 1) if found.ndim == 1 else found
        if values.ndim > 2:
            raise UsageError(
                f"an output of shape {found.shape[1:]} does not fit in a row of CSV: write .jsonl, "
                ".npy or .npz"
            )
        if outputs.classes:
            values = outputs.probabilities(values)
        if not count and names:
            rows.writerow(["prediction", *(f"p({name})" for name in names)])
        elif not count:
            wide = values.shape[1] > 1
            rows.writerow(
                [f"prediction_{i}" if wide else "prediction" for i in range(values.shape[1])]
            )
        best = values.argmax(axis=-1)
        for row, first in zip(values, best, strict=True):
            # str of a float32 is the shortest that is read back as it.
            rows.writerow([*([names[first]] if names else []), *map(str, row)])
        file.flush()
        count += len(values)
    return count


def _json_lines(file: IO[str], outputs: Outputs, batches: Iterator[np.ndarray]) -> int:
    count = 0
    for found in batches:
        each = outputs.probabilities(found) if outputs.classes else found
        for row in each:
            file.write(json.dumps(_said(outputs, row)) + "\n")
        file.flush()
        count += len(found)
    return count


def _said(outputs: Outputs, row: np.ndarray) -> dict[str, Any]:
    if not outputs.classes:
        return {"prediction": _plain(row[0] if row.shape == (1,) else row)}
    best = np.array(outputs.classes)[row.argmax(axis=-1)].tolist()
    if row.ndim > 1:
        return {"prediction": best, "probabilities": _plain(row)}
    named = zip(outputs.classes, _plain(row), strict=True)
    return {"prediction": best, "probabilities": dict(named)}


def _plain(values: Any) -> Any:
    """Numbers as the shortest decimals that are read back as the same float32."""
    if np.ndim(values):
        return [_plain(value) for value in values]
    return float(str(values))


@contextmanager
def _opened(target: str, mode: str) -> Iterator[Any]:
    """The file that takes the place of ``target`` when all is written."""
    if target == "-":
        try:
            yield sys.stdout
            sys.stdout.flush()
        except BrokenPipeError:  # whoever reads has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise DataError(f"stdout cannot be written ({error})") from error
        return
    path = Path(target)
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with files.replacing(path) as work, work.open(mode, **text) as file:
            yield file
    except OSError as error:
        raise DataError(f"{target} cannot be written ({error})") from error
