"""``tf.experimental.numpy``: NumPy's functions on tensors, with its dtypes, and with gradients.

Arguments are tensors, variables, arrays, numbers or lists of them. Values come from the operations
of ``keras.ops``; what differs from those are the dtypes. ``experimental_enable_numpy_behavior``
gives tensors NumPy's operators, methods and indices as well.
"""

import math as _math

import numpy as _np

from distgrad.core.later import absent as _absent
from distgrad.core.tensor import Tensor as _Tensor
from distgrad.experimental import random as random
from distgrad.experimental.arrays import *  # noqa: F403
from distgrad.experimental.behavior import (
    experimental_enable_numpy_behavior as experimental_enable_numpy_behavior,
)
from distgrad.experimental.elementwise import *  # noqa: F403
from distgrad.experimental.promotion import result_type as result_type
from distgrad.experimental.reductions import *  # noqa: F403

ndarray = _Tensor
pi, e, inf, newaxis = _math.pi, _math.e, _math.inf, None
bool_, complex64, complex128, complex_ = _np.bool_, _np.complex64, _np.complex128, _np.complex128
float16, float32, float64, float_ = _np.float16, _np.float32, _np.float64, _np.float64
int8, int16, int32, int64, int_ = _np.int8, _np.int16, _np.int32, _np.int64, _np.int64
uint8, uint16, uint32, uint64 = _np.uint8, _np.uint16, _np.uint32, _np.uint64
finfo, iinfo, inexact = _np.finfo, _np.iinfo, _np.inexact
issubdtype, promote_types = _np.issubdtype, _np.promote_types


__getattr__ = _absent(__name__)
