"""Layers on sparse tensors, and those that make such: answers of Keras 3.15.1 on TensorFlow 2.21.

But for numbers of lookups, which are int64 there and floats here.
"""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

L = tf.keras.layers
DENSE = np.array([[0, 1.5, 0, 2], [0, 0, 0, 0], [-3, 0, 0, 1]], np.float32)
FLOATS = tf.sparse.from_dense(DENSE)
OTHERS = tf.sparse.from_dense(DENSE[::-1] * 2)
NUMBERS = tf.sparse.from_dense(np.array([[0, 1, 0, 2], [0, 0, 0, 0], [3, 0, 0, 1]]))
TEXTS = tf.sparse.from_dense(np.array([["a", "", "b"], ["", "", ""]]))
PLACES = [[0, 1], [0, 3], [2, 0], [2, 3]]


def parts(found):
    """Places, values and shape of a sparse tensor, None in place of places for a dense one."""
    if not isinstance(found, tf.SparseTensor):
        return None, found.numpy().ravel().tolist(), list(found.shape)
    shape = found.dense_shape.numpy().tolist()
    return found.indices.numpy().tolist(), np.asarray(found.values).tolist(), shape


@pytest.mark.parametrize(
    ("layer", "inputs", "places", "values", "shape"),
    [
        (L.Reshape((2, -1)), FLOATS, [[0, 0, 1], [0, 1, 1], [2, 0, 0], [2, 1, 1]], None, [3, 2, 2]),
        (L.Flatten(), FLOATS, PLACES, None, [3, 4]),
        (L.Dropout(0.5), FLOATS, PLACES, None, [3, 4]),
        (L.Identity(), FLOATS, PLACES, None, [3, 4]),
        (L.Activation("linear"), FLOATS, PLACES, None, [3, 4]),
        (L.Activation("tanh"), FLOATS, PLACES, np.tanh([1.5, 2, -3, 1]).tolist(), [3, 4]),
        (L.Discretization([0.0, 1.6]), FLOATS, PLACES, [1, 2, 0, 1], [3, 4]),
        (
            L.Discretization([0.0, 1.6], output_mode="multi_hot"),
            FLOATS,
            None,
            [0, 1, 1, 0, 0, 0, 1, 1, 0],
            [3, 3],
        ),
        (
            L.Discretization([0.0, 1.6], output_mode="multi_hot", sparse=True),
            FLOATS,
            [[0, 1], [0, 2], [2, 0], [2, 1]],
            [1, 1, 1, 1],
            [3, 3],
        ),
        (L.CategoryEncoding(3), NUMBERS, None, [0, 1, 1, 0, 0, 0, 0, 1, 0], [3, 3]),
        (
            L.CategoryEncoding(5, sparse=True),
            NUMBERS,
            [[0, 1], [0, 2], [2, 1], [2, 3]],
            [1, 1, 1, 1],
            [3, 5],
        ),
        (L.IntegerLookup(vocabulary=[1]), NUMBERS, None, [0, 1] + [0] * 9 + [1], [3, 4]),
        (
            L.IntegerLookup(vocabulary=[1], output_mode="count", sparse=True),
            NUMBERS,
            [[0, 0], [0, 1], [1, 0], [2, 0], [2, 1]],
            [3, 1, 4, 3, 1],
            [3, 2],
        ),
        (L.Hashing(4), NUMBERS, PLACES, [1, 3, 1, 1], [3, 4]),
        (
            L.Hashing(4, output_mode="multi_hot", sparse=True),
            NUMBERS,
            [[0, 1], [0, 3], [2, 1]],
            [1, 1, 1],
            [3, 4],
        ),
        (L.StringLookup(vocabulary=["a", "b"]), TEXTS, [[0, 0], [0, 2]], [1, 2], [2, 3]),
        (
            L.StringLookup(vocabulary=["a", "b"], output_mode="multi_hot", sparse=True),
            TEXTS,
            [[0, 1], [0, 2]],
            [1, 1],
            [2, 3],
        ),
        (L.Hashing(4), TEXTS, [[0, 0], [0, 2]], [3, 2], [2, 3]),
    ],
)
def test_layers_that_take_them(layer, inputs, places, values, shape):
    found = parts(layer(inputs))
    wanted = inputs.values.numpy().tolist() if values is None else values
    assert (found[0], found[2]) == (places, shape)
    np.testing.assert_allclose(found[1], wanted, rtol=1e-6)
    again = parts(type(layer).from_config(layer.get_config())(inputs))
    assert again == found


@pytest.mark.parametrize("activation", ["relu", "gelu", "sigmoid", "softmax", "log_softmax"])
def test_activations_are_those_of_dense_tensors(activation):
    layer = L.Activation(activation)
    found = layer(FLOATS)
    assert isinstance(found, tf.SparseTensor) == (activation in ("relu", "gelu"))
    found = tf.keras.ops.convert_to_numpy(found)
    np.testing.assert_allclose(found, layer(DENSE), rtol=1e-6, atol=1e-7)


def test_an_embedding_has_the_row_of_0_where_there_is_no_value():
    table = L.Embedding(4, 2)
    np.testing.assert_array_equal(table(NUMBERS), table(tf.sparse.to_dense(NUMBERS)))


@pytest.mark.parametrize("kind", ["int64", "float64", "float32"])
def test_dense(kind):
    layer = L.Dense(3, "tanh")
    given = tf.cast(NUMBERS, kind)
    found = layer(given)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, layer(tf.sparse.to_dense(given)), rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match="expects 4 features in the last axis"):
        layer(tf.sparse.eye(3))
    with pytest.raises(ValueError, match="no product of a matrix"):
        L.Dense(2)(tf.sparse.expand_dims(given, 1))


def test_gradients_of_dense_are_those_of_dense_rows():
    layer = L.Dense(3, "tanh", activity_regularizer="l2")
    found = []
    for x in (FLOATS, tf.constant(DENSE)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x) ** 2)
        found.append(tape.gradient(loss, [*layer.trainable_variables, x]))
    (*sparse, of_values), (*dense, whole) = found
    for a, b in zip(sparse, dense, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        of_values.values, whole.numpy()[tuple(np.array(PLACES).T)], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("layer", "places"),
    [
        (L.Add, [[0, 0], [0, 1], [0, 3], [2, 0], [2, 1], [2, 3]]),
        (L.Subtract, [[0, 0], [0, 1], [0, 3], [2, 0], [2, 1], [2, 3]]),
        (L.Multiply, [[0, 3], [2, 3]]),
        (L.Average, [[0, 0], [0, 1], [0, 3], [2, 0], [2, 1], [2, 3]]),
        (L.Maximum, [[0, 0], [0, 1], [0, 3], [2, 0], [2, 1], [2, 3]]),
        (L.Minimum, [[0, 0], [0, 1], [0, 3], [2, 0], [2, 1], [2, 3]]),
        (L.Concatenate, [[0, 1], [0, 3], [0, 4], [0, 7], [2, 0], [2, 3], [2, 5], [2, 7]]),
    ],
)
def test_merges(layer, places):
    both = layer()([FLOATS, OTHERS])
    assert both.indices.numpy().tolist() == places
    expected = layer()([DENSE, tf.sparse.to_dense(OTHERS)])
    np.testing.assert_array_equal(tf.sparse.to_dense(both), expected)
    for pair in ([FLOATS, tf.sparse.to_dense(OTHERS)], [DENSE, OTHERS]):
        found = layer()(pair)
        assert isinstance(found, tf.SparseTensor) == (layer is L.Multiply)
        np.testing.assert_array_equal(tf.keras.ops.convert_to_numpy(found), expected)
    np.testing.assert_array_equal(L.Dot(1)([FLOATS, DENSE]), L.Dot(1)([DENSE, DENSE]))


ROWS = np.array([[1, 2, 1], [0, 3, 0]])
WORDS = np.array([["a", "b", "a"], ["x", "", ""]])
MAKERS = [
    (lambda **options: L.CategoryEncoding(5, **options), ROWS),
    (lambda **options: L.IntegerLookup(vocabulary=[1, 2], **options), ROWS),
    (lambda **options: L.Hashing(4, **options), ROWS),
    (lambda **options: L.Discretization([0.5, 1.5], **options), ROWS.astype(np.float32)),
    (lambda **options: L.StringLookup(vocabulary=["a", "b"], **options), WORDS),
]


@pytest.mark.parametrize("mode", ["one_hot", "multi_hot", "count"])
@pytest.mark.parametrize("make", MAKERS)
def test_sparse_vectors_are_the_dense_ones(make, mode):
    layer, inputs = make
    for given in (inputs, inputs[:, :1], inputs[:, 0]):
        dense = layer(output_mode=mode)(given)
        sparse = layer(output_mode=mode, sparse=True)(given)
        np.testing.assert_array_equal(tf.sparse.to_dense(sparse), dense)
        assert sparse.values.numpy().all() and sparse.shape == dense.shape
    with pytest.raises(ValueError, match="sparse|output_mode"):
        layer(output_mode="int", sparse=True)


def test_sparse_vectors_of_texts_weights_and_crosses():
    texts = ["a b a", "c", ""]
    for options in (
        {"output_mode": "multi_hot"},
        {"output_mode": "count", "max_tokens": 6, "pad_to_max_tokens": True},
        {"output_mode": "tf_idf", "idf_weights": [1.0, 2.0]},
    ):
        dense = L.TextVectorization(vocabulary=["a", "b"], **options)
        sparse = L.TextVectorization(vocabulary=["a", "b"], sparse=True, **options)
        np.testing.assert_array_equal(tf.sparse.to_dense(sparse(texts)), dense(texts))
        np.testing.assert_array_equal(tf.sparse.to_dense(sparse("a")), dense("a"))
        assert sparse.get_config()["sparse"]
    weights = np.array([[1.0, 2, 3], [4, 5, 6]], np.float32)
    counts = L.CategoryEncoding(5, output_mode="count", sparse=True)(ROWS, count_weights=weights)
    assert parts(counts) == ([[0, 1], [0, 2], [1, 0], [1, 3]], [4, 2, 10, 5], [2, 5])
    cross = L.HashedCrossing(5, output_mode="one_hot", sparse=True)
    found = cross([np.array([["a"], ["x"]]), np.array([[1], [2]])])
    assert parts(found) == ([[0, 0], [1, 4]], [1, 1], [2, 5])


@pytest.mark.parametrize("layer", [L.BatchNormalization(), L.LSTM(2), L.Conv1D(2, 1), L.ReLU()])
def test_other_layers_say_what_to_give_them(layer):
    with pytest.raises(ValueError, match=r"takes no SparseTensor: give it tf\.sparse\.to_dense"):
        layer(FLOATS)
    with pytest.raises(ValueError, match=r"takes no SparseTensor"):
        layer(tf.keras.Input((4, 3), sparse=True))


def test_what_draws_numbers_in_training_takes_dense_ones():
    for layer in (L.Dropout(0.5), L.GaussianNoise(0.5), L.GaussianDropout(0.5)):
        with pytest.raises(ValueError, match=r"tf\.sparse\.to_dense"):
            layer(FLOATS, training=True)
