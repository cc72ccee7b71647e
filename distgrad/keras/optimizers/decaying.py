"""Which variables of an optimizer decay, and how fast."""

from __future__ import annotations

import re
from collections.abc import Sequence

from distgrad.core.variable import Variable


class Decaying:
    """The part of an optimizer that knows of weight decay."""

    weight_decay: float | None
    _known: list[Variable]
    _undecayed: tuple[Sequence[Variable], str | None] = ((), None)  # variables, a pattern of names

    def decay_of(self, variable: Variable) -> float | None:
        """The weight decay of a variable that has one."""
        return self.weight_decay

    def exclude_from_weight_decay(
        self, var_list: Sequence[Variable] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Spares variables from weight decay: these, and those whose names match one of these.

        Names are regular expressions. Raises ValueError after the first update.
        """
        if self._known:
            raise ValueError("exclude_from_weight_decay must come before the first update")
        pattern = "|".join(var_names) if var_names else None
        self._undecayed = list(var_list or ()), pattern

    def _decays(self, variable: Variable) -> bool:
        spared, pattern = self._undecayed
        named = pattern is not None and re.search(pattern, variable.name) is not None
        return not named and all(variable is not other for other in spared)
