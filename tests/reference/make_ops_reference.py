"""Writes the numbers of ``keras.ops`` that tests/keras/test_ops.py compares with, as JSON.

    python tests/reference/make_ops_reference.py

It needs keras and tensorflow; the tests do not. A case is ``[name, arguments, named arguments,
results]``; arrays and results are written as dtype, shape and flat numbers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np

RNG = np.random.default_rng(11)
Case = tuple[str, tuple, dict]


def case(name: str, *args: Any, **kwargs: Any) -> Case:
    return name, args, kwargs


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def of(values: Any, dtype: str) -> np.ndarray:
    return np.array(values).astype(dtype)


X, Y = normal(3, 4), normal(3, 4)
V, W = normal(4), normal(4)
P = np.abs(normal(3, 4)) + 0.2
U = RNG.uniform(-0.9, 0.9, (3, 4)).astype(np.float32)
I, J = of([[3, -1, 4], [1, 5, -9]], "int32"), of([[2, 6, 5], [3, 5, 8]], "int32")
B, C = of([[1, 0, 1], [0, 0, 1]], "bool"), of([[1, 1, 0], [0, 1, 1]], "bool")
ROWS = RNG.dirichlet(np.ones(4), size=3).astype(np.float32)
SQUARE = normal(3, 3)
POSITIVE = SQUARE @ SQUARE.T + np.eye(3, dtype=np.float32)
NANS = of([1.5, np.nan, np.inf, -np.inf], "float32")
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")


def elementwise() -> Iterator[Case]:
    for name in (
        *("negative", "abs", "absolute", "square", "exp", "exp2", "expm1", "sin", "cos", "tan"),
        *("arctan", "arcsinh", "sinh", "cosh", "tanh", "sign", "floor", "ceil", "round", "erf"),
        *("reciprocal", "relu", "relu6", "sigmoid", "silu", "swish", "softplus", "softsign"),
        *("elu", "selu", "gelu", "leaky_relu", "celu", "log_sigmoid", "hard_sigmoid"),
        *("hard_silu", "hard_tanh", "tanh_shrink", "softmax", "log_softmax", "glu", "copy"),
    ):
        yield case(name, 3 * X)
    for name in ("sqrt", "rsqrt", "log", "log1p", "log2", "log10"):
        yield case(name, P)
    for name in ("arcsin", "arccos", "arctanh", "erfinv"):
        yield case(name, U)
    yield case("arccosh", P + 1)
    for name in ("isnan", "isinf", "isfinite", "nan_to_num", "logical_not"):
        yield case(name, NANS)
    yield case("nan_to_num", NANS, nan=1.0, posinf=2.0, neginf=-3.0)
    for name in ("sqrt", "exp", "square", "abs", "sin", "floor", "ceil", "mean", "var", "std"):
        for dtype in ("bool", "int8", "int32", "int64", "float16", "float64"):
            yield case(name, of([1, 2, 3, 4], dtype))
    for name in ("sum", "prod", "max", "cumsum", "argmax", "any", "logical_not", "count_nonzero"):
        for dtype in DTYPES:
            yield case(name, of([1, 0, 3, 4], dtype))
    yield case("round", 10 * X, decimals=1)
    yield case("clip", X, -0.5, 0.5)
    yield case("clip", I, 0, 4)
    yield case("elu", X, alpha=0.3)
    yield case("celu", X, alpha=0.3)
    yield case("gelu", X, approximate=False)
    yield case("leaky_relu", X, negative_slope=0.1)
    yield case("softmax", X, axis=0)
    yield case("softmax", normal(2, 3, 2), axis=(0, 2))
    yield case("log_softmax", X, axis=0)


def pairs() -> Iterator[Case]:
    for name in ("add", "subtract", "multiply", "divide", "true_divide", "maximum", "minimum"):
        yield case(name, X, Y)
        yield case(name, X, 2)
        yield case(name, 2.5, I)
    for name in ("floor_divide", "mod"):
        yield case(name, 3 * X, P)
        yield case(name, I, J)
        yield case(name, I, 2.5)
    yield case("power", P, Y)
    yield case("power", P, 2)
    yield case("power", I, 2)
    yield case("arctan2", X, Y)
    yield case("arctan2", I, J)
    yield case("logaddexp", 20 * X, 20 * Y)
    yield case("divide_no_nan", X, of([1, 0, 2, 0], "float32"))
    for name in ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal"):
        yield case(name, I, J)
        yield case(name, I, 3.5)
    for name in ("logical_and", "logical_or", "logical_xor"):
        yield case(name, B, C)
        yield case(name, I, 0)
    for name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
        yield case(name, I, J)
    yield case("bitwise_not", I)
    # Not of infinities, of which Keras on TensorFlow says other things than NumPy does.
    yield case("isclose", NANS[:2], NANS[:2])
    yield case("isclose", NANS[:2], NANS[:2] + of([1e-6, 0], "float32"), equal_nan=True)
    yield case("isclose", X, X + of([0, 1e-5, 1e-4, 1], "float32"), rtol=1e-4)
    one = [of([1, 2], dtype) for dtype in DTYPES]
    for a in one:
        yield case("divide", a, 2)
        for b in one:
            if not a.dtype == b.dtype == np.bool_:
                yield case("maximum", a, b)
        for number in (3, 1.5):
            yield case("multiply", a, number)
            yield case("where", of([1, 0], "bool"), a, number)


def along_axes() -> Iterator[Case]:
    for name in ("sum", "mean", "var", "std", "prod", "max", "min", "amax", "amin", "logsumexp"):
        yield case(name, X)
        yield case(name, X, axis=1)
        yield case(name, X, axis=(0, 1), keepdims=True)
    yield case("max", X, axis=0, initial=0.5)
    yield case("min", X, axis=0, initial=0.5)
    yield case("average", X, axis=1, weights=np.abs(V))
    yield case("average", X)
    yield case("average", X, weights=P)
    for name in ("all", "any", "max"):
        yield case(name, B, axis=0)
    for name in ("argmax", "argmin"):
        yield case(name, X)
        yield case(name, X, axis=1, keepdims=True)
    for name in ("sort", "argsort"):
        yield case(name, X)
        yield case(name, X, axis=0)
        yield case(name, X, axis=None)
    for name in ("cumsum", "cumprod"):
        yield case(name, X)
        yield case(name, X, axis=1)
        yield case(name, I, axis=0, dtype="float32")
    yield case("count_nonzero", I - 1, axis=1)
    for name in ("median", "quantile"):
        rest = () if name == "median" else (0.3,)
        yield case(name, X, *rest)
        yield case(name, X, *rest, axis=1, keepdims=True)
    yield case("quantile", X, of([0.1, 0.5], "float32"), axis=0)
    for method in ("lower", "higher", "nearest", "midpoint"):
        yield case("quantile", X, 0.4, axis=1, method=method)
    yield case("top_k", X, 2)
    yield case("bincount", of([1, 3, 1, 0], "int32"))
    yield case("bincount", of([1, 3, 1, 0], "int32"), weights=V, minlength=6)
    yield case("searchsorted", np.sort(V), X[0])
    yield case("searchsorted", of([1, 2, 2, 3], "int32"), of([2, 0], "int32"), side="right")
    yield case("digitize", X, of([-1, 0, 1], "float32"))
    yield case("segment_sum", X, of([0, 2, 0], "int32"), num_segments=4)
    yield case("segment_max", X, of([0, 1, 0], "int32"), num_segments=2)
    yield case("in_top_k", of([1, 0, 3], "int32"), X, 2)


def shapes() -> Iterator[Case]:
    cube = normal(2, 3, 4)
    yield case("reshape", X, (2, -1))
    yield case("ravel", X)
    yield case("squeeze", normal(1, 3, 1))
    yield case("squeeze", normal(1, 3, 1), axis=0)
    yield case("expand_dims", X, 1)
    yield case("expand_dims", X, (0, -1))
    yield case("transpose", cube)
    yield case("transpose", cube, (1, 0, 2))
    yield case("swapaxes", cube, 0, -1)
    yield case("moveaxis", cube, 0, -1)
    yield case("moveaxis", cube, (0, 1), (-1, 0))
    yield case("broadcast_to", V, (2, 4))
    yield case("concatenate", [X, Y], axis=-1)
    yield case("concatenate", [I, X[:2, :3]], axis=0)
    yield case("stack", [X, Y], axis=1)
    yield case("stack", [I, J])
    yield case("hstack", [X, Y])
    yield case("hstack", [V, W])
    yield case("vstack", [X, Y])
    yield case("split", X, 2, axis=1)
    yield case("split", X, [1, 3], axis=1)
    yield case("unstack", X, axis=1)
    yield case("tile", X, (2, 1))
    yield case("tile", V, (2, 2))
    yield case("repeat", X, 2)
    yield case("repeat", X, 2, axis=1)
    yield case("repeat", V, [1, 0, 2, 1], axis=0)
    yield case("flip", X)
    yield case("flip", X, axis=1)
    yield case("roll", X, 2)
    yield case("roll", X, 1, axis=1)
    yield case("pad", X, [[1, 0], [2, 1]], constant_values=2.5)
    yield case("pad", X, [[1, 1], [2, 0]], mode="reflect")
    yield case("pad", X, [[1, 1], [2, 0]], mode="symmetric")
    yield case("where", B, I, 2.5)
    yield case("where", X[:2, :3] > 0, I, J)
    yield case("nonzero", I - 1)
    yield case("where", B)
    yield case("take", X, [1, -1], axis=1)
    yield case("take", X, I[0] % 3)
    yield case("take_along_axis", X, of([[0, 3], [-1, 2], [1, 1]], "int32"), axis=1)
    yield case("take_along_axis", X, of([[0, 2, 1, 1]], "int32"), axis=0)
    yield case("take_along_axis", X, of([3, 7], "int32"))
    for k in (-1, 0, 2):
        yield case("tril", X, k=k)
        yield case("triu", cube, k=k)
        yield case("diag", X, k=k)
        yield case("diag", V, k=k)
        yield case("diagonal", cube, offset=k, axis1=1, axis2=2)
        yield case("trace", X, offset=k)
        yield case("eye", 3, 4, k=k)
    yield case("diagonal", cube)
    yield case("meshgrid", V, X[0, :2])
    yield case("meshgrid", V, X[0, :2], indexing="ij")
    for name in ("zeros", "ones"):
        yield case(name, (2, 3))
        yield case(name, (2,), dtype="int32")
        yield case(f"{name}_like", I)
        yield case(f"{name}_like", I, dtype="float32")
    yield case("full", (2, 3), 1.5)
    yield case("full", (2, 3), 2)
    yield case("full", (2, 3), 2, dtype="int32")
    yield case("full_like", X, 2)
    yield case("eye", 3)
    yield case("arange", 5)
    yield case("arange", 1, 3, 0.5)
    yield case("arange", 5, 0, -2)
    yield case("arange", 5, dtype="float32")
    yield case("arange", 3.0)
    yield case("linspace", 0, 1, 5)
    yield case("linspace", 0.0, 2.0, 4, endpoint=False, retstep=True)
    yield case("linspace", V, W, 3, axis=1)
    yield case("array", [1, 2])
    yield case("array", [1.5, 2])
    yield case("array", [1.5, 2], dtype="int32")
    yield case("size", X)
    yield case("ndim", X)


def core() -> Iterator[Case]:
    yield case("cast", X, "int32")
    yield case("cast", I, "float16")
    yield case("convert_to_tensor", [1, 2], dtype="float32")
    yield case("convert_to_tensor", X, dtype="float64")
    yield case("saturate_cast", 200 * X, "uint8")
    yield case("slice", X, [1, 0], [2, 3])
    yield case("slice_update", X, [1, 2], normal(2, 2))
    yield case("scatter", of([[0], [2], [0]], "int32"), X, (4, 4))
    for reduction in (None, "add", "max", "min"):
        where = of([[0, 1], [2, 3]], "int32")
        yield case("scatter_update", X, where, of([9, -9], "float32"), reduction=reduction)
    yield case("one_hot", of([1, 0, 3, -1], "int32"), 3)
    yield case("one_hot", I, 4, axis=0, dtype="int32")
    yield case("multi_hot", of([[1, 0], [3, 3]], "int32"), num_classes=4)
    yield case("multi_hot", of([1, 3], "int32"), num_classes=4)


def algebra() -> Iterator[Case]:
    batch = normal(2, 4, 3)
    yield case("matmul", X, batch)
    yield case("matmul", V, X.T)
    yield case("matmul", X, V)
    yield case("matmul", I, J.T)
    yield case("matmul", I, X)
    yield case("dot", X, batch)
    yield case("dot", X, V)
    yield case("dot", V, W)
    yield case("dot", X, 2.0)
    yield case("vdot", X, Y)
    yield case("inner", X, Y)
    yield case("outer", V, X)
    yield case("tensordot", X, Y, axes=2)
    yield case("tensordot", X, batch, axes=[[1], [1]])
    yield case("einsum", "ij,bjk->bik", X, batch)
    yield case("einsum", "ij,kj->ik", I, X[:, :3])
    yield case("norm", X)
    yield case("norm", X, axis=1)
    for order in (1, 2, np.inf, 3):
        yield case("norm", V, ord=order)
    for order in (1, "fro", np.inf):
        yield case("norm", X, ord=order, axis=(0, 1), keepdims=True)
    yield case("det", SQUARE)
    yield case("slogdet", SQUARE)
    yield case("inv", SQUARE)
    yield case("solve", SQUARE, normal(3, 2))
    yield case("solve", SQUARE, normal(3))
    yield case("solve_triangular", np.tril(SQUARE) + 2 * np.eye(3, dtype="f"), V[:3], lower=True)
    yield case("solve_triangular", np.triu(SQUARE) + 2 * np.eye(3, dtype="f"), normal(3, 2))
    yield case("cholesky", POSITIVE)
    yield case("cholesky", POSITIVE, upper=True)
    yield case("svd", X, compute_uv=False)
    yield case("moments", X, axes=[0])
    yield case("moments", X, axes=[0, 1], keepdims=True)
    yield case("batch_normalization", X, V, P[0], axis=-1, offset=W, scale=V)
    yield case("batch_normalization", X, P[:, 0], P[:, 1], axis=0, epsilon=0.1)
    yield case("layer_normalization", X, V, W)
    yield case("layer_normalization", batch, axis=(1, 2), epsilon=0.1)
    yield case("rms_normalization", X)
    yield case("rms_normalization", X, scale=V, epsilon=0.1)
    yield case("normalize", X)
    yield case("normalize", 0 * X)
    yield case("normalize", X, axis=0, order=1)
    q, k, v = normal(2, 3, 4, 5), normal(2, 6, 4, 5), normal(2, 6, 4, 5)
    yield case("dot_product_attention", q, k, v)
    yield case("dot_product_attention", q, k[:, :, :2], v[:, :, :2], scale=0.3)
    yield case("dot_product_attention", q, k, v, bias=normal(2, 4, 3, 6))
    yield case("dot_product_attention", q, q, q, is_causal=True)
    yield case("dot_product_attention", q, k, v, mask=normal(2, 1, 3, 6) > -0.5)


def windows() -> Iterator[Case]:
    images, line = normal(2, 6, 7, 3), normal(2, 9, 4)
    for name in ("max_pool", "average_pool"):
        yield case(name, images, 2)
        yield case(name, images, (2, 3), strides=2, padding="same")
        yield case(name, line, 3, strides=1)
    kernel, small = normal(3, 2, 3, 4), normal(3, 4, 2)
    yield case("conv", images, kernel)
    yield case("conv", images, kernel, strides=2, padding="same")
    yield case("conv", images, kernel, dilation_rate=2)
    yield case("conv", line, small, strides=2)
    yield case("depthwise_conv", images, normal(3, 2, 3, 2))
    yield case("depthwise_conv", images, normal(3, 2, 3, 2), strides=2, padding="same")
    yield case("depthwise_conv", line, normal(3, 4, 2), strides=2, padding="same")
    yield case("separable_conv", images, normal(2, 2, 3, 2), normal(1, 1, 6, 5), padding="same")
    back = normal(3, 2, 4, 3)
    yield case("conv_transpose", images, back, strides=2)
    yield case("conv_transpose", images, back, strides=2, padding="same")
    yield case("conv_transpose", images, back, strides=3, padding="valid", output_padding=1)
    yield case("conv_transpose", line, normal(3, 2, 4), strides=2, padding="same")


def losses() -> Iterator[Case]:
    hot, labels = np.eye(4, dtype="f")[[2, 0, 3]], of([2, 0, 3], "int32")
    yield case("binary_crossentropy", hot, ROWS)
    yield case("binary_crossentropy", hot, 9 * X, from_logits=True)
    yield case("categorical_crossentropy", hot, 2 * ROWS)
    yield case("categorical_crossentropy", hot, 9 * X, from_logits=True)
    yield case("sparse_categorical_crossentropy", labels, ROWS)
    yield case("sparse_categorical_crossentropy", labels[:, None], X, from_logits=True)


def numeric() -> Iterator[Case]:
    for name in ("cbrt", "deg2rad", "rad2deg", "fabs", "erfc", "i0", "sinc", "trunc", "signbit"):
        yield case(name, 2 * X)
    for name in ("isposinf", "isneginf", "isreal", "angle"):
        yield case(name, NANS[[0, 2, 3]])
    for name in ("fmax", "fmin", "hypot", "logaddexp2", "heaviside", "nextafter"):
        yield case(name, X, Y)
    for name in ("fmax", "fmin"):
        yield case(name, NANS, NANS[::-1])
    yield case("fmod", 5 * X, Y)
    yield case("fmod", I, J)
    yield case("heaviside", of([-1, 0, 2], "float32"), 0.5)
    yield case("trunc", I)
    yield case("ldexp", X, of([0, 1, -1, 3], "int32"))
    for name in ("gcd", "lcm"):
        yield case(name, I, J)
    for name in ("left_shift", "right_shift", "bitwise_left_shift", "bitwise_right_shift"):
        yield case(name, I, of([1, 2, 3], "int32"))
    yield case("bitwise_invert", I)
    yield case("allclose", X, X + 1e-7)
    yield case("allclose", X, Y)
    yield case("psnr", X, Y, 2.0)
    yield case("view", X, dtype="int32")
    yield case("view", of([1, 2, 3, 4], "int16"), dtype="int32")


def missing() -> Iterator[Case]:
    holes = np.where(X > 0.7, np.nan, X).astype(np.float32)
    for name in ("nansum", "nanprod", "nanmean", "nanvar", "nanstd", "nanmax", "nanmin"):
        yield case(name, holes)
        yield case(name, holes, axis=1)
        yield case(name, holes, axis=(0, 1), keepdims=True)
    for name in ("nanargmax", "nanargmin", "nancumsum", "nancumprod", "nanmedian"):
        yield case(name, holes)
        yield case(name, holes, axis=0)
    yield case("nanquantile", holes, 0.3, axis=1)
    yield case("nanpercentile", holes, of([20, 70], "float32"), axis=0)
    yield case("percentile", X, 30, axis=1)
    yield case("percentile", X, of([20, 70], "float32"), method="nearest", keepdims=True)
    yield case("ptp", X)
    yield case("ptp", I, axis=1, keepdims=True)


def arranging() -> Iterator[Case]:
    yield case("identity", 3)
    yield case("tri", 3, 4, k=1)
    yield case("empty_like", 0 * X)
    yield case("logspace", 0.0, 2.0, num=5)
    yield case("logspace", 0.0, 2.0, num=4, endpoint=False, base=2)
    yield case("geomspace", 1.0, 16.0, num=5)
    yield case("vander", V)
    yield case("vander", V, N=3, increasing=True)
    yield case("append", X, Y)
    yield case("append", X, Y, axis=1)
    yield case("dstack", (X, Y))
    yield case("dstack", (V, W))
    for name in ("array_split", "hsplit"):
        yield case(name, X, 2)
    yield case("array_split", V, 3)
    yield case("array_split", X, [1, 2], axis=1)
    yield case("vsplit", X, 3)
    yield case("dsplit", normal(2, 3, 4), 2)
    for name in ("fliplr", "flipud", "diagflat"):
        yield case(name, X)
    yield case("diagflat", V, k=-1)
    for times in (1, 3, 4):  # for 2 Keras gives something else than NumPy
        yield case("rot90", X, k=times)
    yield case("rot90", normal(2, 3, 4), k=1, axes=(1, 2))
    image = normal(2, 4, 6, 3)
    yield case("rearrange", image, "b (h1 h) (w w1) c -> (b h1 w1) h w c", h1=2, w1=3)
    yield case("rearrange", image, "b h w c -> b (c h w)")
    yield case("kron", X, Y)
    yield case("kron", V, X)
    three = normal(2, 3), normal(2, 3)
    yield case("cross", *three)
    yield case("cross", three[0][:, :2], three[1])
    yield case("cross", *(t[:, :2] for t in three))
    yield case("cross", *(t.T for t in three), axis=0)
    yield case("diff", X)
    yield case("diff", X, n=2, axis=0)
    yield case("trapezoid", X)
    yield case("trapezoid", X, x=np.cumsum(P[0]), axis=1)
    yield case("trapezoid", X, dx=0.5, axis=0)
    yield case("corrcoef", X)
    for mode in ("valid", "same", "full"):
        yield case("correlate", V, W[:3], mode=mode)
        yield case("correlate", W[:2], V, mode=mode)
    yield case("cdist", X, Y)
    yield case("isin", I, J)
    yield case("isin", I, J, invert=True)
    yield case("unique", I)
    several = dict.fromkeys(("return_index", "return_inverse", "return_counts"), True)
    yield case("unique", of([3, 1, 3, 2], "int32"), **several)
    yield case("histogram", V)
    yield case("histogram", V, bins=3, range=(-1.0, 1.0))
    yield case("unravel_index", of([3, 7, 11], "int32"), (3, 4))
    yield case("select", [X > 0.5, X > 0], [Y, 2 * Y], -1.0)


def factoring() -> Iterator[Case]:
    yield case("pinv", X)
    yield case("matrix_rank", X)
    yield case("matrix_rank", np.ones((3, 3), "float32"))
    yield case("lstsq", X.T, normal(4, 2))
    yield case("lstsq", X.T, V)
    yield case("cholesky_inverse", np.linalg.cholesky(POSITIVE))
    yield case("cholesky_inverse", np.linalg.cholesky(POSITIVE).T, upper=True)
    yield case("logdet", POSITIVE)
    yield case("lu_factor", SQUARE)
    yield case("lu_factor", normal(2, 4, 4))


def spectral() -> Iterator[Case]:
    for n in (1, 8, 97, 192, 194):
        yield case("fft", (normal(2, n), normal(2, n)))
    for name in ("fft2", "ifft2"):
        yield case(name, (normal(2, 6, 5), normal(2, 6, 5)))
    signal = normal(2, 150)
    yield case("rfft", signal)
    yield case("rfft", signal, fft_length=101)
    yield case("irfft", (normal(2, 9), normal(2, 9)))
    yield case("irfft", (normal(2, 9), normal(2, 9)), fft_length=15)
    yield case("extract_sequences", signal, 20, 7)
    yield case("stft", signal, 16, 8, 16)
    yield case("stft", signal, 10, 4, 16, window="hamming", center=False)
    yield case("stft", signal, 16, 8, 20, window=None)
    pair = keras.ops.stft(signal, 16, 8, 16)
    spectrum = tuple(np.asarray(part) for part in pair)
    yield case("istft", spectrum, 16, 8, 16)
    yield case("istft", spectrum, 16, 8, 16, length=140, window="hamming")
    yield case("istft", spectrum, 12, 6, 16, center=False)
    for name in ("bartlett", "blackman", "hamming", "hanning"):
        yield case(name, 7)
    yield case("kaiser", 7, 4.0)


def regions() -> Iterator[Case]:
    rows, ids = normal(4, 2), of([0, 2, 0, 2], "int32")
    for name in ("segment_min", "segment_prod"):
        yield case(name, rows, ids[[0, 2, 1, 3]], num_segments=3)
    image = normal(2, 6, 4, 8)
    yield case("depth_to_space", image, 2)
    yield case("space_to_depth", image, 2)
    yield case("depth_to_space", image.transpose(0, 3, 1, 2), 2, data_format="channels_first")
    first = normal(2, 3, 6, 5)
    for options in ({}, {"stride": 2, "padding": (1, 0)}, {"dilation": (2, 1)}):
        yield case("unfold", first, (2, 3), **options)
        patches = np.asarray(keras.ops.unfold(first, (2, 3), **options))
        yield case("fold", patches, (6, 5), (2, 3), **options)
    for name in ("adaptive_average_pool", "adaptive_max_pool"):
        yield case(name, normal(2, 7, 5, 3), (3, 2))
        yield case(name, normal(2, 7, 3), 4)


def plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return stored(value)
    return value


def stored(value: Any) -> dict[str, Any]:
    array = np.asarray(value)
    flat = array.ravel().tolist()
    if array.dtype.kind == "f" and array.dtype != np.float64:
        flat = [float(str(number)) for number in array.ravel()]
    return {"dtype": array.dtype.name, "shape": array.shape, "flat": flat}


def main() -> None:
    lines = []
    common = (elementwise, pairs, along_axes, shapes, core, algebra, windows, losses)
    more = (numeric, missing, arranging, factoring, spectral, regions)
    for made in (*common, *more):
        for name, args, kwargs in made():
            try:
                out = getattr(keras.ops, name)(*args, **kwargs)
            except Exception as error:
                print("Keras refuses", name, kwargs, str(error)[:80])
                continue
            several = isinstance(out, (list, tuple))
            results = [stored(item) for item in (out if several else [out])]
            named = {key: plain(value) for key, value in kwargs.items()}
            lines.append(json.dumps([name, plain(args), named, results], separators=(",", ":")))
    text = "[\n" + ",\n".join(lines) + "\n]\n"
    (Path(__file__).parent / "keras_ops.json").write_text(text)


if __name__ == "__main__":
    main()
