"""``tf.bitwise``."""

from distgrad.ops.logic import bitwise_and, bitwise_or, bitwise_xor, invert
from distgrad.ops.shifts import left_shift, right_shift

__all__ = [name for name in dir() if not name.startswith("_")]
