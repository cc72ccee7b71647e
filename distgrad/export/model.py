"""``model.export``: a model as an ONNX file, which is run beside it before it is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core import devices, files, recording, tree
from distgrad.core.errors import ExportError
from distgrad.export import onnx_file, verify
from distgrad.export.convert import convert
from distgrad.export.record import Input, as_input, record
from distgrad.keras.layers.calling import quiet
from distgrad.keras.layers.symbolic import KerasTensor

FORMATS = ("onnx",)


@dataclasses.dataclass(frozen=True)
class Exported:
    """A file's bytes, and what was found when it was run beside the model."""

    content: bytes
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    nodes: int
    half: bool  # the model computes in 16 bits, the file in float32
    tolerance: float
    batches: tuple[int, ...]  # of the comparison
    difference: float = 0.0  # the largest absolute one
    runtime: str = ""

    def __str__(self) -> str:
        how = ", float32 in place of 16 bits" if self.half else ""
        sizes = " and ".join(map(str, self.batches))
        return (
            f"ONNX opset {onnx_file.OPSET}, {self.nodes} operations, "
            f"{len(self.content) / 1e6:.2f} MB{how}; at most {self.difference:.2g} off the model "
            f"(by {self.runtime}, batches of {sizes})"
        )


def export(
    model: Any,
    filepath: Any,
    format: str,
    verbose: Any = None,
    input_signature: Any = None,
    opset_version: int | None = None,
) -> None:
    """Writes a model to ``filepath``: what `distgrad.keras.Model.export` does."""
    if format not in FORMATS:
        raise ValueError(
            f"export writes format='onnx', not {format!r}; other formats are made of that file "
            "(with onnx2tf for LiteRT and SavedModel, with openvino), and model.save writes .keras"
        )
    if opset_version not in (None, onnx_file.OPSET):
        raise ValueError(
            f"export writes ONNX opset {onnx_file.OPSET}, not {opset_version!r}; "
            "onnx.version_converter makes others of the file"
        )
    made = to_onnx(model, input_signature)
    path = Path(filepath)
    files.replace(path, made.content)
    if verbose is None or verbose:
        print(f"{path}: {made}")


def to_onnx(
    model: Any,
    input_signature: Any = None,
    metadata: Mapping[str, str] | None = None,
    call: Callable[[Any], Any] | None = None,
    examples: Callable[[int], list[np.ndarray]] | None = None,
) -> Exported:
    """The file of a model's inference, checked, and compared with the model at two batch sizes.

    ``call`` is what the file has to compute, the model's call by default; ``examples`` gives inputs
    of a batch size, random ones by default. Raises ExportError for what cannot be written or does
    not compute the same, MissingExtraError without onnx.
    """
    onnx_file.package()
    nest, inputs = _signature(model, input_signature)
    compute = call or (lambda x: model(x, training=False))
    with recording.paused(), quiet(model):  # makes the weights where there are none yet
        zeros = [np.zeros(each.sized(1), each.dtype) for each in inputs]
        names = _output_names(model, compute(tree.unflatten(nest, zeros)), inputs)
    with _device_of(model):
        recorded = record(compute, nest, inputs, model.variable_paths())
        graph = convert(recorded, inputs, names)
        program = recorded.program
        made = Exported(
            content=onnx_file.to_bytes(
                graph,
                model.name,
                {each.name: v for each, v in zip(inputs, program.inputs, strict=True)},
                dict(zip(names, program.outputs, strict=True)),
                metadata or {},
            ),
            inputs=inputs,
            outputs=names,
            nodes=len(graph.nodes),
            half=recorded.half,
            tolerance=verify.tolerance_for(program.outputs, recorded.half),
            batches=_batches(inputs),
        )
        run, runtime = verify.runner(made.content)
        worst = 0.0
        for batch in made.batches:
            arrays = examples(batch) if examples else verify.examples(program, inputs, batch)
            with recording.paused():
                expected = tree.flatten(compute(tree.unflatten(nest, arrays)))
            found = run({each.name: a for each, a in zip(inputs, arrays, strict=True)})
            values = [each.numpy() for each in expected]
            worst = max(worst, verify.compare(found, values, names, made.tolerance))
    return dataclasses.replace(made, difference=worst, runtime=runtime)


def _device_of(model: Any) -> AbstractContextManager[None]:
    """Where the weights are, so that they are read as they are."""
    on_host = all(isinstance(variable._buffer, np.ndarray) for variable in model.variables)
    return devices.host() if on_host else devices.scope("gpu")


def _batches(inputs: Sequence[Input]) -> tuple[int, ...]:
    """The sizes of the batches that are compared: one where it is fixed."""
    if any(None in each.shape for each in inputs):
        return verify.BATCHES
    return next((each.sized(1)[:1] for each in inputs if each.shape), (1,))


def _signature(model: Any, given: Any) -> tuple[Any, tuple[Input, ...]]:
    """The nest in which a model takes its inputs, and each of them."""
    if isinstance(given, (list, tuple)) and len(given) == 1:
        nest = given[0]  # the one argument of call, as Keras writes it
    else:
        nest = given if given is not None else _own_inputs(model)
    specs = tree.flatten(nest)
    keys = sorted(nest) if isinstance(nest, Mapping) and len(nest) == len(specs) else []
    wished = keys or [getattr(spec, "name", None) or "input" for spec in specs]
    names = _unique(map(str, wished))
    return nest, tuple(as_input(n, spec) for n, spec in zip(names, specs, strict=True))


def _own_inputs(model: Any) -> Any:
    """The inputs of a model that knows them, or what it was first called on."""
    try:
        return model.input
    except AttributeError:
        pass
    if model._build_shapes_dict is None:
        raise ExportError(
            f"{model.name!r} was never called: call it on a batch first, or give "
            "input_signature=[keras.Input(...)]"
        )

    def spec(shapes: Any, dtypes: Any) -> Any:
        if isinstance(shapes, Mapping):
            return {key: spec(shape, dtypes[key]) for key, shape in shapes.items()}
        if isinstance(dtypes, (list, tuple)):
            return [spec(*pair) for pair in zip(shapes, dtypes, strict=True)]
        return KerasTensor((None, *shapes[1:]), dtypes, name="input")

    return spec(model._build_shapes_dict, model._build_dtypes_dict)


def _output_names(model: Any, result: Any, inputs: Sequence[Input]) -> tuple[str, ...]:
    """The keys of a dict of outputs, the names of the layers they come from, or numbers."""
    leaves = tree.flatten(result)
    if isinstance(result, Mapping) and len(result) == len(leaves):
        wished = sorted(map(str, result))
    else:
        try:
            wished = list(model.output_names)
        except AttributeError:
            wished = ["output"] * len(leaves)
    taken = [each.name for each in inputs]
    return tuple(_unique([*taken, *wished])[len(taken) :])


def _unique(names: Iterable[str]) -> list[str]:
    """The names, with a number behind those that stand there already."""
    made: list[str] = []
    for name in names:
        count, free = 0, name
        while free in made:
            count += 1
            free = f"{name}_{count}"
        made.append(free)
    return made
