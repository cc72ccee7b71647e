"""Texts as lists of word numbers, the way in which Keras numbers and leaves out words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.errors import DataError
from distgrad.keras.datasets.tables import cached


def numbered(
    texts: Sequence[Sequence[int]],
    labels: np.ndarray,
    num_words: int | None,
    skip_top: int,
    maxlen: int | None,
    start_char: int | None,
    oov_char: int | None,
    index_from: int | None,
) -> tuple[list[list[int]], np.ndarray]:
    """The texts with numbers from ``index_from`` on after a ``start_char``, those that are shorter
    than ``maxlen``, with ``oov_char`` for words that are too rare or too common; and their labels.
    """
    start = [] if start_char is None else [start_char]
    shift = index_from or 0
    rows = [[*start, *(word + shift for word in text)] for text in texts]
    if maxlen:
        kept = [len(row) < maxlen for row in rows]
        rows = [row for row, keep in zip(rows, kept, strict=True) if keep]
        labels = labels[np.array(kept, bool)]
        if not rows:
            raise ValueError(
                f"After filtering for sequences shorter than maxlen={maxlen}, no sequence was "
                "kept. Increase maxlen."
            )
    limit = num_words or max(max(row) for row in rows)
    if oov_char is None:
        return [[w for w in row if skip_top <= w < limit] for row in rows], labels
    return [[w if skip_top <= w < limit else oov_char for w in row] for row in rows], labels


def ragged(rows: Sequence[list[int]]) -> np.ndarray:
    """Lists as an array of objects, of rank 1 also where they are equally long."""
    found = np.empty(len(rows), dtype=object)
    found[:] = list(rows)
    return found


def word_index(path: str, name: str, digest: str) -> dict[str, Any]:
    """Numbers by word, from a JSON file that is downloaded once; DataError where it is damaged."""
    file = cached(path, name, digest)
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise DataError(f"{file} is not JSON ({error}); delete it to download it again") from error
