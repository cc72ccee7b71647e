"""tf.experimental.numpy against NumPy itself: values, dtypes, and gradients."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.core.tensor import Operand
from distgrad.experimental import behavior, promotion
from distgrad.testing.gradients import check_gradients

tnp = tf.experimental.numpy
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(3, 4)).astype(np.float32), RNG.normal(size=(3, 4))
I = RNG.integers(0, 4, (3, 4))
KINDS = [2, 2.5, [1, 2, 3], [1.0, 2.0, 3.0]] + [
    np.array([1, 2, 3], dtype) for dtype in ("u1", "i1", "i4", "i8", "f2", "f4", "f8", "c8", "c16")
]


@pytest.mark.parametrize("one", KINDS, ids=str)
def test_where_dtypes_meet(one):
    """As NumPy has it, but for lists of Python's numbers, which are as weak as the numbers."""
    for other in KINDS[:2] + KINDS[4:]:
        weak = np.asarray(one)[0] if isinstance(one, list) else one
        weak = weak.item() if isinstance(one, list) else weak
        expected = np.result_type(weak, other)
        made = tnp.add(one, other)
        assert made.dtype == expected, (one, other)
        np.testing.assert_allclose(made, np.add(np.asarray(one), np.asarray(other)))
        assert tnp.result_type(one, other) == expected


@pytest.mark.parametrize("name", [
    "arctan", "cbrt", "ceil", "cos", "deg2rad", "exp", "exp2", "expm1", "floor", "isnan", "log1p",
    "rad2deg", "sinc", "sinh", "square", "tanh", "abs", "negative", "sign", "signbit", "fix",
    "logical_not", "sum", "prod", "mean", "var", "std", "max", "amin", "ptp", "all", "any",
    "argmax", "argmin", "cumsum", "cumprod", "count_nonzero", "sort", "argsort", "diff", "flip",
    "ravel", "transpose", "squeeze", "around", "average", "diag", "diagonal", "trace", "tril",
    "triu", "fliplr", "flipud", "rot90", "isreal", "iscomplex", "nansum", "nanmean", "zeros_like",
])  # fmt: skip
@pytest.mark.parametrize("x", [X, Y, I], ids=["float32", "float64", "int64"])
def test_functions_of_one_array(name, x):
    with np.errstate(invalid="ignore"):  # of the logarithm
        made, expected = getattr(tnp, name)(x), getattr(np, name)(x)
    if name not in ("ceil", "count_nonzero", "fix", "floor"):  # NumPy 2.1 keeps integers here
        assert made.dtype == expected.dtype
    np.testing.assert_allclose(made, expected, rtol=2e-6 if x is X else 1e-12, atol=1e-6)


@pytest.mark.parametrize("name", [
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "less", "equal", "arctan2",
    "hypot", "logaddexp", "outer", "inner", "vdot", "kron", "append", "array_equal", "allclose",
    "heaviside", "logical_and", "logical_xor", "floor_divide", "mod", "float_power", "tensordot",
])  # fmt: skip
def test_functions_of_two_arrays(name):
    for x, y in ((np.abs(X) + 1, Y), (I + 1, np.abs(Y)), (I + 1, I + 2)):
        made, expected = getattr(tnp, name)(x, y), getattr(np, name)(x, y)
        assert made.dtype == np.asarray(expected).dtype
        np.testing.assert_allclose(made, expected, rtol=1e-6)


@pytest.mark.parametrize("use", [
    lambda np: np.arange(5), lambda np: np.arange(0, 1, 0.25), lambda np: np.linspace(0, 1, 5),
    lambda np: np.logspace(0, 2, 3), lambda np: np.zeros((2, 3)), lambda np: np.ones(2, np.int32),
    lambda np: np.full((2, 2), [1, 2]), lambda np: np.eye(2, 3, 1), lambda np: np.tri(3),
    lambda np: np.array([1, 2], ndmin=2), lambda np: np.array([[1, 2], [3, 4.0]]),
    lambda np: np.full_like(X, 3, dtype=np.int64), lambda np: np.identity(2),
    lambda np: np.matmul(X, Y.T), lambda np: np.dot([1, 2], [3, 4]),
    lambda np: np.cross([1, 2, 3], [4, 5, 6]), lambda np: np.einsum("ij,kj->ik", X, Y),
    lambda np: np.sum(X, axis=(0, 1), keepdims=True), lambda np: np.mean(I, axis=0),
    lambda np: np.var(Y, ddof=1), lambda np: np.average(X, weights=Y, axis=1),
    lambda np: np.reshape(X, (2, 6), order="F"), lambda np: np.expand_dims(X, -1),
    lambda np: np.moveaxis(X[None], 0, -1), lambda np: np.roll(X, 1), lambda np: np.tile(X, 2),
    lambda np: np.repeat([1, 2], [2, 3]), lambda np: np.stack([X, Y]), lambda np: np.hstack([I, Y]),
    lambda np: np.concatenate([[1, 2], [3]]), lambda np: np.where(X > 0, X, Y),
    lambda np: np.clip(X, None, 0.5), lambda np: np.clip([1, 2, 3], 1.5, 2.5),
    lambda np: np.take(X, [0, 2], axis=0), lambda np: np.take(X, [1, -1, 99], mode="clip"),
    lambda np: np.take_along_axis(X, I % 3, axis=0), lambda np: np.polyval([1, 2, 3], 2.0),
    lambda np: np.compress([True, False, True], X, axis=0), lambda np: np.around([15, 25], -1),
    lambda np: np.select([X > 0, X < -1], [X, Y], 7), lambda np: np.angle([1j, 1.0], deg=True),
    lambda np: np.pad(X, [[1, 0], [0, 1]], "constant"), lambda np: np.vander([1, 2, 3]),
    lambda np: np.divmod(7, 2)[1], lambda np: np.nonzero(I)[1],
    lambda np: np.ix_([0, 1], [1, 2])[0],
    lambda np: np.meshgrid([1, 2], [3, 4, 5])[1], lambda np: np.split(X, [1, 3], axis=1)[1],
    lambda np: np.atleast_3d(X), lambda np: np.broadcast_arrays([1, 2], [[1.0], [2.0]])[0],
])  # fmt: skip
def test_arrays(use):
    made, expected = use(tnp), np.asarray(use(np))
    assert made.dtype == expected.dtype and made.shape == expected.shape
    np.testing.assert_allclose(made, expected, rtol=1e-6)


def test_numbers_of_arrays_and_names():
    assert (tnp.size(X), tnp.size(X, 0), tnp.ndim(X), tnp.shape(X)) == (12, 3, 2, (3, 4))
    assert tnp.isscalar(3) and not tnp.isscalar(X) and isinstance(tnp.ones(2), tnp.ndarray)
    assert tnp.pi == np.pi and tnp.newaxis is None and tnp.float32 is np.float32
    found, total = tnp.average([1, 2], weights=[3, 1], returned=True)
    assert (float(found), float(total)) == (1.25, 4.0)
    with pytest.raises(AttributeError, match="keras.ops"):
        tnp.interp  # noqa: B018
    with pytest.raises(ValueError, match="mode is"):
        tnp.take(X, [1], mode="raise")


@pytest.mark.parametrize("function", [
    lambda x: tnp.std(x, axis=1), lambda x: tnp.clip(x, -0.5, 0.5),
    lambda x: tnp.take(x, [0, 0, 2]),
    lambda x: tnp.float_power(tnp.abs(x), 1.5),
    lambda x: tnp.angle(tnp.add(x, tnp.multiply(x * x, 1j))),
    lambda x: tnp.average(x, axis=0, weights=[1, 2, 3]), lambda x: tnp.polyval(x[0], x),
    lambda x: behavior.item(x, [0, 0, 2]), lambda x: behavior.item(x, (slice(None), [1, 0, 1])),
])  # fmt: skip
def test_gradients(function):
    check_gradients(function, [Y])


def test_maximum_with_zero_has_the_slope_of_relu():
    x = tf.constant([-1.0, 0.0, 2.0])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        with_zero, with_zeros = tnp.maximum(x, 0.0), tnp.maximum(x, [0.0])
    assert tape.gradient(with_zero, x).numpy().tolist() == [0, 0, 1]
    assert tape.gradient(with_zeros, x).numpy().tolist() == [0, 1, 1]


def test_random_numbers():
    draw = tnp.random
    draw.seed(3)
    first = draw.randn(2, 3)
    draw.seed(3)
    assert np.array_equal(first, draw.randn(2, 3)) and first.dtype == np.float64
    for made, shape in (
        (draw.rand(4), (4,)),
        (draw.random((2,)), (2,)),
        (draw.uniform(1, 2, 3), (3,)),
    ):
        assert made.dtype == np.float64 and made.shape == shape
    whole = draw.randint(2, 5, (50,))
    assert whole.dtype == np.int64 and set(whole.numpy()) == {2, 3, 4}
    assert draw.poisson(3.0, [2]).dtype == np.int64
    with pytest.raises(ValueError, match="no integer"):
        draw.randint(0)


@pytest.fixture
def manners():
    """NumPy's manners, and tensors as they were after the test."""
    missing = object()
    before = {name: Operand.__dict__.get(name, missing) for name in behavior._methods()}
    tnp.experimental_enable_numpy_behavior()
    yield
    promotion.prefer_float32 = False
    for name, method in before.items():
        delattr(Operand, name) if method is missing else setattr(Operand, name, method)


def test_tensors_with_the_manners_of_numpy(manners):
    n, f = tf.constant([1, 2]), tf.Variable([1.0, 2.0])
    for made, expected in (
        (n + f, [2.0, 4.0]), (n * 1.5, [1.5, 3.0]), (1.5 - n, [0.5, -0.5]), (n**0.5, [1.0, 2**0.5]),
        (n * np.array([0.5, 2]), [0.5, 4.0]), (n / 2, [0.5, 1.0]), (n // 2.0, [0.0, 1.0]),
    ):  # fmt: skip
        assert made.dtype is tf.float64 and np.allclose(made, expected)
    assert float(n @ f) == 5.0 and (n < 1.5).numpy().tolist() == [True, False]
    assert (n == None) is False and (n == [1, 2, 3]) is False  # noqa: E711
    assert (2**n).dtype is tf.int32
    m = tf.constant([[1, 2], [3, 4]])
    assert m.T.numpy().tolist() == [[1, 3], [2, 4]] and m.size == 4
    assert m.reshape(4).shape == m.reshape([4]).shape == m.ravel().shape == (4,)
    assert m.reshape(1, 4).shape == (1, 4) and m.tolist() == [[1, 2], [3, 4]]
    assert m.astype(np.float32).dtype is tf.float32 and float(m.mean()) == 2.5
    assert m[[0, 1], [1, 0]].numpy().tolist() == [2, 3] == m[(0, 1), (1, 0)].numpy().tolist()
    assert m[:, (False, True)].numpy().tolist() == [[2], [4]]
    assert m[-1].numpy().tolist() == [3, 4]
    assert m[tf.constant([1, 0])].numpy().tolist() == [[3, 4], [1, 2]]
    assert m[m > 2].numpy().tolist() == [3, 4]
    with pytest.raises(tf.errors.InvalidArgumentError, match="out of bounds"):
        m[[5]]


def test_python_floats_that_are_short(manners):
    tnp.experimental_enable_numpy_behavior(prefer_float32=True)
    assert tnp.ones(2).dtype is tnp.array([1.5]).dtype is (tf.constant(1) / 2).dtype is tf.float32
    with pytest.raises(ValueError, match="dtype_conversion_mode"):
        tnp.experimental_enable_numpy_behavior(dtype_conversion_mode="safe")
