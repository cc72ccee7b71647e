"""Arrays that stay where they are from update to update: what is looked up of them once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from distgrad.core.variable import Variable

if TYPE_CHECKING:
    from distgrad.keras.optimizers.base import Optimizer, Piece


class Views:
    """A variable and its slots, and where they lie, as flat views."""

    __slots__ = ("slots", "targets", "value")

    def __init__(self, targets: list[Variable]) -> None:
        self.targets = [(target, target._buffer) for target in targets]
        self.value, *self.slots = [array.reshape(-1) for _, array in self.targets]

    def recall_loans(self) -> bool:
        """Says that they will be written; False where they lie elsewhere by now."""
        for target, array in self.targets:
            target._recall_loans()
            if target._buffer is not array:
                return False
        return True


class Planned:
    """Updates of the same arrays, bound to machine code where one call does all of them."""

    def __init__(self, optimizer: Optimizer, pieces: Sequence[Piece]) -> None:
        self._optimizer, self._pieces = optimizer, pieces
        dtypes = {value.dtype for value, _, _ in pieces}
        self._binds = len(dtypes) == 1 and not optimizer.by_variable
        self._kind: Any = None  # the kernel, and its constants
        self._run: Callable[..., None] | None = None

    def __call__(self, step: int) -> None:
        if self._binds:
            kernel, numbers, constants = self._optimizer.rule(step)
            if self._run is not None and self._kind == (kernel, constants):
                self._run(numbers)
                return
        self._optimizer.update(self._pieces, step)
        if self._binds:  # the kernel is there now
            outs = [(value, *slots) for value, _, slots in self._pieces]
            gradients = [gradient for _, gradient, _ in self._pieces]
            both = zip(outs, gradients, strict=True)
            calls = [(out, (*out, gradient, *numbers)) for out, gradient in both]
            self._kind, self._run = (kernel, constants), kernel.bound(calls, constants)
            self._binds = self._run is not None

    @property
    def bound(self) -> bool:
        """Whether one call does all of it by now."""
        return self._run is not None

    def where_finite(self, step: int, losses: Any) -> bool:
        """The same, left out by a device where a loss of its is not finite; see `Pending`.

        False where it cannot be, and has not been done.
        """
        if self._run is None or losses.losses.dtype != self._pieces[0][0].dtype:
            return False
        kernel, numbers, constants = self._optimizer.rule(step)
        if self._kind != (kernel, constants):
            return False
        self._run(numbers, losses)
        return True
