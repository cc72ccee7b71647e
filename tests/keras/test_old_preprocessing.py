"""Keras's old helpers that make numbers of texts, and batches of series."""

from __future__ import annotations

import json

import numpy as np
import pytest

import distgrad as tf

text = tf.keras.preprocessing.text
TimeseriesGenerator = tf.keras.preprocessing.sequence.TimeseriesGenerator
TEXTS = ["The cat sat, the cat!", "A dog sat.", ""]


def fitted(**settings):
    tokenizer = text.Tokenizer(**settings)
    tokenizer.fit_on_texts(TEXTS)
    return tokenizer


def test_words_of_a_text():
    assert text.text_to_word_sequence("Hi, a-b\nC") == ["hi", "a", "b", "c"]
    assert text.text_to_word_sequence("Hi,b", filters="", lower=False, split=",") == ["Hi", "b"]
    hashed = text.hashing_trick("a b a", 5, "md5")
    assert hashed[0] == hashed[2] and set(hashed) <= {1, 2, 3, 4}
    assert text.one_hot("a b", 9) == [hash("a") % 8 + 1, hash("b") % 8 + 1]


def test_ranks_and_counts():
    tokenizer = fitted()
    assert tokenizer.word_index == {"the": 1, "cat": 2, "sat": 3, "a": 4, "dog": 5}
    assert tokenizer.index_word[3] == "sat" and tokenizer.document_count == 3
    assert dict(tokenizer.word_counts)["cat"] == 2 and tokenizer.word_docs["sat"] == 2
    assert tokenizer.texts_to_sequences(["A cat flew", ["THE", "dog"]]) == [[4, 2], [1, 5]]
    assert tokenizer.sequences_to_texts([[4, 2, 9]]) == ["a cat"]


def test_words_that_are_left_out_or_stand_for_others():
    assert fitted(num_words=3).texts_to_sequences(TEXTS) == [[1, 2, 1, 2], [], []]
    tokenizer = fitted(num_words=4, oov_token="?")
    assert tokenizer.word_index["?"] == 1
    assert tokenizer.texts_to_sequences(["the sat bird"]) == [[2, 1, 1]]
    assert tokenizer.sequences_to_texts([[2, 4, 99]]) == ["the ? ?"]


def test_characters_and_analyzers():
    tokenizer = text.Tokenizer(char_level=True)
    tokenizer.fit_on_texts(["aAb"])
    assert tokenizer.texts_to_sequences(["ba"]) == [[2, 1]]
    tokenizer = text.Tokenizer(analyzer=lambda words: words.split("|"))
    tokenizer.fit_on_texts(["x|Y"])
    assert tokenizer.word_index == {"x": 1, "Y": 2}


@pytest.mark.parametrize(
    ("mode", "row"),
    [
        ("binary", [0, 1, 1, 1]),
        ("count", [0, 2, 2, 1]),
        ("freq", [0, 0.4, 0.4, 0.2]),
        ("tfidf", [0, *(1 + np.log(2)) * np.log([2.5, 2.5]), np.log(2)]),
    ],
)
def test_matrices(mode, row):
    matrix = fitted().texts_to_matrix(TEXTS, mode)
    assert matrix.shape == (3, 6)
    np.testing.assert_allclose(matrix[0, :4], row)
    assert not matrix[2].any()


def test_numbers_are_counted_without_texts():
    tokenizer = text.Tokenizer(num_words=4)
    with pytest.raises(ValueError, match="before using tfidf"):
        tokenizer.sequences_to_matrix([[1]], "tfidf")
    tokenizer.fit_on_sequences([[1, 1, 2], [1]])
    assert tokenizer.index_docs == {1: 2, 2: 1}
    with pytest.raises(ValueError, match="mode: some"):
        tokenizer.sequences_to_matrix([[1]], "some")
    with pytest.raises(ValueError, match="num_words"):
        text.Tokenizer().sequences_to_matrix([[1]])


def test_a_tokenizer_is_kept_as_json():
    tokenizer = fitted(num_words=4, oov_token="?")
    kept = tokenizer.to_json(indent=1)
    assert json.loads(kept)["class_name"] == "Tokenizer"
    again = text.tokenizer_from_json(kept)
    assert again.get_config() == tokenizer.get_config()
    assert again.texts_to_sequences(TEXTS) == tokenizer.texts_to_sequences(TEXTS)
    np.testing.assert_array_equal(
        again.texts_to_matrix(TEXTS, "tfidf"), tokenizer.texts_to_matrix(TEXTS, "tfidf")
    )


def test_stretches_of_a_series():
    """The values of Keras's documentation, and its options."""
    data = np.array([[i] for i in range(50)])
    batches = TimeseriesGenerator(data, data, length=10, sampling_rate=2, batch_size=2)
    assert len(batches) == 20
    x, y = batches[0]
    np.testing.assert_array_equal(x[..., 0], [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]])
    np.testing.assert_array_equal(y, [[10], [11]])

    some = TimeseriesGenerator(
        data, data, 3, stride=2, start_index=4, end_index=12, reverse=True, batch_size=4
    )
    assert len(some) == 1
    x, y = some[0]
    assert y[:, 0].tolist() == [7, 9, 11] and x[0, :, 0].tolist() == [6, 5, 4]
    mixed = TimeseriesGenerator(data, data, 3, shuffle=True, batch_size=5)
    np.testing.assert_array_equal(mixed[0][0], mixed[0][0])  # whatever else a worker draws
    before = mixed[0][0]
    mixed.on_epoch_end()
    assert (mixed[0][0] != before).any() and (mixed[1][0] != mixed[0][0]).any()
    x, y = mixed[0]
    np.testing.assert_array_equal(x[:, -1] + 1, y)


def test_a_model_learns_from_stretches():
    data = np.arange(20, dtype=np.float32)[:, None]
    model = tf.keras.Sequential([tf.keras.layers.Flatten(), tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    assert np.isfinite(
        model.fit(TimeseriesGenerator(data / 20, data / 20, 4, batch_size=8), verbose=0).history[
            "loss"
        ]
    ).all()


@pytest.mark.parametrize(
    ("rows", "length", "words"),
    [(9, 3, "length is 10 while target length is 9"), (10, 10, "length=10 > end_index=9")],
)
def test_series_without_stretches(rows, length, words):
    with pytest.raises(ValueError, match=words):
        TimeseriesGenerator(np.zeros(10), np.zeros(rows), length)
