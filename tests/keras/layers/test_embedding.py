"""Embedding."""

import numpy as np
import pytest

import distgrad as tf

layers = tf.keras.layers


def test_large_integers_are_exact_in_any_dtype():
    """Float32 cannot tell 2**24 from 2**24 + 1, nor float16 2048 from 2049."""
    table = np.arange(2050, dtype=np.float32)[:, None] / 4096
    for dtype in ("float16", "mixed_float16", "float32"):
        layer = layers.Embedding(2050, 1, weights=table, dtype=dtype)
        for kind in (np.int32, np.int64, np.uint16):
            words = np.array([2047, 2048, 2049], kind)
            found = layer(words).numpy().ravel()
            np.testing.assert_array_equal(found, table[words, 0].astype(found.dtype))


def test_floats_are_taken_as_integers():
    layer = layers.Embedding(4, 2)
    found = layer(np.array([[1.0, 3.0]], np.float32)).numpy()
    np.testing.assert_array_equal(found, layer.embeddings.numpy()[[[1, 3]]])


def test_the_gradient_holds_the_rows_that_were_used():
    layer = layers.Embedding(5, 2)
    words = np.array([1, 3, 1])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(words))
    gradient = tape.gradient(loss, layer.embeddings)
    assert isinstance(gradient, tf.IndexedSlices)
    dense = tf.convert_to_tensor(gradient).numpy()
    np.testing.assert_array_equal(dense[:, 0], [0, 2, 0, 1, 0])


def test_a_table_to_start_from():
    table = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    for given in (table, [table]):
        layer = layers.Embedding(4, 2, weights=given, trainable=False)
        np.testing.assert_array_equal(layer.get_weights()[0], table)
        assert not layer.trainable_variables and "weights" not in layer.get_config()


def test_a_length_of_the_input_is_not_needed():
    with pytest.warns(UserWarning, match="input_length"):
        assert layers.Embedding(4, 2, input_length=3)(np.array([[1]])).shape == (1, 1, 2)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: layers.Embedding(0, 2), "input_dim.*0"),
        (lambda: layers.Embedding(3, 2.0), "output_dim.*2.0"),
        (lambda: layers.Embedding(3, 2, embeddings_initializer="unifrom"), "unifrom"),
        (lambda: layers.Embedding(3, 2, weights=np.zeros((2, 3))), r"\(2, 3\)"),
        (lambda: layers.Embedding(3, 2)(np.array([0, 3])), "3"),
        (lambda: layers.Embedding(3, 2, input_lenght=3), "input_lenght"),
    ],
)
def test_wrong_use_is_a_value_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()
