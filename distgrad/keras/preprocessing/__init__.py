"""Keras's older place for helpers that prepare data."""

from __future__ import annotations

import importlib
from typing import Any

from distgrad.keras.preprocessing import sequence

_FROM_UTILS = ("image_dataset_from_directory", "timeseries_dataset_from_array")

__all__ = ["image", "sequence", *_FROM_UTILS]


def __getattr__(name: str) -> Any:
    if name == "image":
        return importlib.import_module(f"{__name__}.image")
    if name in _FROM_UTILS:
        return getattr(importlib.import_module("distgrad.keras.utils"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
