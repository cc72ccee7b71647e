"""The learning rate of an optimizer: a number, a schedule, or a function of the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core import devices, recording
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.keras.optimizers import schedules
from distgrad.keras.optimizers.state import State

Rate = float | Callable[..., Any]


class Rated:
    """The part of an optimizer that knows of its learning rate."""

    name: str
    calls: Variable
    gradient_accumulation_steps: int | None
    _learning_rate: Any
    _rate_now: float | None

    @property
    def learning_rate(self) -> Any:
        """A variable; the current value as a tensor where a schedule or a function gives it."""
        rate = self._learning_rate
        if isinstance(rate, Variable):
            return rate
        return recording.slot(lambda: Tensor(np.asarray(rate(int(self.calls._buffer)), np.float32)))

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if callable(value) and not isinstance(value, (Variable, Tensor)):
            self._learning_rate = schedules.Scheduled(value)
            return
        if getattr(self._learning_rate, "is_schedule", False):
            raise TypeError(
                "this optimizer follows a learning-rate schedule, and its learning rate cannot be "
                "set; make it with a number to do so"
            )
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError(
                f"learning_rate is a number, a schedule or a function, not {value!r}"
            ) from None
        if not number >= 0:
            raise ValueError(f"learning_rate must not be negative, got {value!r}")
        if isinstance(self._learning_rate, Variable):
            self._learning_rate.assign(number)
        else:
            with devices.host():
                self._learning_rate = State(np.float64(number), "learning_rate", self.name)

    def rate(self, step: int) -> float:
        """The learning rate of update number ``step``, from 1; schedules go by calls."""
        rate = self._learning_rate
        if self._rate_now is not None:
            return self._rate_now
        if isinstance(rate, Variable):
            return float(rate._buffer)
        return rate(step * (self.gradient_accumulation_steps or 1) - 1)
