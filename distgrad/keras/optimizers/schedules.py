"""Learning rates that change with the step: functions of the number of updates done, from 0."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.core import devices
from distgrad.core.tensor import Tensor
from distgrad.keras import registry
from distgrad.keras.registry import Configured
from distgrad.keras.variable import Variable

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "deserialize",
    "serialize",
]


class LearningRateSchedule(Configured):
    """Base of all schedules, also of your own: define ``__call__(step)``."""

    _keras_module = "keras.optimizers.schedules"

    def __call__(self, step: Any) -> Any:
        """The rate at a step, or at each of an array of steps, to draw it: a float32 tensor."""
        steps = np.asarray(step, np.float64)
        rates = [self.rate(float(each)) for each in steps.flat]
        return Tensor(np.array(rates, np.float32).reshape(steps.shape))

    def rate(self, step: float) -> float:
        """The rate at a step, which optimizers ask for rather, to the last digit."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")


def _positive(key: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{key} must be positive, not {value!r}")


class ExponentialDecay(LearningRateSchedule):
    """``initial_learning_rate * decay_rate ** (step / decay_steps)``; in steps as a staircase."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        _positive("decay_steps", decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.staircase = staircase
        self.name = name

    def rate(self, step: float) -> float:
        part = step / self.decay_steps
        return self.initial_learning_rate * self.decay_rate ** (
            math.floor(part) if self.staircase else part
        )


class InverseTimeDecay(LearningRateSchedule):
    """``initial_learning_rate / (1 + decay_rate * step / decay_steps)``."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        _positive("decay_steps", decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.staircase = staircase
        self.name = name

    def rate(self, step: float) -> float:
        part = step / self.decay_steps
        part = math.floor(part) if self.staircase else part
        return self.initial_learning_rate / (1 + self.decay_rate * part)


class PiecewiseConstantDecay(LearningRateSchedule):
    """``values[i]`` up to and including ``boundaries[i]``, the last value beyond.

    Raises ValueError unless there is one value more than boundaries.
    """

    def __init__(
        self,
        boundaries: Sequence[float],
        values: Sequence[float],
        name: str = "PiecewiseConstant",
    ) -> None:
        if len(boundaries) != len(values) - 1:
            raise ValueError(
                f"boundaries must be one less than values: there are {len(boundaries)} of "
                f"{len(values)}"
            )
        self.boundaries = boundaries
        self.values = values
        self.name = name

    def rate(self, step: float) -> float:
        passed = sum(step > float(boundary) for boundary in self.boundaries)
        return float(self.values[passed])


class PolynomialDecay(LearningRateSchedule):
    """From one rate to another along ``(1 - step / decay_steps) ** power``.

    With ``cycle`` the decay is stretched to the next multiple of ``decay_steps``.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        _positive("decay_steps", decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.end_learning_rate = end_learning_rate
        self.power = power
        self.cycle = cycle
        self.name = name

    def rate(self, step: float) -> float:
        steps = self.decay_steps
        if self.cycle:
            steps *= max(1, math.ceil(step / steps))
        left = (1 - min(step, steps) / steps) ** self.power
        span = self.initial_learning_rate - self.end_learning_rate
        return span * left + self.end_learning_rate


def _cosine(part: float, alpha: float, height: float = 1.0) -> float:
    return (1 - alpha) * height * 0.5 * (1 + math.cos(math.pi * part)) + alpha


class CosineDecay(LearningRateSchedule):
    """Half a cosine down to ``alpha`` of the rate (Loshchilov and Hutter, 2017).

    With ``warmup_target`` the rate first rises to it in a line, over ``warmup_steps``.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        _positive("decay_steps", decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.alpha = alpha
        self.name = name
        self.warmup_target = warmup_target
        self.warmup_steps = warmup_steps

    def rate(self, step: float) -> float:
        top = self.initial_learning_rate
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                rise = (self.warmup_target - self.initial_learning_rate) / self.warmup_steps
                return self.initial_learning_rate + rise * step
            step, top = step - self.warmup_steps, self.warmup_target
        return top * _cosine(min(step, self.decay_steps) / self.decay_steps, self.alpha)


class CosineDecayRestarts(LearningRateSchedule):
    """Half a cosine again and again, each ``t_mul`` times as long and ``m_mul`` times as high.

    Raises ValueError for ``first_decay_steps`` that are not positive, or ``t_mul`` below 1.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: float,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        _positive("first_decay_steps", first_decay_steps)
        if not t_mul >= 1:
            raise ValueError(f"t_mul must be 1 or more, not {t_mul!r}")
        self.initial_learning_rate = initial_learning_rate
        self.first_decay_steps = first_decay_steps
        self.t_mul = t_mul
        self.m_mul = m_mul
        self.alpha = alpha
        self.name = name

    def rate(self, step: float) -> float:
        # Period by period, where Keras takes a logarithm: exact at every restart.
        left, length, restarts = step, float(self.first_decay_steps), 0.0
        if self.t_mul == 1:
            restarts, left = divmod(left, length)
        else:
            while left >= length:
                left -= length
                length *= self.t_mul
                restarts += 1
        height = self.m_mul**restarts
        return self.initial_learning_rate * _cosine(left / length, self.alpha, height)


class Scheduled:
    """A schedule, or a function of the step or of nothing, asked once for each step."""

    def __init__(self, schedule: Callable[..., Any]) -> None:
        self.schedule = schedule
        self.is_schedule = isinstance(schedule, LearningRateSchedule)
        ours = type(schedule).__call__ is LearningRateSchedule.__call__
        self.exact: Any = getattr(schedule, "rate", None) if ours else None
        kinds = [p.kind for p in inspect.signature(schedule).parameters.values()]
        self.takes_step = any(
            kind in (kind.POSITIONAL_ONLY, kind.POSITIONAL_OR_KEYWORD, kind.VAR_POSITIONAL)
            for kind in kinds
        )
        self._latest = (-1, math.nan)

    def __call__(self, step: int) -> float:
        if self.exact is not None:
            return self.exact(step)
        if self._latest[0] != step:
            given = self._variable(step) if self.is_schedule else step
            value = self.schedule(given) if self.takes_step else self.schedule()
            self._latest = (step, float(value))
        return self._latest[1]

    @staticmethod
    def _variable(step: int) -> Any:
        """As Keras gives it: its operators make floats of it where they meet some."""
        with devices.host():
            return Variable(np.int64(step), trainable=False, name="iteration")


_KNOWN = registry.by_name(
    ExponentialDecay,
    InverseTimeDecay,
    PiecewiseConstantDecay,
    PolynomialDecay,
    CosineDecay,
    CosineDecayRestarts,
)


def serialize(learning_rate_schedule: LearningRateSchedule) -> Any:
    """The config of a schedule."""
    return registry.serialize(learning_rate_schedule)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The schedule of a config. Raises ValueError for an unknown name."""
    return registry.deserialize("schedule", config, _KNOWN, custom_objects)
