"""``tf.train``: checkpoints of objects, and moving averages of variables."""

from distgrad.training.averages import ExponentialMovingAverage
from distgrad.training.checkpoint_manager import CheckpointManager, checkpoints_iterator
from distgrad.training.checkpoint_reading import list_variables, load_checkpoint, load_variable
from distgrad.training.object_checkpoint import (
    Checkpoint,
    CheckpointOptions,
    get_checkpoint_state,
    latest_checkpoint,
)

__all__ = [
    "Checkpoint",
    "CheckpointManager",
    "CheckpointOptions",
    "ExponentialMovingAverage",
    "checkpoints_iterator",
    "get_checkpoint_state",
    "latest_checkpoint",
    "list_variables",
    "load_checkpoint",
    "load_variable",
]


def __getattr__(name: str) -> object:
    from distgrad.absent import message

    raise AttributeError(message(f"train.{name}"))
