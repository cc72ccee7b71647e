"""``keras.ops`` on ragged tensors: answers are those of Keras 3.15.1 on TensorFlow 2.21."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

K, L = tf.keras.ops, tf.keras.layers
I = tf.ragged.constant([[1, 2], [4]])
F = tf.ragged.constant([[1.0, 2.0], [4.0]])
B = tf.ragged.constant([[True, False], [True]])


@pytest.mark.parametrize(
    ("made", "dtype", "expected"),
    [
        (lambda: K.mean(I, axis=1), "float32", [1.5, 4.0]),
        (lambda: K.mean(F), "float32", 7 / 3),
        (lambda: K.sum(I, axis=1), "int32", [3, 4]),
        (lambda: K.sum(B, 1), "int32", [1, 1]),
        (lambda: K.sum(F, axis=1, keepdims=True), "float32", [[3.0], [4.0]]),
        (lambda: K.prod(F, axis=1), "float32", [2.0, 4.0]),
        (lambda: K.max(F, axis=0), "float32", [4.0, 2.0]),
        (lambda: K.min(F, axis=1), "float32", [1.0, 4.0]),
        (lambda: K.any(B, axis=1), "bool", [True, True]),
        (lambda: K.all(B, axis=1), "bool", [False, True]),
    ],
)
def test_reductions(made, dtype, expected):
    found = made()
    assert isinstance(found, tf.Tensor) and found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: K.multiply(F, F), [[1.0, 4.0], [16.0]]),
        (lambda: K.add(F, tf.constant([[1.0], [10.0]])), [[2.0, 3.0], [14.0]]),
        (lambda: K.maximum(F, 2.0), [[2.0, 2.0], [4.0]]),
        (lambda: K.greater(x1=F, x2=1.5), [[False, True], [True]]),
        (lambda: K.concatenate([F, F], axis=1), [[1.0, 2.0, 1.0, 2.0], [4.0, 4.0]]),
        (lambda: K.concatenate([F, F]), [[1.0, 2.0], [4.0]] * 2),
        (lambda: K.expand_dims(F, 0), [[[1.0, 2.0], [4.0]]]),
        (lambda: K.expand_dims(F, -1), [[[1.0], [2.0]], [[4.0]]]),
    ],
)
def test_rows_of_the_same_lengths(made, expected):
    assert isinstance(made(), tf.RaggedTensor) and made().to_list() == expected


def test_nodes_of_a_model():
    ids = tf.keras.Input((None,), dtype="int64", ragged=True)
    x = L.Embedding(9, 4)(ids)
    wide = K.concatenate([x, x * 2.0 + 1.0], axis=-1)
    mean = K.mean(wide, axis=1)
    assert (wide.shape, wide.ragged) == ((None, None, 8), True)
    assert (mean.shape, mean.ragged) == ((None, 8), False)
    model = tf.keras.Model(ids, mean)
    rows = tf.ragged.constant([[1, 2], [3], [4, 5, 6]])
    table = model.get_weights()[0]
    for found, row in zip(model.predict(rows, verbose=0), rows.to_list(), strict=True):
        each = np.concatenate([table[row], table[row] * 2 + 1], 1)
        np.testing.assert_allclose(found, each.mean(0), rtol=1e-6)


def test_gradients_flow():
    values = tf.Variable([1.0, 2.0, 4.0])
    with tf.GradientTape() as tape:
        rows = tf.RaggedTensor.from_row_lengths(values, [2, 1])
        loss = K.sum(K.square(K.mean(rows, axis=1)))
    np.testing.assert_allclose(tape.gradient(loss, values), [1.5, 1.5, 8.0])


def test_what_they_do_not_take():
    with pytest.raises(ValueError, match="argmax takes no RaggedTensor: make a tensor of it"):
        K.argmax(F)
    with pytest.raises(ValueError, match="the option 3.0 is not for ragged tensors"):
        K.max(F, axis=1, initial=3.0)
    with pytest.raises(ValueError, match="a RaggedTensor is no array"):  # of a user's own function
        K.vectorized_map(lambda _: np.asarray(F), tf.ones(3))
