"""Kept: the state of a layer as files and stateless loops have it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.keras.layers.shaping import takes_any
from distgrad.keras.layers.tracking import HOLD_NONE
from distgrad.keras.layers.weight import Weight
from distgrad.ops.casting import cast


class Kept:
    """What a user's own layer may define to say how it is saved, and how it is called on values."""

    name: str
    built: bool
    _build_shapes_dict: Any

    # Saved and loaded

    def says_itself(self, method: str) -> bool:
        """Whether the layer defines ``save_own_variables``, or ``load_own_variables``, itself."""
        return getattr(type(self), method) is not getattr(Kept, method)

    def save_own_variables(self, store: Any) -> None:
        """Writes the layer's own weights into a mapping of arrays, under "0", "1", ...

        A layer may define it, and ``load_own_variables``, to keep other arrays.
        """
        for number, weight in enumerate(self._tracked_weights()):  # type: ignore[attr-defined]
            store[str(number)] = np.asarray(weight.numpy())

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Reads what ``save_own_variables`` wrote. Raises ValueError where it does not fit."""
        own = self._tracked_weights()  # type: ignore[attr-defined]
        if len(own) != len(store):
            raise ValueError(
                f"Layer '{self.name}' expected {len(own)} variables, but received {len(store)} "
                f"variables during loading. Expected: {[weight.name for weight in own]}"
            )
        for number, weight in enumerate(own):
            weight.assign(np.asarray(store[str(number)]))

    def get_build_config(self) -> dict[str, Any] | None:
        """What ``build`` was called with, for ``build_from_config``; None before it."""
        shapes = self._build_shapes_dict
        if shapes is None:
            return None
        if not takes_any(self.build):  # type: ignore[attr-defined]
            return {"shapes_dict": {}}
        names = inspect.signature(self.build).parameters  # type: ignore[attr-defined]
        several = isinstance(shapes, Mapping) and set(shapes) <= set(names)
        if several and len(shapes) == 1:
            (shapes,) = shapes.values()
            several = False
        return {"shapes_dict": dict(shapes)} if several else {"input_shape": shapes}

    def build_from_config(self, config: Mapping[str, Any]) -> None:
        """Makes the weights by what ``get_build_config`` gave; a layer may define its own."""
        if config and "input_shape" in config:
            self.build(config["input_shape"])  # type: ignore[attr-defined]
        elif config and "shapes_dict" in config:
            self.build(**config["shapes_dict"])  # type: ignore[attr-defined]

    def more_in_entry(self) -> dict[str, Any]:
        """What stands beside the config of a layer that says itself how it is built."""
        own = type(self).build_from_config is not Kept.build_from_config
        return {"build_config": self.get_build_config()} if own and self.built else {}

    def read_entry(self, entry: Mapping[str, Any]) -> None:
        """Builds a layer, made of its config, that says itself how."""
        own = type(self).build_from_config is not Kept.build_from_config
        if own and entry.get("build_config") and not self.built:
            self.build_from_config(entry["build_config"])
            self.built = True

    # Metrics in attributes

    def add_metric(self, *args: Any, **kwargs: Any) -> None:
        """Raises NotImplementedError, as in Keras 3: it was of Keras 2."""
        raise NotImplementedError(
            f"{self.name!r}: add_metric is no more: give the metric to compile(metrics=[...]), or "
            "make it in __init__ (self.metric = keras.metrics.Mean(name=...)) and call its "
            "update_state in call"
        )

    @property
    def metrics(self) -> list[Any]:
        """The metrics in attributes of this layer and of those below."""
        found: dict[int, Any] = {}
        for layer in self._layers_below():  # type: ignore[attr-defined]
            for attribute, value in vars(layer).items():
                sort = _sorts.get(type(value))  # a call for each would be half of the time
                if sort != "" and attribute not in HOLD_NONE:
                    found.update((id(metric), metric) for metric in _metrics_in(value))
        return list(found.values())

    @property
    def metrics_variables(self) -> list[Variable]:
        """The variables of ``metrics``."""
        return [v for metric in self.metrics for v in getattr(metric, "variables", ())]

    # Called on values

    def stateless_call(
        self,
        trainable_variables: Sequence[Any],
        non_trainable_variables: Sequence[Any],
        *args: Any,
        return_losses: bool = False,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """``(outputs, non_trainable_variables)`` of a call with these values for the weights.

        The layer's own stay as they are. A tape follows the values. With ``return_losses`` the
        losses come third. Raises ValueError before the layer is built, and where the numbers of
        values differ.
        """
        if not self.built:
            raise ValueError(
                f"To call stateless_call, {type(self).__name__} must be built (i.e. its variables "
                "must have been already created). You can build it by calling it on some data."
            )
        trainable: list[Variable] = self.trainable_variables  # type: ignore[attr-defined]
        others: list[Variable] = self.non_trainable_variables  # type: ignore[attr-defined]
        for what, own, given in (
            ("trainable_variables", trainable, trainable_variables),
            ("non_trainable_variables", others, non_trainable_variables),
        ):
            if len(own) != len(given):
                raise ValueError(
                    f"Argument `{what}` must be a list of tensors corresponding 1:1 to "
                    f"{type(self).__name__}().{what}. Received list with length {len(given)}, but "
                    f"expected {len(own)} variables."
                )
        variables = [*trainable, *others]
        kept = [np.array(variable.numpy()) for variable in variables]
        try:
            with recording.paused():
                for variable, value in zip(
                    variables, (*trainable_variables, *non_trainable_variables), strict=True
                ):
                    variable.assign(value)
            for variable, value in zip(trainable, trainable_variables, strict=True):
                if isinstance(variable, Weight):
                    variable.stand_in = cast(as_tensor(value), variable._buffer.dtype)
            outputs = self(*args, **kwargs)  # type: ignore[operator]
            losses = list(self.losses) if return_losses else []  # type: ignore[attr-defined]
            new = [Tensor(np.array(variable.numpy())) for variable in others]
        finally:
            for variable in trainable:
                if isinstance(variable, Weight):
                    variable.stand_in = None
            for variable, value in zip(variables, kept, strict=True):
                variable.assign(value)
        return (outputs, new, losses) if return_losses else (outputs, new)


def _metrics_in(value: Any) -> Iterator[Any]:
    sort = _sort(value)
    if sort == "metric":
        yield value
    elif sort:
        for item in value:
            yield from _metrics_in(item)


_sorts: dict[type, str] = {}


def _sort(value: Any) -> str:
    """What a value may hold, by its type: that is looked at once, since layers have many values."""
    cls = type(value)
    known = _sorts.get(cls)
    if known is None:
        metric = hasattr(cls, "update_state") and hasattr(cls, "result")
        sequence = "sequence" if issubclass(cls, (list, tuple)) else ""
        known = _sorts[cls] = "metric" if metric else sequence
    return known
