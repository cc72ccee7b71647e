"""The loss of label sequences whose places in time are not known."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras.losses.base import PlainLoss, floating
from distgrad.ops.casting import cast
from distgrad.ops.ctc import ctc_loss
from distgrad.ops.logic import not_equal
from distgrad.ops.reduce import reduce_sum


def ctc(y_true: Any, y_pred: Any) -> Tensor:
    """Minus the logarithm of the chance of each label sequence; 0 is "nothing", and ends them.

    ``y_true`` is [batch, longest], ``y_pred`` [batch, time, classes] logits. Raises ValueError for
    other ranks.
    """
    logits, labels = floating(y_pred), as_tensor(y_true)
    if labels._data.ndim != 2 or logits._data.ndim != 3:
        raise ValueError(
            "ctc takes targets [batch, longest] and outputs [batch, time, classes], not of shapes "
            f"{tuple(labels.shape)} and {tuple(logits.shape)}"
        )
    batch, steps, _ = logits._data.shape
    count = reduce_sum(cast(not_equal(labels, 0), np.int64), -1)
    return ctc_loss(labels, logits, count, np.full(batch, steps), False, blank_index=0)


class CTC(PlainLoss):
    """``ctc``, with a mean over the batch."""

    fn = staticmethod(ctc)
