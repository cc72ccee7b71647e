"""distgrad: a data-parallel training runtime with TensorFlow's tape and Keras's names.

``import distgrad as tf`` runs TensorFlow's own tape and Keras listings.
"""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING

from distgrad import interrupting as _interrupting  # before the imports that take time

# isort: split
from distgrad import autodiff, debugging, nest
from distgrad import settings as config
from distgrad.compile import eager as _eager
from distgrad.compile.function import function
from distgrad.core.custom import custom_gradient, grad_pass_through
from distgrad.core.devices import ask_environment as _ask_environment
from distgrad.core.dtypes import (
    DType,
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
    string,
    uint8,
    uint16,
    uint32,
    uint64,
)
from distgrad.core.dtypes import (
    bool_ as bool,
)
from distgrad.core.indexed_slices import IndexedSlices
from distgrad.core.module import Module
from distgrad.core.shapes import TensorShape
from distgrad.core.spec import TensorSpec
from distgrad.core.tape import GradientTape, UnconnectedGradients
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.debugging import Assert, assert_equal, assert_greater, assert_less, assert_rank
from distgrad.launcher.threads import settle as _settle_threads
from distgrad.ops.arithmetic import (
    abs,
    add,
    add_n,
    multiply,
    negative,
    scalar_mul,
    sign,
    square,
    subtract,
)
from distgrad.ops.casting import cast, identity, ones_like, stop_gradient, zeros_like
from distgrad.ops.clipping import clip_by_value, maximum, minimum, saturate_cast
from distgrad.ops.complex import complex
from distgrad.ops.constants import (
    constant,
    convert_to_tensor,
    eye,
    fill,
    identity_n,
    is_tensor,
    linspace,
    ones,
    range,
    rank,
    shape,
    size,
    zeros,
)
from distgrad.ops.control import (
    case,
    cond,
    foldl,
    foldr,
    map_fn,
    numpy_function,
    py_function,
    scan,
    switch_case,
    vectorized_map,
    while_loop,
)
from distgrad.ops.division import divide, truediv
from distgrad.ops.division import divide_exact as realdiv
from distgrad.ops.einsum import einsum
from distgrad.ops.exponential import exp, sigmoid
from distgrad.ops.indexing import boolean_mask, gather, one_hot
from distgrad.ops.layout import (
    broadcast_to,
    meshgrid,
    repeat,
    reverse,
    roll,
    sequence_mask,
    shape_n,
    strided_slice,
    tile,
)
from distgrad.ops.layout import slice_from as slice
from distgrad.ops.linalg import matmul, tensordot
from distgrad.ops.logic import (
    equal,
    greater,
    greater_equal,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    not_equal,
    where,
)
from distgrad.ops.padding import pad
from distgrad.ops.powers import pow, sqrt
from distgrad.ops.printing import print
from distgrad.ops.recompute import recompute_grad
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
from distgrad.ops.rounding import floor, round, truncatediv, truncatemod
from distgrad.ops.scan import cumsum
from distgrad.ops.scatter import (
    dynamic_partition,
    dynamic_stitch,
    gather_nd,
    scatter_nd,
    tensor_scatter_nd_add,
    tensor_scatter_nd_max,
    tensor_scatter_nd_min,
    tensor_scatter_nd_sub,
    tensor_scatter_nd_update,
)
from distgrad.ops.scopes import (
    control_dependencies,
    device,
    executing_eagerly,
    group,
    init_scope,
    name_scope,
    no_op,
)
from distgrad.ops.shape import (
    concat,
    ensure_shape,
    expand_dims,
    reshape,
    split,
    squeeze,
    stack,
    transpose,
    unstack,
)
from distgrad.ops.sorting import (
    argsort,
    histogram_fixed_width,
    histogram_fixed_width_bins,
    searchsorted,
    sort,
    unique,
    unique_with_counts,
)
from distgrad.ops.statistics import clip_by_global_norm, clip_by_norm, norm, reduce_logsumexp
from distgrad.ops.tensor_array import TensorArray
from distgrad.ops.trigonometric import (
    acos,
    acosh,
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

_eager.install()
_ask_environment()
_settle_threads()

newaxis = None
# What is loaded at its first use, since a tape alone starts in half the time: whole modules,
_MODULES = [
    "audio",
    "autograph",
    "bitwise",
    "compat",
    "data",
    "distribute",
    "dtypes",
    "errors",
    "experimental",
    "image",
    "io",
    "keras",
    "linalg",
    "lookup",
    "math",
    "nn",
    "profiler",
    "quantization",
    "queue",
    "ragged",
    "random",
    "raw_ops",
    "sets",
    "signal",
    "sparse",
    "strings",
    "summary",
    "test",
    "train",
    "version",
]
# names of modules that few scripts need,
_RARE = {
    "launcher.calling": "launch",
    "core.dispatch": "register_tensor_conversion_function",
    "core.sparse_tensor": "SparseTensor SparseTensorSpec",
    "ragged": "RaggedTensor RaggedTensorSpec",
    "strings": "as_string",
    "core.gradients": "gradients hessians",
    "core.aggregation": "VariableAggregation VariableSynchronization",
    "ops.blocks": "batch_to_space required_space_to_batch_paddings space_to_batch "
    "space_to_batch_nd",
    "ops.edits": "edit_distance",
    "ops.factors": "eig eigvals",
    "ops.modes": "get_current_name_scope get_logger get_static_value inside_function "
    "is_symbolic_tensor timestamp type_spec_from_value",
    "ops.sequences": "broadcast_dynamic_shape broadcast_static_shape reverse_sequence "
    "unravel_index",
    "ops.shifts": "bitcast",
}
_PLACES = {name: place for place, names in _RARE.items() for name in names.split()}
# and names that TensorFlow has twice: what they stand for in `distgrad.keras`.
_OF_KERAS = {
    "initializers": "initializers",
    "losses": "losses",
    "metrics": "metrics",
    "optimizers": "optimizers",
    "constant_initializer": "initializers.Constant",
    "ones_initializer": "initializers.Ones",
    "random_normal_initializer": "initializers.RandomNormal",
    "random_uniform_initializer": "initializers.RandomUniform",
    "zeros_initializer": "initializers.Zeros",
}
__version__ = "0.1.0"

if _TYPE_CHECKING:
    from distgrad import (
        audio,
        autograph,
        bitwise,
        compat,
        data,
        distribute,
        dtypes,
        errors,
        experimental,
        image,
        io,
        keras,
        linalg,
        lookup,
        math,
        nn,
        profiler,
        quantization,
        queue,
        ragged,
        random,
        raw_ops,
        sets,
        signal,
        sparse,
        strings,
        summary,
        test,
        train,
        version,
    )
    from distgrad.core.aggregation import VariableAggregation, VariableSynchronization
    from distgrad.core.dispatch import register_tensor_conversion_function
    from distgrad.core.dtypes import bfloat16
    from distgrad.core.gradients import gradients, hessians
    from distgrad.core.sparse_tensor import SparseTensor, SparseTensorSpec
    from distgrad.launcher.calling import launch
    from distgrad.ops.blocks import (
        batch_to_space,
        required_space_to_batch_paddings,
        space_to_batch,
        space_to_batch_nd,
    )
    from distgrad.ops.edits import edit_distance
    from distgrad.ops.factors import eig, eigvals
    from distgrad.ops.modes import as_tuple as tuple
    from distgrad.ops.modes import (
        get_current_name_scope,
        get_logger,
        get_static_value,
        inside_function,
        is_symbolic_tensor,
        timestamp,
        type_spec_from_value,
    )
    from distgrad.ops.sequences import (
        broadcast_dynamic_shape,
        broadcast_static_shape,
        reverse_sequence,
        unravel_index,
    )
    from distgrad.ops.shifts import bitcast
    from distgrad.ragged import RaggedTensor, RaggedTensorSpec
    from distgrad.strings import as_string
    from distgrad.trained import load as load_run


def __getattr__(name: str):
    if name in _MODULES:
        return _importlib.import_module(f"distgrad.{name}")
    if name in _PLACES:
        return getattr(_importlib.import_module(f"distgrad.{_PLACES[name]}"), name)
    if name in _OF_KERAS:
        import distgrad.keras

        found = distgrad.keras
        for part in _OF_KERAS[name].split("."):
            found = getattr(found, part)
        return found
    if name == "tuple":  # a name of Python's in this module, were it not looked up
        from distgrad.ops.modes import as_tuple

        return as_tuple
    if name == "bfloat16":  # and ml_dtypes with it
        return as_dtype(name)
    if name == "load_run":
        from distgrad.trained import load

        return load
    from distgrad.absent import message

    raise AttributeError(message(name))


def __dir__() -> list[str]:
    return [*globals(), *_MODULES, *_PLACES, *_OF_KERAS, "bfloat16", "load_run", "tuple"]
