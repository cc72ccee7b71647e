"""What models and optimizers were made with, as plain values that ranks can compare.

Left out is what may differ: names, which count what a process has made; seeds and initial values,
since all ranks begin with the values of one; and what classes of a user's own keep beside the
arguments of ours. Objects that say nothing of themselves are known by their class.
"""

from __future__ import annotations

import functools
import inspect
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

import numpy as np

from distgrad.keras import registry
from distgrad.training.handshake import checksum

_MAY_DIFFER = ("name", "seed", "weights", "module", "registered_name")
_LONG = 64  # lists of more are known by a checksum


@dataclass(eq=False)
class Rate:
    """A learning rate as it is now: state, which one rank may have taken from a file.

    So only those after the same number of updates have to be equal.
    """

    updates: int
    value: float

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rate) and (
            self.updates != other.updates or self.value == other.value
        )

    def __str__(self) -> str:
        return f"{self.value:g}"


def of_model(model: Any) -> dict[str, Any]:
    """The optimizer, loss and metrics that a model was compiled with, and its layers."""
    return {
        "optimizer": of_optimizer(model.optimizer),
        "jit_compile": model._jit_asked,
        **{name: described(each) for name, each in model._compiled_with.items()},
        "model": _of_layer(model),
        "layers": [_of_layer(layer) for layer in model._layers_below() if layer is not model],
    }


def of_optimizer(optimizer: Any) -> Any:
    """The settings of an optimizer."""
    return _with_rates(described(optimizer), int(optimizer.calls._buffer))


def described(value: Any) -> Any:
    """An object, function or value as numbers, texts, and lists and dicts of them."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float, np.number)) and not isinstance(value, complex):
        number = float(value) if isinstance(value, (float, np.floating)) else int(value)
        return number if math.isfinite(number) else str(number)
    if isinstance(value, Mapping):
        inner = value.get("config")
        if isinstance(inner, Mapping) and "class_name" in value:  # an object within a config
            return {"class": value["class_name"], **_settings(inner)}
        return {str(key): described(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        found = [described(each) for each in value]
        return found if len(found) <= _LONG else f"{len(found)} values {_sum(found)}"
    if isinstance(value, functools.partial):
        return {"class": "partial", "of": described(value.func), "with": described(value.keywords)}
    if inspect.isroutine(value) or inspect.isclass(value):
        return _of_function(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        array = np.asarray(value)
        return f"{list(array.shape)} {array.dtype} {checksum(array)}"
    return {"class": type(value).__name__, **_settings(_config(value))}


def _of_layer(layer: Any) -> Any:
    if hasattr(layer, "compile"):  # a model: its layers come after it
        return {"class": type(layer).__name__, "trainable": layer.trainable}
    return described(layer)


def _config(value: Any) -> Mapping[str, Any]:
    """What an object says that it was made with; of a user's class what one of ours says."""
    ours: Any = next((each for each in type(value).__mro__ if registry.is_ours(each)), None)
    try:
        config: Mapping[str, Any] = ours.get_config(value)
    except Exception:  # it does not say, or does not keep, what it was made with
        return {}
    if ours is type(value):
        return config
    return {name: config[name] for name in registry.arguments(ours) if name in config}


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: described(each)
        for name, each in config.items()
        if name not in _MAY_DIFFER and not name.endswith("_initializer")
    }


def _with_rates(settings: Any, updates: int) -> Any:
    if not isinstance(settings, dict):
        return settings
    return {
        name: Rate(updates, each)
        if name == "learning_rate" and isinstance(each, float)
        else _with_rates(each, updates)
        for name, each in settings.items()
    }


def _of_function(function: Any) -> str:
    """Its name, and for those of a user a checksum of what they do, without values from outside."""
    inner = inspect.unwrap(function)
    code = getattr(inner, "__code__", None)
    name = getattr(function, "__name__", type(function).__name__)
    if code is None or registry.is_ours(inner):
        return name
    return f"{name} {_sum(_parts(code))}"


def _parts(code: CodeType) -> list[Any]:
    constants = [_parts(c) if isinstance(c, CodeType) else described(c) for c in code.co_consts]
    return [code.co_code.hex(), code.co_names, constants]


def _sum(value: Any) -> str:
    return f"#{zlib.crc32(repr(value).encode()):08x}"
