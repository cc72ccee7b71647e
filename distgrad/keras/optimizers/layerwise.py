"""Optimizers that look at a variable as a whole: its norm, its rows and columns, its directions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.keras.optimizers.base import Optimizer
from distgrad.keras.optimizers.rates import Rate
from distgrad.ops.arithmetic import square
from distgrad.ops.clipping import maximum
from distgrad.ops.linalg import matmul, matrix_transpose
from distgrad.ops.logic import logical_and, select
from distgrad.ops.powers import sqrt
from distgrad.ops.reduce import reduce_mean, reduce_sum
from distgrad.ops.shape import expand_dims


def _norm(x: Any) -> Tensor:
    return sqrt(reduce_sum(square(x)))


def _moved(average: Variable, towards: Any, beta: float) -> Tensor:
    """A running average brought up to date: its new value."""
    average.assign_add((towards - average) * (1 - beta))
    return average._read()


class Lamb(Optimizer):
    """Adam whose update has the norm of the variable, for large batches (You et al., 2020)."""

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        names = ("momentum", "velocity")
        self._momenta, self._velocities = self.add_optimizer_variables(variables, names)

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        position, step = self._positions[id(variable)], int(self.iterations) + 1
        m = _moved(self._momenta[position], gradient, self.beta_1)
        v = _moved(self._velocities[position], square(gradient), self.beta_2)
        size = sqrt(v / (1 - self.beta_2**step)) + self.epsilon
        update = m / (1 - self.beta_1**step) / size
        norm, own = _norm(update), _norm(variable)
        ratio = select(logical_and(norm > 0, own > 0), own / maximum(norm, 1e-37), 1.0)
        variable.assign_sub(ratio * learning_rate * update)


class Adafactor(Optimizer):
    """Squares of gradients kept as rows and columns, and steps relative to the variable's size.

    With ``relative_step`` the learning rate falls as ``1 / sqrt(step)``, where it is a number.
    Source: Shazeer and Stern, 2018.
    """

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_2_decay: float = -0.8,
        epsilon_1: float = 1e-30,
        epsilon_2: float = 1e-3,
        clip_threshold: float = 1.0,
        relative_step: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.beta_2_decay = beta_2_decay
        self.epsilon_1, self.epsilon_2 = epsilon_1, epsilon_2
        self.clip_threshold = clip_threshold
        self.relative_step = relative_step

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        self._factors: list[tuple[Variable, Variable]] = []
        self._squares: list[Variable] = []
        for variable in variables:
            shape = tuple(variable.shape)
            whole = len(shape) < 2  # Keras keeps numbers there, which nobody uses
            rows, columns = ((), ()) if whole else (shape[:-1], (*shape[:-2], shape[-1]))
            factors = [
                self.add_variable(size, dtype=variable.dtype, name=name)
                for size, name in ((rows, "rows"), (columns, "columns"))
            ]
            self._factors.append((factors[0], factors[1]))
            self._squares.append(self.add_variable_from_reference(variable, "velocity"))

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        position, step = self._positions[id(variable)], int(self.iterations) + 1
        rate = min(float(learning_rate), step**-0.5)
        beta = 1 - step**self.beta_2_decay
        squares, v, factors = (
            square(gradient) + self.epsilon_1,
            self._squares[position],
            self._factors[position],
        )
        if len(variable.shape) < 2:
            update = gradient / sqrt(_moved(v, squares, beta))
        else:
            rows = _moved(factors[0], reduce_mean(squares, -1), beta)
            columns = _moved(factors[1], reduce_mean(squares, -2), beta)
            share = rows / reduce_mean(rows, -1, True)
            v.assign(expand_dims(share, -1) * expand_dims(columns, -2))
            # Not by the root of v: that is 0 where a row and a column without a gradient meet.
            update = gradient / expand_dims(sqrt(share), -1) / expand_dims(sqrt(columns), -2)
        update = update / maximum(_root_mean_square(update) / self.clip_threshold, 1.0)
        scale = maximum(_root_mean_square(variable), self.epsilon_2) * rate
        variable.assign_sub(scale * update)


def _root_mean_square(x: Any) -> Tensor:
    return sqrt(reduce_mean(square(x)))


class Muon(Optimizer):
    """Momentum made orthogonal, for matrices; Adam for all else (Jordan et al., 2024).

    Variables that do not have rank 2, embeddings (``exclude_embeddings``), and those whose path one
    of the regular expressions ``exclude_layers`` finds, are updated by Adam at ``adam_lr_ratio``
    times the learning rate. ``rms_rate`` scales the steps of matrices (Liu et al., 2025); None
    leaves them as they are.
    """

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        adam_beta_1: float = 0.9,
        adam_beta_2: float = 0.999,
        adam_weight_decay: float | None = 0.004,
        epsilon: float = 1e-7,
        weight_decay: float | None = 0.004,
        *,
        exclude_layers: Sequence[str] | None = None,
        exclude_embeddings: bool = True,
        muon_a: float = 3.4445,
        muon_b: float = -4.775,
        muon_c: float = 2.0315,
        adam_lr_ratio: float = 1,
        momentum: float = 0.95,
        ns_steps: int = 5,
        nesterov: bool = True,
        rms_rate: float | None = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **kwargs)
        self.adam_beta_1, self.adam_beta_2 = adam_beta_1, adam_beta_2
        self.adam_weight_decay = adam_weight_decay
        self.epsilon = epsilon
        self.exclude_layers = list(exclude_layers or [])
        self.exclude_embeddings = exclude_embeddings
        self.muon_a, self.muon_b, self.muon_c = muon_a, muon_b, muon_c
        self.adam_lr_ratio = adam_lr_ratio
        self.momentum = momentum
        self.ns_steps = ns_steps
        self.nesterov = nesterov
        self.rms_rate = rms_rate

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        self._momenta: list[Variable] = []
        self._velocities: list[Variable | None] = []
        for variable in variables:
            self._momenta.append(self.add_variable_from_reference(variable, "momentum"))
            velocity = None
            if self._takes_adam(variable):
                velocity = self.add_variable_from_reference(variable, "velocity")
            self._velocities.append(velocity)

    def _takes_adam(self, variable: Variable) -> bool:
        path = getattr(variable, "path", variable.name)
        if len(variable.shape) != 2 or (self.exclude_embeddings and "embedding" in path.lower()):
            return True
        return any(re.search(pattern, path) for pattern in self.exclude_layers)

    def decay_of(self, variable: Variable) -> float | None:
        adam = self._takes_adam(variable)
        return self.adam_weight_decay if adam else self.weight_decay

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        position = self._positions[id(variable)]
        momentum, velocity = self._momenta[position], self._velocities[position]
        if velocity is not None:
            step = int(self.iterations) + 1
            m = _moved(momentum, gradient, self.adam_beta_1)
            v = _moved(velocity, square(gradient), self.adam_beta_2)
            right = (1 - self.adam_beta_2**step) ** 0.5 / (1 - self.adam_beta_1**step)
            rate = learning_rate * (self.adam_lr_ratio * right)
            variable.assign_sub(rate * m / (sqrt(v) + self.epsilon))
            return
        momentum.assign(momentum * self.momentum + gradient)
        direction = gradient + self.momentum * momentum if self.nesterov else momentum._read()
        update = learning_rate * self._orthogonal(direction)
        if self.rms_rate is not None:
            update = update * (max(variable.shape) ** 0.5 * self.rms_rate)
        variable.assign_sub(update)

    def _orthogonal(self, x: Tensor) -> Tensor:
        """Near to the closest orthogonal matrix, by steps of Newton and Schulz."""
        tall = x.shape[0] > x.shape[1]
        x = matrix_transpose(x) if tall else x
        x = x / (_norm(x) + 1e-7)
        for _ in range(self.ns_steps):
            gram = matmul(x, matrix_transpose(x))
            x = self.muon_a * x + matmul(self.muon_b * gram + matmul(self.muon_c * gram, gram), x)
        return matrix_transpose(x) if tall else x


class ScheduleFreeAdamW(Optimizer):
    """Adam on an average of all its points, which needs no schedule (Defazio et al., 2024).

    ``warmup_steps`` lets the learning rate grow over the first steps.
    """

    def __init__(
        self,
        learning_rate: Rate = 0.0025,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        warmup_steps: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.warmup_steps = warmup_steps

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        names = ("momentum", "velocity")
        self._points, self._velocities = self.add_optimizer_variables(variables, names)
        for point, variable in zip(self._points, variables, strict=True):
            point.assign(variable)

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        position, step = self._positions[id(variable)], int(self.iterations) + 1
        point, before = self._points[position], self._points[position]._read()
        warm = min(step / self.warmup_steps, 1.0) if self.warmup_steps > 0 else 1.0
        v = _moved(self._velocities[position], square(gradient), self.beta_2)
        size = sqrt(v / (1 - self.beta_2**step)) + self.epsilon
        point.assign_sub(learning_rate * warm * gradient / size)
        average = (variable - (1 - self.beta_1) * before) / self.beta_1
        average = (1 - 1 / step) * average + (1 / step) * point
        variable.assign((1 - self.beta_1) * point + self.beta_1 * average)
