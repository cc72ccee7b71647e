"""StatelessScope: a block in which variables have given values, and keep none that they get."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.core.undone import undone
from distgrad.core.variable import Variable
from distgrad.keras.layers.calling import Losses
from distgrad.keras.layers.weight import Weight
from distgrad.ops.casting import cast, identity


class StatelessScope(undone):
    """Context in which variables have the values of ``state_mapping``, pairs of both.

    A tape follows the values of layers' weights. After it variables are as they were before;
    ``get_current_value(variable)`` is the value that one had at the end, None where it had none of
    its own. With ``collect_losses``, ``losses`` are those that layers add. ``initialize_variables``
    changes nothing. Raises ValueError for a pair with no variable, or a value of another shape.
    """

    def __init__(
        self,
        state_mapping: Iterable[tuple[Any, Any]] | None = None,
        collect_losses: bool = False,
        initialize_variables: bool = True,
    ) -> None:
        super().__init__()
        self.collect_losses = collect_losses
        self.losses: list[Any] = []
        self._given: list[tuple[Variable, Tensor]] = []
        self._after: dict[int, Tensor] | None = None
        for variable, value in state_mapping or ():
            if not isinstance(variable, Variable):
                raise ValueError(
                    "Invalid reference variable in StatelessScope: all keys in argument `mapping` "
                    f"must be Variable instances. Received instead: {variable}"
                )
            tensor = cast(as_tensor(value), variable.dtype)
            if tensor._data.shape != variable._buffer.shape:
                raise ValueError(
                    "Invalid variable value in StatelessScope: all values in argument `mapping` "
                    "must be tensors with a shape that matches the corresponding variable shape. "
                    f"For variable {variable}, received a value of shape {tuple(tensor.shape)}."
                )
            self._given.append((variable, tensor))

    def __enter__(self) -> StatelessScope:
        super().__enter__()
        with recording.paused():
            for variable, value in self._given:
                variable.assign(value)
        for variable, value in self._given:
            if isinstance(variable, Weight):
                variable.stand_in = value
        if self.collect_losses:
            Losses.listeners.append(self.add_loss)
        return self

    def __exit__(self, *exc: object) -> None:
        self._after = {id(v): self._now(v) for v in self.written}
        for variable, _ in self._given:
            if isinstance(variable, Weight):
                variable.stand_in = None
        if self.collect_losses:
            Losses.listeners.remove(self.add_loss)
        super().__exit__(*exc)

    def _note(self, variable: Variable) -> None:
        super()._note(variable)
        if isinstance(variable, Weight):
            variable.stand_in = None  # the value that it gets now is what is read from here on

    def add_loss(self, loss: Any) -> None:
        """Adds to ``losses``."""
        self.losses.append(loss)

    def add_update(self, update: tuple[Variable, Any]) -> None:
        """Gives a variable another value: a pair of both."""
        variable, value = update
        variable.assign(value)

    def get_current_value(self, variable: Variable) -> Tensor | None:
        """The value that a variable has in the block, or had at its end; None if it has none."""
        if self._after is not None:
            return self._after.get(id(variable))
        return self._now(variable) if id(variable) in self.before else None

    def _now(self, variable: Variable) -> Tensor:
        given = getattr(variable, "stand_in", None)
        with recording.paused():
            return identity(Variable._read(variable)) if given is None else given
