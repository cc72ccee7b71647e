"""``tf.train``: checkpoints of objects."""

from distgrad.training.checkpoint_manager import CheckpointManager
from distgrad.training.object_checkpoint import (
    Checkpoint,
    get_checkpoint_state,
    latest_checkpoint,
)

__all__ = ["Checkpoint", "CheckpointManager", "get_checkpoint_state", "latest_checkpoint"]
