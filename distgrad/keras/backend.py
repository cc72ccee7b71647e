"""``keras.backend``: the settings of Keras 3, its helpers about dtypes, and the old functions."""

from __future__ import annotations

from typing import Any

from distgrad.core.dtypes import as_dtype, is_floating
from distgrad.core.later import absent as _absent
from distgrad.keras import mixed_precision, naming, settings
from distgrad.keras.naming import get_uid as get_uid
from distgrad.ops.scopes import name_scope as name_scope


def floatx() -> str:
    """The dtype in which layers without a dtype of their own keep their weights."""
    return mixed_precision.global_policy().variable_dtype


def set_floatx(value: str) -> None:
    """Sets it. Raises ValueError for anything but bfloat16, float16, float32 and float64."""
    if value not in ("bfloat16", "float16", "float32", "float64"):
        raise ValueError(f"floatx is bfloat16, float16, float32 or float64, not {value!r}")
    mixed_precision.set_global_policy(as_dtype(value).name)


def epsilon() -> float:
    """The small number by which losses keep probabilities away from 0 and 1."""
    return settings.epsilon


def set_epsilon(value: float) -> None:
    """Sets it, for losses and metrics of steps that are not captured yet."""
    settings.epsilon = float(value)


def image_data_format() -> str:
    """Where layers without a ``data_format`` of their own have the channels: "channels_last"."""
    return settings.image_data_format


def set_image_data_format(data_format: str) -> None:
    """Sets it. Raises ValueError for anything but "channels_last" and "channels_first"."""
    wanted = str(data_format).lower()
    if wanted not in ("channels_first", "channels_last"):
        raise ValueError(f"the data format is channels_first or channels_last, not {data_format!r}")
    settings.image_data_format = wanted


def clear_session(free_memory: bool = True) -> None:
    """Starts the numbers in names anew; those of layers start anew in every model here, anyway."""
    naming.start_anew()


def backend() -> str:
    """Whose tapes, tensors and variables a step of one's own has: always ``"tensorflow"``."""
    return "tensorflow"


def standardize_dtype(dtype: Any) -> str:
    """The name of a dtype, given by name, by class or by a dtype of NumPy or distgrad.

    None is ``floatx``. Raises ValueError for what is no dtype.
    """
    if dtype is None:
        return floatx()
    if dtype in (int, "int"):
        return "int64"
    if dtype in (str, "string"):
        return "string"
    if dtype is float:
        return floatx()
    try:
        return as_dtype(dtype).name
    except TypeError as error:
        raise ValueError(f"Invalid dtype: {dtype!r}: {error}") from None


def is_float_dtype(dtype: Any) -> bool:
    """Whether this is a dtype of floats."""
    return is_floating(as_dtype(dtype).numpy_dtype)


def is_int_dtype(dtype: Any) -> bool:
    """Whether this is a dtype of integers, with or without a sign."""
    return as_dtype(dtype).is_integer


def result_type(*dtypes: Any) -> str:
    """The name of the dtype in which these meet; Python's ``int`` and ``float`` are weak.

    None, or nothing at all, is ``floatx``. Raises ValueError for what is no dtype.
    """
    from distgrad.keras.ops import promotion

    known = [each if each in (int, float) else standardize_dtype(each) for each in dtypes]
    return promotion.result_type(*(known or [floatx()]))


def is_keras_tensor(x: Any) -> bool:
    """Whether ``x`` is a KerasTensor."""
    from distgrad.keras.layers.symbolic import KerasTensor

    return isinstance(x, KerasTensor)


_NEW = (
    *("backend", "clear_session", "epsilon", "floatx", "get_uid", "image_data_format"),
    *("is_float_dtype", "is_int_dtype", "is_keras_tensor", "name_scope", "result_type"),
    *("set_epsilon", "set_floatx", "set_image_data_format", "standardize_dtype"),
)


def __getattr__(name: str) -> Any:
    if name == "__all__" or not name.startswith("__"):  # an import asks for others of those
        from distgrad.keras import legacy, legacy_layers  # at the first use of one of them

        if name == "__all__":
            return [*_NEW, *legacy.__all__, *legacy_layers.__all__]
        for module in (legacy, legacy_layers):
            if name in module.__all__:
                return getattr(module, name)
    return _absent(__name__)(name)


def __dir__() -> list[str]:
    from distgrad.keras import legacy, legacy_layers

    return sorted({*globals(), *legacy.__all__, *legacy_layers.__all__})
