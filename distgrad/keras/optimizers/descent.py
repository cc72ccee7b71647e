"""Optimizers with one learning rate for all parameters: gradient descent and Lion."""

from __future__ import annotations

from typing import Any

from distgrad.keras.optimizers.base import Optimizer, Rule
from distgrad.keras.optimizers.rates import Rate
from distgrad.ops import optim


class SGD(Optimizer):
    """Gradient descent with optional (Nesterov) momentum. Raises ValueError outside [0, 1]."""

    def __init__(
        self,
        learning_rate: Rate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie in [0, 1], not {momentum!r}")
        self.momentum = momentum
        self.nesterov = nesterov
        self.slot_names = self.wanted_slots()

    def wanted_slots(self) -> tuple[str, ...]:
        return ("momentum",) if self.momentum else ()

    def rule(self, step: int) -> Rule:
        rates = (self.rate(step),)
        if not self.slot_names:
            return optim.sgd_update, rates, {}
        constants = {"momentum": self.momentum, "nesterov": self.nesterov}
        return optim.momentum_update, rates, constants


class Lion(Optimizer):
    """Steps of one size, by the sign of an average of gradients (Chen et al., 2023)."""

    slot_names = ("momentum",)

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        if not 0 < beta_1 <= 1:
            raise ValueError(f"beta_1 must lie in (0, 1], not {beta_1!r}")
        self.beta_1, self.beta_2 = beta_1, beta_2

    def rule(self, step: int) -> Rule:
        constants = {"beta_1": self.beta_1, "beta_2": self.beta_2}
        return optim.lion_update, (self.rate(step),), constants
