"""Moving averages of what an optimizer updates."""

from __future__ import annotations

from collections.abc import Sequence

from distgrad.core.variable import Variable
from distgrad.ops import optim


class Averaging:
    """The part of an optimizer that knows of moving averages."""

    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    slots: dict[str, list[Variable]]
    _known: list[Variable]
    _positions: dict[int, int]

    def _average(self, step: int) -> None:
        momentum = self.ema_momentum if step > 1 else 0.0
        for variable, average in zip(self._known, self.slots["average"], strict=True):
            average._recall_loans()
            value = average._buffer
            optim.average_update.into((value,), value, variable._buffer, momentum=momentum)
        if self.ema_overwrite_frequency and step % self.ema_overwrite_frequency == 0:
            self.finalize_variable_values(self._known)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """Puts the moving averages in the place of the variables, where ``use_ema`` is set."""
        if self.use_ema and self.slots:
            for variable in var_list:
                average = self.slots["average"][self._positions[id(variable)]]
                variable._store(average._buffer)
