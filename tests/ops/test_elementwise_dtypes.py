"""The dtype rules: no promotion between tensors, weak Python numbers, arrays take the tensor's."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

f32 = tf.constant([1.5, 2.5])
f64 = tf.constant(np.array([1.5, 2.5]))
i32 = tf.constant([3, 5])
i64 = tf.constant(np.array([3, 5]))
truth = tf.constant([True, False])
IAE = tf.errors.InvalidArgumentError


def check(value, dtype, expected):
    assert isinstance(value, tf.Tensor)
    assert value.dtype == dtype
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("call", [
    lambda: f32 + i32, lambda: f32 * f64, lambda: i32 + i64, lambda: f64 - f32, lambda: f32 / f64,
    lambda: i32 / i64, lambda: f32**f64, lambda: f32 // f64, lambda: i32 % i64, lambda: f32 < f64,
    lambda: tf.maximum(f32, f64), lambda: tf.where(truth, f32, f64),
    lambda: tf.where(truth, f32, i32),
    lambda: tf.clip_by_value(f32, f64, f64), lambda: tf.atan2(f32, f64), lambda: i32 & i64,
])  # fmt: skip
def test_row_tensors_of_different_dtypes_do_not_mix(call):
    with pytest.raises(IAE, match="do not mix"):
        call()


@pytest.mark.parametrize("value, dtype, expected", [
    (lambda: f32 + 1, "float32", [2.5, 3.5]),
    (lambda: 1 - f32, "float32", [-0.5, -1.5]),
    (lambda: f64 * 2.5, "float64", [3.75, 6.25]),
    (lambda: i32 * 3, "int32", [9, 15]),
    (lambda: i32 * True, "int32", [3, 5]),
    (lambda: f32 * True, "float32", [1.5, 2.5]),
    (lambda: 2**f32, "float32", [2**1.5, 2**2.5]),
    (lambda: 7 // f32, "float32", [4, 2]),
    (lambda: 7 % i32, "int32", [1, 2]),
    (lambda: 3 / f32, "float32", [2, 1.2]),
    (lambda: f32**2, "float32", [2.25, 6.25]),
    (lambda: i32**2, "int32", [9, 25]),
    (lambda: 2**i32, "int32", [8, 32]),
    (lambda: -f32, "float32", [-1.5, -2.5]),
    (lambda: abs(-f32), "float32", [1.5, 2.5]),
    (lambda: +i32, "int32", [3, 5]),
])  # fmt: skip
def test_row_a_python_number_takes_the_dtype_of_the_tensor(value, dtype, expected):
    check(value(), dtype, expected)


@pytest.mark.parametrize("call", [
    lambda: i32 + 1.5, lambda: 1.5 + i32, lambda: i32 // 2.0, lambda: i32 ** 0.5,
    lambda: f32 + 1j, lambda: truth + 1.5, lambda: tf.constant([1], tf.uint8) + 300,
])  # fmt: skip
def test_row_a_python_number_of_another_kind_does_not_mix(call):
    with pytest.raises(IAE):
        call()


@pytest.mark.parametrize("value, dtype, expected", [
    (lambda: f32 + np.array([1.0, 2.0]), "float32", [2.5, 4.5]),
    (lambda: np.array([1.0, 2.0]) + f32, "float32", [2.5, 4.5]),
    (lambda: np.array([1.0, 2.0]) / f32, "float32", [1 / 1.5, 0.8]),
    (lambda: np.array([1.0, 2.0]) > f32, "bool", [False, False]),
    (lambda: f32 * [1.0, 2.0], "float32", [1.5, 5.0]),
    (lambda: [1.0, 2.0] * f32, "float32", [1.5, 5.0]),
    (lambda: np.float64(2.5) * f32, "float32", [3.75, 6.25]),
    (lambda: f32 * np.float64(2.5), "float32", [3.75, 6.25]),
    (lambda: np.int64(2) - f64, "float64", [0.5, -0.5]),
    (lambda: i32 + np.array([1.5, 1.5]), "int32", [4, 6]),
    (lambda: i32 // np.array([2.5, 2.5]), "int32", [1, 2]),
    (lambda: i32 / np.array([2.5, 2.5]), "float64", [1.5, 2.5]),
])  # fmt: skip
def test_row_lists_and_arrays_take_the_dtype_of_the_tensor(value, dtype, expected):
    check(value(), dtype, expected)


def test_row_a_list_of_floats_does_not_become_integers():
    with pytest.raises((TypeError, ValueError)):
        tf.add(i32, [1.5, 2.5])


@pytest.mark.parametrize("value, dtype", [
    (lambda: tf.exp(np.array([1.0])), "float64"),
    (lambda: tf.exp([1.0, 2.0]), "float32"),
    (lambda: tf.exp(1.0), "float32"),
    (lambda: tf.square(np.array([1], np.int16)), "int16"),
    (lambda: tf.square(3), "int32"),
    (lambda: tf.add(1, 2.5), "float32"),
    (lambda: tf.add(np.array([1], np.int64), 2), "int64"),
    (lambda: tf.cos(tf.Variable([1.0])), "float32"),
])  # fmt: skip
def test_row_functions_of_no_tensor_keep_the_dtype_of_the_array(value, dtype):
    assert value().dtype == dtype


@pytest.mark.parametrize("value, dtype, expected", [
    (lambda: tf.maximum(f32, 0), "float32", [1.5, 2.5]),
    (lambda: tf.minimum(2, f64), "float64", [1.5, 2.0]),
    (lambda: tf.where(truth, f32, 0), "float32", [1.5, 0]),
    (lambda: tf.where(truth, 1, f64), "float64", [1, 2.5]),
    (lambda: tf.clip_by_value(f64, 0, 1.5), "float64", [1.5, 1.5]),
    (lambda: tf.clip_by_value(i32, 0, 4), "int32", [3, 4]),
    (lambda: tf.math.divide_no_nan(1, f32), "float32", [1 / 1.5, 0.4]),
    (lambda: tf.math.xlogy(2.0, f32), "float32", 2 * np.log([1.5, 2.5])),
    (lambda: tf.math.polygamma(1.0, f32), "float32", [0.9348022005, 0.4903577561]),
])  # fmt: skip
def test_row_weak_values_in_functions_follow_the_tensor(value, dtype, expected):
    check(value(), dtype, expected)


@pytest.mark.parametrize("value, dtype, expected", [
    (lambda: i32 / i32, "float64", [1, 1]),
    (lambda: i32 / 2, "float64", [1.5, 2.5]),
    (lambda: 15 / i32, "float64", [5, 3]),
    (lambda: i32 / 0, "float64", [np.inf, np.inf]),
    (lambda: tf.constant([3], tf.uint8) / tf.constant([2], tf.uint8), "float32", [1.5]),
    (lambda: tf.divide(3, 2), "float64", 1.5),
    (lambda: tf.truediv(i64, 2), "float64", [1.5, 2.5]),
    (lambda: tf.math.divide_no_nan(i32, 0), "float64", [0, 0]),
])  # fmt: skip
def test_row_quotients_of_integers_are_floats(value, dtype, expected):
    check(value(), dtype, expected)


@pytest.mark.parametrize("call", [lambda: i32 / 2.0, lambda: 2.0 / i32, lambda: i32 / [2.5, 2.5]])
def test_row_an_integer_tensor_over_a_float_is_a_type_error(call):
    with pytest.raises(TypeError):
        call()


@pytest.mark.parametrize("value, expected", [
    (lambda: i32 // 2, [1, 2]), (lambda: -i32 // 2, [-2, -3]), (lambda: i32 // -2, [-2, -3]),
    (lambda: i32 % 2, [1, 1]), (lambda: -i32 % 4, [1, 3]), (lambda: i32 % -4, [-1, -3]),
    (lambda: f32 // 1, [1, 2]), (lambda: -f32 // 1, [-2, -3]), (lambda: f32 % 1, [0.5, 0.5]),
    (lambda: -f32 % 2, [0.5, 1.5]), (lambda: f32 % -2, [-0.5, -1.5]),
])  # fmt: skip
def test_row_floor_division_and_remainder_take_the_sign_of_the_divisor(value, expected):
    np.testing.assert_array_equal(value().numpy(), expected)


@pytest.mark.parametrize("call", [
    lambda: i32**-1, lambda: truth + truth, lambda: -truth,
    lambda: tf.math.log(i32), lambda: tf.sqrt(3), lambda: tf.exp(i32), lambda: tf.floor(i32),
    lambda: tf.math.ceil(i32), lambda: tf.math.rint(i32), lambda: tf.round(truth),
    lambda: tf.math.is_nan(i32), lambda: tf.math.rsqrt(3), lambda: tf.math.reciprocal(3),
    lambda: tf.math.multiply_no_nan(3, 2), lambda: truth < truth, lambda: tf.nn.gelu(i32),
    lambda: tf.sigmoid(i32), lambda: tf.logical_and(i32, i32), lambda: tf.logical_not(f32),
    lambda: f32 & f32, lambda: ~f32, lambda: tf.math.erf(i32), lambda: tf.complex(1, 2),
])  # fmt: skip
def test_row_a_dtype_that_an_operation_does_not_take(call):
    with pytest.raises(IAE):
        call()


def test_row_cast_truncates_and_returns_its_own_dtype_as_the_same_object():
    assert tf.cast([1.7, -1.7], tf.int32).numpy().tolist() == [1, -1]
    assert tf.cast([0.0, 0.5, np.nan], tf.bool).numpy().tolist() == [False, True, True]
    check(tf.cast(truth, tf.float32), "float32", [1, 0])
    assert tf.cast(f32, tf.float32) is f32
    assert tf.cast(f32, "float32") is f32
    with pytest.raises(TypeError, match="no such type"):
        tf.cast(f32, "no such type")


def test_round_and_relu_of_integers_keep_them():
    assert tf.round(i32) is i32
    check(tf.nn.relu(tf.constant([-1, 2])), "int32", [0, 2])
    check(tf.nn.leaky_relu(tf.constant([-1, 2])), "float32", [-0.2, 2])


@pytest.mark.parametrize("value, expected", [
    (lambda: truth & True, [True, False]), (lambda: True & truth, [True, False]),
    (lambda: truth | [False, True], [True, True]), (lambda: False | truth, [True, False]),
    (lambda: truth ^ True, [False, True]), (lambda: True ^ truth, [False, True]),
    (lambda: ~truth, [False, True]), (lambda: np.array([True, True]) & truth, [True, False]),
    (lambda: tf.math.logical_xor(truth, truth), [False, False]),
    (lambda: tf.logical_or(truth, truth), [True, False]),
    (lambda: i32 & 6, [2, 4]), (lambda: i32 | 6, [7, 7]), (lambda: 6 ^ i32, [5, 3]),
    (lambda: ~i32, [-4, -6]),
])  # fmt: skip
def test_logical_operators_work_on_bools_and_on_the_bits_of_integers(value, expected):
    assert value().numpy().tolist() == expected


def test_variables_are_operands_on_either_side():
    v = tf.Variable([1.5, 2.5])
    for value, expected in [
        (v // 1, [1, 2]), (7 // v, [4, 2]), (v % 1, [0.5, 0.5]), (7 % v, [1, 2]),
        (v**2, [2.25, 6.25]),
        (2 / v, [4 / 3, 0.8]), (v / f32, [1, 1]), (f32 - v, [0, 0]), (abs(-v), [1.5, 2.5]),
        (tf.where(v > 2, v, 0), [0, 2.5]), (tf.maximum(v, 2), [2, 2.5]),
        (tf.clip_by_value(v, 0, 2), [1.5, 2]),
    ]:  # fmt: skip
        check(value, "float32", expected)
    assert (~tf.Variable([True])).numpy().tolist() == [False]
    assert (tf.Variable([6]) & 3).numpy().tolist() == [2]


def test_gradients_flow_through_reflected_operators():
    v = tf.Variable(2.0)
    for f, expected in [
        (lambda: 1 - v, -1), (lambda: 1 / v, -0.25), (lambda: 2**v, 4 * np.log(2)),
        (lambda: 7 % v, -3), (lambda: v % 3, 1), (lambda: v**3, 12), (lambda: 5 * v, 5),
    ]:  # fmt: skip
        with tf.GradientTape() as tape:
            y = f()
        assert tape.gradient(y, v).numpy() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [tf.float16, tf.float32, tf.float64])
def test_every_float_dtype_is_kept_forward_and_backward(dtype):
    x = tf.constant([0.25, 0.5], dtype)
    m = tf.math
    for f in (
        m.exp, m.expm1, m.log, m.log1p, m.sqrt, m.rsqrt, m.reciprocal, m.sigmoid, m.softplus, m.sin,
        m.cos, m.tan, m.asin, m.acos, m.atan, m.sinh, m.cosh, m.tanh, m.asinh, m.atanh, m.abs,
        m.square, m.negative, m.erf, m.erfc, m.erfinv, m.ndtri, m.lgamma, m.digamma, m.softsign,
        m.log_sigmoid, m.floor, m.rint,
    ):  # fmt: skip
        name = f.__name__
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = f(x)
        assert y.dtype == dtype, name
        g = tape.gradient(y, x)
        assert g is None or g.dtype == dtype, name
    for f in (tf.nn.gelu, tf.nn.silu, tf.nn.elu, tf.nn.selu, tf.nn.relu6, tf.nn.mish):
        assert f(x).dtype == dtype, f


def test_names_that_tensorflow_has_twice_are_the_same_objects():
    shared = {n for n in vars(tf) if n in tf.math.__all__ and callable(getattr(tf, n))}
    assert len(shared) > 40
    for name in shared:
        assert getattr(tf, name) is getattr(tf.math, name), name
    assert tf.math.mod is tf.math.floormod
    assert tf.nn.swish is tf.nn.silu
    assert tf.nn.softplus is tf.math.softplus
    assert tf.nn.softsign is tf.math.softsign
    assert tf.nn.sigmoid is tf.sigmoid
