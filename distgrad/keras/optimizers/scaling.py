"""Loss scaling: gradients of half precision, kept from vanishing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.core import devices, recording
from distgrad.core.dispatch import as_tensor, backend_of
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.keras.optimizers.base import Optimizer, Piece, Rule
from distgrad.keras.optimizers.bound import Planned
from distgrad.keras.optimizers.state import State
from distgrad.ops.arithmetic import multiply

_NONE = ("clipnorm", "clipvalue", "global_clipnorm", "weight_decay", "ema_overwrite_frequency")
_OFF: dict[str, Any] = {
    **{"dynamic": True, "use_ema": False, "ema_momentum": 0.99},
    **dict.fromkeys((*_NONE, "loss_scale_factor", "gradient_accumulation_steps")),
}


class LossScaleOptimizer(Optimizer):
    """Multiplies the loss by a scale, which it finds itself, and the gradients by its inverse.

    A step whose gradients are not finite is left out, and halves the scale;
    ``dynamic_growth_steps`` good ones in a row double it. ``compile`` puts it around the optimizer
    of a model whose policy is ``mixed_float16``. Raises ValueError for a setting of other
    optimizers that is not off. Source: Micikevicius et al., 2018.
    """

    def __init__(
        self,
        inner_optimizer: Optimizer,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(inner_optimizer, Optimizer):
            raise TypeError(f"inner_optimizer must be an optimizer, not {inner_optimizer!r}")
        _check_options(kwargs)
        self.inner_optimizer = inner_optimizer
        inner_optimizer.loss_scale_factor = None  # else gradients would be divided twice
        self.initial_scale = initial_scale
        self.dynamic_growth_steps = dynamic_growth_steps
        self.name = name or "loss_scale_optimizer"
        with devices.host():  # Python asks for them at every step
            self.dynamic_scale = State(np.float32(initial_scale), "dynamic_scale", self.name)
            self.step_counter = State(0, "step_counter", self.name, dtype="int64")
            # Keras's has these two as well, and uses neither: files hold them.
            self._unused = [
                State(0, "iteration", self.name, dtype="int64"),
                State(np.float32(0), "learning_rate", self.name),
            ]

    # What the scale means for one step

    @property
    def loss_scale(self) -> float:
        return float(self.dynamic_scale._buffer)

    def scale_loss(self, loss: Any) -> Any:
        tensor = as_tensor(loss)
        dtype = tensor._data.dtype
        return tensor * recording.slot(lambda: Tensor(np.asarray(self.loss_scale, dtype)))

    @property
    def needs_whole_gradients(self) -> bool:
        return True  # whether they are finite

    def unscaled(self, finite: bool) -> bool:
        """Adapts the scale; whether the gradients are to be applied."""
        if not finite:
            self.dynamic_scale.assign(self.dynamic_scale._buffer * np.float32(0.5))
            self.step_counter.assign(0)
        elif int(self.step_counter._buffer) + 1 >= self.dynamic_growth_steps:
            self.dynamic_scale.assign(self.dynamic_scale._buffer * np.float32(2.0))
            self.step_counter.assign(0)
        else:
            self.step_counter.assign_add(1)
        return finite

    def _apply(self, tensors: Sequence[Any], variables: Sequence[Variable]) -> None:
        inverse = 1.0 / self.loss_scale
        there = [tensor._data for tensor in tensors if tensor is not None]
        if self.unscaled(all(bool(backend_of(g).xp.isfinite(g).all()) for g in there)):
            plain = [None if tensor is None else multiply(tensor, inverse) for tensor in tensors]
            self.inner_optimizer.apply_gradients(zip(plain, variables, strict=True))

    # All else is the inner optimizer's

    @property
    def applies_itself(self) -> bool:
        return self.inner_optimizer.applies_itself

    @property
    def iterations(self) -> Any:
        return self.inner_optimizer.iterations

    @property
    def calls(self) -> Variable:  # type: ignore[override]
        return self.inner_optimizer.calls

    @property
    def slots(self) -> dict[str, list[Variable]]:  # type: ignore[override]
        return self.inner_optimizer.slots

    @property
    def made(self) -> list[Variable]:  # type: ignore[override]
        return self.inner_optimizer.made

    @property
    def slot_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.inner_optimizer.slot_names

    @property
    def learning_rate(self) -> Any:
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.inner_optimizer.learning_rate = value

    @property
    def _positions(self) -> dict[int, int]:  # type: ignore[override]
        return self.inner_optimizer._positions

    @property
    def built(self) -> bool:
        return self.inner_optimizer.built

    @property
    def trained(self) -> list[Variable]:
        return self.inner_optimizer.trained

    @property
    def variables(self) -> list[Variable]:
        own = [*self._unused, self.step_counter, self.dynamic_scale]
        return [*own, *self.inner_optimizer.variables]

    @property
    def scalars(self) -> dict[str, Variable]:
        own = {"loss_scale": self.dynamic_scale, "good_steps": self.step_counter}
        return {**self.inner_optimizer.scalars, **own}

    def rate(self, step: int) -> float:
        return self.inner_optimizer.rate(step)

    def build(self, variables: Sequence[Variable]) -> None:
        self.inner_optimizer.build(variables)

    @property
    def only_updates(self) -> bool:
        return False  # it looks at the gradients first

    def begin(self, gradients: Sequence[Any]) -> tuple[int, bool]:
        return self.inner_optimizer.begin(gradients)

    def before_update(self, gradients: Sequence[Any], step: int, *again: Sequence[Any]) -> None:
        self.inner_optimizer.before_update(gradients, step, *again)

    def rule(self, step: int) -> Rule:
        return self.inner_optimizer.rule(step)

    def update(self, pieces: Iterable[Piece], step: int) -> None:
        self.inner_optimizer.update(pieces, step)

    def planned(self, pieces: Sequence[Piece]) -> Planned:
        return self.inner_optimizer.planned(pieces)

    def after_update(self, step: int) -> None:
        self.inner_optimizer.after_update(step)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self) -> dict[str, Any]:
        from distgrad.keras.registry import serialize

        return {
            "inner_optimizer": serialize(self.inner_optimizer),
            "initial_scale": self.initial_scale,
            "dynamic_growth_steps": self.dynamic_growth_steps,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: Any, custom_objects: Any = None) -> LossScaleOptimizer:
        """An optimizer with these settings, and no state."""
        from distgrad.keras.optimizers import deserialize

        inner = deserialize(config["inner_optimizer"], custom_objects)
        return cls(**{**config, "inner_optimizer": inner})


def _check_options(given: Mapping[str, Any]) -> None:
    """Raises ValueError for what is no option; older files hold those of other optimizers, off."""
    for name, value in given.items():
        if name not in _OFF:
            raise ValueError(f"LossScaleOptimizer has no argument {name}")
        if value != _OFF[name]:
            raise ValueError(
                f"LossScaleOptimizer does not support {name}={value!r}: set it on the inner "
                "optimizer, whose loss_scale_factor is a scale that stays"
            )
