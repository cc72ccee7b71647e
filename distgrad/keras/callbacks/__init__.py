"""Callbacks of ``Model.fit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distgrad.core.later import later
from distgrad.keras.callbacks.base import Callback, History, LambdaCallback
from distgrad.keras.callbacks.monitor import EarlyStopping, ModelCheckpoint, ReduceLROnPlateau
from distgrad.keras.callbacks.progress import ProgressPrinter, progress_line

if TYPE_CHECKING:
    from distgrad.keras.callbacks.averages import SwapEMAWeights
    from distgrad.keras.callbacks.backup import BackupAndRestore
    from distgrad.keras.callbacks.listing import CallbackList, ProgbarLogger
    from distgrad.keras.callbacks.others import (
        CSVLogger,
        LearningRateScheduler,
        RemoteMonitor,
        TerminateOnNaN,
    )
    from distgrad.keras.callbacks.tensorboard import TensorBoard

# Loaded at their first use.
_LATER = {
    "BackupAndRestore": ".backup",
    "CSVLogger": ".others",
    "CallbackList": ".listing",
    "LearningRateScheduler": ".others",
    "ProgbarLogger": ".listing",
    "RemoteMonitor": ".others",
    "SwapEMAWeights": ".averages",
    "TensorBoard": ".tensorboard",
    "TerminateOnNaN": ".others",
}

__all__ = [
    *_LATER,
    "Callback",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "ModelCheckpoint",
    "ProgressPrinter",
    "ReduceLROnPlateau",
    "progress_line",
]

__getattr__, __dir__ = later(__name__, globals(), _LATER)
