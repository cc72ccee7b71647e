"""An ONNX graph in the making: nodes, constants and their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from distgrad.export.sizes import Size

_SHORT = 1 << 10  # bytes: constants up to here are kept once, whoever needs them


class Edge(NamedTuple):
    """One array of the graph: what a node gives, an input or a constant.

    ``shape`` is known of what goes into a converter, not of what it makes itself; ``data`` of
    constants.
    """

    name: str
    dtype: np.dtype
    shape: tuple = ()
    data: Any = None


@dataclass
class Node:
    """One ONNX operation."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


@dataclass
class Graph:
    """What converters write to."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    wishes: dict[str, str] = field(default_factory=dict)  # how constants would like to be called
    place: str = ""  # the layer and the primitive, for the names of nodes
    batch_of: tuple[str, int] | None = None  # the input, and its axis, that have the batch's size
    _taken: dict[str, int] = field(default_factory=dict)
    _made: dict[Any, Edge] = field(default_factory=dict)

    def unique(self, name: str) -> str:
        """``name``, with a number behind it where it is taken."""
        count = self._taken.get(name, 0)
        self._taken[name] = count + 1
        return name if not count else self.unique(f"{name}_{count}")

    def node(self, op: str, *inputs: Edge | None, dtype: Any = None, **attributes: Any) -> Edge:
        """What an operation of one result gives: of its first input's dtype, or of ``dtype``."""
        return self.several(op, 1, *inputs, dtype=dtype, **attributes)[0]

    def several(
        self, op: str, count: int, *inputs: Edge | None, dtype: Any = None, **attributes: Any
    ) -> tuple[Edge, ...]:
        """What an operation of ``count`` results gives. None stands for an input left out."""
        kind = next(e.dtype for e in inputs if e is not None) if dtype is None else np.dtype(dtype)
        name = self.unique(f"{self.place}/{op}" if self.place else op)
        names = [name] if count == 1 else [f"{name}:{i}" for i in range(count)]
        given = ["" if edge is None else edge.name for edge in inputs]
        self.nodes.append(Node(op, given, names, attributes))
        return tuple(Edge(each, kind) for each in names)

    def constant(self, array: Any, name: str = "constant") -> Edge:
        """A constant; equal small ones are one."""
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes()) if array.nbytes <= _SHORT else None
        if key is not None and name == "constant" and key in self._made:
            return self._made[key]
        own = f"#{len(self.constants)}"
        self.constants[own], self.wishes[own] = array, name
        edge = Edge(own, array.dtype, array.shape, array)
        if key is not None:
            self._made.setdefault(key, edge)
        return edge

    def number(self, value: Any, like: Edge) -> Edge:
        """A Python number as a constant of the dtype of an array beside it."""
        return self.constant(np.asarray(value, like.dtype))

    def arranged(self, edge: Edge, perm: Sequence[int], shape: Sequence[int] = ()) -> Edge:
        """``edge`` with its axes in another order and then, if given, in another shape.

        A constant is written like that under the name it has, as weights are laid out otherwise
        in ONNX.
        """
        key = (edge.name, tuple(perm), tuple(shape))
        if key in self._made:
            return self._made[key]
        if edge.data is not None:
            array = np.ascontiguousarray(edge.data.transpose(perm))
            array = array.reshape(shape) if shape else array
            made = self.constant(array, self.wishes[edge.name])
        else:
            made = edge
            if list(perm) != sorted(perm):
                made = self.node("Transpose", edge, perm=list(perm))
            if shape:
                made = self.node("Reshape", made, self.vector(shape))
        self._made[key] = made
        return made

    def vector(self, sizes: Sequence[int | Size]) -> Edge:
        """Sizes as an int64 vector; those that depend on the batch are computed."""
        if all(type(n) is not Size for n in sizes):
            return self.constant(np.array([int(n) for n in sizes], np.int64))  # type: ignore[arg-type]
        parts = [self._size(n) if type(n) is Size else self.vector([n]) for n in sizes]
        return parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=0)

    def _size(self, size: Size) -> Edge:
        if size in self._made:
            return self._made[size]
        assert self.batch_of is not None
        place, self.place = self.place, ""
        name, axis = self.batch_of
        batch = Size(1)
        if batch not in self._made:
            source = Edge(name, np.dtype(np.int64))
            self._made[batch] = self.node("Shape", source, start=axis, end=axis + 1)
        edge = self._made[batch]
        if size.scale != 1:
            edge = self.node("Mul", edge, self.vector([size.scale]))
        if size.offset:
            edge = self.node("Add", edge, self.vector([size.offset]))
        self._made[size] = edge
        self.place = place
        return edge

    def finish(self, outputs: dict[str, str]) -> None:
        """Gives everything its name: ``outputs`` theirs, then constants that are used."""
        names = dict(outputs)
        used = {name for node in self.nodes for name in node.inputs}
        self.constants = {own: array for own, array in self.constants.items() if own in used}
        for own in self.constants:
            names[own] = self.unique(self.wishes[own])
        for node in self.nodes:
            node.inputs = [names.get(name, name) for name in node.inputs]
            node.outputs = [names.get(name, name) for name in node.outputs]
        self.constants = {names[own]: array for own, array in self.constants.items()}
