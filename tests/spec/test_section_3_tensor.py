"""Tape semantics 3: the Tensor object."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import distgrad as tf

IAE = tf.errors.InvalidArgumentError


def test_numpy():
    """`.numpy()` (numpy scalar for rank 0)."""
    assert type(tf.constant(6.0).numpy()) is np.float32
    assert type(tf.constant([6.0]).numpy()) is np.ndarray


def test_shape():
    """`.shape` (TensorShape: iterable, indexable, `.rank`, `.as_list()`, equals a tuple)."""
    shape = tf.ones((2, 3)).shape
    assert isinstance(shape, tf.TensorShape)
    assert list(shape) == [2, 3] and shape[0] == 2 and shape[-1] == 3
    assert shape.rank == shape.ndims == len(shape) == 2
    assert shape.as_list() == [2, 3] and shape.num_elements() == 6
    assert shape == (2, 3) and shape == [2, 3] and shape != (3, 2)
    assert shape[1:] == (3,) and str(shape) == "(2, 3)"
    rows, columns = shape
    assert (rows, columns) == (2, 3)
    assert tf.ones((2, 3)).ndim == 2 and tf.ones((2, 3)).get_shape() == (2, 3)


def test_dtype():
    """`.dtype` (`== tf.float32`, `== 'float32'`, `.name`, `.as_numpy_dtype`)."""
    dtype = tf.constant(1.0).dtype
    assert dtype == tf.float32 and dtype == "float32" and dtype == np.float32
    assert dtype != tf.float64 and dtype != "int32" and dtype is not None
    assert dtype.name == "float32" and dtype.as_numpy_dtype is np.float32
    assert dtype.is_floating and not dtype.is_integer
    assert {dtype: 1}[tf.float32] == 1
    assert pickle.loads(pickle.dumps(dtype)) == dtype


def test_ref_array_dlpack_pickle():
    """`.ref()`, `__array__`, `__dlpack__`, picklable."""
    x = tf.constant([1.0, 2.0])
    assert x.ref() == x.ref() and x.ref().deref() is x
    assert x.ref() != tf.constant([1.0, 2.0]).ref()
    assert {x.ref(): "x"}[x.ref()] == "x"
    np.testing.assert_array_equal(np.asarray(x), [1.0, 2.0])
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    np.testing.assert_array_equal(np.from_dlpack(x), [1.0, 2.0])
    for twin in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x), copy.copy(x)):
        assert isinstance(twin, tf.Tensor) and twin is not x
        np.testing.assert_array_equal(twin, x)


def test_str():
    """`str`: `tf.Tensor(6.0, shape=(), dtype=float32)`."""
    assert str(tf.constant(6.0)) == "tf.Tensor(6.0, shape=(), dtype=float32)"
    assert str(tf.constant([1, 2])) == "tf.Tensor([1 2], shape=(2,), dtype=int32)"
    assert str(tf.constant(True)) == "tf.Tensor(True, shape=(), dtype=bool)"
    assert str(tf.ones((2, 2))) == "tf.Tensor(\n[[1. 1.]\n [1. 1.]], shape=(2, 2), dtype=float32)"


def test_repr():
    """`repr`: `<tf.Tensor: shape=(2,), dtype=float32, numpy=array([1., 2.], dtype=float32)>`."""
    assert repr(tf.constant([1.0, 2.0])) == (
        "<tf.Tensor: shape=(2,), dtype=float32, numpy=array([1., 2.], dtype=float32)>"
    )
    assert repr(tf.constant(6.0)) == "<tf.Tensor: shape=(), dtype=float32, numpy=6.0>"
    assert repr(tf.constant([[1], [2]])) == (
        "<tf.Tensor: shape=(2, 1), dtype=int32, numpy=\narray([[1],\n       [2]], dtype=int32)>"
    )


def test_equality_is_elementwise():
    """`==` elementwise (shapes that cannot broadcast: a tensor False)."""
    x = tf.constant([1.0, 2.0])
    np.testing.assert_array_equal(x == tf.constant([1.0, 3.0]), [True, False])
    np.testing.assert_array_equal(x != [1.0, 3.0], [False, True])
    np.testing.assert_array_equal(x == 1, [True, False])
    assert (x == tf.constant([1.0, 2.0, 3.0])).numpy() == np.False_
    assert (x != tf.constant([1.0, 2.0, 3.0])).numpy() == np.True_
    assert (x == [1.0, 2.0, 3.0]).numpy() == np.False_
    assert (x == None) is False and (x != None) is True  # noqa: E711


@pytest.mark.parametrize("x", [tf.constant([1.0]), tf.Variable([1.0])], ids=["tensor", "variable"])
def test_unhashable(x):
    """Unhashable: `hash(t)`, `{t: 1}` TypeError; the same for variables."""
    with pytest.raises(TypeError):
        hash(x)
    with pytest.raises(TypeError):
        _ = {x: 1}
    with pytest.raises(TypeError):
        _ = {x}


def test_index():
    """`range(t)`, `ndarray[t]` work for int tensors (`__index__`)."""
    for n in (tf.constant(3), tf.Variable(3), tf.constant(3, tf.int64), tf.constant(3, tf.uint8)):
        assert list(range(n)) == [0, 1, 2]
        assert np.arange(5)[n] == 3 and [0, 1, 2, 3][n] == 3
    with pytest.raises(TypeError):
        range(tf.constant(3.0))
    with pytest.raises(TypeError, match="scalar"):
        range(tf.constant([3]))
    with pytest.raises(TypeError):
        range(tf.constant([3, 4]))


def test_bool():
    """`bool` of more than one element ValueError."""
    assert tf.constant(2.0) and not tf.constant(0) and tf.constant([[True]])
    with pytest.raises(ValueError):
        bool(tf.constant([True, True]))
    with pytest.raises(ValueError):
        bool(tf.Variable([1.0, 2.0]))


def test_float_and_int():
    """`float`/`int` of a vector TypeError, but not of one element, as a model's output may be."""
    assert float(tf.constant(2)) == 2.0 and int(tf.constant(2.9)) == 2
    assert float(tf.constant([[2.5]])) == 2.5 and int(tf.Variable([7])) == 7
    assert complex(tf.constant(2.0)) == 2 + 0j
    for convert in (float, int, complex):
        for x in (tf.constant([1.0, 2.0]), tf.Variable([1.0, 2.0])):
            with pytest.raises(TypeError):
                convert(x)


def test_len_and_iteration():
    """`len` of a scalar, iteration of a scalar TypeError."""
    x = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    assert len(x) == 2 and [r.shape for r in x] == [(2,), (2,)]
    _a, b = x
    np.testing.assert_array_equal(b, [3.0, 4.0])
    for scalar in (tf.constant(1.0), tf.Variable(1.0)):
        with pytest.raises(TypeError):
            len(scalar)
        with pytest.raises(TypeError):
            iter(scalar)


def test_iteration_has_a_gradient():
    """Iterating over a tensor is an operation like others."""
    x = tf.Variable([1.0, 2.0, 3.0])
    with tf.GradientTape() as tape:
        y = 0.0
        for k, part in enumerate(x):
            y = y + float(k) * part
    np.testing.assert_array_equal(tape.gradient(y, x), [0.0, 1.0, 2.0])


def test_item_assignment():
    """`t[0] = 1` TypeError."""
    x = tf.constant([1.0, 2.0])
    with pytest.raises(TypeError):
        x[0] = 1.0
    with pytest.raises(AttributeError):
        x.assign([3.0, 4.0])


def test_format():
    """f-strings with a format spec work on scalars."""
    assert f"{tf.constant(2.5):.2f}" == "2.50"
    assert f"{tf.constant(7):04d}" == "0007"
    assert f"{tf.Variable(2.5):.1e}" == "2.5e+00"
    assert f"{tf.constant(2.5)}" == "2.5" and f"{tf.constant([1.0, 2.0])}" == "[1. 2.]"


X = np.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "key",
    [
        1,
        -1,
        np.int64(1),
        slice(1),
        slice(None, None, -1),
        slice(None, None, 2),
        slice(5, None),
        slice(-1, -9, -2),
        ...,
        None,
        tf.newaxis,
        (0, 1, 2),
        (0, ..., 1),
        (..., 1),
        (slice(None), 1),
        (slice(0, 1), None, slice(1, 100)),
        (None, 1, None, ..., slice(3, 0, -1), None),
        (slice(None), -1, slice(None, None, 3)),
    ],
    ids=str,
)
def test_indexing(key):
    """Indexing: int, slice (any step), `...`, `None`/`tf.newaxis`; slices past the end are cut."""
    for x in (tf.constant(X), tf.Variable(X)):
        found = x[key]
        np.testing.assert_array_equal(found, X[key])
        assert found.shape == X[key].shape


def test_indexing_by_tensors():
    """Indexing: scalar int tensor, boolean mask tensor."""
    x, i = tf.constant(X), tf.constant(1)
    np.testing.assert_array_equal(x[i], X[1])
    np.testing.assert_array_equal(x[:, i, tf.constant(2, tf.int64) :], X[:, 1, 2:])
    np.testing.assert_array_equal(x[tf.Variable(0)], X[0])
    np.testing.assert_array_equal(x[x > 20.0], X[X > 20])
    np.testing.assert_array_equal(x[tf.constant([False, True])], X[[False, True]])
    np.testing.assert_array_equal(x[X > 20], X[X > 20])


@pytest.mark.parametrize("key", [2, -3, (0, 3), (0, 0, 4), (..., -5)], ids=str)
def test_an_integer_out_of_range(key):
    """integers out of range IAE."""
    with pytest.raises(IAE):
        tf.constant(X)[key]


@pytest.mark.parametrize("key", [(0, 0, 0, 0), (slice(None),) * 4, (0, ..., 0, 0, 0)], ids=str)
def test_too_many_indices(key):
    """too many indices IAE."""
    with pytest.raises(IAE):
        tf.constant(X)[key]


@pytest.mark.parametrize("key", [1.0, "a", tf.constant(1.0), (0, 1.5), slice(0.5, None)], ids=str)
def test_a_float_or_text_index(key):
    """float or str index TypeError."""
    with pytest.raises(TypeError):
        tf.constant(X)[key]


def test_a_list_is_no_fancy_index():
    """a list index is *not* fancy indexing."""
    with pytest.raises(TypeError):
        tf.constant(X)[[0, 1]]


def test_is_tensor():
    """`tf.is_tensor` of tensors, variables, arrays and numbers."""
    assert tf.is_tensor(tf.constant(1.0)) and tf.is_tensor(tf.Variable(1.0))
    assert not tf.is_tensor(np.ones(1)) and not tf.is_tensor(1.0)


@pytest.mark.parametrize("other", ["a", object()])
def test_operators_with_what_is_no_tensor(other):
    """Text and objects beside a tensor are refused."""
    with pytest.raises((TypeError, ValueError)):
        tf.constant(1.0) + other


def test_a_shape_is_true_where_its_rank_is_known():
    assert tf.constant(1.0).shape and tf.TensorShape([]) and tf.TensorShape([0, 2])
    assert not tf.TensorShape(None)
    assert tf.TensorShape(np.int64(3)) == (3,)
