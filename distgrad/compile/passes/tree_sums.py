"""Gradients that are sums over samples, as the sums over shards that they are a part of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

import distgrad.ops.shape
import distgrad.ops.tree_sums  # noqa: F401  their primitives
from distgrad.compile.passes.fusion import reduction
from distgrad.compile.program import Apply, Instruction, Program, Value
from distgrad.core.primitive import registry

SUMS = ("product_over_shards", "sum_over_shards", "rows_over_shards")


def sum_over_one_shard(program: Program, positions: Sequence[int], least: int = 1) -> Program:
    """The program with products over samples, sums of rows, and rows added to zeros at their
    places, as those over a single shard.

    Only float32 outputs at ``positions`` that nothing else uses are made so: then the kernel that
    adds up several shards gives the bits of one. A sum of products, one for each time step, is one
    product over the samples of them all; ``least`` says how many terms it must have.
    """
    uses = program.uses()
    makers = {out: i for i in program.instructions for out in i.outputs}
    instead: dict[Instruction, list[Apply]] = {}
    for value in {program.outputs[p]: None for p in positions}:
        apply = makers.get(value)
        if not isinstance(apply, Apply) or uses[value] != 1:
            continue
        adds: list[Apply] = []
        terms = _terms(apply, makers, uses, adds)
        if len(terms) < least or not all(map(_plain, terms)):
            continue
        if len(terms) == 1 or {term.name for term in terms} == {"dot"}:
            instead |= {i: [] for i in (*adds, *terms)}
            instead[apply] = _over_samples(terms, apply)
    made: list[Instruction] = []
    for instruction in program.instructions:
        made += instead.get(instruction, [instruction])
    return program.with_(made)


def _terms(
    apply: Apply, makers: dict[Value, Instruction], uses: dict[Value, int], adds: list[Apply]
) -> list[Apply]:
    """What is added up to a value, in order, where that is of no other use; notes the ``adds``."""
    terms, left = [], [apply]
    while left:
        apply = left.pop()
        given = [makers.get(v) if type(v) is Value and uses[v] == 1 else None for v in apply.inputs]
        parts = [i for i in given if isinstance(i, Apply) and i.outputs[0].shape == _shape(apply)]
        if apply.name == "add" and len(parts) == 2:
            adds.append(apply)
            left += reversed(parts)
        else:
            terms.append(apply)
    return terms


def _shape(apply: Apply) -> tuple[int, ...]:
    return apply.outputs[0].shape


def _plain(apply: Apply) -> bool:
    """Whether it is such a sum."""
    if apply.name == "take_grad":
        g, indices = apply.inputs
        there = type(g) is Value and type(indices) is Value and g.nbytes and indices.nbytes
        return bool(there) and g.dtype == np.float32 and not apply.params["axis"]
    values = (*apply.inputs, *apply.outputs)
    if any(type(v) is not Value or v.dtype != np.float32 or not v.nbytes for v in values):
        return False
    if apply.name == "dot":
        flags = apply.params["transpose_a"], apply.params["transpose_b"]
        return flags == (True, False) and all(len(v.shape) == 2 for v in values)
    reduced = reduction(apply)
    column = reduced is not None and reduced.kind == "column" and reduced.operation == "sum"
    return column and len(apply.outputs[0].shape) == 1


def _over_samples(terms: Sequence[Apply], last: Apply) -> list[Apply]:
    """One sum over the samples of all terms, that gives what the last instruction did."""
    made: list[Apply] = []

    def apply(name: str, inputs: Sequence[Value], size: tuple[int, ...], **params: Any) -> Value:
        out = Value(size, inputs[0].dtype)
        primitive = registry[name]
        line = last.line
        made.append(Apply(tuple(inputs), (out,), primitive=primitive, params=params, line=line))
        return out

    if terms[0].name == "take_grad":
        g, indices = last.inputs
        count = prod(indices.shape)
        rows = (1, count, prod(g.shape) // count)
        given = [
            apply("reshape_to", [g], rows, shape=rows),
            apply("reshape_to", [indices], (1, count), shape=(1, count)),
        ]
        params = {"shape": last.params["shape"], "merges": (0,)}
        whole = replace(last, inputs=tuple(given), primitive=registry[SUMS[2]], params=params)
        return [*made, whole]
    given = []
    for values in zip(*(term.inputs for term in terms), strict=True):
        value = values[0]
        if len(values) > 1:
            rows = sum(v.shape[0] for v in values)
            value = apply("join", values, (rows, value.shape[1]), axis=0)
        columns = value.shape[-1] if terms[0].name == "dot" else last.outputs[0].shape[0]
        shape = (1, value.nbytes // 4 // columns, columns)
        given.append(apply("reshape_to", [value], shape, shape=shape))
    primitive = registry[SUMS[0] if terms[0].name == "dot" else SUMS[1]]
    return [
        *made,
        replace(last, inputs=tuple(given), primitive=primitive, params={"merges": (0,)}),
    ]
