"""Layers for texts and categories against the stored results of Keras 3, saved, and wrong.

The file with them is made by tests/reference/make_text_reference.py, which says what is in it.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad as tf

keras, layers = tf.keras, tf.keras.layers
PATH = Path(__file__).parents[2] / "reference" / "text_layers.json"
CASES = json.loads(PATH.read_text())["cases"]
IDS = [f"{i}-{case['class']}" for i, case in enumerate(CASES)]
every_case = pytest.mark.parametrize("case", CASES, ids=IDS)


def made(case: dict, **more: Any) -> Any:
    layer = getattr(layers, case["class"])(**case["config"], **more)
    if case["adapt"] is not None:
        layer.adapt(np.asarray(case["adapt"]))
    return layer


def check(layer: Any, case: dict) -> None:
    found = layer(np.asarray(case["given"]), **case["call"])
    if case["dtype"] == "str":
        assert found.tolist() == np.reshape(case["value"], case["shape"]).tolist()
        return
    assert tuple(found.shape) == tuple(case["shape"])
    # Keras's lookups say that their vectors are floats, which they are in models; eagerly int64.
    vectors = case["config"].get("output_mode", "int") != "int"
    assert found.dtype == case["dtype"] or (vectors and found.dtype == tf.float32)
    expected = np.reshape(case["value"], case["shape"])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


@every_case
def test_as_in_keras(case):
    layer = made(case)
    check(layer, case)
    if case["vocabulary"] is not None:
        assert layer.get_vocabulary() == case["vocabulary"]
        assert layer.vocabulary_size() == len(case["vocabulary"])
    if case["boundaries"] is not None:
        np.testing.assert_allclose(layer.bin_boundaries, case["boundaries"], rtol=1e-6)


@every_case
def test_what_was_learned_is_in_the_config(case):
    layer = made(case, name="here")
    config = json.loads(json.dumps(layer.get_config()))
    again = type(layer).from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config
    check(again, case)


def test_adapting_to_datasets_batches_and_lists():
    texts = np.array(["a b b", "c b", "a", "c b a b"])
    data = tf.data.Dataset.from_tensor_slices(texts)
    expected = ["", "[UNK]", "b", "a", "c"]
    for given in (texts, texts.tolist(), data, data.batch(3), iter([texts[:1], texts[1:]])):
        layer = layers.TextVectorization()
        layer.adapt(given)
        assert sorted(layer.get_vocabulary()) == sorted(expected)
        assert layer.get_vocabulary()[2] == "b"
    layer = layers.TextVectorization()
    layer.adapt(data.batch(1), steps=1)
    assert layer.get_vocabulary(include_special_tokens=False) == ["b", "a"]


def test_texts_of_every_kind_and_one_alone():
    layer = layers.TextVectorization(vocabulary=["über", "b"], output_sequence_length=3)
    for given in (["über b"], (b"\xc3\xbcber b",), np.array(["über b"], object)):
        assert layer(given).numpy().tolist() == [[2, 3, 0]]
    assert layer(np.array(["Über B"])).numpy().tolist() == [[1, 3, 0]]  # as in TensorFlow
    assert layer("b b").numpy().tolist() == [3, 3, 0]
    own = layers.TextVectorization(
        standardize=np.char.upper, split=lambda texts: [t.split("-") for t in texts]
    )
    own.adapt(["x-y", "y"])
    assert own.get_vocabulary() == ["", "[UNK]", "Y", "X"]


def test_in_a_pipeline_before_a_model():
    texts, labels = np.array(["good film", "bad film", "good", "bad"] * 4), np.array([1, 0] * 8)
    vectorize = layers.TextVectorization(output_sequence_length=2)
    vectorize.adapt(texts)
    data = tf.data.Dataset.from_tensor_slices((texts, labels)).batch(4)
    data = data.map(lambda x, y: (vectorize(x), y))
    model = keras.Sequential([layers.Embedding(5, 4), layers.Flatten(), layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.1), "binary_crossentropy", metrics=["accuracy"])
    assert model.fit(data, epochs=20, verbose=0).history["accuracy"][-1] == 1.0


@pytest.mark.parametrize("jit", [False, True])
def test_categories_inside_a_model_that_trains(jit, tmp_path):
    ids = keras.Input((1,), dtype="int64", name="ids")
    amount = keras.Input((1,), name="amount")
    looked = layers.IntegerLookup(vocabulary=[30, 10, 20], output_mode="one_hot")(ids)
    binned = layers.Discretization([0.0, 1.0], output_mode="one_hot")(amount)
    hashed = layers.Hashing(5, output_mode="one_hot")(ids)
    some = layers.CategoryEncoding(4, "one_hot")(layers.IntegerLookup(vocabulary=[30, 10, 20])(ids))
    joined = layers.Concatenate()([looked, binned, hashed, some])
    assert joined.shape == (None, 4 + 3 + 5 + 4)
    model = keras.Model([ids, amount], layers.Dense(1)(joined))
    model.compile(keras.optimizers.SGD(0.3), "mse", jit_compile=jit)
    x = np.array([[10], [20], [30], [40]] * 3), np.linspace(-1, 2, 12)[:, None]
    y = (x[0] == 20) + 0.5 * (x[1] > 1)
    history = model.fit(list(x), y, epochs=40, verbose=0).history["loss"]
    assert history[-1] < 0.05 * history[0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(list(x)), model.predict(list(x)))


def test_a_vocabulary_from_a_file(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("über\nb\n", encoding="utf-8")
    assert layers.StringLookup(vocabulary=str(path))(["b", "über"]).numpy().tolist() == [2, 1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: layers.StringLookup()(["a"]), "no vocabulary yet: call adapt"),
        (lambda: layers.StringLookup(vocabulary=["a", "a"]), "repeats .'a'"),
        (lambda: layers.StringLookup(vocabulary=["a"]).adapt(["b"]), "was given its vocabulary"),
        (lambda: layers.StringLookup(vocabulary=["a"], num_oov_indices=0)(["b"]), "'b' is not in"),
        (lambda: layers.StringLookup(vocabulary=["a"])(keras.Input((1,))), "Dataset.map"),
        (lambda: layers.StringLookup(vocabulary=["a"])(np.zeros(2)), "takes texts"),
        (lambda: layers.StringLookup(vocabulary=["m"], mask_token="m"), "lies in the vocabulary"),
        (lambda: layers.StringLookup(2, vocabulary=["a", "b"]), "more than max_tokens, 2"),
        (lambda: layers.StringLookup(1), "max_tokens must be"),
        (lambda: layers.StringLookup(output_mode="tf_idf", vocabulary=["a"]), "idf_weights are"),
        (lambda: layers.StringLookup(invert=True, output_mode="count"), "invert gives words"),
        (lambda: layers.IntegerLookup(vocabulary=[1])(["a"]), "use a StringLookup"),
        (lambda: layers.TextVectorization(split="sentence"), "split must be"),
        (lambda: layers.TextVectorization(output_mode="words"), "output_mode must be"),
        (lambda: layers.TextVectorization(output_mode="count", output_sequence_length=3), "'int'"),
        (lambda: layers.TextVectorization(vocabulary=["a"])(keras.Input((1,))), "Dataset.map"),
        (lambda: layers.TextVectorization(vocabulary=["a"])([["a", "b"]]), "last axis of 1"),
        (lambda: layers.TextVectorization().adapt([""]), "no data"),
        (lambda: layers.Hashing(0), "num_bins must be"),
        (lambda: layers.Hashing(3, salt="x"), "salt must be"),
        (lambda: layers.Hashing(3, dtype="float32"), "dtype of integers, not 'float32'"),
        (lambda: layers.CategoryEncoding(), "num_tokens must be"),
        (lambda: layers.CategoryEncoding(3)([1], count_weights=[1.0]), "count_weights need"),
        (lambda: layers.Discretization(), "give one of them"),
        (lambda: layers.Discretization([1.0]).adapt(np.zeros(3)), "was given its bin_boundaries"),
        (lambda: layers.Discretization(num_bins=3)(np.zeros(3)), "no boundaries yet"),
        (lambda: layers.Discretization(num_bins=3).adapt("abc"), "adapt takes an array"),
    ],
)
def test_what_makes_no_sense_is_a_value_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_output_modes_have_their_older_names():
    found = tf.keras.layers.IntegerLookup(vocabulary=[4, 7], output_mode="binary")
    assert found.output_mode == "multi_hot"
    assert found(np.array([7])).numpy().tolist() == [0, 0, 1]


def test_a_mask_counts_as_nothing_in_vectors():
    make = partial(layers.IntegerLookup, vocabulary=[3, 5], mask_token=0)
    assert np.asarray(make()([[0, 3, 9]])).tolist() == [[0, 2, 1]]
    x = np.array([[0, 3, 3], [0, 9, 0]])
    assert make(output_mode="count")(x).numpy().tolist() == [[0, 2, 0], [1, 0, 0]]
    assert make(output_mode="multi_hot")(x).numpy().tolist() == [[0, 1, 0], [1, 0, 0]]
    assert make(output_mode="one_hot")(x[0]).numpy().tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_a_single_category_is_a_batch_of_one():
    assert layers.CategoryEncoding(3, "one_hot")(np.array(1)).numpy().tolist() == [[0, 1, 0]]


def test_what_is_no_number_lies_in_the_last_bin():
    bins = layers.Discretization([1.0, 4.0])(np.array([np.nan, np.inf, 4.0, 1.0, -1.0], "float32"))
    assert bins.numpy().tolist() == [2, 2, 2, 1, 0]


def test_words_outside_have_the_idf_weight_that_is_given_for_them():
    words, weights = ["[UNK]", "a", "b"], [0.9, 0.25, 0.75]
    for kind, texts in (
        (layers.StringLookup, [["a", "z", "b", "z"]]),
        (layers.TextVectorization, ["a z b z"]),
    ):
        layer = kind(output_mode="tf_idf", vocabulary=words, idf_weights=weights)
        for each in (layer, kind.from_config(layer.get_config())):
            np.testing.assert_allclose(each(texts), [[1.8, 0.25, 0.75]], rtol=1e-6)
    mean = layers.StringLookup(output_mode="tf_idf", vocabulary=["a"], idf_weights=[0.5])
    assert mean.get_config()["vocabulary"] == ["a"] and mean.idf_weights == [0.5]


@pytest.mark.parametrize(  # the bins of Keras 3.15
    "salt, numbers, word",
    [(None, [3, 3, 2, 2, 0, 1], 0), (3, [3, 0, 2, 1, 3, 0], 0), ([3, 5], [2, 1, 3, 0, 2, 3], 3)],
)
def test_hashes_spread_what_is_outside_the_vocabulary(salt, numbers, word):
    values = np.array([100, 300, 700, 1100, 1700, 2000])
    options = {"num_oov_indices": 4, "oov_method": "farmhash", "salt": salt}
    layer = layers.IntegerLookup(vocabulary=[10, 20, 30], **options)
    for each in (layer, layers.IntegerLookup.from_config(layer.get_config())):
        assert each(values).numpy().tolist() == numbers
    texts = layers.StringLookup(vocabulary=["a"], num_oov_indices=5, salt=salt)
    assert texts(["xyz"]).numpy() == word
    with pytest.raises(ValueError, match="salt is for oov_method='farmhash'"):
        layers.IntegerLookup(vocabulary=[1], salt=1)


def test_idf_weights_lie_in_a_file_under_the_name_that_they_have_in_keras(tmp_path):
    def model():
        layer = layers.IntegerLookup(output_mode="tf_idf")
        layer.adapt(np.array([[3, 5], [3, 9]]))
        return tf.keras.Sequential([tf.keras.Input((2,), dtype="int64"), layer])

    made, store = model(), {}
    made.layers[0].save_own_variables(store)
    np.testing.assert_allclose(store["idf_weights"][1:], np.log([5 / 3, 2, 2]), rtol=1e-6)
    other = model()
    other.layers[0].load_own_variables({"idf_weights": 2 * store["idf_weights"]})
    other.save(tmp_path / "m.keras")
    again = tf.keras.models.load_model(tmp_path / "m.keras")
    x = np.array([[3, 5]])
    np.testing.assert_allclose(again(x), 2 * made(x).numpy(), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_numbers_of_words_are_whole_whatever_the_policy(dtype):
    """Keras writes the policy of vectors into the config of a layer that gives numbers."""
    made = layers.StringLookup(vocabulary=["a", "b"], dtype=dtype)
    assert made(["b", "x"]).dtype == tf.int64
    assert layers.IntegerLookup(vocabulary=[7], dtype=dtype)(np.array([7])).dtype == tf.int64
