"""Optimizers with the formulas of Keras 3, on single variables and on whole arenas alike."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.variable import Variable
from distgrad.keras.registry import lookup, snake_case
from distgrad.ops import optim


class Optimizer:
    """Base of all optimizers: names its state, and updates arrays in place.

    ``slots`` maps each kind of state to one variable per trained variable; ``iterations`` counts
    the updates. ``learning_rate`` is a number, or a callable that gives one for the step, from 0.
    """

    slot_names: tuple[str, ...] = ()

    def __init__(
        self, learning_rate: float | Callable[[int], float] = 0.001, name: str | None = None
    ) -> None:
        if not callable(learning_rate) and not float(learning_rate) >= 0:
            raise ValueError(f"learning_rate must not be negative, got {learning_rate!r}")
        self.name = name or snake_case(type(self).__name__)
        self.learning_rate = learning_rate
        self.iterations = Variable(0, dtype="int64", trainable=False, name="iterations")
        self.slots: dict[str, list[Variable]] = {}
        self._positions: dict[int, int] = {}
        self._known: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        """Makes the state for these variables, zeros; the first call decides which they are."""
        if self._known:
            if [id(v) for v in variables] != [id(v) for v in self._known]:
                raise ValueError(
                    "this optimizer already belongs to other variables; make a new one for these"
                )
            return
        self._known = list(variables)
        self._positions = {id(v): i for i, v in enumerate(self._known)}
        self.slots = {
            name: [
                Variable(np.zeros(v.shape, v.dtype.numpy_dtype), trainable=False, name=name)
                for v in self._known
            ]
            for name in self.slot_names
        }

    def rate(self, step: int) -> float:
        """The learning rate of update number ``step``, from 1."""
        rate = self.learning_rate
        return float(rate(step - 1)) if callable(rate) else float(rate)

    def update(self, value: Any, gradient: Any, slots: list[Any], step: int) -> None:
        """Updates ``value`` and its ``slots`` in place: arrays of one shape and dtype."""
        raise NotImplementedError

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Variable]]) -> None:
        """Updates each variable by its gradient; None gradients are skipped with a warning.

        Raises ValueError for no gradients at all or a variable unknown since the first call,
        InvalidArgumentError for a gradient of another shape.
        """
        pairs = list(grads_and_vars)
        if not pairs:
            raise ValueError("apply_gradients got an empty list")
        missing = [v.name for g, v in pairs if g is None]
        if len(missing) == len(pairs):
            raise ValueError(f"none of the variables has a gradient: {', '.join(missing)}")
        if missing:
            warnings.warn(f"no gradient for {', '.join(missing)}", stacklevel=2)
        for gradient, variable in pairs:
            if self._known and id(variable) not in self._positions:
                raise ValueError(f"unknown variable {variable.name}: this optimizer has others")
            if gradient is not None and tuple(gradient.shape) != tuple(variable.shape):
                raise InvalidArgumentError(
                    f"a gradient of shape {gradient.shape} for {variable.name} of shape "
                    f"{variable.shape}"
                )
        self.build(self._known or [v for _, v in pairs])
        self.iterations.assign_add(1)
        step = int(self.iterations._buffer)
        for gradient, variable in pairs:
            if gradient is not None:
                position = self._positions[id(variable)]
                state = [self.slots[name][position] for name in self.slot_names]
                for target in (variable, *state):
                    target._recall_loans()
                data = as_tensor(gradient, like=variable._buffer.dtype)._data
                self.update(variable._buffer, data, [s._buffer for s in state], step)

    apply = apply_gradients

    @property
    def variables(self) -> list[Variable]:
        return [self.iterations, *(v for slot in self.slots.values() for v in slot)]


class SGD(Optimizer):
    """Gradient descent with optional (Nesterov) momentum. Raises ValueError outside [0, 1]."""

    def __init__(
        self,
        learning_rate: float | Callable[[int], float] = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, name)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie in [0, 1], not {momentum!r}")
        self.momentum = momentum
        self.nesterov = nesterov
        if momentum:
            self.slot_names = ("momentum",)

    def update(self, value: Any, gradient: Any, slots: list[Any], step: int) -> None:
        rate = value.dtype.type(self.rate(step))
        if not self.momentum:
            optim.sgd_update.into((value,), value, gradient, rate)
            return
        optim.momentum_update.into(
            (value, *slots),
            value,
            *slots,
            gradient,
            rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
        )


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015) as in Keras: epsilon is added to the uncorrected root."""

    slot_names = ("momentum", "velocity")

    def __init__(
        self,
        learning_rate: float | Callable[[int], float] = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, name)
        for key, beta in (("beta_1", beta_1), ("beta_2", beta_2)):
            if not 0 <= beta < 1:
                raise ValueError(f"{key} must lie in [0, 1), not {beta!r}")
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def update(self, value: Any, gradient: Any, slots: list[Any], step: int) -> None:
        # In float64 from the integer step, so that every rank and every resume gets these bits.
        correction = math.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        optim.adam_update.into(
            (value, *slots),
            value,
            *slots,
            gradient,
            value.dtype.type(self.rate(step) * correction),
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
        )


_KNOWN: dict[str, Any] = {"adam": Adam, "sgd": SGD}

__all__ = ["SGD", "Adam", "Optimizer"]


def get(identifier: Any) -> Optimizer:
    """The optimizer for a name or object. Raises ValueError for an unknown name."""
    if isinstance(identifier, Optimizer):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Optimizer):
        return identifier()
    return lookup("optimizer", identifier, _KNOWN)()
