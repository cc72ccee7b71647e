"""The jobs' source of text: windows of characters, and the characters that follow them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core.errors import DataError
from distgrad.data.preparation import Preparation
from distgrad.data.source import ArraySource, Splits
from distgrad.data.splits import cut

TEST_FRACTION = 0.1


def load(spec: Mapping[str, Any]) -> Splits:
    """The text that a job's data section names; see `source.load`."""
    path = spec.get("path")
    name = path or spec["builtin"]
    text = read(path) if path else _BUILTIN[spec["builtin"]]()
    alphabet = alphabet_of(text, spec.get("vocabulary"))
    codes = encode(text, alphabet)
    length = spec["sequence_length"]
    end = cut(name, len(codes), spec.get("test_fraction", TEST_FRACTION), "characters")
    train, test = windows(codes[:end], length), windows(codes[end:], length)
    if len(train) == 0 or len(test) == 0:
        raise DataError(
            f"{name} has {end} characters to train on and {len(codes) - end} to test, which is "
            f"too little for a window of {length}: lower data.sequence_length"
        )
    description = (
        f"{name}: {len(train)} training and {len(test)} test windows of {length} characters, "
        f"vocabulary of {len(alphabet)}"
    )
    preparation = Preparation.of("text", train, alphabet=tuple(alphabet))
    return Splits(train, test, description, preparation=preparation)


def alphabet_of(text: str, size: int | None = None) -> list[str]:
    """The characters of a text in the order of their codes.

    With a ``size``, the most frequent ones, after an empty entry at 0 that stands for the others.
    """
    counts = Counter(text)
    if size is None:
        return sorted(counts)
    by_frequency = sorted(counts, key=lambda character: (-counts[character], character))
    return ["", *sorted(by_frequency[: size - 1])]


def encode(text: str, alphabet: list[str]) -> np.ndarray:
    """The int32 index of every character in the alphabet; 0 for one that is not there."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    unique, inverse = np.unique(points, return_inverse=True)
    index = {ord(character): i for i, character in enumerate(alphabet) if character}
    codes = np.array([index.get(int(point), 0) for point in unique], dtype=np.int32)
    return codes[inverse]


def windows(codes: np.ndarray, length: int) -> ArraySource:
    """Windows (n, length) side by side, and the same one character later."""
    n = max(len(codes) - 1, 0) // length
    x, y = (codes[start : start + n * length].reshape(n, length) for start in (0, 1))
    return ArraySource(x, y)


def read(path: str) -> str:
    """The whole of a file in UTF-8. Raises DataError."""
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error})") from error


def _python_help() -> str:
    """What ``help("TOPIC")`` shows for all topics: about half a million characters of English."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(
            "this Python comes without the texts of help(); give data.path a text of your own"
        ) from error
    return "\n\n".join(topics[name].strip() for name in sorted(topics))


_BUILTIN = {"python-help": _python_help}
