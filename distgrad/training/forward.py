"""What a model runs beside the built-in training step, captured: to be evaluated, to predict, and
steps of a user's own. (The built-in step is a program of its own kind: `training.programs`.)"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from distgrad.compile.function import function
from distgrad.core.dispatch import as_tensor
from distgrad.training.programs import Jit
from distgrad.training.reduction import Compute, ShardResult
from distgrad.training.state import shard, share


class Captured:
    """``step``, of nests of arrays, by a program for each of their shapes; eager where it has none.

    Other ``settings()``, plain values by name that the step looks at, have programs of their own.
    ``jit`` is that of training steps: "off" leaves all eager. Programs are made for 8 shapes, or
    for ``many_shapes`` (64).
    """

    def __init__(
        self,
        step: Callable[..., Any],
        jit: Jit,
        settings: Callable[[], dict[str, Any]] = dict,
        *,
        many_shapes: bool = False,
    ) -> None:
        @functools.wraps(step)
        def run(*args: Any, **settings: Any) -> Any:
            return step(*args)

        self._settings = settings
        self._run: Any = run
        if jit != "off":
            compiled: Any = None if jit == "numpy" else "auto"
            self._run = function(run, jit_compile=compiled, reduce_retracing=many_shapes)

    @property
    def executors(self) -> list[Any]:
        """Those of the programs that there are."""
        return getattr(self._run, "executors", [])

    def __call__(self, *args: Any) -> Any:
        return self._run(*args, **self._settings())


class Forward:
    """A `Compute` for evaluation: that of a model, captured."""

    def __init__(
        self, compute: Compute, jit: Jit, settings: Callable[[], dict[str, Any]] = dict
    ) -> None:
        self._compute = compute
        self.run = Captured(self._numbers, jit, settings, many_shapes=True)

    def __call__(self, arrays: tuple, training: bool = False) -> ShardResult:
        return ShardResult(*self.run(arrays, share()))

    def _numbers(self, arrays: tuple, part: float) -> tuple[Any, Any, Any]:
        with shard(part):  # a program is made for it
            result = self._compute(arrays, False)
        return result.loss, as_tensor(result.sums), as_tensor(result.over)
