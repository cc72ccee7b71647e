"""Callbacks of ``Model.fit``."""

from __future__ import annotations

import importlib
from typing import Any

from distgrad.keras.callbacks.base import Callback, History, LambdaCallback
from distgrad.keras.callbacks.monitor import EarlyStopping, ModelCheckpoint, ReduceLROnPlateau
from distgrad.keras.callbacks.others import (
    CSVLogger,
    LearningRateScheduler,
    RemoteMonitor,
    TerminateOnNaN,
)
from distgrad.keras.callbacks.progress import ProgressPrinter, progress_line
from distgrad.keras.callbacks.tensorboard import TensorBoard

# Loaded at their first use.
_LATER = {
    "BackupAndRestore": "backup",
    "CallbackList": "listing",
    "ProgbarLogger": "listing",
    "SwapEMAWeights": "averages",
}

__all__ = [
    *_LATER,
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgressPrinter",
    "ReduceLROnPlateau",
    "RemoteMonitor",
    "TensorBoard",
    "TerminateOnNaN",
    "progress_line",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
