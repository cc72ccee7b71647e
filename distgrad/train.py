"""``tf.train``: checkpoints of objects, moving averages of variables, and examples of records."""

from distgrad.core.later import absent as _absent
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
    from distgrad.data import messages

    if name == "BytesList":
        return messages.BytesList
    if name in messages.EXAMPLES:  # made of an optional package
        return messages.message(name)
    return _absent(__name__)(name)
