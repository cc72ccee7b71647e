"""A model as a picture: its layers and what goes from one to the other, drawn by Graphviz."""

from __future__ import annotations

import html
import itertools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distgrad.core import tree
from distgrad.core.errors import MissingExtraError
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.input import InputLayer
from distgrad.keras.models import Model
from distgrad.keras.registry import plain


def plot_model(
    model: Any,
    to_file: Any = "model.png",
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = False,
    rankdir: str = "TB",
    expand_nested: bool = False,
    dpi: int = 200,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
    splines: str = "ortho",
) -> None:
    """Draws a model into a file, in the format of its name's ending ("png" without one).

    Raises ValueError for a model that is not built, MissingExtraError (an ImportError) without
    Graphviz.
    """
    source = _source(
        model, show_shapes, show_dtype, show_layer_names, rankdir, expand_nested, dpi,
        show_layer_activations, show_trainable, splines,
    )  # fmt: skip
    if shutil.which("dot") is None:
        raise MissingExtraError(
            "You must install graphviz (see instructions at https://graphviz.gitlab.io/download/) "
            "for `plot_model` to work."
        )
    path = Path(to_file)
    kind = path.suffix[1:] or "png"
    done = subprocess.run(
        ["dot", f"-T{kind}", "-o", str(path)], input=source, text=True, capture_output=True,
        timeout=120, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ValueError(f"Graphviz could not draw {str(path)!r}: {done.stderr.strip()}")


def model_to_dot(
    model: Any,
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = True,
    rankdir: str = "TB",
    expand_nested: bool = False,
    dpi: int = 200,
    subgraph: bool = False,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
    splines: str = "ortho",
) -> Any:
    """The picture of a model as a ``pydot.Dot``.

    Raises ValueError for a model that is not built, MissingExtraError (an ImportError) without
    pydot.
    """
    source = _source(
        model, show_shapes, show_dtype, show_layer_names, rankdir, expand_nested, dpi,
        show_layer_activations, show_trainable, splines,
    )  # fmt: skip
    try:
        import pydot
    except ImportError:
        raise MissingExtraError(
            "You must install pydot (`pip install pydot`) for `model_to_dot` to work."
        ) from None
    return pydot.graph_from_dot_data(source)[0]


def _source(
    model: Model,
    shapes: bool,
    dtype: bool,
    names: bool,
    rankdir: str,
    nested: bool,
    dpi: int,
    activations: bool,
    trainable: bool,
    splines: str,
) -> str:
    """The picture in the language of Graphviz."""
    if not model.built:
        raise ValueError(
            "This model has not yet been built. Build the model first by calling `build()` or by "
            "calling the model on a batch of data."
        )

    def label(layer: Any) -> str:
        kind = getattr(layer, "operation", type(layer).__name__)
        lines = [f"<b>{html.escape(layer.name)}</b> ({kind})" if names else f"<b>{kind}</b>"]
        if activations and getattr(layer, "activation", None) is not None:
            lines.append(f"Activation: <b>{html.escape(str(plain(layer.activation)))}</b>")
        if shapes and layer._inbound_nodes:
            node = layer._inbound_nodes[0]
            for word, ends in (("Input", node.inputs), ("Output", node.outputs)):
                found = ", ".join(str(t.shape) for t in tree.flatten(ends))
                lines.append(f"{word} shape: <b>{found}</b>")
        if dtype:
            lines.append(f"Output dtype: <b>{layer.compute_dtype}</b>")
        if trainable and layer.weights:
            lines.append("<b>Trainable</b>" if layer.trainable else "<b>Non-trainable</b>")
        rows = "".join(f"<tr><td>{line}</td></tr>" for line in lines)
        return f'<<table border="0" cellborder="1" cellspacing="0" cellpadding="8">{rows}</table>>'

    lines = [
        "digraph {",
        f'rankdir="{rankdir}"; dpi={dpi}; splines="{splines}"; concentrate=true;',
        'node [shape=plain, fontname="Helvetica"];',
    ]
    lines += _layers(model, label, nested)
    lines += [f"{a} -> {b};" for a, b in dict.fromkeys(_edges(model, nested))]
    return "\n".join([*lines, "}", ""])


def _opened(layer: Any, nested: bool) -> bool:
    return nested and isinstance(layer, Model) and bool(_inside(layer))


def _inside(model: Any) -> list[Layer]:
    """The layers that a model is drawn as, those of its inputs among them."""
    if model._layer_graph is not None:
        return list(model._graph_operations)
    return list(model.layers) if hasattr(model, "_stacked_layers") else []


def _layers(model: Any, label: Any, nested: bool) -> Iterator[str]:
    for layer in _inside(model) or [model]:
        if _opened(layer, nested):
            name = html.escape(layer.name)
            yield f'subgraph cluster_{id(layer)} {{ label="{name}"; style=dashed;'
            yield from _layers(layer, label, nested)
            yield "}"
        else:
            yield f"{_id(layer)} [label={label(layer)}];"


def _id(layer: Layer) -> str:
    return f"layer_{id(layer)}"


def _first(layer: Any, nested: bool) -> list[Layer]:
    if not _opened(layer, nested):
        return [layer]
    inside = _inside(layer)
    inputs: list[Layer] = [each for each in inside if isinstance(each, InputLayer)]
    return inputs or _first(inside[0], nested)


def _last(layer: Any, nested: bool) -> list[Layer]:
    if not _opened(layer, nested):
        return [layer]
    if layer._layer_graph is None:
        return _last(_inside(layer)[-1], nested)
    return [x for out in layer.outputs for x in _last(out.node.layer, nested)]


def _edges(model: Any, nested: bool) -> Iterator[tuple[str, str]]:
    """From layer to layer, within the models that are opened as well."""
    if model._layer_graph is not None:
        ends = [(t, node.layer) for node in model._layer_graph.nodes for t in node.needed]
        inputs = model._layer_graph.stand_ins
        pairs = [(inputs.get(id(t), t).node.layer, layer) for t, layer in ends]
    else:
        inside = _inside(model)
        pairs = list(itertools.pairwise(inside))
    for one, other in pairs:
        for a in _last(one, nested):
            for b in _first(other, nested):
                yield _id(a), _id(b)
    for layer in _inside(model):
        if _opened(layer, nested):
            yield from _edges(layer, nested)
