"""State: a variable of an optimizer, under the names that Keras gives it."""

from __future__ import annotations

import re
from typing import Any

from distgrad.core.variable import Variable as CoreVariable
from distgrad.keras.variable import Variable


class State(Variable):
    """A variable that an optimizer keeps: ``name`` says of which variable it is, and what.

    ``path`` has the optimizer's name before that, as in "adam/dense_kernel_momentum".
    """

    def __init__(
        self,
        value: Any,
        kind: str,
        optimizer: str,
        of: CoreVariable | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(value, trainable=False, name=kind, dtype=dtype)
        whose = "" if of is None else re.sub("[/:]", "_", getattr(of, "path", of.name)) + "_"
        self._full_name = whose + kind
        self.path = f"{optimizer}/{self._full_name}"

    @property
    def name(self) -> str:
        return self._full_name
