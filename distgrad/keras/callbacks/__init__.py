"""Callbacks of ``Model.fit``."""

from distgrad.keras.callbacks.averages import SwapEMAWeights
from distgrad.keras.callbacks.backup import BackupAndRestore
from distgrad.keras.callbacks.base import Callback, History, LambdaCallback
from distgrad.keras.callbacks.listing import CallbackList, ProgbarLogger
from distgrad.keras.callbacks.monitor import EarlyStopping, ModelCheckpoint, ReduceLROnPlateau
from distgrad.keras.callbacks.others import (
    CSVLogger,
    LearningRateScheduler,
    RemoteMonitor,
    TerminateOnNaN,
)
from distgrad.keras.callbacks.progress import ProgressPrinter, progress_line
from distgrad.keras.callbacks.tensorboard import TensorBoard

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgbarLogger",
    "ProgressPrinter",
    "ReduceLROnPlateau",
    "RemoteMonitor",
    "SwapEMAWeights",
    "TensorBoard",
    "TerminateOnNaN",
    "progress_line",
]
