"""A recorded program as an ONNX graph, by the converter of each of its primitives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from distgrad.compile.program import Apply, Program, Value
from distgrad.core.errors import ExportError
from distgrad.export import converters
from distgrad.export.graph import Edge, Graph
from distgrad.export.record import Input, Recorded


def convert(recorded: Recorded, inputs: Sequence[Input], outputs: Sequence[str]) -> Graph:
    """The graph of a program. Raises ExportError for a primitive that nothing converts."""
    return _Conversion(recorded, inputs, outputs).run()


class _Conversion:
    def __init__(self, recorded: Recorded, inputs: Sequence[Input], outputs: Sequence[str]) -> None:
        self._program: Program = recorded.program
        self._names = recorded.names
        self._outputs = outputs
        self._graph = Graph()
        self._edges: dict[Value, Edge] = {}
        for name in (*(each.name for each in inputs), *outputs):
            self._graph.unique(name)
        for value, each in zip(self._program.inputs, inputs, strict=True):
            self._edges[value] = Edge(each.name, value.dtype, value.shape)
            if self._graph.batch_of is None and None in each.shape:
                self._graph.batch_of = each.name, each.shape.index(None)

    def run(self) -> Graph:
        for instruction in self._program.instructions:
            assert isinstance(instruction, Apply)
            self._graph.place = f"{instruction.line}/{instruction.name}".replace(" ", "_")
            made = self._convert(instruction)
            for value, edge in zip(instruction.outputs, made, strict=True):
                self._edges[value] = edge._replace(dtype=value.dtype, shape=value.shape)
        self._graph.place = ""
        self._graph.finish(dict(self._named_outputs()))
        return self._graph

    def _convert(self, instruction: Apply) -> Sequence[Edge]:
        convert = converters.find(instruction.primitive)
        where = f"{instruction.name}, of {instruction.line},"
        if convert is None:
            raise ExportError(
                f"{where} has no converter to ONNX: register one with "
                f"distgrad.export.converters.converter({instruction.name!r})"
            )
        try:
            made = convert(self._graph, *self._arguments(instruction), **instruction.params)
        except (NotImplementedError, TypeError) as error:
            raise ExportError(f"{where} cannot be written as ONNX: {error}") from error
        return [made] if isinstance(made, Edge) else made

    def _arguments(self, instruction: Apply) -> Iterator[Edge]:
        """The edges of the arguments; numbers get the dtype of the array beside them."""
        like = next(
            (v.dtype for v in instruction.values if v.dtype != bool), instruction.outputs[0].dtype
        )
        for item in instruction.inputs:
            if type(item) is Value:
                yield self._edge(item)
            else:
                yield self._graph.constant(np.asarray(item, like))

    def _edge(self, value: Value) -> Edge:
        if value not in self._edges:
            wish = self._names.get(value, "constant")
            self._edges[value] = self._graph.constant(value.data, wish)
        return self._edges[value]

    def _named_outputs(self) -> Iterator[tuple[str, str]]:
        """(what its node calls it, the name of the output) for each output of the model."""
        made = {name for node in self._graph.nodes for name in node.outputs}
        for value, name in zip(self._program.outputs, self._outputs, strict=True):
            edge = self._edge(value)
            if edge.name not in made:  # an input, a constant, or an output twice
                edge = self._graph.node("Identity", edge)
            made.discard(edge.name)
            yield edge.name, name
