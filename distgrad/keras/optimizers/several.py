"""MultiOptimizer: one optimizer for some variables, another one for others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from distgrad.core import recording
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.keras import registry
from distgrad.keras.optimizers.base import Optimizer
from distgrad.keras.optimizers.scaling import LossScaleOptimizer
from distgrad.keras.registry import Configured


class OptimizerMap(MutableMapping, Configured):
    """Optimizers by the paths of variables, or patterns that match all of a path.

    ``default_optimizer`` is for the paths that nothing matches. Raises TypeError for what is no
    optimizer or no dict, ValueError for a key that is no text or was set before, and where two
    patterns match a path.
    """

    def __init__(
        self, default_optimizer: Optimizer, optimizer_map: dict[str, Optimizer] | None = None
    ) -> None:
        if not isinstance(default_optimizer, Optimizer):
            raise TypeError(
                "default_optimizer must be a Keras Optimizer instance. Received: "
                f"{default_optimizer}"
            )
        if optimizer_map is not None and not isinstance(optimizer_map, dict):
            raise TypeError(f"optimizer_map must be a dictionary. Received: {optimizer_map}")
        self.default_optimizer = default_optimizer
        self._by_path: dict[str, Optimizer] = dict(optimizer_map or {})

    def __getitem__(self, key: str) -> Optimizer:
        if key in self._by_path:
            return self._by_path[key]
        found = [each for pattern, each in self._by_path.items() if re.fullmatch(pattern, key)]
        if len(found) > 1:
            raise ValueError(f"Multiple optimizers assigned to variable {key}.")
        return found[0] if found else self.default_optimizer

    def __setitem__(self, key: str, optimizer: Optimizer) -> None:
        if key in self._by_path:
            raise ValueError(
                f"'{key}' already exists in the OptimizerMap with value {self._by_path[key]}. "
                "Please make sure to not use duplicated keys."
            )
        if not isinstance(key, str):
            raise ValueError(f"key must be a string. Received: {key}")
        _check(optimizer)
        self._by_path[key] = optimizer

    def __delitem__(self, key: str) -> None:
        del self._by_path[key]

    def __len__(self) -> int:
        return len(self._by_path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_path)

    def __call__(self, variable: Any) -> Optimizer:
        return self[variable.path]

    def get_config(self) -> dict[str, Any]:
        return {
            "default_optimizer": registry.serialize(self.default_optimizer),
            "optimizer_map": {key: registry.serialize(v) for key, v in self._by_path.items()},
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> OptimizerMap:
        from distgrad.keras.optimizers import deserialize

        found = {key: deserialize(each) for key, each in config["optimizer_map"].items()}
        return cls(deserialize(config["default_optimizer"]), found)


class MultiOptimizer(Optimizer):
    """Updates each variable by the optimizer that ``optimizer_map`` has for it.

    That is an `OptimizerMap`, or a function of a variable. ``optimizers`` are those in use: their
    learning rates are theirs, and this one has none (AttributeError). The loss is multiplied by
    ``loss_scale_factor`` of this one. Raises ValueError, at the first update, for what is no
    optimizer, a `MultiOptimizer` within another one, and a `LossScaleOptimizer`.
    """

    def __init__(
        self,
        optimizer_map: OptimizerMap | Callable[[Any], Optimizer],
        loss_scale_factor: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(0.0, loss_scale_factor=loss_scale_factor, name=name)
        self.optimizer_map = optimizer_map
        self.optimizers: list[Optimizer] = []
        if isinstance(optimizer_map, OptimizerMap):
            for each in (*optimizer_map.values(), optimizer_map.default_optimizer):
                self._group_of(each)

    def _group_of(self, optimizer: Optimizer) -> int:
        """Its place among those in use."""
        for place, each in enumerate(self.optimizers):
            if each is optimizer:
                return place
        _check(optimizer)
        optimizer.loss_scale_factor = None  # this one sees to it
        self.optimizers.append(optimizer)
        return len(self.optimizers) - 1

    def build(self, variables: Sequence[Variable]) -> None:
        """Makes the state of all optimizers, each for its own variables."""
        places = [self._group_of(self.optimizer_map(variable)) for variable in variables]
        for number, optimizer in enumerate(self.optimizers):
            own = [v for v, place in zip(variables, places, strict=True) if place == number]
            if own:
                optimizer.build(own)
        super().build(variables)
        self._constrained = []  # they see to that, too
        self.made = [v for optimizer in self.optimizers for v in optimizer.variables]

    @property
    def variables(self) -> list[Variable]:
        """The count of updates, a learning rate of no use, and the state of all optimizers."""
        own = [v for v in super().variables if all(v is not each for each in self.made)]
        return own + [v for optimizer in self.optimizers for v in optimizer.variables]

    @property
    def learning_rate(self) -> Any:
        raise AttributeError(
            "Learning rate cannot be accessed on a MultiOptimizer. Access the learning rate on the "
            "individual sub-optimizers instead."
        )

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if self._learning_rate is not None:
            raise AttributeError(
                "Learning rate cannot be set on a MultiOptimizer. Set the learning rate on the "
                "individual sub-optimizers instead."
            )
        Optimizer.learning_rate.fset(self, value)  # type: ignore[attr-defined]

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        """Updates one variable by its own optimizer, at that optimizer's learning rate."""
        own = self.optimizer_map(variable)
        own.update_step(gradient, variable, own.rate(int(own.calls.numpy()) + 1))

    def _each_step(self, step: int, rate: float, variables: Sequence[Variable]) -> None:
        try:
            with recording.paused():
                for optimizer in self.optimizers:
                    known = optimizer.trained
                    places = [self._positions[id(variable)] for variable in known]
                    gradients = [self._gradients[place] for place in places]
                    if known:
                        given = [None if g is None else Tensor(g) for g in gradients]
                        optimizer._apply(given, known)
        finally:
            self._gradients = ()

    def finalize_variable_values(self, variables: Sequence[Variable]) -> None:
        """Puts moving averages in the place of variables, for the optimizers that keep some."""
        for optimizer in self.optimizers:
            known = {id(variable) for variable in optimizer.trained}
            optimizer.finalize_variable_values([v for v in variables if id(v) in known])

    def get_config(self) -> dict[str, Any]:
        given = self.optimizer_map
        own = isinstance(given, OptimizerMap)
        return {
            "optimizer_map": registry.serialize(given) if own else registry.entry(given),
            "loss_scale_factor": self.loss_scale_factor,
            "name": self.name,
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> MultiOptimizer:
        known = {"OptimizerMap": OptimizerMap}
        given = config["optimizer_map"]
        if not callable(given):
            given = registry.deserialize("optimizer map", given, known, custom_objects)
        return cls(**{**config, "optimizer_map": given})


def _check(optimizer: Any) -> None:
    """Raises ValueError for what cannot be one of several optimizers."""
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"optimizer must be a Keras Optimizer instance. Received: {optimizer}")
    if isinstance(optimizer, (LossScaleOptimizer, MultiOptimizer)):
        raise ValueError(f"optimizer cannot be {type(optimizer).__name__}.")
