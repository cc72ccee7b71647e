"""ONNX files: a finished graph as bytes, and what the onnx package finds wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import distgrad
from distgrad.compile.program import Value
from distgrad.core.errors import ExportError, MissingExtraError
from distgrad.export.graph import Graph
from distgrad.export.sizes import Size

# What phones, browsers and boards of some years take; newer runtimes read older files.
OPSET, IR_VERSION = 18, 10
_LARGEST = 2**31 - 1  # bytes of a protocol buffer


def package() -> Any:
    """The onnx package. Raises MissingExtraError without it."""
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError:
        raise MissingExtraError(
            "ONNX files are written with the package onnx, which is not installed: "
            "pip install 'distgrad[onnx]'"
        ) from None
    return onnx


def to_bytes(
    graph: Graph,
    name: str,
    inputs: Mapping[str, Value],
    outputs: Mapping[str, Value],
    metadata: Mapping[str, str],
) -> bytes:
    """The checked file. Raises ExportError where onnx finds it wrong, or it is beyond 2 GB."""
    onnx = package()
    helper = onnx.helper
    size = sum(array.nbytes for array in graph.constants.values())
    if size > _LARGEST:
        raise ExportError(f"the weights take {size} bytes: an ONNX file holds 2 GB at most")
    nodes = [
        helper.make_node(
            node.op,
            node.inputs,
            node.outputs,
            name=node.outputs[0],
            **{key: _attribute(helper, value) for key, value in node.attributes.items()},
        )
        for node in graph.nodes
    ]
    made = helper.make_graph(
        nodes,
        name,
        [_described(helper, key, value) for key, value in inputs.items()],
        [_described(helper, key, value) for key, value in outputs.items()],
        [
            onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), key)
            for key, array in graph.constants.items()
        ],
    )
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="distgrad",
        producer_version=distgrad.__version__,
    )
    helper.set_model_props(model, dict(metadata))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the ONNX file of {name!r} is not valid: {error}") from error
    return model.SerializeToString()


def evaluator(content: bytes) -> Any:
    """The reference evaluator of onnx: slow, and there where onnxruntime is not."""
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(package().load_from_string(content))


def version() -> str:
    """That of the onnx package."""
    return str(package().__version__)


def _attribute(helper: Any, value: Any) -> Any:
    return helper.np_dtype_to_tensor_dtype(value) if isinstance(value, np.dtype) else value


def _described(helper: Any, name: str, value: Value) -> Any:
    """Name, dtype and shape of an input or output; the batch's size by its name."""
    shape = [str(n).replace(" ", "") if isinstance(n, Size) else n for n in value.shape]
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(name, kind, shape)
