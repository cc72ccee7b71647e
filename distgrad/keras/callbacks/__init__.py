"""Callbacks of ``Model.fit``."""

from distgrad.keras.callbacks.base import Callback, History, LambdaCallback
from distgrad.keras.callbacks.monitor import EarlyStopping, ModelCheckpoint, ReduceLROnPlateau
from distgrad.keras.callbacks.others import CSVLogger, LearningRateScheduler, TerminateOnNaN
from distgrad.keras.callbacks.progress import ProgressPrinter, progress_line
from distgrad.keras.callbacks.tensorboard import TensorBoard

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgressPrinter",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
    "progress_line",
]
