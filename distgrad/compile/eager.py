"""Machine code under the eager path: large arrays of float32 go through generated kernels.

The kernels are those of captured steps, and within 8 units in the last place of the largest element
of NumPy's; convolutions and products of matrices add in another order; random numbers and sums of
rows have NumPy's bits.
They are made at the first call that pays for it, so that an import costs nothing; without llvmlite,
and for all other arrays, the primitives' own kernels run. What a process uses does not change,
unless `use` says so: it decides bits, and `identity` is compared between workers, and a run that is
resumed needs what it began with.
"""

from __future__ import annotations

import functools
import inspect
import math
import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from distgrad.comm import native
from distgrad.core import primitive as core
from distgrad.core.primitive import Primitive, registry
from distgrad.core.rounding import wide
from distgrad.core.straight import Noted
from distgrad.ops import (  # noqa: F401 (which register the primitives below)
    activations,
    biased,
    convolve,
    cross_entropy,
    dense,
    draws,
    image,
    lstm,
    nn,
    normalization,
    pooling,
)

Name = Literal["generated", "numpy"]

# Elements from which on a kernel is faster than NumPy's. Passing pointers takes two microseconds.
_SMALLEST = {
    **dict.fromkeys(("gelu_exact", "gelu_exact_grad", "gelu_tanh", "erf"), 1 << 10),
    **dict.fromkeys(("softplus", "sigmoid_unit", "sigmoid_cross_entropy"), 1 << 12),
    **dict.fromkeys(("mish", "mish_grad"), 1 << 12),
    **dict.fromkeys(("divide_cotangent", "quotient_or_zero", "multiply_no_nan"), 1 << 12),
    **dict.fromkeys(("exponential_unit", "leaky_rectifier", "relu6", "sigmoid"), 1 << 12),
    **dict.fromkeys(("relu_grad", "sigmoid_grad", "tanh_grad"), 1 << 14),
    **dict.fromkeys(("softmax_along", "softmax_grad", "log_softmax_along"), 1 << 8),
    **dict.fromkeys(("standardize", "standardize_grad"), 1 << 8),
    **dict.fromkeys(("sparse_cross_entropy", "sparse_cross_entropy_grad"), 1 << 8),
    **dict.fromkeys(("cross_entropy", "cross_entropy_grad"), 1 << 8),
    "take_grad": 1 << 8,
    **dict.fromkeys(("sum", "sum_to", "mean", "observed_moments"), 1 << 12),
    "scaled_where": 1 << 12,
    **dict.fromkeys(("biased", "biased_grad", "rescaled", "rescaled_grad"), 1 << 12),
    **dict.fromkeys(("lstm_cell", "lstm_cell_grad"), 1 << 8),
    **dict.fromkeys(("lstm_steps", "lstm_steps_grad"), 1 << 8),
    **dict.fromkeys(("convolve", "convolve_grad_x", "convolve_grad_w"), 1 << 10),
    **dict.fromkeys(("max_windows", "max_windows_grad"), 1 << 10),
    **dict.fromkeys(("mean_windows", "mean_windows_grad"), 1 << 10),
    "interpolate": 1 << 10,
    "depthwise_convolve": 1 << 10,
    "depthwise_convolve_grad_x": 1 << 10,
    "depthwise_convolve_grad_w": 1 << 10,
}
_DRAWN = 1 << 10  # random numbers
_CHOSEN = 1 << 12  # elements of one array or another
_MULTIPLIED = 1 << 20  # terms of a product of matrices
_THREADED = 1 << 13  # elements of a factor from which on BLAS may use threads
_BY_THREADS = 1 << 18  # terms of a product from which on it may
_OUTER = 1 << 12  # the same of a column and a row, for which NumPy does not ask BLAS

Kernel = Callable[..., Any]


@functools.cache
def _engine() -> Any:
    from distgrad.compile.llvm import engine  # what it imports takes milliseconds

    return engine


@functools.cache
def _kernels() -> Any:
    from distgrad.compile.llvm import eager

    return eager


@functools.cache
def _pool() -> Any:
    from distgrad.compile.llvm import pool

    return pool


@functools.cache
def _layers() -> Any:
    from distgrad.compile.llvm import dense as layers

    return layers


_hooks: dict[Primitive, tuple[Kernel, Kernel]] = {}  # the plain kernel, and what stands before it
_used: Name | None = None  # None: nobody has asked yet
_choosing = threading.Lock()  # several threads may ask for the first time


def best() -> Name:
    """The faster kernels that this machine has."""
    return "generated" if _engine().available() else "numpy"


def used() -> Name:
    """The kernels that this process uses."""
    with _choosing:
        if _used is None:
            use(best())
    assert _used is not None
    return _used


def use(name: Name) -> None:
    """From now on eager operations of this process run on these kernels.

    Raises MissingExtraError where the machine lacks what they need.
    """
    global _used
    if name == "generated":
        _engine().version()
    for primitive, (plain, hook) in _hooks.items():
        primitive.replace_kernel(np, hook if name == "generated" else plain)
    _used = name


def identity() -> str:
    """The kernels by name and version: what has another identity may give other bits."""
    return f"llvmlite {_engine().version()}" if used() == "generated" else "NumPy"


def install() -> None:
    """Puts the choice between the kernels before those of the primitives; nothing is made yet."""
    for name in (*_SMALLEST, *_SPECIAL):
        primitive = registry[name]
        plain = functools.partial(primitive.kernel, np)
        if name in _SPECIAL:
            hook = _SPECIAL[name](plain)
        else:
            hook = _hook(primitive, plain, _SMALLEST[name])
        _hooks[primitive] = plain, hook
        primitive.replace_kernel(np, hook)
    core.fill_native = _fill_native
    native.make_ring_exchange = _ring_exchange


def chosen(primitive: Primitive, args: tuple, params: dict[str, Any]) -> Kernel | None:
    """The kernel of a primitive on arguments like these where it is generated, else None."""
    if primitive not in _hooks or used() != "generated":
        return None
    hook = primitive.kernel_for(np)
    # bfloat16 is computed in float32, by the same kernel.
    args = tuple(wide(a) if isinstance(a, np.ndarray) else a for a in args)
    if primitive.name in ("random_uniform", "select", "dense", "dense_grad"):
        return hook
    if primitive.name == "dot":
        a, b = args
        if _by_threads(a, b, params["transpose_b"]) and _pool().threads_of_blas() > 1:
            return hook
        return hook if _product(*args, **params) is not None else None
    made = any(np.size(a) >= _SMALLEST[primitive.name] for a in args)
    return hook if made and _generated(primitive, args, params, None) is not None else None


def _hook(primitive: Primitive, plain: Kernel, smallest: int) -> Kernel:
    float32 = np.dtype(np.float32)
    largest = primitive.arg_names.index("logits") if "logits" in primitive.arg_names else 0

    def kernel(*args: Any, out: Any = None, **params: Any) -> Any:
        x = args[largest]
        if type(x) is np.ndarray and x.size >= smallest and x.dtype == float32:
            made = _generated(primitive, args, params, out)
            if made is not None:
                return made
        elif type(x) is Noted:
            return x.call(kernel, args)
        if out is None:
            return plain(*args, **params)
        if takes_out:
            return plain(*args, out=out, **params)
        return _placed(plain(*args, **params), out)

    def pair(x: Any, y: Any, *, out: Any = None) -> Any:
        """The same for two arguments and no more, for the sake of small arrays."""
        if out is None and type(x) is np.ndarray and x.size < smallest:
            return own(np, x, y)
        return x.call(pair, (x, y)) if type(x) is Noted else kernel(x, y, out=out)

    own = primitive.kernel
    takes_out = "out" in inspect.signature(own).parameters
    kernel.__name__ = pair.__name__ = primitive.name
    return pair if len(primitive.arg_names) == 2 and not primitive.param_names else kernel


def _generated(primitive: Primitive, args: tuple, params: dict, out: Any) -> Any:
    if (_used or used()) != "generated":
        return None
    return _kernels().run(primitive, args, params, out)


def _uniform_hook(plain: Kernel) -> Kernel:
    def random_uniform(
        key: Any, *, shape: tuple[int, ...], dtype: np.dtype, out: Any = None
    ) -> Any:
        if math.prod(shape) >= _DRAWN and dtype.itemsize > 2 and used() == "generated":
            return _kernels().uniform(key, shape, dtype, out)
        return _placed(plain(key, shape=shape, dtype=dtype), out)

    return random_uniform


def _select_hook(plain: Kernel) -> Kernel:
    """NumPy's own looks at one element after the other."""

    def select(condition: Any, x: Any, y: Any, *, out: Any = None) -> Any:
        if type(condition) is np.ndarray and condition.size >= _CHOSEN and used() == "generated":
            made = None
            if out is None or (out.flags.c_contiguous and out.dtype == np.float32):
                made = _kernels().select(condition, x, y, out)
            if made is not None:
                return made
        return _placed(plain(condition, x, y), out)

    return select


def _dot_hook(plain: Kernel) -> Kernel:
    def dot(a: Any, b: Any, *, transpose_a: bool, transpose_b: bool, out: Any = None) -> Any:
        made = _product(a, b, transpose_a, transpose_b, out)
        if made is not None:
            return made
        flags = {"transpose_a": transpose_a, "transpose_b": transpose_b}
        if _by_threads(a, b, transpose_b) and (_used or used()) == "generated":
            return _pool().by_blas(plain, a, b, **flags, out=out)
        return plain(a, b, **flags, out=out)

    return dot


def _by_threads(a: Any, b: Any, transpose_b: bool) -> bool:
    """Whether BLAS may use threads for a product, and bits that depend on their number."""
    if a.dtype.char != "f":
        return False
    large = max(a.size, b.size) >= _THREADED
    return large or a.size * b.shape[-2 if transpose_b else -1] >= _BY_THREADS


def _product(a: Any, b: Any, transpose_a: bool, transpose_b: bool, out: Any = None) -> Any:
    if a.dtype.char != "f" or b.ndim < 2:
        return None
    columns, inner = b.shape[-2:] if transpose_b else b.shape[:-3:-1]
    if a.size * columns < (_MULTIPLIED if inner != 1 else _OUTER):
        return None
    if (_used or used()) != "generated":
        return None
    return _kernels().product(a, b, transpose_a, transpose_b, out)


def _dense_hook(plain: Kernel) -> Kernel:
    def kernel(x: Any, w: Any, b: Any, *, activation: str, out: Any = None) -> Any:
        made = None
        if (_used or used()) == "generated":
            made = _layers().forward(x, w, b, activation, out)
        return _placed(plain(x, w, b, activation=activation), out) if made is None else made

    return kernel


def _dense_grad_hook(plain: Kernel) -> Kernel:
    def kernel(*args: Any, activation: str, all_three: bool, out: Any = None) -> Any:
        made = None
        if (_used or used()) == "generated":
            made = _layers().backward(args, activation, all_three, out)
        if made is None:
            return plain(*args, activation=activation, all_three=all_three, out=out)
        return made

    return kernel


_SPECIAL: dict[str, Callable[[Kernel], Kernel]] = {
    "random_uniform": _uniform_hook,
    "select": _select_hook,
    "dot": _dot_hook,
    "dense": _dense_hook,
    "dense_grad": _dense_grad_hook,
}


def _placed(made: Any, out: Any) -> Any:
    """A result, or a tuple of them, written to ``out`` where there is one."""
    if out is None:
        return made
    pairs = zip(out, made, strict=True) if type(made) is tuple else [(out, made)]
    for place, array in pairs:
        np.copyto(place, array)
    return out


def _ring_exchange() -> native.Call | None:
    """Exchanges of small messages in machine code, which changes no bit either."""
    if not _engine().available():
        return None
    from distgrad.compile.llvm import exchange

    return exchange.function()


def _fill_native() -> None:
    """Optimizer updates in machine code: they give NumPy's bits, whatever `use` says."""
    if _engine().available():
        from distgrad.compile.llvm import updates

        updates.install()
