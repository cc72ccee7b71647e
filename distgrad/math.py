"""``tf.math``."""

from distgrad.core.later import later as _later
from distgrad.ops import special_names as special
from distgrad.ops.activations import softsign
from distgrad.ops.arithmetic import (
    abs,
    accumulate_n,
    add,
    add_n,
    multiply,
    multiply_no_nan,
    negative,
    nextafter,
    polyval,
    scalar_mul,
    sign,
    square,
    squared_difference,
    subtract,
)
from distgrad.ops.bessel import (
    bessel_i0,
    bessel_i0e,
    bessel_i1,
    bessel_i1e,
    betainc,
    lbeta,
)
from distgrad.ops.clipping import maximum, minimum
from distgrad.ops.complex import conj, imag, real
from distgrad.ops.division import divide, divide_no_nan, reciprocal, reciprocal_no_nan, truediv
from distgrad.ops.exponential import (
    exp,
    expm1,
    log,
    log1p,
    log_sigmoid,
    sigmoid,
    softplus,
    xdivy,
    xlog1py,
    xlogy,
)
from distgrad.ops.gamma_slopes import igamma, igammac
from distgrad.ops.logic import (
    equal,
    greater,
    greater_equal,
    is_finite,
    is_inf,
    is_nan,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    not_equal,
)
from distgrad.ops.nn import in_top_k, log_softmax, softmax
from distgrad.ops.normalization import l2_normalize
from distgrad.ops.powers import pow, rsqrt, sqrt
from distgrad.ops.reduce import (
    argmax,
    argmin,
    reduce_all,
    reduce_any,
    reduce_max,
    reduce_mean,
    reduce_min,
    reduce_prod,
    reduce_sum,
)
from distgrad.ops.rounding import ceil, floor, floordiv, floormod, mod, rint, round
from distgrad.ops.scan import cumprod, cumsum, cumulative_logsumexp
from distgrad.ops.segment import (
    segment_max,
    segment_mean,
    segment_min,
    segment_prod,
    segment_sum,
    unsorted_segment_max,
    unsorted_segment_mean,
    unsorted_segment_min,
    unsorted_segment_prod,
    unsorted_segment_sqrt_n,
    unsorted_segment_sum,
)
from distgrad.ops.sorting import bincount, confusion_matrix, invert_permutation, top_k
from distgrad.ops.special import (
    digamma,
    erf,
    erfc,
    erfcinv,
    erfinv,
    lgamma,
    ndtri,
    polygamma,
    zeta,
)
from distgrad.ops.statistics import (
    count_nonzero,
    reduce_euclidean_norm,
    reduce_logsumexp,
    reduce_std,
    reduce_variance,
    zero_fraction,
)
from distgrad.ops.summaries import is_non_decreasing, is_strictly_increasing
from distgrad.ops.trigonometric import (
    acos,
    acosh,
    angle,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    cos,
    cosh,
    sin,
    sinh,
    tan,
    tanh,
)

_LATER = dict.fromkeys(["approx_max_k", "approx_min_k"], "distgrad.ops.rare_nn")
__all__ = [*(name for name in dir() if not name.startswith("_")), *_LATER]

__getattr__, __dir__ = _later(__name__, globals(), _LATER)
