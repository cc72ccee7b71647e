"""Passes without gradients, captured: what evaluates a model, and what it is asked by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distgrad.compile.function import function
from distgrad.core.dispatch import as_tensor
from distgrad.training.programs import Jit
from distgrad.training.reduction import Compute, ShardResult
from distgrad.training.state import shard, share


def captured(
    step: Callable[..., Any], jit: Jit, *, many_shapes: bool = False
) -> Callable[..., Any]:
    """``step``, of nests of arrays, by a program for each of their shapes; eager where it has none.

    ``jit`` is that of training steps: "off" leaves it eager. Programs are made for 8 shapes, or
    for ``many_shapes`` (64).
    """
    if jit == "off":
        return step
    if jit == "numpy":
        return function(step, reduce_retracing=many_shapes)
    return function(step, jit_compile="auto", reduce_retracing=many_shapes)


class Forward:
    """A `Compute` for evaluation: that of a model, captured."""

    def __init__(self, compute: Compute, jit: Jit) -> None:
        self._compute = compute
        self._run = captured(self._numbers, jit, many_shapes=True)

    @property
    def executors(self) -> list[Any]:
        """Those of the programs that there are."""
        return getattr(self._run, "executors", [])

    def __call__(self, arrays: tuple, training: bool = False) -> ShardResult:
        return ShardResult(*self._run(arrays, share()))

    def _numbers(self, arrays: tuple, part: float) -> tuple[Any, Any, Any]:
        with shard(part):  # a program is made for it
            result = self._compute(arrays, False)
        return result.loss, as_tensor(result.sums), as_tensor(result.over)
