"""Adam and its kin.

What depends on the step is computed in float64 from its integer, so that every rank and every
resumed run gets the same bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distgrad.core.variable import Variable
from distgrad.keras.optimizers.base import Optimizer, Rule
from distgrad.keras.optimizers.rates import Rate
from distgrad.keras.optimizers.state import State
from distgrad.ops import optim


class _Moments(Optimizer):
    """Two averages, of gradients and of what they are large by."""

    slot_names: tuple[str, ...] = ("momentum", "velocity")

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        for key, beta in (("beta_1", beta_1), ("beta_2", beta_2)):
            if not 0 <= beta < 1:
                raise ValueError(f"{key} must lie in [0, 1), not {beta!r}")
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    @property
    def _constants(self) -> dict[str, float]:
        return {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


class Adam(_Moments):
    """Adam (Kingma and Ba, 2015) as in Keras: epsilon is added to the uncorrected root.

    ``amsgrad`` divides by the largest second moment so far (Reddi et al., 2018).
    """

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **kwargs)
        self.amsgrad = amsgrad
        self.slot_names = self.wanted_slots()

    def wanted_slots(self) -> tuple[str, ...]:
        return ("momentum", "velocity", *["velocity_hat"] * bool(self.amsgrad))

    def rule(self, step: int) -> Rule:
        correction = math.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        largest = "velocity_hat" in self.slot_names
        kernel = optim.amsgrad_update if largest else optim.adam_update
        return kernel, (self.rate(step) * correction,), self._constants


class AdamW(Adam):
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter, 2019)."""

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **kwargs: Any,
    ) -> None:
        if weight_decay is None:
            raise ValueError("AdamW needs a number for weight_decay, not None: Adam goes without")
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **kwargs
        )


class Adamax(_Moments):
    """Adam with the largest recent gradient in place of the second moment."""

    slot_names = ("momentum", "norm")

    def rule(self, step: int) -> Rule:
        alpha = self.rate(step) / (1 - self.beta_1**step)
        return optim.adamax_update, (alpha,), self._constants


class Nadam(_Moments):
    """Adam with Nesterov momentum, which grows over the first steps (Dozat, 2016)."""

    _latest = 0, 1.0  # a step, and the product of its momenta and all before

    def _momentum(self, step: int) -> float:
        return self.beta_1 * (1 - 0.5 * 0.96**step)

    def _product(self, step: int) -> float:
        """The product of the momenta of steps 1 to ``step``, by as many factors in that order."""
        start, product = self._latest if self._latest[0] <= step else (0, 1.0)
        for each in range(start + 1, step + 1):
            product *= self._momentum(each)
        self._latest = (step, product)
        return product

    @property
    def variables(self) -> list[Variable]:
        """The state, and the product of the momenta, which Keras keeps and we work out."""
        if not self.built:
            return super().variables
        product = np.float32(self._product(int(self.iterations.numpy())))
        return [*super().variables, State(product, "u_product", self.name)]

    def rule(self, step: int) -> Rule:
        rate, product = self.rate(step), self._product(step)
        now, ahead = self._momentum(step), self._momentum(step + 1)
        weights = (
            rate * ahead / (1 - product * ahead),
            rate * (1 - now) / (1 - product),
            1 / (1 - self.beta_2**step),
        )
        return optim.nadam_update, weights, self._constants
