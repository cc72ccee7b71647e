"""Cheap arrays that are made again where they are needed, instead of being kept.

After fusion: an array that only other groups read, and that a few operations make of an array that
lies in memory anyway, and of smaller ones, is not stored. Those groups read what it is made of:
standardised values are made again of the mean and the scale of each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distgrad.compile.passes.fusion import Fused, reduction
from distgrad.compile.program import Apply, Instruction, Program, Value

# What a thread does while it waits for memory.
_CHEAP = {
    *("add", "subtract", "multiply", "negative", "square", "abs", "maximum", "minimum"),
    *("relu", "relu_grad", "select", "cast_float", "cast_discrete"),
}
_MOST = 8  # operations that are done again


def recompute(program: Program) -> Program:
    """The program in which groups make cheap arrays of others again; the bits are the same."""
    readers: dict[Value, list[Instruction]] = {}
    for instruction in program.instructions:
        for value in dict.fromkeys(instruction.values):
            readers.setdefault(value, []).append(instruction)
    returned = set(program.outputs)
    recipes: dict[Value, list[Apply]] = {}
    kept: list[Instruction] = []
    for instruction in program.instructions:
        if not isinstance(instruction, Fused):
            kept.append(instruction)
            continue
        group = _with_recipes(instruction, recipes)
        made = {i.outputs[0]: i for i in group.body}
        stored = dict.fromkeys(group.outputs)  # in order
        needed: dict[Value, None] = {}  # what recipes read
        for value in group.outputs:
            others = readers.get(value, [])
            alone = value not in returned and value not in needed and value.shape == group.shape
            if not (alone and all(_same_loop(other, value) for other in others)):
                continue
            found = _recipe(value, group, made, stored)
            if found is not None:
                recipes[value], leaves = found
                del stored[value]
                needed |= dict.fromkeys(leaf for leaf in leaves if leaf in made)
                stored |= needed
        kept += _pruned(group, list(stored))
    return program.with_(kept)


def _same_loop(reader: Instruction, value: Value) -> bool:
    return isinstance(reader, Fused) and reader.shape == value.shape


def _recipe(
    value: Value, group: Fused, made: dict[Value, Apply], stored: dict[Value, None]
) -> tuple[list[Apply], list[Value]] | None:
    """The operations that make a value, in order, and what they read; None if it is to be kept."""
    chosen: set[Value] = set()
    leaves: dict[Value, None] = {}
    left = [value]
    while left:
        one = left.pop()
        small = one.nbytes * 8 <= value.nbytes
        if one is not value and (one not in made or one in stored or small):
            leaves[one] = None
            continue
        instruction = made[one]
        if instruction.name not in _CHEAP or reduction(instruction) is not None:
            return None
        chosen.add(one)
        left += instruction.values
    large = sum(leaf.nbytes for leaf in leaves if leaf.nbytes * 8 > value.nbytes)
    if len(chosen) > _MOST or large > value.nbytes:
        return None
    return [i for i in group.body if i.outputs[0] in chosen], list(leaves)


def _with_recipes(group: Fused, recipes: dict[Value, list[Apply]]) -> Fused:
    """The group with what is not stored made within."""
    body: list[Apply] = []
    here: dict[Value, Value] = {}
    for value in group.inputs:
        for step in recipes.get(value, ()):
            (out,) = step.outputs
            if out not in here:
                here[out] = Value(out.shape, out.dtype)
                body.append(_with(step, here))
    return _grouped(group, [*body, *(_with(i, here, of=False) for i in group.body)], group.outputs)


def _with(step: Apply, here: dict[Value, Value], of: bool = True) -> Apply:
    inputs = tuple(here.get(v, v) if type(v) is Value else v for v in step.inputs)
    return replace(step, inputs=inputs, outputs=(here[step.outputs[0]],) if of else step.outputs)


def _pruned(group: Fused, outputs: Sequence[Value]) -> list[Fused]:
    """The group without what only an array needed that is not stored any more."""
    needed = set(outputs)
    body: list[Apply] = []
    for instruction in reversed(group.body):
        if instruction.outputs[0] in needed:
            body.append(instruction)
            needed.update(instruction.values)
    return [_grouped(group, body[::-1], outputs)] if outputs else []


def _grouped(group: Fused, body: Sequence[Apply], outputs: Sequence[Value]) -> Fused:
    made = {i.outputs[0] for i in body}
    inputs = dict.fromkeys(v for i in body for v in i.values if v not in made)
    trailing = group.trailing if any(reduction(i) is not None for i in body) else None
    return replace(
        group, body=tuple(body), inputs=tuple(inputs), outputs=tuple(outputs), trailing=trailing
    )
