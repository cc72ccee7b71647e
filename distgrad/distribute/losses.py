"""Losses of one replica, so scaled that their sum over all replicas is that of the whole batch."""

from __future__ import annotations

from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.distribute.replica import get_replica_context
from distgrad.ops.casting import cast
from distgrad.ops.reduce import reduce_sum


def compute_average_loss(
    per_example_loss: Any, sample_weight: Any = None, global_batch_size: Any = None
) -> Tensor:
    """The sum of the losses of samples, weighted, over the size of the batch of all replicas.

    Without ``global_batch_size`` all replicas are taken to have as many samples as this one.
    Raises ValueError for a scalar.
    """
    losses = as_tensor(per_example_loss)
    if not losses._data.ndim:
        raise ValueError("compute_average_loss takes one loss for each sample, not a scalar")
    size = losses.shape[0] * _replicas() if global_batch_size is None else global_batch_size
    if sample_weight is not None:
        losses = losses * as_tensor(sample_weight, like=losses._data.dtype)
    return reduce_sum(losses) / cast(size, losses.dtype)


def scale_regularization_loss(regularization_loss: Any) -> Tensor:
    """The sum of penalties over the number of replicas, each of which adds them."""
    return reduce_sum(regularization_loss) / float(_replicas())


def _replicas() -> int:
    context = get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync
