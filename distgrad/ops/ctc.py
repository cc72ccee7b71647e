"""The loss of connectionist temporal classification (Graves et al., 2006), in logarithms."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import is_floating
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast
from distgrad.ops.indexing import getitem, take_along_last
from distgrad.ops.layout import beside
from distgrad.ops.logic import equal, greater, less, logical_and, not_equal, select
from distgrad.ops.nn import log_softmax
from distgrad.ops.padding import pad_constant
from distgrad.ops.shape import permute, reshape, stack
from distgrad.ops.statistics import reduce_logsumexp

_NEVER = -1e30  # the logarithm of no chance at all, finite so that its gradient is 0 and not nan


def ctc_loss(
    labels: Any,
    logits: Any,
    label_length: Any,
    logit_length: Any,
    logits_time_major: bool = True,
    unique: Any = None,
    blank_index: int | None = None,
    name: str | None = None,
) -> Tensor:
    """Minus the logarithm of the chance of each label sequence under ``logits``: [batch].

    ``labels`` are ``[batch, longest]`` integers, of which the first ``label_length`` count, or a
    SparseTensor, all of whose values count. ``logits`` are ``[time, batch, classes]``, or with the
    batch first. ``blank_index`` is the class of "nothing", 0 by default for dense labels. Raises
    InvalidArgumentError for other shapes, ValueError for sparse labels without ``blank_index``.
    """
    if isinstance(labels, SparseTensor):
        if blank_index is None:
            raise ValueError("ctc_loss: sparse labels need a blank_index, as -1 for the last class")
        labels, label_length = _rows(labels)
    x, sought = as_tensor(logits), as_tensor(labels)
    if x._data.ndim != 3 or sought._data.ndim != 2 or not is_floating(x._data.dtype):
        raise InvalidArgumentError(
            f"ctc_loss takes dense labels of rank 2 and float logits of rank 3, not shapes "
            f"{sought.shape} and {x.shape}"
        )
    if not logits_time_major:
        x = bind(permute, x, perm=(1, 0, 2))
    steps, batch, classes = x._data.shape
    if sought._data.shape[0] != batch:
        raise InvalidArgumentError(f"ctc_loss: {sought.shape} labels of a batch of {batch}")
    blank = int(blank_index or 0) % classes
    sought = cast(sought, np.int64)
    count = reshape(cast(label_length, np.int64), (batch, 1))
    until = reshape(cast(logit_length, np.int64), (batch, 1))
    # The states are a blank before, between and after the labels: 2 * longest + 1.
    longest = sought._data.shape[1]
    place = beside(x, np.arange(longest))
    sought = select(less(place, count), sought, blank)
    blanks = sought * 0 + blank
    states = reshape(stack([blanks, sought], 2), (batch, 2 * longest))
    states = bind(pad_constant, states, paddings=((0, 0), (0, 1)), value=blank)
    # A label may follow the one before it at once, without a blank, unless they are the same.
    before = bind(pad_constant, states, paddings=((0, 0), (2, 0)), value=blank)
    before = bind(getitem, before, key=(slice(None), slice(0, 2 * longest + 1)))
    number = beside(x, np.arange(2 * longest + 1))
    skips = logical_and(equal(number % 2, 1), not_equal(states, before))
    chances = log_softmax(x, -1)

    def emitted(step: int) -> Tensor:
        return take_along_last(bind(getitem, chances, key=(step,)), states)

    total = select(less(number, 2), emitted(0), _NEVER)
    for step in range(1, steps):
        one, two = _moved(total, 1), select(skips, _moved(total, 2), _NEVER)
        reached = reduce_logsumexp(stack([total, one, two], 0), 0) + emitted(step)
        total = select(greater(until, step), reached, total)
    ends = _ends(number, count)
    return -reduce_logsumexp(select(ends, total, _NEVER), 1)


def _rows(labels: SparseTensor) -> tuple[np.ndarray, np.ndarray]:
    """The values of each row, filled up with 0, and how many they are."""
    number = labels.indices.numpy()[:, 0]
    count = np.bincount(number, minlength=labels.shape[0])
    rows = np.zeros((len(count), count.max(initial=0)), np.int64)
    rows[np.arange(rows.shape[1]) < count[:, None]] = np.asarray(labels.values)
    return rows, count


def _ends(number: Tensor, count: Tensor) -> Tensor:
    """Where a sequence may end: at its last label or the blank after it."""
    last, final = equal(number, 2 * count), equal(number, 2 * count - 1)
    return last | final


def _moved(x: Tensor, by: int) -> Tensor:
    """``x [batch, states]`` with each state in the place of the one ``by`` after it."""
    wide = bind(pad_constant, x, paddings=((0, 0), (by, 0)), value=_NEVER)
    return bind(getitem, wide, key=(slice(None), slice(0, x._data.shape[1])))
