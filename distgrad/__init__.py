"""distgrad: a data-parallel training runtime with TensorFlow's tape and Keras's names.

``import distgrad as tf`` runs TensorFlow's own tape and Keras listings.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from distgrad import errors, linalg, math, nn, random
from distgrad.core.dtypes import (
    DType,
    TensorShape,
    as_dtype,
    complex64,
    complex128,
    double,
    float16,
    float32,
    float64,
    half,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from distgrad.core.dtypes import (
    bool_ as bool,
)
from distgrad.core.tape import GradientTape, UnconnectedGradients
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.ops.constants import (
    constant,
    convert_to_tensor,
    eye,
    fill,
    is_tensor,
    ones,
    range,
    rank,
    shape,
    size,
    zeros,
)
from distgrad.ops.elementwise import (
    abs,
    add,
    cast,
    equal,
    exp,
    greater,
    greater_equal,
    identity,
    less,
    less_equal,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    ones_like,
    sigmoid,
    sign,
    sqrt,
    square,
    stop_gradient,
    subtract,
    tanh,
    where,
    zeros_like,
)
from distgrad.ops.elementwise import power as pow
from distgrad.ops.indexing import gather, one_hot
from distgrad.ops.linalg import matmul
from distgrad.ops.operators import divide
from distgrad.ops.reduce import (
    argmax,
    argmin,
    norm,
    reduce_logsumexp,
    reduce_max,
    reduce_mean,
    reduce_min,
    reduce_sum,
)
from distgrad.ops.shape import broadcast_to, concat, expand_dims, reshape, squeeze, stack, transpose

newaxis = None
__version__ = "0.1.0"

if _TYPE_CHECKING:
    from distgrad import keras as keras


def __getattr__(name: str):
    if name == "keras":  # loaded at its first use: a tape alone starts in half the time
        import distgrad.keras

        return distgrad.keras
    raise AttributeError(f"module 'distgrad' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "keras"]
