"""Every primitive of the registry: samples, rules, gradients, expressions, layouts."""

from __future__ import annotations

import math

import numpy as np
import pytest

import distgrad as tf
from distgrad.core.dispatch import as_tensor, current
from distgrad.core.primitive import bind, primitive, registry, sample
from distgrad.core.tensor import Tensor
from distgrad.testing.gradients import check_gradients
from distgrad.testing.primitives import built_in, samples_of

pytestmark = pytest.mark.usefixtures("plain_kernels")

BUILT_IN = built_in()
CASES = [
    pytest.param(p, s, id=f"{name}-{i}")
    for name, p in sorted(BUILT_IN.items())
    for i, s in enumerate(samples_of(p))
]
DIFFERENTIABLE = [c for c in CASES if c.values[0].differentiable]


def cast(args, dtype):
    return [
        a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a for a in args
    ]


def kernel(p, args, params):
    return p.kernel(np, *args, **{**p.defaults, **params})


def assert_same(found, expected):
    """The same bits as NumPy on the CPU; on a GPU, which rounds exp and sums otherwise, nearly."""
    if current().array_type is np.ndarray:
        np.testing.assert_array_equal(found, expected)
    else:
        rtol = 1e-5 if np.asarray(expected).real.dtype.itemsize < 8 else 1e-12
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)


# Values and vectors, of which any column may have the other sign: a GPU's have their own.
WITH_SIGNS = ("eigen_pairs", "svd_factors")


def with_one_sign(factors):
    """Columns of all vectors times the sign of the largest number of the first ones' column."""
    values, first, *more = factors
    largest = np.take_along_axis(first, np.abs(first).argmax(-2)[..., None, :], -2)
    signs = np.sign(largest[..., : values.shape[-1]])
    turned = []
    for vectors in (first, *more):
        vectors = vectors.copy()
        vectors[..., : signs.shape[-1]] *= signs
        turned.append(vectors)
    return [values, *turned]


def outputs(value):
    return list(value) if isinstance(value, (tuple, list)) else [value]


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_has_samples_and_says_which_arguments_have_a_gradient(name):
    p = BUILT_IN[name]
    assert samples_of(p), f"{name} has no samples"
    ruled = {n for names, _ in p.rules for n in names}
    if not p.differentiable:
        assert not ruled, f"{name} says vjp=None and has rules"
    elif p.variadic:
        assert ruled == {"*"}
    else:
        assert ruled | set(p.constant) == set(p.arg_names), f"{name}: an argument without a rule"


@pytest.mark.parametrize("p, s", DIFFERENTIABLE)
def test_first_and_second_derivative(p, s):
    check_gradients(lambda *args: p(*args, **s.params), s.args, order=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p, s", CASES)
def test_call_gives_the_kernel_value_and_keeps_the_dtype(p, s, dtype):
    args = cast(s.args, dtype)
    expected = outputs(kernel(p, args, s.params))
    found = outputs(p(*args, **s.params))
    values = [f.numpy() for f in found]
    if p.name in WITH_SIGNS and current().array_type is not np.ndarray:
        values, expected = with_one_sign(values), with_one_sign(expected)
    for e, f, value in zip(expected, found, values, strict=True):
        assert type(f) is Tensor and isinstance(f._data, current().array_type)
        assert_same(value, e)
        floats = [a for a in args if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
        if floats and f._data.dtype.kind == "f" and "dtype" not in s.params:
            assert f._data.dtype == dtype


@pytest.mark.parametrize("p, s", CASES)
def test_inputs_are_left_alone_in_any_layout(p, s):
    strided = [
        np.repeat(a, 2, axis=-1)[..., ::2] if isinstance(a, np.ndarray) and a.ndim else a
        for a in s.args
    ]
    before = [np.copy(a) if isinstance(a, np.ndarray) else a for a in strided]
    tensors = [Tensor(a) if isinstance(a, np.ndarray) else a for a in strided]
    found = outputs(bind(p, *tensors, **{**p.defaults, **s.params}))
    for a, b in zip(strided, before, strict=True):
        np.testing.assert_array_equal(a, b)
    for f, e in zip(found, outputs(kernel(p, list(s.args), s.params)), strict=True):
        np.testing.assert_allclose(f.numpy(), e, rtol=1e-12)
        shares = [np.shares_memory(f._host(), a) for a in strided if isinstance(a, np.ndarray)]
        assert p.view or not any(shares), f"{p.name} returns a view and does not say so"


EXPRESSION = {  # the names of C's mathematical functions, and two that C writes otherwise
    **{f.__name__: f for f in (np.exp, np.expm1, np.log, np.log1p, np.sqrt, np.sign)},
    **{f.__name__: f for f in (np.floor, np.ceil, np.rint, np.where)},
    **{f.__name__: f for f in (np.sin, np.cos, np.tan, np.sinh, np.cosh, np.tanh)},
    **{f"a{f}": getattr(np, f"arc{f}") for f in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{f: np.vectorize(getattr(math, f), otypes=[float]) for f in ("erf", "erfc", "lgamma")},
    "abs": np.abs,
    "atan2": np.arctan2,
}


@pytest.mark.parametrize("p, s", [c for c in CASES if c.values[0].expr])
def test_scalar_expression_equals_the_kernel(p, s):
    names = dict(zip(p.arg_names, s.args, strict=True), **s.params)
    value = eval(p.expr, {"__builtins__": {}}, {**EXPRESSION, **names})
    np.testing.assert_allclose(value, kernel(p, s.args, s.params), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("p, s", [c for c in DIFFERENTIABLE if c.values[0].name != "cast_float"])
def test_gradient_keeps_float32(p, s):
    args = [as_tensor(a) if isinstance(a, np.ndarray) else a for a in cast(s.args, np.float32)]
    sources = [a for a in args if isinstance(a, Tensor) and a.dtype.is_floating]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        value = p(*args, **s.params)
    targets = [o for o in outputs(value) if o.dtype.is_floating]
    for g in tape.gradient(targets, sources, unconnected_gradients="zero"):
        assert g.dtype == tf.float32


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)], ids=str)
@pytest.mark.parametrize("p, s", [c for c in CASES if c.values[0].expr])
def test_elementwise_in_rank_0_and_without_elements(p, s, shape):
    args = [
        np.full(shape, a.flat[0] if a.size else 1, a.dtype) if isinstance(a, np.ndarray) else a
        for a in s.args
    ]
    tensors = [as_tensor(a) if isinstance(a, np.ndarray) else a for a in args]
    sources = [t for t in tensors if isinstance(t, Tensor) and t.dtype.is_floating]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        value = p(*tensors, **s.params)
    assert value.shape == shape and type(value._data) is current().array_type
    assert_same(value.numpy(), kernel(p, args, s.params))
    if value.dtype.is_floating:
        for g in tape.gradient(value, sources, unconnected_gradients="zero"):
            assert g.shape == shape


def test_a_wrong_rule_is_found():
    @primitive()
    def wrong_cube(xp, x):
        return x * x * x

    del registry["wrong_cube"]

    @wrong_cube.vjp("x")
    def _(g, x):
        return g * x * x * 2.999

    with pytest.raises(AssertionError, match="finite differences"):
        check_gradients(wrong_cube, [np.array([0.7, -1.2])], order=1)


def test_a_wrong_second_derivative_is_found():
    @primitive()
    def opaque_square(xp, x):
        return x * x

    del registry["opaque_square"]

    @opaque_square.vjp("x")
    def _(g, x):
        return g * (2 * tf.stop_gradient(x))

    check_gradients(opaque_square, [np.array([0.7, -1.2])], order=1)
    with pytest.raises(AssertionError, match="of the derivative"):
        check_gradients(opaque_square, [np.array([0.7, -1.2])], order=2)


def test_samples_hold_tuples():
    assert sample(1, 2, axis=0) == ((1, 2), {"axis": 0})
