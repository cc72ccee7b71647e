"""The words of a command line: what is named, and what is to be changed in its job."""

from __future__ import annotations

import os
from collections.abc import Sequence


def split(words: Sequence[str], needed: str, most: int = 1) -> tuple[list[str], list[str]]:
    """What is named, and the changes: what has an equals sign, and is no file, is a change.

    Raises:
        UsageError: nothing is named, or more than ``most``; it begins with ``needed``.
    """
    from distgrad.core.errors import UsageError

    named = [word for word in words if "=" not in word or os.path.exists(word)]
    if not 1 <= len(named) <= most:
        found = f"these are {len(named)}: {', '.join(named)}" if named else "there is none"
        raise UsageError(f"{needed}, {found}; changes to its job read key.sub=value")
    return named, [word for word in words if word not in named]
