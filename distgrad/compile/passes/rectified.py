"""Max pooling after relu: from its input to its output in one go, which keeps places, not values.

The gradient of relu and that of the pooling need no more than where in each window its largest
element stands, if that is above 0. What relu makes, the largest array of many a network, is then
neither written nor read again. Reshapes in between, as several shards at once have them, are looked
through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.compile.program import Apply, Instruction, Program, Value
from distgrad.core.primitive import registry


def rectified(program: Program, takes: Callable[[Any, np.dtype, Any], bool]) -> Program:
    """The program with such chains replaced; ``takes(shape, dtype, geometry)`` says which."""
    chains = _Chains(program)
    replaced: dict[Instruction, list[Instruction]] = {}
    for pooling in program.instructions:
        if not isinstance(pooling, Apply) or pooling.name != "max_windows":
            continue
        (x,) = pooling.inputs
        if type(x) is Value and takes(x.shape, x.dtype, pooling.params["geometry"]):
            replaced.update(chains.replaced(pooling))
    if not replaced:
        return program
    made = [m for i in program.instructions for m in replaced.get(i, [i])]
    return program.with_(made).verify()


class _Chains:
    def __init__(self, program: Program) -> None:
        self._made_by: dict[Value, Instruction] = {}
        self._users: dict[Value, list[Instruction]] = {}
        for instruction in program.instructions:
            self._made_by.update(dict.fromkeys(instruction.outputs, instruction))
            for value in set(instruction.values):
                self._users.setdefault(self._root(value), []).append(instruction)
        self._kept = {self._root(value) for value in program.outputs}

    def _root(self, value: Value) -> Value:
        """What a value is another shape of."""
        maker = self._made_by.get(value)
        while maker is not None and _named(maker, "reshape_to"):
            (value,) = maker.inputs
            maker = self._made_by.get(value)
        return value

    def _uses(self, value: Value) -> list[Instruction] | None:
        """Who uses a value in any shape; None where it must be there in the end."""
        root = self._root(value)
        users = [u for u in self._users.get(root, []) if not _named(u, "reshape_to")]
        return None if root in self._kept else users

    def _maker(self, value: Value, name: str) -> Apply | None:
        maker = self._made_by.get(self._root(value))
        return maker if maker is not None and _named(maker, name) else None  # type: ignore[return-value]

    def replaced(self, pooling: Apply) -> dict[Instruction, list[Instruction]]:
        """What the instructions of a chain become; nothing where somebody else looks into it."""
        (x,), (y,) = pooling.inputs, pooling.outputs
        relu = self._maker(x, "relu")
        users = self._uses(x)
        if relu is None or users is None:
            return {}
        others = [u for u in users if u is not pooling]
        if others and not self._gradients(others, x, pooling):
            return {}
        gone: list[Instruction] = [relu]
        given, bias = self._biased(relu, gone)
        place = Value(y.shape, np.dtype(np.int8))
        shaped = _reshaped(given, x.shape, pooling.line)
        made: dict[Instruction, list[Instruction]] = {
            pooling: [
                *shaped,
                Apply(
                    (shaped[0].outputs[0] if shaped else given, bias),
                    (y, place),
                    primitive=registry["rectified_windows"],
                    params=pooling.params,
                    line=pooling.line,
                ),
            ]
        }
        for instruction in others:
            if _named(instruction, "max_windows_grad"):
                gone.append(instruction)
                (dy, _) = instruction.inputs
                continue
            (out,) = instruction.outputs
            dx = out if out.shape == x.shape else Value(x.shape, x.dtype)
            gradient = Apply(
                (dy, place),
                (dx,),
                primitive=registry["rectified_windows_grad"],
                params={"shape": x.shape, "geometry": pooling.params["geometry"]},
                line=instruction.line,
            )
            made[instruction] = [gradient]
            if dx is not out:
                made[instruction] += _reshaped(dx, out.shape, instruction.line, out)
        # Shapes of what is gone are gone as well.
        dead = {self._root(v) for i in gone for v in i.outputs}
        for instruction in self._made_by.values():
            if _named(instruction, "reshape_to") and self._root(instruction.outputs[0]) in dead:
                made[instruction] = []
        return {**made, **{i: [] for i in gone}}

    def _gradients(self, others: list[Instruction], x: Value, pooling: Apply) -> bool:
        """Whether they are the gradient of the pooling and that of relu, which alone uses it."""
        if [getattr(u, "name", "") for u in others] != ["max_windows_grad", "relu_grad"]:
            return False
        first, second = others
        if first.params != pooling.params or first.inputs[1].shape != x.shape:  # type: ignore[attr-defined]
            return False
        if self._root(first.inputs[0]) is self._root(x):
            return False
        through = self._uses(first.outputs[0])
        is_out = self._root(second.inputs[1]) is self._root(x)
        return through == [second] and is_out and self._root(second.inputs[0]) is first.outputs[0]

    def _biased(self, relu: Apply, gone: list[Instruction]) -> tuple[Value, Value]:
        """What relu takes, taken apart into a value and a bias for its last axis."""
        (x,) = relu.inputs
        add = self._maker(x, "add")
        if add is not None and self._uses(x) == [relu] and _is_bias(add, x.shape):
            gone.append(add)
            given, bias = add.inputs
            return given, bias
        return x, Value(x.shape[-1:], x.dtype, np.zeros(x.shape[-1:], x.dtype))


def _is_bias(add: Apply, shape: tuple[int, ...]) -> bool:
    """Whether an addition is that of one number for each channel."""
    shapes = [v.shape for v in add.values]
    return shapes == [shape, shape[-1:]]


def _named(instruction: Instruction, name: str) -> bool:
    return isinstance(instruction, Apply) and instruction.name == name


def _reshaped(value: Value, shape: Any, line: str, out: Value | None = None) -> list[Apply]:
    """A reshape where one is needed, or one that makes ``out``."""
    if out is None and value.shape == shape:
        return []
    made = Value(shape, value.dtype) if out is None else out
    params = {"shape": shape}
    return [Apply((value,), (made,), primitive=registry["reshape_to"], params=params, line=line)]
