"""From the texts and dicts that users write to the objects they name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any


def snake_case(name: str) -> str:
    """``SparseCategoricalCrossentropy`` as ``sparse_categorical_crossentropy``."""
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def lookup(kind: str, identifier: Any, known: Mapping[str, Callable[..., Any]]) -> Any:
    """The entry of ``known`` that a text names. Raises ValueError with the nearest names."""
    found = known.get(identifier) or known.get(snake_case(str(identifier)))
    if found is None:
        near = difflib.get_close_matches(str(identifier), known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
        raise ValueError(f"unknown {kind} {identifier!r}: {hint}")
    return found
