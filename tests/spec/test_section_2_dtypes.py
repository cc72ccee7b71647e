"""Tape semantics 2: dtypes. Nothing is promoted between tensors; Python numbers are weak."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import distgrad as tf

IAE = tf.errors.InvalidArgumentError


def f32(*values):
    return tf.constant(list(values) or 2.0, tf.float32)


def f64(*values):
    return tf.constant(list(values) or 2.0, tf.float64)


def i32(*values):
    return tf.constant(list(values) or 2, tf.int32)


def i64(*values):
    return tf.constant(list(values) or 2, tf.int64)


MIXED = {
    "f32+i32": lambda: f32(1.0) + i32(1),
    "f32*f64": lambda: f32(1.0) * f64(1.0),
    "i32+i64": lambda: i32(1) + i64(1),
    "variable f32 - tensor f64": lambda: tf.Variable([1.0]) - f64(1.0),
    "matmul": lambda: tf.matmul(tf.ones((2, 2)), tf.ones((2, 2), tf.float64)),
    "@": lambda: tf.ones((2, 2)) @ tf.ones((2, 2), tf.float64),
    "concat": lambda: tf.concat([f32(1.0), f64(1.0)], 0),
    "stack": lambda: tf.stack([f32(1.0), i32(1)]),
    "where": lambda: tf.where(tf.constant([True]), f32(1.0), f64(1.0)),
    "maximum": lambda: tf.maximum(f32(1.0), f64(1.0)),
    "comparison": lambda: f32(1.0) < f64(1.0),
    "i32/i64": lambda: i32(1) / i64(1),
    "//": lambda: i32(1) // i64(1),
    "**": lambda: f32(1.0) ** f64(1.0),
}


@pytest.mark.parametrize("name", MIXED)
def test_tensors_of_two_dtypes(name):
    """tensor op tensor, dtypes differ (f32+i32, f32*f64, i32+i64, matmul, concat, where): IAE."""
    with pytest.raises(IAE):
        MIXED[name]()


def test_the_message_of_mixed_dtypes_names_both():
    """Messages hold ... both dtype names."""
    with pytest.raises(IAE, match="float32.*int64"):
        f32(1.0) + i64(1)


@pytest.mark.parametrize("divide", [lambda: i32(4) / 2.0, lambda: 2.0 / i32(4)])
def test_an_integer_tensor_divided_by_a_float(divide):
    """`int_tensor / 2.0`: TypeError."""
    with pytest.raises(TypeError):
        divide()


@pytest.mark.parametrize(
    "expression, dtype, value",
    [
        (lambda: f32() + 1, "float32", 3.0),
        (lambda: 1 - f32(), "float32", -1.0),
        (lambda: f64() * 2.5, "float64", 5.0),
        (lambda: i32() * 3, "int32", 6),
        (lambda: i32() * True, "int32", 2),
        (lambda: f32() * True, "float32", 2.0),
        (lambda: 2 ** i32(), "int32", 4),
        (lambda: 7 // i64(), "int64", 3),
        (lambda: f64() / 3, "float64", 2 / 3),
        (lambda: tf.Variable(2.0) * 3, "float32", 6.0),
        (lambda: tf.constant(2.0, tf.float16) + 1, "float16", 3.0),
    ],
)
def test_a_python_scalar_takes_the_dtype_of_the_tensor(expression, dtype, value):
    """`f32 + 1`, `1 - f32`, `f64 * 2.5`, `i32 * 3`, `i32 * True`: takes the tensor's dtype."""
    found = expression()
    assert found.dtype == dtype and found.numpy() == value


@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.lt])
def test_an_integer_tensor_and_a_python_float(op):
    """`i32 + 1.5`: IAE."""
    with pytest.raises(IAE):
        op(i32(), 1.5)
    with pytest.raises(IAE):
        op(1.5, i32())


@pytest.mark.parametrize(
    "other",
    [
        [1.0, 2.0],
        (1.0, 2.0),
        np.array([1.0, 2.0]),
        np.array([1, 2]),
        np.float64(2.0),
        np.float32(2.0),
        np.int64(2),
    ],
    ids=["list", "tuple", "f64array", "i64array", "np.float64", "np.float32", "np.int64"],
)
def test_what_stands_beside_a_tensor_takes_its_dtype(other):
    """tensor op list or ndarray or numpy scalar, either side: converted to the tensor's dtype."""
    for x in (f32(1.0, 2.0), f64(1.0, 2.0), tf.Variable([1.0, 2.0])):
        for op in (operator.add, operator.mul, operator.truediv, operator.pow, operator.le):
            for found in (op(x, other), op(other, x)):
                assert isinstance(found, tf.Tensor)
                assert found.dtype == ("bool" if op is operator.le else x.dtype)
        expected = np.subtract(other, [1.0, 2.0])
        np.testing.assert_array_equal(other - x, expected)


def test_a_float_array_beside_an_integer_tensor_is_truncated():
    """i32 + [1.5] *array* is truncated to int32."""
    found = i32(10, 20) + np.array([1.5, -1.5])
    assert found.dtype == tf.int32
    np.testing.assert_array_equal(found, [11, 19])


def test_ndarray_op_tensor_is_a_tensor():
    """`ndarray op tensor`: result is a tensor (needs `__array_priority__`)."""
    array, x = np.array([[1.0, 2.0], [3.0, 4.0]]), tf.ones((2, 2))
    arithmetic = "add sub mul truediv pow matmul mod floordiv gt eq"
    for op in (getattr(operator, name) for name in arithmetic.split()):
        for tensor in (x, tf.Variable(x)):
            assert isinstance(op(array, tensor), tf.Tensor)
            assert isinstance(op(tensor, array), tf.Tensor)


def test_numpy_functions_take_tensors():
    """A tensor is an array to NumPy's own functions, which give arrays."""
    x = f32(1.0, 4.0)
    assert isinstance(np.sqrt(x), np.ndarray)
    np.testing.assert_array_equal(np.add(x, [1, 1]), [2.0, 5.0])
    assert np.allclose(x, [1.0, 4.0]) and np.sum(tf.Variable(x)) == 5.0


def test_functions_on_arrays_and_numbers_alone():
    """function on ndarray only: dtype kept; on python floats float32."""
    assert tf.exp(np.ones(2)).dtype == tf.float64
    assert tf.add(np.ones(2, np.float32), np.ones(2, np.float32)).dtype == tf.float32
    assert tf.reduce_sum(np.arange(3, dtype=np.int16)).dtype == tf.int16
    assert tf.exp(1.0).dtype == tf.float32
    assert tf.add(1.0, 2.0).dtype == tf.float32
    assert tf.multiply([1.0, 2.0], [3.0, 4.0]).dtype == tf.float32


@pytest.mark.parametrize(
    "make, dtype, value",
    [
        (lambda: tf.maximum(f32(-1.0, 1.0), 0), "float32", [0.0, 1.0]),
        (lambda: tf.minimum(0, f64(-1.0, 1.0)), "float64", [-1.0, 0.0]),
        (lambda: tf.where([True, False], f32(5.0, 6.0), 0), "float32", [5.0, 0.0]),
        (lambda: tf.where(tf.constant([True, False]), 1, f64(5.0, 6.0)), "float64", [1.0, 6.0]),
        (lambda: tf.stack([f32(), 1]), "float32", [2.0, 1.0]),
        (lambda: tf.stack([1, f64()]), "float64", [1.0, 2.0]),
        (lambda: tf.concat([f32(2.0), [1]], 0), "float32", [2.0, 1.0]),
        (lambda: tf.concat([[1.5], f64(2.0)], 0), "float64", [1.5, 2.0]),
        (lambda: tf.clip_by_value(f64(-1.0, 2.0), 0, 1.5), "float64", [0.0, 1.5]),
        (lambda: tf.clip_by_value(i32(-1, 7), 0, 5), "int32", [0, 5]),
        (lambda: tf.pow(f64(3.0), 2), "float64", [9.0]),
        (lambda: tf.fill([1], f64()), "float64", [2.0]),
    ],
)
def test_weak_values_follow_the_tensor(make, dtype, value):
    """`maximum(f, 0)`, `where(c, f, 0)`, `stack([f, 1])`, `concat([f, [1]], 0)`, clip."""
    found = make()
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize(
    "value, dtype",
    [
        (1, "int32"),
        (2**31 - 1, "int32"),
        (2**31, "int64"),
        (-(2**31) - 1, "int64"),
        (1.0, "float32"),
        (True, "bool"),
        ([1, 2.5], "float32"),
        ([[1, 2], [3, 4]], "int32"),
        ([True, False], "bool"),
        (np.ones(2), "float64"),
        (np.ones(2, np.float16), "float16"),
        (np.arange(2, dtype=np.int8), "int8"),
        (np.float64(1.0), "float64"),
        (np.int64(1), "int64"),
        ([], "float32"),
        (range(3), "int32"),
        ([np.float32(1.0), 2.5], "float32"),
        ([np.float64(1.0), 2], "float64"),
        ([np.int64(1), 2], "int32"),
        ([np.arange(2), np.arange(2)], "int32"),
    ],
)
def test_default_dtypes(value, dtype):
    """defaults: int → int32 (int64 when it does not fit), float → float32, bool, mixed, ndarray."""
    assert tf.constant(value).dtype == dtype
    assert tf.convert_to_tensor(value).dtype == dtype
    assert tf.Variable(value).dtype == dtype


@pytest.mark.parametrize(
    "divide",
    [
        lambda: i32(3) / i32(2),
        lambda: i32(3) / 2,
        lambda: 3 / i32(2),
        lambda: i64(3) / i64(2),
        lambda: tf.divide(i32(3), i32(2)),
        lambda: tf.divide(3, 2),
    ],
)
def test_integers_divide_to_float64(divide):
    """`i32 / i32`, `i32 / 2`: float64."""
    found = divide()
    assert found.dtype == tf.float64
    np.testing.assert_array_equal(found, [1.5])


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64, tf.float32, tf.float64])
def test_floor_division_and_remainder(dtype):
    """`//`, `%`: floor semantics (sign of the divisor) for ints and floats."""
    a, b = tf.constant([7, -7, 7, -7], dtype), tf.constant([2, 2, -2, -2], dtype)
    for found, exact in ((a // b, [3, -4, -4, 3]), (a % b, [1, 1, -1, -1])):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, exact)
    np.testing.assert_array_equal(-7 // b, [-4, -4, 3, 3])
    np.testing.assert_array_equal(a % 3, [1, 2, 1, 2])


def test_a_negative_power_of_an_integer():
    """`i32 ** -1`: IAE."""
    with pytest.raises(IAE):
        i32(2) ** -1
    with pytest.raises(IAE):
        i32(2) ** i32(-1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: tf.constant([True]) + tf.constant([True]),
        lambda: tf.reduce_sum(tf.constant([True])),
        lambda: tf.math.log(i32(1)),
        lambda: tf.nn.softmax(i32(1, 2)),
        lambda: tf.sqrt(i32(4)),
        lambda: tf.reduce_mean(tf.constant([True])),
    ],
    ids=[
        "bool+bool",
        "reduce_sum(bool)",
        "log(int)",
        "softmax(int)",
        "sqrt(int)",
        "reduce_mean(bool)",
    ],
)
def test_dtypes_an_operation_does_not_take(call):
    """`bool + bool`, `reduce_sum(bool)`, `log(int)`, `softmax(int)`: IAE."""
    with pytest.raises(IAE):
        call()


def test_the_mean_of_integers():
    """`reduce_mean(int)`: integer, truncated."""
    found = tf.reduce_mean(i32(1, 2, 2))
    assert found.dtype == tf.int32 and int(found) == 1
    assert int(tf.reduce_mean(i32(-1, -2, -2))) == -1


@pytest.mark.parametrize(
    "make, dtype",
    [
        (lambda: tf.argmax(f32(1.0, 2.0)), "int64"),
        (lambda: tf.argmin(f32(1.0, 2.0)), "int64"),
        (lambda: tf.shape(f32(1.0)), "int32"),
        (lambda: tf.size(f32(1.0)), "int32"),
        (lambda: tf.rank(f32(1.0)), "int32"),
        (lambda: tf.where(tf.constant([True])), "int64"),
        (lambda: tf.range(3), "int32"),
        (lambda: tf.range(3.0), "float32"),
        (lambda: tf.one_hot([1], 3), "float32"),
        (lambda: tf.zeros(2), "float32"),
        (lambda: tf.zeros_like(i64(1)), "int64"),
    ],
)
def test_dtypes_of_results(make, dtype):
    """`argmax` → int64, `tf.shape` → int32, `where(cond)` → int64, `range(3)` → int32, one_hot."""
    assert make().dtype == dtype


def test_a_cast_to_integers_truncates():
    """`cast(1.7, int32)` 1, `cast(-1.7, int32)` -1: truncation."""
    assert int(tf.cast(1.7, tf.int32)) == 1
    assert int(tf.cast(-1.7, tf.int32)) == -1
    np.testing.assert_array_equal(tf.cast(f64(2.999, -2.999), "int64"), [2, -2])
    np.testing.assert_array_equal(tf.cast(f32(0.0, 0.3, -2.0), tf.bool), [False, True, True])


def test_bools_become_numbers_where_a_dtype_asks():
    np.testing.assert_array_equal(tf.constant([True, False], tf.float32), [1, 0])
    np.testing.assert_array_equal(tf.constant([2, 3]) * [True, False], [2, 0])


@pytest.mark.parametrize(
    "value, dtype",
    [
        ([1.5], tf.int32),
        ("a", tf.float32),
        (1.0, "float31"),
        (1.0, "nothing"),
        (1.5, tf.int64),
        (1j, tf.float32),
    ],
)
def test_a_constant_that_its_dtype_cannot_hold(value, dtype):
    """`constant([1.5], dtype=int32)`, `constant('a', dtype=float32)`, unknown text: TypeError."""
    with pytest.raises(TypeError):
        tf.constant(value, dtype=dtype)


@pytest.mark.parametrize("value", [1e300, [1.0, -1e39]])
def test_a_constant_too_large_for_float32(value):
    """`constant(1e300)`: ValueError."""
    with pytest.raises(ValueError):
        tf.constant(value)
    assert tf.constant(value, tf.float64).dtype == tf.float64
    assert np.isinf(tf.constant(float("inf")))


def test_convert_to_tensor():
    """`convert_to_tensor(f32 tensor, dtype=int32)`: ValueError; same dtype: the same object."""
    x = f32(1.0)
    with pytest.raises(ValueError, match="float32.*int32"):
        tf.convert_to_tensor(x, dtype=tf.int32)
    assert tf.convert_to_tensor(x) is x
    assert tf.convert_to_tensor(x, dtype=tf.float32) is x
    assert tf.cast(x, tf.float32) is x
    assert tf.convert_to_tensor(1, dtype=tf.float64).dtype == tf.float64


@pytest.mark.parametrize(
    "value",
    [None, object(), [[1.0], [1.0, 2.0]], [1, [2]], [None], {"a": 1}, np.array([1, "a"], object)],
)
def test_what_is_no_tensor(value):
    """`constant(None)`, `constant(object())`, ragged lists: ValueError."""
    with pytest.raises(ValueError):
        tf.constant(value)
    with pytest.raises(ValueError):
        tf.convert_to_tensor(value)


def test_tensors_inside_lists():
    """A list may hold tensors and variables; the result keeps their dtype."""
    x, v = f64(), tf.Variable(3.0, dtype=tf.float64)
    assert tf.constant([1, 2.5]).dtype == tf.float32
    found = tf.stack([x, v, 1])
    assert found.dtype == tf.float64
    np.testing.assert_array_equal(found, [2.0, 3.0, 1.0])
    np.testing.assert_array_equal(tf.convert_to_tensor([x, v]), [2.0, 3.0])
