"""Losses over many classes that look at a sample of them (``tf.nn.nce_loss`` and its like)."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import limits
from distgrad.core.tensor import Tensor
from distgrad.ops.candidates import Sampled, hits, log_uniform_candidate_sampler
from distgrad.ops.casting import cast, stop_gradient
from distgrad.ops.cross_entropy import (
    sigmoid_cross_entropy_with_logits,
    softmax_cross_entropy_with_logits,
)
from distgrad.ops.exponential import log
from distgrad.ops.indexing import gather
from distgrad.ops.linalg import matmul
from distgrad.ops.reduce import reduce_sum
from distgrad.ops.shape import concat, expand_dims, reshape


def nce_loss(
    weights: Any,
    biases: Any,
    labels: Any,
    inputs: Any,
    num_sampled: int,
    num_classes: int,
    num_true: int = 1,
    sampled_values: Sampled | None = None,
    remove_accidental_hits: bool = False,
    name: str | None = None,
) -> Tensor:
    """Noise-contrastive loss of each row of ``inputs`` (batch, dim): shape (batch,).

    ``weights`` (num_classes, dim) and ``biases`` (num_classes,) are those of all classes,
    ``labels`` are classes (batch, num_true). Gradients of variables are IndexedSlices.
    """
    logits, targets = _sampled(
        weights, biases, labels, inputs, num_sampled, num_classes, num_true, sampled_values,
        remove_accidental_hits, None,
    )  # fmt: skip
    return reduce_sum(sigmoid_cross_entropy_with_logits(targets, logits), axis=1)


def sampled_softmax_loss(
    weights: Any,
    biases: Any,
    labels: Any,
    inputs: Any,
    num_sampled: int,
    num_classes: int,
    num_true: int = 1,
    sampled_values: Sampled | None = None,
    remove_accidental_hits: bool = True,
    seed: int | None = None,
    name: str | None = None,
) -> Tensor:
    """Softmax cross entropy among the true and sampled classes alone, with shapes as in
    ``nce_loss``: for training, since it is below the loss over all classes."""
    logits, targets = _sampled(
        weights, biases, labels, inputs, num_sampled, num_classes, num_true, sampled_values,
        remove_accidental_hits, seed,
    )  # fmt: skip
    return softmax_cross_entropy_with_logits(targets, logits)


def _sampled(
    weights: Any,
    biases: Any,
    labels: Any,
    inputs: Any,
    num_sampled: int,
    num_classes: int,
    num_true: int,
    sampled_values: Sampled | None,
    without_hits: bool,
    seed: int | None,
) -> tuple[Tensor, Tensor]:
    """Logits of the true classes, then of the sampled ones, and what they should be."""
    true, x = cast(labels, np.int64), as_tensor(inputs)
    if sampled_values is None:
        sampled_values = log_uniform_candidate_sampler(
            true, num_true, num_sampled, True, num_classes, seed
        )
    sampled, of_true, of_sampled = (stop_gradient(as_tensor(value)) for value in sampled_values)
    sampled = cast(sampled, np.int64)
    # One gather for both, so that the table has one gradient, of those rows.
    flat = reshape(true, [-1])
    classes = concat([flat, sampled], 0)
    rows = cast(gather(weights, classes), x.dtype)
    shifts = cast(gather(biases, classes), x.dtype)
    n = flat.shape[0]
    own = reshape(rows[:n], [-1, num_true, x.shape[-1]])
    true_logits = reduce_sum(expand_dims(x, 1) * own, axis=2)
    true_logits = true_logits + reshape(shifts[:n], [-1, num_true]) - cast(log(of_true), x.dtype)
    other_logits = matmul(x, rows[n:], transpose_b=True) + shifts[n:]
    if without_hits:  # a true class that was drawn as a negative one is none
        lowest = -float(limits(x.dtype.numpy_dtype).max)
        other_logits = other_logits + cast(hits(true, sampled), x.dtype) * lowest
    other_logits = other_logits - cast(log(of_sampled), x.dtype)
    shape = tuple(true_logits.shape)
    targets = np.full((shape[0], num_true + other_logits.shape[1]), 0, x.dtype.numpy_dtype)
    targets[:, :num_true] = 1 / num_true
    return concat([true_logits, other_logits], 1), as_tensor(targets)
