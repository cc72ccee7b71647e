"""What a model runs beside the built-in training step, captured: to be evaluated, to predict, and
steps of a user's own. (The built-in step is a program of its own kind: `training.programs`.)"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from distgrad.compile.function import function
from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast
from distgrad.ops.shape import concat, reshape
from distgrad.training.feeding import as_tensors
from distgrad.training.programs import Jit
from distgrad.training.reduction import Compute, ShardResult
from distgrad.training.state import shard, share


class Captured:
    """``step``, of nests of arrays, by a program for each of their shapes; eager where it has none.

    Other ``settings()``, plain values by name that the step looks at, have programs of their own.
    ``jit`` is that of training steps: "off" leaves all eager. Arrays may be `Sent`; the step gets
    tensors. Programs are made for 8 shapes, or for ``many_shapes`` (64).
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
            return step(*as_tensors(args))

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


class Packed(NamedTuple):
    """A `ShardResult` as one tensor of float64, which holds every float32: it is copied once."""

    numbers: Tensor  # the loss, what its mean is over, and the sums

    @staticmethod
    def of(loss: Any, sums: Any, over: Any) -> Packed:
        parts = [reshape(cast(part, "float64"), (-1,)) for part in (loss, over, sums)]
        return Packed(concat(parts, 0))

    @staticmethod
    def read(numbers: np.ndarray) -> ShardResult:
        """The result on the host, of numbers that were brought there."""
        return ShardResult(numbers[0], numbers[2:], numbers[1])


class Forward:
    """A `Compute` for evaluation: that of a model, captured; ``packed`` where that is asked for."""

    def __init__(
        self,
        compute: Compute,
        jit: Jit,
        settings: Callable[[], dict[str, Any]] = dict,
        *,
        packed: bool = False,
    ) -> None:
        self._compute = compute
        self._kind: Any = Packed if packed else ShardResult
        self.run = Captured(self._numbers, jit, settings, many_shapes=True)

    def __call__(self, arrays: tuple, training: bool = False) -> ShardResult | Packed:
        found: ShardResult | Packed = self._kind(*self.run(arrays, share()))
        return found

    def _numbers(self, arrays: tuple, part: float) -> tuple[Any, ...]:
        with shard(part):  # a program is made for it
            result = self._compute(arrays, False)
        numbers = result.loss, as_tensor(result.sums), as_tensor(result.over)
        return tuple(Packed.of(*numbers)) if self._kind is Packed else numbers
