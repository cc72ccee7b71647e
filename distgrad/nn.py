"""``tf.nn``."""

from distgrad.ops.elementwise import relu, sigmoid, tanh
from distgrad.ops.nn import (
    dropout,
    log_softmax,
    softmax,
    sparse_softmax_cross_entropy_with_logits,
)

__all__ = [
    "dropout",
    "log_softmax",
    "relu",
    "sigmoid",
    "softmax",
    "sparse_softmax_cross_entropy_with_logits",
    "tanh",
]
