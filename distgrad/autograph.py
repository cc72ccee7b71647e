"""``tf.autograph``: in TensorFlow, Python made into graphs; here Python runs as it is."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

__all__ = ["experimental", "set_verbosity", "to_code", "to_graph", "trace"]


def to_code(entity: Any, recursive: bool = True, experimental_optional_features: Any = None) -> str:
    """The source of a function, which is what runs."""
    return textwrap.dedent(inspect.getsource(getattr(entity, "python_function", entity)))


def to_graph(
    entity: Any, recursive: bool = True, experimental_optional_features: Any = None
) -> Any:
    """The function itself."""
    return entity


def set_verbosity(level: int, alsologtostdout: bool = False) -> None:
    """Does nothing: there is no conversion to be told of."""


def trace(*args: Any) -> None:
    """Prints its arguments."""
    print(*args)


def _do_not_convert(func: Callable[..., Any] | None = None) -> Any:
    return func if func is not None else _do_not_convert


def _set_loop_options(*args: Any, **kwargs: Any) -> None:
    """Does nothing: a Python loop needs no options."""


experimental = SimpleNamespace(do_not_convert=_do_not_convert, set_loop_options=_set_loop_options)
