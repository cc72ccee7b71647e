"""``tf.gradients``: derivatives of what a function has done so far, by no tape of its own.

TensorFlow asks a graph. Here a function that asks is run once more, as what it did before has been
forgotten, and from then on by a tape that follows every tensor and variable.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import INEXACT
from distgrad.core.reading import variable_of
from distgrad.core.tape import Entry, GradientTape, UnconnectedGradients
from distgrad.core.targets import number_of
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.variable import Variable


class Unrecorded(RuntimeError):
    """Gradients were asked for of what nobody has recorded.

    ``undone`` says that what was done until then was but a trial, as functions are traced.
    """

    undone = False


class Graph(GradientTape):
    """A tape that watches whatever it meets."""

    def __init__(self) -> None:
        super().__init__(persistent=True)
        self._constant: frozenset[int] = frozenset()  # what no gradient goes through

    def record(self, primitive: Any, args: tuple, params: dict, out: Any) -> None:
        for arg in args:
            if type(arg) is Tensor and arg._data.dtype.kind in INEXACT:
                self._tracked.add(number_of(arg))
        super().record(primitive, args, params, out)

    def read_variable(self, variable: Variable, value: Tensor) -> None:
        self._variables.setdefault(id(variable), (variable, []))
        super().read_variable(variable, value)

    def _path(self, entries: list[Any], sources: set[int]) -> tuple[list[Any], set[int]]:
        self._roots = {0}  # unknown, as any tensor may be one: no shorter way
        return super()._path(entries, sources)

    def _take_entries(self) -> list[Any]:
        entries = super()._take_entries()
        return [made for made in map(self._cut, entries) if made] if self._constant else entries

    def _cut(self, entry: Entry) -> Any:
        """The entry without what is constant among its outputs; None where nothing is left."""
        plan, inputs, saved, outputs = entry
        if type(outputs) is int:
            return None if outputs in self._constant else entry
        free = tuple([(0 if o[0] in self._constant else o[0], *o[1:]) for o in outputs])
        return plan, inputs, saved, free

    @contextmanager
    def constant(self, tensors: list[Any]) -> Iterator[None]:
        """Context whose gradients take these tensors for constants."""
        self._constant = frozenset(t._uid for t in tensors if type(t) is Tensor and t._uid)
        try:
            yield
        finally:
            self._constant = frozenset()


@contextmanager
def recorded() -> Iterator[None]:
    """Context in which a graph is kept: the outermost one is that of all within."""
    if _innermost() is not None:
        yield
        return
    with Graph():
        yield


def _innermost() -> Graph | None:
    return next((r for r in recording.stack() if isinstance(r, Graph)), None)


def _graph(what: str) -> Graph:
    found = _innermost()
    if found is None:
        error = Unrecorded(
            f"tf.{what} is for functions of tf.function, whose first call asks for it: use "
            "tf.GradientTape"
        )
        capture = recording.per_thread.capture
        error.undone = capture is not None and not capture.abandoned
        raise error
    return found


def gradients(
    ys: Any,
    xs: Any,
    grad_ys: Any = None,
    name: str | None = "gradients",
    gate_gradients: bool = False,
    aggregation_method: Any = None,
    stop_gradients: Any = None,
    unconnected_gradients: Any = UnconnectedGradients.NONE,
) -> list[Any]:
    """The gradients of the sum of ``ys`` by each of ``xs``, a list (``tf.gradients``).

    Within a ``tf.function``: ``ys`` and ``xs`` are tensors or variables, or lists of them, that
    occurred in it; each gradient has the shape and dtype of its x, or is None without a path.
    ``grad_ys`` weigh the elements of ``ys``; ``stop_gradients`` are taken for constants. A function
    that asks for the first time is run once more, its assignments undone. Raises RuntimeError
    outside of functions, ValueError for ``grad_ys`` of another number.
    """
    graph = _graph("gradients")
    targets = _listed(ys)
    sources = _listed(xs)
    weights = None if grad_ys is None else _weights(grad_ys, targets)
    with graph.constant(_listed([] if stop_gradients is None else stop_gradients)):
        return graph.gradient(targets, sources, weights, unconnected_gradients)


def hessians(
    ys: Any,
    xs: Any,
    gate_gradients: bool = False,
    aggregation_method: Any = None,
    name: str | None = "hessians",
) -> list[Any]:
    """The second derivatives of the sum of ``ys`` by each of ``xs``, a list (``tf.hessians``).

    Within a ``tf.function``; each has shape ``x.shape + x.shape``. Raises RuntimeError outside of
    functions, ValueError for an x on which ``ys`` do not depend.
    """
    graph = _graph("hessians")
    sources = _listed(xs)
    slopes = gradients(ys, sources)
    for source, slope in zip(sources, slopes, strict=True):
        if slope is None:
            raise ValueError(f"hessians: the targets do not depend on {source!r}")
    return [graph.jacobian(g, x, "zero") for g, x in zip(slopes, sources, strict=True)]


def _listed(values: Any) -> list[Any]:
    """One tensor or variable, or a list of them, as a list."""
    items = list(values) if isinstance(values, (list, tuple)) else [values]
    return [v if isinstance(v, Operand) else as_tensor(v) for v in map(variable_of, items)]


def _weights(given: Any, targets: list[Any]) -> list[Any]:
    weights = list(given) if isinstance(given, (list, tuple)) else [given]
    if len(weights) != len(targets):
        raise ValueError(f"gradients: {len(weights)} grad_ys for {len(targets)} ys")
    return [
        None if w is None else as_tensor(w, like=t.dtype.numpy_dtype)
        for w, t in zip(weights, targets, strict=True)
    ]
