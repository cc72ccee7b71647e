"""Optimizers with a learning rate for each parameter, from the squares of its gradients."""

from __future__ import annotations

from typing import Any

from distgrad.keras.optimizers.base import Optimizer, Rule
from distgrad.keras.optimizers.rates import Rate
from distgrad.ops import optim


class RMSprop(Optimizer):
    """Divides by a running root mean square of gradients (Hinton, 2012).

    ``centered`` takes their variance in place of their square.
    """

    slots_apart = True

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.rho = rho
        self.momentum = momentum
        self.epsilon = epsilon
        self.centered = centered
        self.slot_names = (
            "velocity",
            *(("momentum",) if momentum > 0 else ()),
            *(("average_gradient",) if centered else ()),
        )

    def rule(self, step: int) -> Rule:
        constants = {
            "rho": self.rho,
            "momentum": max(self.momentum, 0.0),
            "epsilon": self.epsilon,
            "centered": self.centered,
        }
        return optim.rmsprop_update, (self.rate(step),), constants


class Adagrad(Optimizer):
    """Divides by the root of the sum of all squared gradients (Duchi et al., 2011)."""

    slot_names = ("accumulator",)

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.initial_accumulator_value = initial_accumulator_value
        self.epsilon = epsilon
        self.slot_start = {"accumulator": initial_accumulator_value}

    def rule(self, step: int) -> Rule:
        return optim.adagrad_update, (self.rate(step),), {"epsilon": self.epsilon}


class Adadelta(Optimizer):
    """Adagrad over a window, in the units of the parameter (Zeiler, 2012)."""

    slot_names = ("accumulated_grad", "accumulated_delta_var")

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        rho: float = 0.95,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.rho = rho
        self.epsilon = epsilon

    def rule(self, step: int) -> Rule:
        constants = {"rho": self.rho, "epsilon": self.epsilon}
        return optim.adadelta_update, (self.rate(step),), constants


class Ftrl(Optimizer):
    """Follow The Regularized Leader, for sparse models (McMahan et al., 2013)."""

    slot_names = ("accumulator", "linear")

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        l2_shrinkage_regularization_strength: float = 0.0,
        beta: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        if learning_rate_power > 0:
            raise ValueError(f"learning_rate_power must not be above 0: {learning_rate_power!r}")
        self.learning_rate_power = learning_rate_power
        self.initial_accumulator_value = initial_accumulator_value
        self.l1_regularization_strength = l1_regularization_strength
        self.l2_regularization_strength = l2_regularization_strength
        self.l2_shrinkage_regularization_strength = l2_shrinkage_regularization_strength
        self.beta = beta
        for key in (
            "initial_accumulator_value",
            "l1_regularization_strength",
            "l2_regularization_strength",
            "l2_shrinkage_regularization_strength",
        ):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} must not be negative, got {getattr(self, key)!r}")
        self.slot_start = {"accumulator": initial_accumulator_value}

    def rule(self, step: int) -> Rule:
        rate = self.rate(step)
        l2 = self.l2_regularization_strength + (self.beta / (2 * rate) if self.beta else 0.0)
        constants = {
            "power": self.learning_rate_power,
            "l1": self.l1_regularization_strength,
            "shrinkage": self.l2_shrinkage_regularization_strength,
        }
        return optim.ftrl_update, (rate, l2), constants
