"""Layers on ragged tensors: answers are those of Keras 3.15.1 on TensorFlow 2.21."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing.gradients import check_gradients

L = tf.keras.layers
ROWS = tf.ragged.constant([[1.0, 2.0], [3.0], [4.0, -5.0, 0.0]])
NUMBERS = tf.ragged.constant([[1, 2], [3], [4, 0, 5]])
VECTORS = tf.ragged.constant([[[1.0, 2.0], [3.0, 4.0]], [[5.0, -6.0]]], ragged_rank=1)


def flat(found, like) -> np.ndarray:
    """The values of a ragged tensor, whose rows must be those of another."""
    assert isinstance(found, tf.RaggedTensor)
    assert found.row_lengths().numpy().tolist() == like.row_lengths().numpy().tolist()
    return found.flat_values.numpy()


@pytest.mark.parametrize(
    ("layer", "rows", "expected"),
    [
        (L.Softmax(), ROWS, [0.2689, 0.7311, 1.0, 0.9819, 0.0001, 0.018]),
        (L.Activation("softmax"), ROWS, [0.2689, 0.7311, 1.0, 0.9819, 0.0001, 0.018]),
        (L.Softmax(), VECTORS, [[0.2689, 0.7311], [0.2689, 0.7311], [1.0, 0.0]]),
        (L.Softmax(axis=1), VECTORS, [[0.1192, 0.1192], [0.8808, 0.8808], [1.0, 1.0]]),
        (L.UnitNormalization(), ROWS, [0.4472, 0.8944, 1.0, 0.6247, -0.7809, 0.0]),
        (L.UnitNormalization(), VECTORS, [[0.4472, 0.8944], [0.6, 0.8], [0.6402, -0.7682]]),
        (L.LayerNormalization(), VECTORS, [[-0.998, 0.998], [-0.998, 0.998], [1.0, -1.0]]),
        (
            L.RMSNormalization(),
            VECTORS,
            [[0.6325, 1.2649], [0.8485, 1.1314], [0.9054, -1.0864]],
        ),
        (L.BatchNormalization(), VECTORS, [[0.9995, 1.999], [2.9985, 3.998], [4.9975, -5.997]]),
        (L.PReLU("ones", shared_axes=[1]), VECTORS, [[1.0, 2.0], [3.0, 4.0], [5.0, -6.0]]),
        (L.PReLU(shared_axes=[1]), ROWS, [1.0, 2.0, 3.0, 4.0, 0.0, 0.0]),
        (
            L.Normalization(mean=[1.0, 2.0], variance=[4.0, 4.0]),
            VECTORS,
            [[0.0, 0.0], [1.0, 1.0], [2.0, -4.0]],
        ),
        (L.Normalization(None, 1.0, 4.0), NUMBERS, [0.0, 0.5, 1.0, 1.5, -0.5, 2.0]),
        (L.GaussianNoise(0.5), ROWS, [1.0, 2.0, 3.0, 4.0, -5.0, 0.0]),
        (L.CategoryEncoding(6, output_mode="one_hot"), NUMBERS, np.eye(6)[[1, 2, 3, 4, 0, 5]]),
        (
            L.Discretization([0.0, 2.5], output_mode="one_hot"),
            ROWS,
            np.eye(3)[[1, 1, 2, 2, 0, 1]],
        ),
        (
            L.IntegerLookup(vocabulary=[1, 2, 3], output_mode="one_hot"),
            NUMBERS,
            np.eye(4)[[1, 2, 3, 0, 0, 0]],
        ),
    ],
)
def test_rows_of_the_same_lengths(layer, rows, expected):
    np.testing.assert_allclose(flat(layer(rows), rows), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (
            L.CategoryEncoding(6),
            [[0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 1, 1]],
        ),
        (L.Discretization([0.0, 2.5], output_mode="multi_hot"), [[0, 1, 0], [0, 0, 1], [0, 1, 1]]),
        (L.Discretization([0.0, 2.5], output_mode="count"), [[0, 2, 0], [0, 0, 1], [0, 1, 2]]),
        (
            L.IntegerLookup(vocabulary=[1, 2, 3], output_mode="count"),
            [[0, 1, 1, 0], [0, 0, 0, 1], [3, 0, 0, 0]],
        ),
    ],
)
def test_a_vector_for_each_row(layer, expected):
    assert layer(NUMBERS).numpy().tolist() == expected


def test_a_vector_for_each_row_of_a_row():
    """Keras takes another axis than the last one here, as it does not for dense tensors."""
    rows = tf.ragged.constant([[[1, 2], [3]], [[0]]])
    found = L.CategoryEncoding(4)(rows)
    assert found.to_list() == [[[0, 1, 1, 0], [0, 0, 0, 1]], [[1, 0, 0, 0]]]
    assert L.Dot(axes=1)([NUMBERS, NUMBERS]).numpy().tolist() == [[5], [9], [41]]


def test_batch_normalization_in_training():
    layer = L.BatchNormalization(momentum=0.5)
    found = flat(layer(VECTORS, training=True), VECTORS)
    expected = [[-1.2245, 0.4629], [0.0, 0.9258], [1.2245, -1.3887]]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(layer.moving_mean, [1.5, 0.0], atol=1e-6)
    np.testing.assert_allclose(
        layer.moving_variance, [(8 / 3 + 1) / 2, (56 / 3 + 1) / 2], rtol=1e-6
    )


def test_noise_in_training():
    tf.keras.utils.set_random_seed(0)
    for layer in (L.GaussianNoise(0.5), L.GaussianDropout(0.5), L.AlphaDropout(0.5)):
        assert (flat(layer(VECTORS, training=True), VECTORS) != VECTORS.flat_values.numpy()).all()


def model_of(ragged: bool) -> tf.keras.Model:
    ids = tf.keras.Input((None,), dtype="int64", ragged=ragged)
    x = L.Embedding(9, 4, mask_zero=not ragged)(ids)
    x = L.PReLU(shared_axes=[1])(L.BatchNormalization()(x))
    x = L.Add()([L.LayerNormalization()(x), L.RMSNormalization()(x), L.UnitNormalization()(x)])
    return tf.keras.Model(ids, L.Dense(1)(L.GlobalAveragePooling1D()(L.Activation("softmax")(x))))


@pytest.mark.filterwarnings("ignore:the training step runs eagerly")
def test_a_model_learns_what_it_does_on_padded_rows():
    lengths = [3, 1, 5, 2, 4, 1, 2, 6]
    rows = tf.RaggedTensor.from_row_lengths(np.arange(sum(lengths)) % 8 + 1, lengths)
    weights = []
    for ragged in (True, False):
        tf.keras.utils.set_random_seed(1)
        model = model_of(ragged)
        model.compile("sgd", "mse")
        x = rows if ragged else rows.to_tensor()
        model.fit(x, np.arange(8.0), batch_size=4, epochs=2, verbose=0)
        weights.append([*model.get_weights(), model.predict(x, verbose=0)])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_gradients_beside_finite_differences():
    layers = [L.LayerNormalization(dtype="float64"), L.UnitNormalization(dtype="float64")]
    layers += [L.BatchNormalization(dtype="float64"), L.Softmax(axis=1, dtype="float64")]

    def through(values):
        rows = tf.RaggedTensor.from_row_lengths(values, [2, 1])
        for layer in layers:
            rows = layer(rows, training=True)
        return rows.flat_values

    check_gradients(through, [np.random.default_rng(0).normal(size=(3, 4))])


def test_what_they_do_not_take():
    for layer in (L.LayerNormalization(), L.BatchNormalization()):
        with pytest.raises(ValueError, match="axis=-1 is none of the 0 last axes"):
            layer(ROWS)
    with pytest.raises(ValueError, match="axis=2 is none of the 1 last axes"):
        L.LayerNormalization(axis=2)(VECTORS)
    with pytest.raises(ValueError, match="takes no RaggedTensor: give it to_tensor"):
        L.Flatten()(ROWS)  # Keras mixes the rows
    with pytest.raises(ValueError, match="along one axis, without a mask"):
        L.Softmax(axis=[1, 2])(VECTORS)
    with pytest.raises(ValueError, match="ragged rows take no count_weights"):
        L.CategoryEncoding(6, output_mode="count")(NUMBERS, count_weights=NUMBERS)
    for other in (VECTORS, tf.ragged.constant([[1.0, 2.0], [3.0]])):
        with pytest.raises(ValueError, match="ragged tensors of two axes, along the second"):
            L.Dot(axes=-1)([other, VECTORS])
