"""The table that ``model.summary()`` prints."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distgrad.core import tree
from distgrad.core.variable import Variable
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.operation import NamedOperation
from distgrad.keras.registry import is_ours


def summary(
    model: Any,
    line_length: int | None = None,
    positions: Sequence[float] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Sequence[str] | None = None,
) -> str:
    """Layers, output shapes and numbers of parameters, as Keras 3 lays them out.

    ``positions`` are the right ends of the columns, in parts of the line. ``layer_range`` has the
    names of the first and of the last layer to show, as regular expressions. Raises ValueError
    where a column is too narrow, and for names that no layer has.
    """
    graph = model._layer_graph
    connected = graph is not None and not _is_chain(graph)
    header = ["Layer (type)", "Output Shape", "Param #"]
    ends = list(positions or (0.45, 0.80, 1.0))
    width = 88
    if connected:
        header.append("Connected to")
        ends, width = list(positions or (0.3, 0.56, 0.74, 1.0)), 108
    if show_trainable:
        header.append("Trainable")
        ends, width = [0.9 * end for end in ends] + [1.0], width + 12
    length = line_length or min(width, shutil.get_terminal_size().columns - 4)
    widths, start = [], 0
    for end in ends:
        widths.append(int(end * length) - start)
        start += widths[-1]
    if min(widths) < 4:
        raise ValueError(f"line_length={length} is too short for a summary")
    rows = []
    layers = _between(model._graph_operations if graph is not None else model.layers, layer_range)
    for layer in layers:
        for nested, level in _nested(layer, expand_nested):
            prefix = "   " * level + "└ " if level else ""
            row = [
                f"{prefix}{nested.name} ({_kind(nested)})",
                _shape(nested),
                _size(nested),
            ]
            if connected:
                row.append(_connections(graph, nested))
            if show_trainable:
                row.append("-" if not nested.weights else "Y" if nested.trainable else "N")
            rows.append(row)
    return "\n".join([f'Model: "{model.name}"', *_table(header, rows, widths), *_totals(model)])


def _between(layers: Sequence[Layer], names: Sequence[str] | None) -> Sequence[Layer]:
    """The layers from the one whose name is the first of these to that of the last."""
    if names is None:
        return layers
    if len(names) != 2:
        raise ValueError(f"layer_range has the names of two layers, not {names!r}")
    first, last = ([i for i, x in enumerate(layers) if re.match(n, x.name)] for n in names)
    if not first or not last:
        known = ", ".join(layer.name for layer in layers)
        raise ValueError(f"layer_range {list(names)!r} names no layers of the model: {known}")
    start, end = min(first), max(last)
    return layers[start : end + 1] if start <= end else layers[min(last) : max(first) + 1]


def _is_chain(graph: Any) -> bool:
    """Whether every layer is called once, on what the one before it gave."""
    inputs = len(graph.sources)
    alone = all(len(node.needed) == 1 for node in graph.nodes)
    made = [tensor for node in graph.nodes for tensor in node.needed]
    used_once = len({id(tensor) for tensor in made}) == len(made)
    once = len({id(node.layer) for node in graph.nodes}) == len(graph.nodes)
    return inputs == 1 and alone and used_once and once


def _nested(layer: Layer, expand: bool, level: int = 0) -> Iterator[tuple[Layer, int]]:
    yield layer, level
    if expand:
        for each in getattr(layer, "layers", ()):
            yield from _nested(each, True, level + 1)


def _kind(layer: Layer) -> str:
    return layer.operation if isinstance(layer, NamedOperation) else type(layer).__name__


def _shape(layer: Layer) -> str:
    """Of the outputs in a model's graph, else for the inputs that the layer was built for."""
    if layer._inbound_nodes:
        shapes = [_text(tensor.shape) for tensor in tree.flatten(layer._inbound_nodes[-1].outputs)]
        return shapes[0] if len(shapes) == 1 else f"[{', '.join(shapes)}]"
    if getattr(layer, "_stacked_tensors", None) or getattr(layer, "_layer_graph", None) is not None:
        made = tree.map_structure(lambda tensor: tensor.shape, layer.output)
    else:
        made = _shape_as_built(layer)
    if made is None:
        return "?"
    return _text(made) if all(n is None or isinstance(n, int) for n in made) else str(made)


def _text(shape: tuple[int | None, ...]) -> str:
    """Without the comma that a tuple of one has."""
    return f"({', '.join(map(str, shape))})"


def _shape_as_built(layer: Layer) -> Any:
    """None where it is not known without a call: for users' classes that do not tell."""
    built_for, cls = layer._build_shapes_dict, type(layer)
    telling = cls.compute_output_shape is not Layer.compute_output_shape
    if built_for is None or not (telling or is_ours(cls)):
        return None
    given = built_for.values() if isinstance(built_for, Mapping) else [built_for]
    try:
        return layer.compute_output_shape(*given)
    except (NotImplementedError, TypeError, ValueError):
        return None


def _size(layer: Layer) -> str:
    return f"{layer.count_params():,}" if layer.built else "0 (unbuilt)"


def _connections(graph: Any, layer: Layer) -> str:
    needed = [tensor for node in graph.nodes if node.layer is layer for tensor in node.needed]
    found = [
        f"{tensor.node.layer.name}[{tensor.node.index}][{tensor.index}]"
        for tensor in (graph.stand_ins.get(id(each), each) for each in needed)
    ]
    return ", ".join(found) or "-"


def _table(header: list[str], rows: list[list[str]], widths: list[int]) -> Iterator[str]:
    inner = [max(width - 3, 1) for width in widths]
    inner[-2] -= 1  # one edge more than columns: Keras takes it from the last column but one
    bars = ["━" * (n + 2) for n in inner]
    thin = ["─" * (n + 2) for n in inner]
    yield f"┏{'┳'.join(bars)}┓"
    yield from _row(header, inner, "┃")
    yield f"┡{'╇'.join(bars)}┩"
    for i, row in enumerate(rows):
        if i:
            yield f"├{'┼'.join(thin)}┤"
        if header[-1] == "Trainable":
            row = [*row[:-1], row[-1].center(inner[-1])]
        yield from _row(row, inner, "│")
    yield f"└{'┴'.join(thin)}┘"


def _row(cells: list[str], widths: list[int], edge: str) -> Iterator[str]:
    wrapped = [_wrapped(cell, width) for cell, width in zip(cells, widths, strict=True)]
    for line in range(max(map(len, wrapped))):
        parts = []
        for column, (lines, width) in enumerate(zip(wrapped, widths, strict=True)):
            text = lines[line] if line < len(lines) else ""
            parts.append(text.rjust(width) if column == 2 else text.ljust(width))
        yield f"{edge} {f' {edge} '.join(parts)} {edge}"


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most ``width``, broken between words; a longer word is cut, with an ellipsis."""
    indent = len(text) - len(text.lstrip())
    lines = [" " * indent]
    for word in text.split():
        joined = f"{lines[-1]}{' ' if lines[-1].strip() else ''}{word}"
        if len(joined) <= width or not lines[-1].strip():
            lines[-1] = joined
        else:
            lines.append(word)
    return [line if len(line) <= width else line[: width - 1] + "…" for line in lines]


def _totals(model: Any) -> Iterator[str]:
    kinds = [
        ("Trainable", model.trainable_variables),
        ("Non-trainable", model.non_trainable_variables),
    ]
    if model.optimizer is not None and model.optimizer.built:
        kinds.append(("Optimizer", model.optimizer.variables))
    everything = [variable for _, variables in kinds for variable in variables]
    for name, variables in (("Total", everything), *kinds):
        count, size = _count(variables)
        yield f" {name} params: {count:,} ({_readable(size)})"


def _count(variables: list[Variable]) -> tuple[int, int]:
    counts = [math.prod(variable.shape) for variable in variables]
    rates = [v._name == "learning_rate" for v in variables]  # of more digits than Keras's
    each = [4 if rate else v.dtype.size for rate, v in zip(rates, variables, strict=True)]
    sizes = [n * size for n, size in zip(counts, each, strict=True)]
    return sum(counts), sum(sizes)


def _readable(size: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} TB"
