"""``keras.ops`` on sparse tensors: answers are those of Keras 3.15.1 on TensorFlow 2.21."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

K = tf.keras.ops
DENSE = np.array([[0, 1.5, 0, 2], [0, 0, 0, 0], [-3, 0, 0, 1]], np.float32)
SMALL = np.abs(DENSE) / 4
S, P = tf.sparse.from_dense(DENSE), tf.sparse.from_dense(SMALL)
OTHER = DENSE[::-1] * 2
O = tf.sparse.from_dense(OTHER)
I = tf.sparse.from_dense(np.array([[0, 1, 0, 2], [0, 0, 0, 0], [3, 0, 0, 1]]))
COLUMN = tf.sparse.from_dense(DENSE[:, :1, None])
PLACES = [[0, 1], [0, 3], [2, 0], [2, 3]]
SPARSE_ONES = """absolute fabs arcsin arcsinh arctan arctanh ceil conj copy expm1 floor imag log1p
negative real round sign sin sinh sqrt square tan tanh"""
DENSE_ONES = "arccos cos cosh exp exp2 isfinite log log10 log2 reciprocal"


def parts(found):
    values, shape = found.values.numpy().tolist(), found.dense_shape.numpy().tolist()
    return found.indices.numpy().tolist(), values, shape, found.dtype.name


@pytest.mark.parametrize("name", SPARSE_ONES.split())
def test_where_0_stays_0(name):
    found = getattr(K, name)(P)
    assert parts(found)[0] == PLACES
    np.testing.assert_array_equal(tf.sparse.to_dense(found), getattr(K, name)(SMALL))
    assert getattr(K, name)(tf.keras.Input((4,), sparse=True)).sparse


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("name", DENSE_ONES.split())
def test_where_it_becomes_something_else(name):
    np.testing.assert_array_equal(getattr(K, name)(P), getattr(K, name)(SMALL))
    assert not getattr(K, name)(tf.keras.Input((4,), sparse=True)).sparse


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "maximum", "minimum"])
def test_of_two(name):
    op = getattr(K, name)
    kinds = {"multiply": (1, 1, 1, 1), "divide": (0, 1, 0, 1)}.get(name, (1, 0, 0, 0))
    pairs = ((S, O), (DENSE, OTHER)), ((S, OTHER), (DENSE, OTHER)), ((DENSE, O), (DENSE, OTHER))
    for (given, dense), sparse in zip((*pairs, ((S, 2.0), (DENSE, 2.0))), kinds, strict=True):
        found = op(*given)
        assert isinstance(found, tf.SparseTensor) == bool(sparse)
        np.testing.assert_array_equal(K.convert_to_numpy(found), op(*dense))
    assert op(I, 2).dtype == op(np.arange(3), 2).dtype


@pytest.mark.parametrize(
    ("made", "places", "values", "shape", "dtype"),
    [
        (lambda: K.sum(S), [[]], [1.5], [], "float32"),
        (lambda: K.sum(S, axis=1), [[0], [2]], [3.5, -2.0], [3], "float32"),
        (
            lambda: K.sum(S, axis=0, keepdims=True),
            [[0, 0], [0, 1], [0, 3]],
            [-3, 1.5, 3],
            [1, 4],
            "float32",
        ),
        (lambda: K.reshape(S, (2, -1)), [[0, 1], [0, 3], [1, 2], [1, 5]], None, [2, 6], "float32"),
        (
            lambda: K.transpose(S),
            [[0, 2], [1, 0], [3, 0], [3, 2]],
            [-3, 1.5, 2, 1],
            [4, 3],
            "float32",
        ),
        (
            lambda: K.expand_dims(S, (0, -1)),
            [[0, 0, 1, 0], [0, 0, 3, 0], [0, 2, 0, 0], [0, 2, 3, 0]],
            None,
            [1, 3, 4, 1],
            "float32",
        ),
        (lambda: K.squeeze(COLUMN, -1), [[2, 0]], [-3], [3, 1], "float32"),
        (lambda: K.squeeze(COLUMN), [[2]], [-3], [3], "float32"),
        (
            lambda: K.concatenate([S, O], axis=1),
            [[0, 1], [0, 3], [0, 4], [0, 7], [2, 0], [2, 3], [2, 5], [2, 7]],
            [1.5, 2, -6, 2, -3, 1, 3, 4],
            [3, 8],
            "float32",
        ),
        (lambda: K.bincount(I), [[0, 1], [0, 2], [2, 1], [2, 3]], [1] * 4, [3, 4], "int32"),
        (
            lambda: K.bincount(np.array([1, 1, 3]), sparse=True, minlength=6),
            [[1], [3]],
            [2, 1],
            [6],
            "int32",
        ),
        (
            lambda: K.multi_hot(np.array([[1, 0], [2, 2]]), 3, sparse=True),
            [[0, 0], [0, 1], [1, 2]],
            [1, 1, 1],
            [2, 3],
            "float32",
        ),
        (lambda: K.digitize(S, np.array([0.0, 1.6])), PLACES, [1, 2, 0, 1], [3, 4], "int32"),
        (lambda: K.cast(S, "int32"), PLACES, [1, 2, -3, 1], [3, 4], "int32"),
        (lambda: K.convert_to_tensor(S, "float64", sparse=True), PLACES, None, [3, 4], "float64"),
        (lambda: K.stop_gradient(S), PLACES, None, [3, 4], "float32"),
        (lambda: K.matmul(S, K.transpose(S)), None, [6.25, 2, 2, 10], [3, 3], "float32"),
    ],
)
def test_sparse_ones(made, places, values, shape, dtype):
    found = parts(made())
    assert found[1:] == (S.values.numpy().tolist() if values is None else values, shape, dtype)
    assert places is None or found[0] == places


def test_dense_ones():
    np.testing.assert_array_equal(K.matmul(S, DENSE.T), DENSE @ DENSE.T)
    np.testing.assert_array_equal(K.matmul(DENSE.T, S), DENSE.T @ DENSE)
    np.testing.assert_array_equal(K.concatenate([S, DENSE], axis=0), np.concatenate([DENSE] * 2))
    np.testing.assert_array_equal(K.take(DENSE, I, axis=1), DENSE[:, tf.sparse.to_dense(I).numpy()])
    np.testing.assert_array_equal(K.convert_to_numpy(S), DENSE)
    np.testing.assert_array_equal(K.convert_to_tensor(S, sparse=False), DENSE)
    assert K.convert_to_tensor(S) is S and K.is_tensor(S)
    assert (K.shape(S), K.ndim(S), int(K.size(S)), K.dtype(S)) == ((3, 4), 2, 12, "float32")
    one_hot = K.one_hot(np.array([1, 0]), 3, axis=0, sparse=True, dtype="int32")
    np.testing.assert_array_equal(
        tf.sparse.to_dense(one_hot), K.one_hot(np.array([1, 0]), 3, axis=0)
    )


def test_ragged_tensors_become_dense_as_well():
    rows = tf.ragged.constant([[1.0], [2.0, 3.0]])
    assert K.convert_to_numpy(rows).tolist() == [[1, 0], [2, 3]]
    assert isinstance(K.convert_to_tensor(rows), tf.RaggedTensor)
    assert K.convert_to_tensor(rows, ragged=False).numpy().tolist() == [[1, 0], [2, 3]]


def test_others_say_what_to_give_them():
    for op in (K.mean, K.max, K.softmax):
        with pytest.raises(ValueError, match=r"tf\.sparse\.to_dense"):
            op(S)
    with pytest.raises(tf.errors.InvalidArgumentError, match="cannot squeeze"):
        K.squeeze(S, 0)
