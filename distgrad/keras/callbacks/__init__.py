"""Callbacks of ``Model.fit``."""

from __future__ import annotations

from distgrad.core.later import later
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
    "BackupAndRestore": ".backup",
    "CallbackList": ".listing",
    "ProgbarLogger": ".listing",
    "SwapEMAWeights": ".averages",
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

__getattr__, __dir__ = later(__name__, globals(), _LATER)
