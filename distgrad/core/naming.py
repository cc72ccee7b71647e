"""Name scopes: what the names of variables start with."""

from __future__ import annotations

import threading


class _PerThread(threading.local):
    def __init__(self) -> None:
        self.prefix = ""


_per_thread = _PerThread()


def prefix() -> str:
    """What the names of variables made now start with: "" or a scope with its slash."""
    return _per_thread.prefix


class name_scope:
    """Context in which the names of new variables start with ``name`` (``tf.name_scope``).

    Scopes nest; a name that ends in a slash is a whole one and stands for itself, and "" is the
    outermost. Gives the whole name, with its slash. Operations have no names. Raises ValueError
    for a name that is not text.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise ValueError(f"the name of a scope is text, not {name!r}")
        self._name = name
        self._outer: list[str] = []

    @property
    def name(self) -> str:
        return self._name

    def __enter__(self) -> str:
        outer = _per_thread.prefix
        self._outer.append(outer)
        whole = not self._name or self._name.endswith("/")
        _per_thread.prefix = self._name if whole else f"{outer}{self._name}/"
        return _per_thread.prefix

    def __exit__(self, *exc: object) -> None:
        _per_thread.prefix = self._outer.pop()
