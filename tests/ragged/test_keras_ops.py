"""``keras.ops`` on ragged tensors: answers are those of Keras 3.15.1 on TensorFlow 2.21."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing.gradients import check_gradients

K, L = tf.keras.ops, tf.keras.layers
I = tf.ragged.constant([[1, 2], [4]])
F = tf.ragged.constant([[1.0, 2.0], [4.0]])
B = tf.ragged.constant([[True, False], [True]])
V = tf.ragged.constant([[[1.0, 2.0], [3.0, 4.0]], [[5.0, -6.0]]], ragged_rank=1)


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
        (lambda: K.amax(I, axis=1), "int32", [2, 4]),
        (lambda: K.amin(F), "float32", 1.0),
        (lambda: K.var(I, axis=1), "float32", [0.25, 0.0]),
        (lambda: K.var(F), "float32", 14 / 9),
        (lambda: K.std(B, axis=1), "float32", [0.5, 0.0]),
        (lambda: K.average(F, axis=1), "float32", [1.5, 4.0]),
        (lambda: K.moments(F, [1])[1], "float32", [0.25, 0.0]),
        (lambda: K.logsumexp(F, axis=1), "float32", [2.3132617, 4.0]),
        (lambda: K.logsumexp(F), "float32", 4.1698460),
        (lambda: K.norm(I, axis=1), "float32", [5**0.5, 4.0]),
        (lambda: K.norm(F), "float32", 21**0.5),
        (lambda: K.cumsum(F), "float32", [1.0, 3.0, 7.0]),
        (lambda: K.cumprod(B), "int32", [1, 0, 0]),
        (lambda: K.size(F), "int32", 3),
        (lambda: K.multi_hot(I, 5), "float32", [[0, 1, 1, 0, 0], [0, 0, 0, 0, 1]]),
        (lambda: K.multi_hot(B, 2), "float32", [[1, 1], [0, 1]]),
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
        (lambda: K.where(F > 1.5, F, 0.0), [[0.0, 2.0], [4.0]]),
        (lambda: K.stack([I, I]), [[[1, 2], [4]], [[1, 2], [4]]]),
        (lambda: K.stack([I, I], 1), [[[1, 2], [1, 2]], [[4], [4]]]),
        (lambda: K.vstack([I, I]), [[1, 2], [4], [1, 2], [4]]),
        (lambda: K.hstack([I, I]), [[1, 2, 1, 2], [4, 4]]),
        (lambda: K.tile(I, (1, 2)), [[1, 2, 1, 2], [4, 4]]),
        (lambda: K.take(I, [1, 0], axis=0), [[4], [1, 2]]),
        (lambda: K.take(10 * K.arange(5), I), [[10, 20], [40]]),
        (lambda: K.take(K.eye(5), I, axis=0), [np.eye(5)[[1, 2]].tolist(), [[0, 0, 0, 0, 1]]]),
        (lambda: K.one_hot(I, 5), [np.eye(5)[[1, 2]].tolist(), [[0, 0, 0, 0, 1]]]),
        (lambda: K.flip(I, 1), [[2, 1], [4]]),
        (lambda: K.flip(I), [[4], [2, 1]]),
        (lambda: K.flipud(I), [[4], [1, 2]]),
        (lambda: K.fliplr(I), [[2, 1], [4]]),
        (lambda: K.cumsum(B, 1), [[1, 1], [1]]),
        (lambda: K.leaky_relu(-F, 0.5), [[-0.5, -1.0], [-2.0]]),
        (lambda: K.trunc(F * 1.5), [[1.0, 3.0], [6.0]]),
        (lambda: K.fmax(F, 2.0), [[2.0, 2.0], [4.0]]),
        (lambda: K.stop_gradient(I), [[1, 2], [4]]),
        (lambda: K.full_like(F, 2), [[2.0, 2.0], [2.0]]),
        (lambda: K.array(I, "float32"), [[1.0, 2.0], [4.0]]),
        (lambda: K.convert_to_tensor(I), [[1, 2], [4]]),
        (lambda: K.copy(B), [[True, False], [True]]),
    ],
)
def test_rows_of_the_same_lengths(made, expected):
    assert isinstance(made(), tf.RaggedTensor) and made().to_list() == expected


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: K.softmax(F), [0.26894143, 0.7310586, 1.0]),
        (lambda: K.softmax(V, axis=1), [[0.1192029] * 2, [0.8807971] * 2, [1.0] * 2]),
        (lambda: K.sigmoid(F), [0.7310586, 0.88079708, 0.98201379]),
        (lambda: K.gelu(F), [0.841192, 1.9545977, 3.9999294]),
        (lambda: K.normalize(F), [0.4472136, 0.8944272, 1.0]),
        (lambda: K.rms_normalization(F), [0.63245547, 1.2649109, 1.0]),
        (lambda: K.layer_normalization(F), [-0.9999998, 0.9999998, 0.0]),
        (
            lambda: K.layer_normalization(V, K.array([1.0, 2.0]), K.array([0.0, 1.0])),
            [[-0.9999998, 2.9999996], [-0.9999998, 2.9999996], [0.99999999, -1.0]],
        ),
        (
            lambda: K.batch_normalization(V, [1.0, 2.0], [4.0, 4.0], 2, epsilon=0.0),
            [[0.0, 0.0], [1.0, 1.0], [2.0, -4.0]],
        ),
    ],
)
def test_normalized_rows(made, expected):
    found = made()
    assert isinstance(found, tf.RaggedTensor)
    assert found.row_lengths().numpy().tolist() == [2, 1]
    np.testing.assert_allclose(found.flat_values, expected, rtol=1e-5, atol=1e-6)


def test_activations():
    """Functions of ``keras.activations`` give what their operations do, in rows of the same."""
    A = tf.keras.activations
    for name in ("celu", "relu", "hard_tanh", "soft_shrink", "squareplus", "tanh_shrink", "mish"):
        found = getattr(A, name)(F)
        assert found.row_lengths().numpy().tolist() == [2, 1]
        np.testing.assert_array_equal(found.flat_values, getattr(A, name)(F.flat_values))
    np.testing.assert_allclose(A.softmax(F).flat_values, [0.26894143, 0.7310586, 1.0], rtol=1e-6)
    assert A.glu(V).shape == (2, None, 1)
    with pytest.raises(ValueError, match="glu makes its rows of whole ones"):
        A.glu(F)


def test_what_is_known_of_them():
    assert K.shape(V) == (2, None, 2) and K.ndim(V) == 3 and K.dtype(V) == "float32"
    assert K.convert_to_numpy(B).tolist() == [[True, False], [True, False]]


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


def test_gradients_beside_finite_differences():
    def through(values):
        rows = tf.RaggedTensor.from_row_lengths(values, [2, 3])
        made = [K.logsumexp(rows, 1), K.std(rows, 1), K.norm(rows, axis=1), K.softmax(rows, 1)]
        made += [K.normalize(rows), K.layer_normalization(rows), K.cumsum(rows, 1), K.gelu(rows)]
        return [getattr(each, "flat_values", each) for each in made]

    check_gradients(through, [np.random.default_rng(0).normal(size=(5, 4))])


def test_what_they_do_not_take():
    for wrong in (
        lambda: K.norm(F, ord=1, axis=1),
        lambda: K.normalize(F, order=3),
        lambda: K.take(I, [0], axis=1),
        lambda: K.cumprod(I, axis=1),
        lambda: K.layer_normalization(F, K.ones(2)),
        lambda: K.one_hot(I, 5, axis=0),
        lambda: K.multi_hot(V, 5),
        lambda: K.average(F, 1, [1.0, 2.0]),
    ):
        with pytest.raises(ValueError):
            wrong()
    with pytest.raises(ValueError, match="argmax takes no RaggedTensor: make a tensor of it"):
        K.argmax(F)
    with pytest.raises(ValueError, match="the option 3.0 is not for ragged tensors"):
        K.max(F, axis=1, initial=3.0)
    with pytest.raises(ValueError, match="a RaggedTensor is no array"):  # of a user's own function
        K.vectorized_map(lambda _: np.asarray(F), tf.ones(3))
