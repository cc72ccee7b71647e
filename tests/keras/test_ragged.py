"""Layers on ragged tensors: what Keras gives for those that take one, and what the others say."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

layers = tf.keras.layers
WORDS = tf.ragged.constant([["a", "b"], ["c"], []])
NUMBERS = tf.ragged.constant([[1, 2], [0], []])
FLOATS = tf.ragged.constant([[1.0, 2.0], [-3.0], []])


def vectorization(**options):
    return layers.TextVectorization(vocabulary=["a", "b", "cc"], **options)


@pytest.mark.parametrize(
    ("options", "texts", "wanted"),
    [
        ({}, ["a b x", "cc", ""], [[2, 3, 1], [4], []]),
        ({"output_sequence_length": 2}, ["a b x", "cc", ""], [[2, 3], [4], []]),
        ({"split": "character"}, ["ab"], [[2, 3]]),
        ({"ngrams": 2}, ["a b x", "cc"], [[2, 3, 1, 1, 1], [4]]),
        ({"split": None}, WORDS, [[2, 3], [1], []]),
    ],
)
def test_texts_as_ragged_rows_of_numbers(options, texts, wanted):
    layer = vectorization(ragged=True, **options)
    rows = layer(texts)
    assert isinstance(rows, tf.RaggedTensor) and rows.dtype == tf.int64
    assert rows.to_list() == wanted
    again = layers.TextVectorization.from_config(layer.get_config())
    assert again(texts).to_list() == wanted


def test_one_text_is_one_row():
    assert vectorization(ragged=True)("a b").numpy().tolist() == [2, 3]
    batches = tf.data.Dataset.from_tensor_slices(["a b", "cc"]).batch(2)
    assert next(iter(batches.map(vectorization(ragged=True)))).to_list() == [[2, 3], [4]]
    assert vectorization(split=None)(WORDS).numpy().tolist() == [[2, 3], [1, 0], [0, 0]]


@pytest.mark.parametrize(
    ("layer", "inputs", "wanted"),
    [
        (layers.StringLookup(vocabulary=["a", "b"]), WORDS, [[1, 2], [0], []]),
        (
            layers.StringLookup(vocabulary=["a", "b"], invert=True),
            NUMBERS,
            [[b"a", b"b"], [b"[UNK]"], []],
        ),
        (layers.IntegerLookup(vocabulary=[1, 2]), NUMBERS, [[1, 2], [0], []]),
        (layers.Hashing(5), WORDS, [[4, 2], [2], []]),
        (layers.Discretization(bin_boundaries=[1.5]), FLOATS, [[0, 1], [0], []]),
        (layers.ReLU(), FLOATS, [[1.0, 2.0], [0.0], []]),
        (layers.Rescaling(2.0), FLOATS, [[2.0, 4.0], [-6.0], []]),
        (
            layers.Embedding(3, 2, embeddings_initializer="ones"),
            NUMBERS,
            [[[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0]], []],
        ),
    ],
)
def test_each_value_by_itself(layer, inputs, wanted):
    assert layer(inputs).to_list() == wanted


@pytest.mark.parametrize("mode", ["multi_hot", "count"])
def test_rows_of_words_as_vectors(mode):
    wanted = [[0, 1, 1], [1, 0, 0], [0, 0, 0]]
    words = layers.StringLookup(vocabulary=["a", "b"], output_mode=mode)
    numbers = layers.IntegerLookup(vocabulary=[1, 2], output_mode=mode)
    assert words(WORDS).numpy().tolist() == numbers(NUMBERS).numpy().tolist() == wanted


def test_vocabularies_of_ragged_rows():
    lookup = layers.StringLookup()
    lookup.adapt(WORDS)
    assert lookup.get_vocabulary() == ["[UNK]", "c", "b", "a"]
    batches = tf.data.Dataset.from_tensor_slices(["a b", "b"]).map(tf.strings.split).ragged_batch(2)
    lookup = layers.StringLookup()
    lookup.adapt(batches)
    assert lookup.get_vocabulary() == ["[UNK]", "b", "a"]


def test_layers_and_models_of_ones_own_take_them():
    class Sums(tf.keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(1, kernel_initializer="ones")

        def call(self, x):
            return self.dense(tf.reduce_sum(x, 1, keepdims=True))

    model = Sums()
    with tf.GradientTape() as tape:
        tape.watch(FLOATS)
        made = model(FLOATS)
    assert made.numpy().ravel().tolist() == [3.0, -3.0, 0.0]
    assert tape.gradient(made, FLOATS).to_list() == [[1.0, 1.0], [1.0], []]
    model.compile(tf.keras.optimizers.SGD(0.0), "mse")
    with pytest.warns(match="the training step runs eagerly: its samples are ragged"):
        history = model.fit(FLOATS, np.ones((3, 1)), verbose=0)
    assert history.history["loss"] == pytest.approx([(4 + 16 + 1) / 3])


@pytest.mark.parametrize(
    "layer",
    [layers.Dense(1), layers.LSTM(2), layers.Flatten(), layers.Permute((2, 1))],
)
def test_other_layers_say_what_to_give_them(layer):
    with pytest.raises(ValueError, match="takes no RaggedTensor: give it to_tensor"):
        layer(FLOATS)


def test_what_goes_together():
    with pytest.raises(ValueError, match="`ragged` must not be true unless `output_mode` is"):
        vectorization(ragged=True, output_mode="multi_hot")
    with pytest.raises(ValueError, match="splits texts: .*not a RaggedTensor"):
        vectorization()(WORDS)
