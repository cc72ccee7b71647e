"""``keras.ops``: the functions of Keras 3, with its names, arguments and dtype rules.

Called on KerasTensors, anywhere among their arguments, they become nodes of a functional model.
"""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from distgrad.keras import activations as _activations
from distgrad.keras.layers.operation import operation as _operation
from distgrad.keras.ops.core import (
    cast,
    cond,
    convert_to_numpy,
    convert_to_tensor,
    custom_gradient,
    dtype,
    fori_loop,
    get_item,
    is_tensor,
    map,
    saturate_cast,
    scan,
    scatter,
    scatter_update,
    shape,
    slice,
    slice_update,
    stop_gradient,
    switch,
    unstack,
    vectorized_map,
    while_loop,
)
from distgrad.keras.ops.elementwise import (
    abs,
    absolute,
    add,
    arccos,
    arccosh,
    arcsin,
    arcsinh,
    arctan,
    arctan2,
    arctanh,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    ceil,
    clip,
    conj,
    conjugate,
    cos,
    cosh,
    divide,
    divide_no_nan,
    equal,
    erf,
    erfinv,
    exp,
    exp2,
    expm1,
    floor,
    floor_divide,
    greater,
    greater_equal,
    imag,
    isclose,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    log,
    log1p,
    log2,
    log10,
    logaddexp,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    mod,
    multiply,
    nan_to_num,
    negative,
    not_equal,
    power,
    real,
    reciprocal,
    round,
    rsqrt,
    sign,
    sin,
    sinh,
    sqrt,
    square,
    subtract,
    tan,
    tanh,
    true_divide,
)
from distgrad.keras.ops.linalg import (
    cholesky,
    det,
    dot,
    eigh,
    einsum,
    inner,
    inv,
    matmul,
    norm,
    outer,
    qr,
    slogdet,
    solve,
    solve_triangular,
    svd,
    tensordot,
    vdot,
)
from distgrad.keras.ops.nn import (
    batch_normalization,
    binary_crossentropy,
    categorical_crossentropy,
    celu,
    dot_product_attention,
    elu,
    gelu,
    glu,
    hard_shrink,
    hard_sigmoid,
    hard_silu,
    hard_swish,
    hard_tanh,
    in_top_k,
    layer_normalization,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    moments,
    multi_hot,
    normalize,
    one_hot,
    relu,
    relu6,
    rms_normalization,
    segment_max,
    segment_sum,
    selu,
    sigmoid,
    silu,
    soft_shrink,
    softmax,
    softplus,
    softsign,
    sparse_categorical_crossentropy,
    sparse_plus,
    sparse_sigmoid,
    sparsemax,
    squareplus,
    swish,
    tanh_shrink,
    threshold,
)
from distgrad.keras.ops.reduction import (
    all,
    amax,
    amin,
    any,
    argmax,
    argmin,
    argsort,
    average,
    bincount,
    count_nonzero,
    cumprod,
    cumsum,
    digitize,
    logsumexp,
    max,
    mean,
    median,
    min,
    prod,
    quantile,
    searchsorted,
    sort,
    std,
    sum,
    top_k,
    var,
)
from distgrad.keras.ops.rooms import Room as _Room
from distgrad.keras.ops.shaping import (
    arange,
    array,
    broadcast_to,
    concatenate,
    copy,
    diag,
    diagonal,
    empty,
    expand_dims,
    eye,
    flip,
    full,
    full_like,
    hstack,
    linspace,
    meshgrid,
    moveaxis,
    ndim,
    nonzero,
    ones,
    ones_like,
    pad,
    ravel,
    repeat,
    reshape,
    roll,
    size,
    split,
    squeeze,
    stack,
    swapaxes,
    take,
    take_along_axis,
    tile,
    trace,
    transpose,
    tril,
    triu,
    vstack,
    where,
    zeros,
    zeros_like,
)
from distgrad.keras.ops.windows import (
    average_pool,
    conv,
    conv_transpose,
    depthwise_conv,
    max_pool,
    separable_conv,
)

# Functions that fewer scripts use, by the files that are loaded when the first is asked for.
_MORE = {
    "numeric": """
        allclose angle bitwise_invert bitwise_left_shift bitwise_right_shift cbrt deg2rad erfc
        fabs fmax fmin fmod gcd heaviside hypot i0 isneginf isposinf isreal lcm ldexp left_shift
        logaddexp2 nextafter polar psnr rad2deg right_shift select signbit sinc trunc view
        view_as_complex view_as_real
    """,
    "alignment": "ctc_decode ctc_loss",
    "missing": """
        nanargmax nanargmin nancumprod nancumsum nanmax nanmean nanmedian nanmin nanpercentile
        nanprod nanquantile nanstd nansum nanvar percentile ptp
    """,
    "arranging": """
        append argpartition array_split cdist corrcoef correlate cross diagflat diff dsplit
        dstack empty_like fliplr flipud geomspace histogram hsplit identity isin kron logspace
        rearrange rot90 trapezoid tri unique unravel_index vander vsplit
    """,
    "factoring": """
        cholesky_inverse eig jvp logdet lstsq lu_factor matrix_rank pinv
    """,
    "spectral": """
        bartlett blackman extract_sequences fft fft2 hamming hanning ifft2 irfft istft kaiser
        rfft stft
    """,
    "regions": """
        adaptive_average_pool adaptive_max_pool associative_scan depth_to_space fold segment_min
        segment_prod space_to_depth unfold vectorize
    """,
}
_HOMES = {name: home for home, names in _MORE.items() for name in names.split()}

_LOADED = [name for name, value in list(globals().items()) if callable(value) and name[0] != "_"]
__all__ = sorted([*_LOADED, *_HOMES])

# Without tensors among their arguments, or fit for KerasTensors as they are.
_PLAIN = """
bartlett blackman cond convert_to_numpy custom_gradient dtype empty eye fori_loop hamming hanning
identity is_tensor jvp kaiser ndim ones rearrange shape tri vectorize zeros
"""

for _name in set(_LOADED).difference(_PLAIN.split()):
    globals()[_name] = _operation(_name, globals()[_name])

# What Keras has as operations of ``keras.activations`` alone.
for _name, _function in (("mish", _activations.mish), ("re_lu", _activations.relu)):
    _operation(_name, _function)
# In place of the files of these names, which know no KerasTensors.
nn, linalg, numpy = _Room("nn"), _Room("linalg"), _Room("numpy")


if _TYPE_CHECKING:
    from distgrad.keras.ops import image as image


def __getattr__(name: str) -> _Any:
    if name == "image":  # loaded at its first use
        return _importlib.import_module("distgrad.keras.ops.image")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(_importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    found = found if name in _PLAIN.split() else _operation(name, found)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "image"})
