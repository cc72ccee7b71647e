"""Constant folding: what depends on nothing is computed once, by the kernels themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.compile.passes.rewrite import Substitution
from distgrad.compile.program import Apply, Program, Value
from distgrad.compile.steps import repeated
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import Primitive

_LARGEST = 1 << 20  # bytes: a larger constant is better made anew than kept
_SHAPE_ONLY = {"fill_like"}  # primitives that look at their input's shape and dtype alone
_SAME = {"identity", "stop_gradient"}  # their output is their input


def fold_constants(program: Program) -> Program:
    """The program with operations on constants done, and copies without a purpose gone."""
    instead = Substitution()
    kept = []
    for original in program.instructions:
        instruction = instead.in_(original)
        if isinstance(instruction, Apply) and not instruction.effect:
            aliases = _aliases(instruction)
            if aliases is not None:
                for old, new in zip(instruction.outputs, aliases, strict=True):
                    instead.put(old, new)
                continue
            if _foldable(instruction):
                for old, array in zip(instruction.outputs, _run(instruction), strict=True):
                    instead.put(old, Value(array.shape, array.dtype, array))
                continue
        kept.append(instruction)
    return instead.finish(program, kept)


def _aliases(instruction: Apply) -> tuple[Value, ...] | None:
    """The inputs that the outputs are, where the primitive only passes them on."""
    name, inputs = instruction.name, instruction.inputs
    if name in _SAME and type(inputs[0]) is Value:
        return inputs
    if name == "custom_call":
        return inputs[: len(instruction.outputs)]
    return None


def _foldable(instruction: Apply) -> bool:
    if sum(v.nbytes for v in instruction.outputs) > _LARGEST:
        return False
    if instruction.name in _SHAPE_ONLY:
        return True
    return all(v.constant for v in instruction.values)


def _run(instruction: Apply) -> list[np.ndarray]:
    primitive: Primitive = instruction.primitive
    arrays = [_array(v) if type(v) is Value else v for v in instruction.inputs]
    try:
        out = primitive.kernel(np, *arrays, **instruction.params)
    except (ValueError, TypeError, OverflowError) as error:  # it ran once, with these constants
        raise InvalidArgumentError(f"{primitive.name}: {error}") from error
    return [_owned(np.asarray(a)) for a in (out if primitive.multiple else (out,))]


def _owned(array: np.ndarray) -> np.ndarray:
    """A copy, which repeats what the array repeats: how terms lie decides bits of sums."""
    return np.broadcast_to(np.array(repeated(array)), array.shape)


def _array(value: Value) -> Any:
    if value.constant:
        return value.data
    return np.broadcast_to(np.zeros((), value.dtype), value.shape)
