"""``tf.linalg``."""

from distgrad.ops.linalg import matmul
from distgrad.ops.reduce import norm

__all__ = ["matmul", "norm"]
