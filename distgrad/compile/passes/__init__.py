"""Passes: each takes a program and gives a better one that computes the same bits."""

from __future__ import annotations

from distgrad.compile.passes.attention import attentive
from distgrad.compile.passes.common import share_common
from distgrad.compile.passes.constants import fold_constants
from distgrad.compile.passes.dead import drop_dead
from distgrad.compile.passes.expand import expand
from distgrad.compile.passes.fusion import Fused, fuse
from distgrad.compile.passes.narrow import unrounded, widened_late
from distgrad.compile.passes.recompute import recompute
from distgrad.compile.passes.rectified import rectified
from distgrad.compile.passes.transposes import fold_transposes
from distgrad.compile.program import Program

__all__ = [
    "Fused",
    "attentive",
    "drop_dead",
    "expand",
    "fold_constants",
    "fold_transposes",
    "fuse",
    "recompute",
    "rectified",
    "share_common",
    "simplify",
    "unrounded",
    "widened_late",
]


def simplify(program: Program) -> Program:
    """All passes that every executor wants; fusion is up to each of them."""
    program = drop_dead(program)
    program = fold_constants(program)
    program = share_common(program)
    program = fold_transposes(program)
    return drop_dead(program).verify()
