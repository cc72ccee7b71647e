"""``tf.math``."""

from distgrad.ops.elementwise import (
    abs,
    add,
    equal,
    exp,
    greater,
    greater_equal,
    less,
    less_equal,
    log,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    sigmoid,
    sign,
    sqrt,
    square,
    subtract,
    tanh,
)
from distgrad.ops.elementwise import power as pow
from distgrad.ops.operators import divide
from distgrad.ops.reduce import (
    argmax,
    argmin,
    reduce_logsumexp,
    reduce_max,
    reduce_mean,
    reduce_min,
    reduce_sum,
)

__all__ = [name for name in dir() if not name.startswith("_")]
