"""Spans: what takes how long, told to whoever records a timeline of this process.

Nearly always nobody does: ``told`` is None then, and a span costs a look at it. Times are those of
``time.perf_counter``, and of the host: what a GPU does of it goes on beside.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

# Told of every span behind its end: its name, its begin and its end, and details to show.
Told = Callable[[str, float, float, dict[str, Any] | None], None]
told: Told | None = None


def timed(name: str | Callable[..., str]) -> Callable[[F], F]:
    """Makes each call of a function a span; ``name`` may be a function of the same arguments."""

    def wrap(fn: F) -> F:
        @functools.wraps(fn)
        def run(*args: Any, **kwargs: Any) -> Any:
            if told is None:
                return fn(*args, **kwargs)
            with span(name if isinstance(name, str) else name(*args, **kwargs)):
                return fn(*args, **kwargs)

        return cast(F, run)

    return wrap


class span:
    """Context that is a span of this name, with ``details`` to show beside it."""

    def __init__(self, name: str, **details: Any) -> None:
        self.name, self.details = name, details

    def __enter__(self) -> span:
        self._begun = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        if (tell := told) is not None:  # a look: another thread may end it
            tell(self.name, self._begun, time.perf_counter(), self.details)
