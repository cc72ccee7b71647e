"""``print`` for tensors, as TensorFlow writes them."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.composite import Composite
from distgrad.core.dtypes import kind_of
from distgrad.core.tensor import Operand
from distgrad.core.texts import Text, are_texts


def print(*inputs: Any, **options: Any) -> None:
    """Writes tensors, nests of them and other values to ``output_stream``, standard error by
    default.

    Options: ``output_stream`` (a stream or "file://PATH", appended to), ``sep``, ``end``,
    ``summarize`` (the elements shown at each end of an axis: 3, or -1 for all) and ``name``. Raises
    TypeError for any other one.
    """
    stream = options.pop("output_stream", None)
    sep, end = options.pop("sep", " "), options.pop("end", "\n")
    edge = options.pop("summarize", 3)
    options.pop("name", None)
    if options:
        raise TypeError(f"print() got unexpected options: {', '.join(options)}")
    if isinstance(stream, str) and not stream.startswith("file://"):
        raise ValueError(f"output_stream is a stream or 'file://PATH', not {stream!r}")

    def write(*values: Any) -> None:
        shown = -1 if edge is None else int(edge)
        line = sep.join(v if type(v) is str else show(v, shown) for v in values)
        if len(values) == 1 and _is_a_text(values[0]):
            line = line[1:-1]  # a text alone has no quotes
        if isinstance(stream, str):
            with open(stream.removeprefix("file://"), "a", encoding="utf-8") as file:
                file.write(line + end)
        else:
            builtins.print(line, end=end, file=stream or sys.stderr, flush=True)

    recording.tell(write, *inputs)


def show(value: Any, edge: int) -> str:
    """A value as ``print`` writes it, with ``edge`` elements at each end of an axis; -1: all."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {show(v, edge)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        shown = ", ".join(show(v, edge) for v in value)
        if isinstance(value, list):
            return f"[{shown}]"
        return f"({shown},)" if len(value) == 1 else f"({shown})"
    if isinstance(value, Composite):
        return _rows(value.to_list(), edge)  # type: ignore[attr-defined]
    if isinstance(value, (Operand, Text)) or are_texts(value):
        array = np.asarray(value)
        return _axis(array, edge if edge >= 0 else array.size, array.ndim)
    return repr(value)


def _axis(array: Any, edge: int, ndim: int) -> str:
    if not np.ndim(array):  # a text is no array
        return _element(array[()] if isinstance(array, np.ndarray) else array)
    depth = ndim - array.ndim
    space = " " if array.ndim == 1 else "\n" * (array.ndim - 1) + " " * (depth + 1)
    n = len(array)
    if n <= 2 * edge:
        parts = [_axis(row, edge, ndim) for row in array]
    else:
        ends = [*array[:edge], *array[n - edge :]]
        parts = [_axis(row, edge, ndim) for row in ends]
        parts.insert(edge, "...")
    return "[" + space.join(parts) + "]"


def _rows(rows: Any, edge: int) -> str:
    """Ragged rows, which TensorFlow writes as lists of texts."""
    if not isinstance(rows, list):
        if isinstance(rows, bytes):
            return repr(rows)[1:]
        if isinstance(rows, float):
            return f"{rows:f}"
        return str(rows).lower()
    parts = [_rows(row, edge) for row in rows]
    if 0 <= 2 * edge < len(parts):
        parts[edge : len(parts) - edge] = ["..."]
    return "[" + ", ".join(parts) + "]"


def _element(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "1" if value else "0"
    if isinstance(value, (str, bytes)):
        return f'"{value if isinstance(value, str) else value.decode(errors="replace")}"'
    if kind_of(np.asarray(value).dtype) == "f":
        value = value if isinstance(value, np.float64) else np.float32(value)
        short, exact = (15, 17) if value.dtype == np.float64 else (6, 9)
        text = f"{value:.{short}g}"
        return text if type(value)(text) == value or value != value else f"{value:.{exact}g}"
    return str(value)


def _is_a_text(value: Any) -> bool:
    return isinstance(value, Text) or (are_texts(value) and not value.ndim)
