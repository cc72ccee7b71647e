"""What a model does at inference, as a program for batches of any size.

The model is called, not its layers translated one by one: the record holds primitives alone, so
that custom layers, functional graphs and subclassed models need nothing of their own.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from distgrad.compile.capture import Capture
from distgrad.compile.passes import drop_dead
from distgrad.compile.program import Apply, Call, Instruction, Program, Read, Slot, Value, Write
from distgrad.compile.traced import Fallback
from distgrad.core import dispatch, tree
from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import ExportError
from distgrad.core.shapes import TensorShape
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.export.sizes import Size, merge, name_of, wide
from distgrad.keras.layers.base import Layer

# With these the model is recorded; the export compares results at others.
BATCHES = (2, 3)
_LAYOUT = {"reshape_to", "permute", "cast_float"}  # what keeps the name of a variable
_LARGEST = 1 << 20  # bytes: constants that grow beyond are better computed by the runtime


class Input(NamedTuple):
    """One input of a model: None in its shape is the batch."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype

    def sized(self, batch: int) -> tuple[int, ...]:
        return tuple(batch if n is None else n for n in self.shape)


class Recorded(NamedTuple):
    """The program of a model, and how its constants that are variables are called."""

    program: Program
    names: dict[Value, str]
    half: bool  # whether the model itself computes in 16 bits


class _Recording(Capture):
    """A capture that notes the layer of each instruction in place of the user's line."""

    def _append(self, instruction: Instruction) -> None:
        super()._append(dataclasses.replace(instruction, line=_layer()))


def _layer() -> str:
    """The path of the layer whose call is running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is Layer.__call__.__code__:
            return frame.f_locals["self"].path
        frame = frame.f_back
    return "the model"


def record(
    call: Callable[[Any], Any], nest: Any, inputs: Sequence[Input], paths: dict[str, Variable]
) -> Recorded:
    """The program of ``call`` on tensors like ``inputs``, in a nest like ``nest``.

    Raises ExportError where it cannot be one: it looks at values, writes variables, draws random
    numbers, or depends on the batch size in more than sizes.
    """
    fixed = all(None not in each.shape for each in inputs)
    batches = (1, 2) if fixed else BATCHES
    # Without what only losses are made of, which may depend on more.
    one, other = (drop_dead(_program(call, nest, inputs, batch)) for batch in batches)
    program, names = _with_constants(merge(one, other, batches), paths)
    made = itertools.chain.from_iterable(i.outputs for i in one.instructions)
    half = any(wide(value.dtype) != value.dtype for value in made)
    return Recorded(_live(program), names, half)


def _program(call: Callable[[Any], Any], nest: Any, inputs: Sequence[Input], batch: int) -> Program:
    capture = _Recording("model", in_parts=True)
    try:
        with capture:
            arrays = [np.zeros(each.sized(batch), each.dtype) for each in inputs]
            tensors = [capture.input(dispatch.current().asarray(array)) for array in arrays]
            result = call(tree.unflatten(nest, tensors))
            leaves = tree.flatten(result)
            if capture.abandoned:
                raise ExportError("the model makes variables at each call: make them in build")
            if not all(type(leaf) is Tensor for leaf in leaves):
                raise ExportError(f"the model gives {leaves!r}: outputs have to be tensors")
            return capture.finish(result)
    except Fallback as found:
        raise ExportError(
            f"the model cannot be recorded: {found.reason}. An ONNX file has no Python in it"
        ) from None


def _with_constants(
    program: Program, paths: dict[str, Variable]
) -> tuple[Program, dict[Value, str]]:
    """Variables as constants, and what is made of constants alone computed."""
    path_of = {id(variable): path for path, variable in paths.items()}
    known: dict[Value, Value] = {}
    variables: dict[int, Value] = {}
    names: dict[Value, str] = {}
    kept: list[Instruction] = []
    for original in program.instructions:
        inputs = tuple(known.get(v, v) if type(v) is Value else v for v in original.inputs)
        instruction = dataclasses.replace(original, inputs=inputs)
        if isinstance(instruction, Read):
            variable = instruction.variable
            value = variables.get(id(variable))
            if value is None:
                array = np.asarray(variable.numpy())
                array = array.astype(wide(array.dtype))
                value = variables[id(variable)] = Value(array.shape, array.dtype, array)
                names[value] = path_of.get(id(variable), variable.name)
            known[instruction.outputs[0]] = value
        elif isinstance(instruction, Apply) and _foldable(instruction):
            arrays = [v.data if type(v) is Value else v for v in inputs]
            found = instruction.primitive.kernel(np, *arrays, **instruction.params)
            made = found if instruction.primitive.multiple else (found,)
            for value, array in zip(instruction.outputs, map(np.asarray, made), strict=True):
                known[value] = Value(array.shape, array.dtype, array)
                laid_out = names.get(inputs[0]) if instruction.name in _LAYOUT else None
                names[known[value]] = laid_out or f"{instruction.line}/{instruction.name}"
        else:
            kept.append(instruction)
    outputs = [known.get(value, value) for value in program.outputs]
    return program.with_(kept, outputs), names


def _foldable(instruction: Apply) -> bool:
    """Whether it is made of constants alone, and does not make much more of them."""
    if instruction.effect or not all(value.constant for value in instruction.values):
        return False
    shapes = [value.shape for value in instruction.outputs]
    if _is_open(instruction.params) or _is_open(shapes):
        return False
    given = sum(value.nbytes for value in instruction.values)
    return sum(value.nbytes for value in instruction.outputs) <= max(_LARGEST, given)


def _is_open(nest: Any) -> bool:
    """Whether a `Size` lies in a nest of parameters."""
    if isinstance(nest, dict):
        return any(map(_is_open, nest.values()))
    if isinstance(nest, (list, tuple)):
        return any(map(_is_open, nest))
    if isinstance(nest, slice):
        return _is_open((nest.start, nest.stop, nest.step))
    return type(nest) is Size


def _live(program: Program) -> Program:
    """The program without what makes no difference. Raises ExportError for what cannot be kept.

    Checks of values (of indices, of labels) are no part of a file.
    """
    needed = set(program.outputs)
    kept = []
    for instruction in reversed(program.instructions):
        if isinstance(instruction, Call) and not instruction.writes:
            continue
        used = not needed.isdisjoint(instruction.outputs)
        if isinstance(instruction, (Write, Call)) or (isinstance(instruction, Slot) and used):
            raise ExportError(_state(instruction))
        if used:
            kept.append(instruction)
            needed.update(instruction.values)
    return program.with_(reversed(kept))


def _state(instruction: Instruction) -> str:
    what = {
        Write: "keeps a state between calls",
        Call: f"calls {name_of(instruction)}, which is Python code,",
        Slot: "draws random numbers or reads the clock",
    }[type(instruction)]
    return (
        f"{instruction.line} {what} at inference: an ONNX file computes outputs from inputs alone"
    )


def as_input(name: str, spec: Any) -> Input:
    """An input like a KerasTensor, an InputSpec, a tensor or an array.

    Raises ExportError where another size than that of the batch, the first, is unknown.
    """
    shape, dtype = TensorShape(getattr(spec, "shape", None)), getattr(spec, "dtype", None)
    if shape.rank is None:
        raise ExportError(f"the input {name!r} has no shape: give an input_signature with one")
    sizes = tuple(None if n is None else int(n) for n in shape)
    if None in sizes[1:]:
        raise ExportError(
            f"the input {name!r} has the shape {sizes}: only the batch, the first size, can stay "
            "open in the file. Give the others in input_signature, as in "
            f"[keras.Input(batch_shape=(None, {', '.join(str(n or 16) for n in sizes[1:])}))]"
        )
    found = as_dtype("float32" if dtype is None else dtype).numpy_dtype
    return Input(name, sizes, wide(found))
