"""Gradients that are sums over samples, as the sums over shards that they are a part of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distgrad.compile.passes.fusion import reduction
from distgrad.compile.program import Apply, Instruction, Program, Value
from distgrad.core.primitive import registry
from distgrad.ops import shape, tree_sums  # noqa: F401  their primitives

SUMS = ("product_over_shards", "sum_over_shards")


def sum_over_one_shard(program: Program, positions: Sequence[int]) -> Program:
    """The program with products over samples, and sums of rows, as those over a single shard.

    Only float32 outputs at ``positions`` that nothing else uses are made so: then the kernel that
    adds up several shards gives the bits of one.
    """
    uses = program.uses()
    wanted = {program.outputs[p] for p in positions}
    made: list[Instruction] = []
    for instruction in program.instructions:
        if isinstance(instruction, Apply) and len(instruction.outputs) == 1:
            (out,) = instruction.outputs
            if out in wanted and uses[out] == 1 and _plain(instruction):
                made += _of_one(instruction)
                continue
        made.append(instruction)
    return program.with_(made)


def _plain(apply: Apply) -> bool:
    """Whether it is such a sum."""
    values = (*apply.inputs, *apply.outputs)
    if any(type(v) is not Value or v.dtype != np.float32 or not v.nbytes for v in values):
        return False
    if apply.name == "dot":
        flags = apply.params["transpose_a"], apply.params["transpose_b"]
        return flags == (True, False) and all(len(v.shape) == 2 for v in values)
    reduced = reduction(apply)
    column = reduced is not None and reduced.kind == "column" and reduced.operation == "sum"
    return column and len(apply.outputs[0].shape) == 1


def _of_one(apply: Apply) -> list[Apply]:
    width = apply.outputs[0].shape[-1]
    made, given = [], []
    for value in apply.inputs:
        columns = value.shape[-1] if apply.name == "dot" else width
        flat = Value((1, value.nbytes // 4 // columns, columns), value.dtype)
        params = {"shape": flat.shape}
        reshape = registry["reshape_to"]
        made.append(Apply((value,), (flat,), primitive=reshape, params=params, line=apply.line))
        given.append(flat)
    name = SUMS[0] if apply.name == "dot" else SUMS[1]
    params = {"merges": (0,)}
    return [*made, replace(apply, inputs=tuple(given), primitive=registry[name], params=params)]
