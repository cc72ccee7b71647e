"""Sums as lists of additions: what an exchange does with the arrays that it has received."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

# Two arrays (the second may be missing), and where their sum goes; all of one size and dtype.
Addition = tuple[np.ndarray, np.ndarray | None, np.ndarray]


def run_additions(additions: Iterable[Addition], xp: Any = np, combine: str = "add") -> None:
    """Adds arrays in pairs, in order, by the library ``xp``; one alone is copied."""
    function = getattr(xp, combine)
    for a, b, out in additions:
        if b is None:
            out[...] = a
        else:
            function(a, b, out=out)
