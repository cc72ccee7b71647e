"""Texts as inputs of models: layers within make numbers of them, as in Keras 3.15."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad import keras

layers = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore:.*its samples are texts")

SAID = ["the movie was great", "the movie was okay", "the movie was terrible"]
SAID += ["a great film", "bad bad film", "so so"]
TEXTS, LABELS = np.array(SAID), np.array([1, 1, 0, 1, 0, 0], np.float32)
TABLE = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
FIVE = {"max_tokens": 20, "output_sequence_length": 5}
LOSSES = [0.9208112359046936, 0.9184276461601257]


def vectors(**options) -> layers.Layer:
    layer = layers.TextVectorization(**options)
    layer.adapt(TEXTS)
    return layer


def words() -> layers.Layer:
    layer = layers.StringLookup()
    layer.adapt(TEXTS)
    return layer


def body() -> keras.Model:
    stack = [layers.Embedding(20, 4), layers.GlobalAveragePooling1D()]
    model = keras.Sequential([*stack, layers.Dense(1, kernel_initializer="ones")])
    model.build((None, 5))
    model.layers[0].set_weights([TABLE])
    return model


def compiled(model: keras.Model) -> keras.Model:
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    return model


class OfTexts(keras.Model):
    def __init__(self):
        super().__init__()
        self.vectors, self.body = vectors(**FIVE), body()

    def call(self, x):
        return self.body(self.vectors(x))


def functional() -> keras.Model:
    texts = keras.Input((), dtype=tf.string)
    return keras.Model(texts, body()(vectors(**FIVE)(texts)))


MODELS = {
    "sequential": lambda: keras.Sequential([vectors(**FIVE), body()]),
    "functional": functional,
    "own": OfTexts,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("kind", ["str", "object", "list", "dataset"])
def test_a_model_of_texts_trains_as_that_of_numbers(make, kind: str) -> None:
    model = compiled(make())
    if kind == "dataset":
        data = tf.data.Dataset.from_tensor_slices((TEXTS, LABELS)).batch(2)
        history = model.fit(data, epochs=2, verbose=0, validation_data=data).history
        np.testing.assert_allclose(history["val_loss"][0], 0.9157500267028809, rtol=1e-6)
    else:
        x = {"str": TEXTS, "object": TEXTS.astype(object), "list": SAID}[kind]
        history = model.fit(x, LABELS, batch_size=2, epochs=2, shuffle=False, verbose=0).history
    np.testing.assert_allclose(history["loss"], LOSSES, rtol=1e-6)
    expected = [-1.2676517, -0.65929943, -0.8369441]
    np.testing.assert_allclose(model.predict(TEXTS[:3], verbose=0)[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(model.predict_on_batch(TEXTS[:3])[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(model(TEXTS[:3])[:, 0], expected, rtol=1e-5)


def test_a_trained_model_behind_its_texts_is_evaluated() -> None:
    whole = keras.Sequential([vectors(**FIVE), body(), layers.Activation("sigmoid")])
    whole.compile("adam", keras.losses.BinaryCrossentropy(), metrics=["accuracy"])
    data = tf.data.Dataset.from_tensor_slices((TEXTS, LABELS)).batch(2)
    loss, accuracy = whole.evaluate(data, verbose=0)
    assert loss == pytest.approx(0.9181240200996399, rel=1e-6)
    assert accuracy == pytest.approx(1 / 3)


@pytest.mark.parametrize("shards", [2, 3])
def test_in_several_shards_too(monkeypatch, shards: int) -> None:
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", str(shards))
    model = compiled(functional())
    history = model.fit(TEXTS, LABELS, batch_size=2, epochs=2, shuffle=False, verbose=0).history
    np.testing.assert_allclose(history["loss"], LOSSES, rtol=1e-6)


def test_columns_of_several_kinds() -> None:
    age, city, job = (
        keras.Input((1,), dtype=dtype, name=name)
        for name, dtype in (("age", None), ("city", "string"), ("job", "int64"))
    )
    one_hot = {"output_mode": "one_hot"}
    parts = [age, layers.StringLookup(vocabulary=["x", "y"], **one_hot)(city)]
    parts += [layers.IntegerLookup(vocabulary=[1, 2], **one_hot)(job)]
    parts += [layers.Hashing(4, **one_hot)(city)]
    output = layers.Dense(1, kernel_initializer="ones")(layers.Concatenate()(parts))
    model = keras.Model({"age": age, "city": city, "job": job}, output)
    model.compile("sgd", "mse")
    table = {
        "age": np.arange(6.0)[:, None] / 6,
        "city": np.array([["x"], ["y"], ["z"]] * 2),
        "job": np.array([[1], [2], [3]] * 2),
    }
    data = tf.data.Dataset.from_tensor_slices((table, np.ones(6, np.float32))).batch(2)
    losses = model.fit(data, epochs=2, verbose=0).history["loss"]
    np.testing.assert_allclose(losses, [5.443394184112549, 4.040200710296631], rtol=1e-6)
    expected = [2.4934847, 2.5387785, 2.6762002, 2.9360518, 2.9813457, 3.118767]
    np.testing.assert_allclose(model.predict(table, verbose=0)[:, 0], expected, rtol=1e-6)


KINDS = {
    "words": (vectors, (None, None), "int64"),
    "of a length": (lambda: vectors(output_sequence_length=3), (None, 3), "int64"),
    "letters": (lambda: vectors(split="character"), (None, None), "int64"),
    "pairs": (lambda: vectors(ngrams=2), (None, None), "int64"),
    "lookup": (words, (None, 1), "int64"),
    "known": (
        lambda: layers.StringLookup(vocabulary=["b", "c"], num_oov_indices=0),
        (None, 1),
        "int64",
    ),
    "one hot": (
        lambda: layers.StringLookup(vocabulary=["b"], output_mode="one_hot"),
        (None, 2),
        "float32",
    ),
    "hashes": (lambda: layers.Hashing(3), (None, 1), "int64"),
    "hashed": (lambda: layers.Hashing(3, output_mode="multi_hot"), (None, 3), "float32"),
}


@pytest.mark.parametrize("make, shape, dtype", KINDS.values(), ids=KINDS)
def test_what_layers_make_of_an_input_of_texts(tmp_path, make, shape, dtype) -> None:
    texts = keras.Input((1,), dtype="string")
    made = make()(texts)
    assert made.shape == shape and made.dtype == dtype and texts.dtype == "string"
    model = keras.Model(texts, made)
    given = np.array([["b"], ["c"]])
    found = model.predict(given, verbose=0)
    pytest.importorskip("h5py")
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.input_shape == (None, 1)
    np.testing.assert_array_equal(again.predict(given, verbose=0), found)


def test_crossed_texts() -> None:
    a, b = keras.Input((1,), dtype="string"), keras.Input((1,), dtype="string")
    crossing = layers.HashedCrossing(5)
    model = keras.Model([a, b], crossing([a, b]))
    given = [np.array([["x"], ["y"]]), np.array([["1"], ["2"]])]
    np.testing.assert_array_equal(model.predict(given, verbose=0), crossing(given))


def test_layers_of_numbers_say_what_to_do() -> None:
    texts = keras.Input((1,), dtype="string")
    said = "'dense' takes numbers, not texts: make numbers of them before it"
    with pytest.raises(ValueError, match=said):
        layers.Dense(2, name="dense")(texts)
    with pytest.raises(ValueError, match=said):
        layers.Dense(2, name="dense")(np.array([["a"]]))
    with pytest.raises(ValueError, match="gives texts, and no tensor of a model holds them"):
        layers.StringLookup(vocabulary=["a"], invert=True)(keras.Input((1,), dtype="int64"))
    with pytest.raises(ValueError, match=r"has shape \(None, 1\), a value of shape \(2, 3\)"):
        keras.Model(texts, layers.StringLookup(vocabulary=["a"])(texts))(np.full((2, 3), "a"))


def test_weights_of_a_model_of_texts_come_back(tmp_path) -> None:
    pytest.importorskip("h5py")
    model = compiled(OfTexts())
    model.fit(TEXTS, LABELS, verbose=0)
    model.save_weights(tmp_path / "x.weights.h5")
    again = OfTexts()
    again(TEXTS[:1])
    again.load_weights(tmp_path / "x.weights.h5")
    np.testing.assert_array_equal(again(TEXTS), model(TEXTS))


def test_no_tensor_holds_them() -> None:
    assert tf.string == "string" and tf.dtypes.string is tf.string
    assert OPS.convert_to_tensor([["a"]]).tolist() == [["a"]]
    assert OPS.convert_to_tensor("a", "string") == tf.constant("a") == "a"
    for make in (lambda: tf.ones(2, tf.string), lambda: tf.Variable(["a"])):
        with pytest.raises((TypeError, ValueError), match="texts"):
            make()


OPS = keras.ops
PAIRS = np.array([["a", "b"], ["b", "q"]])
MOVES = {
    "expand_dims": (lambda x: OPS.expand_dims(x, -1), (None, 2, 1), [[[1], [2]], [[2], [0]]]),
    "reshape": (lambda x: OPS.reshape(x, (-1, 1, 2)), (None, 1, 2), [[[1, 2]], [[2, 0]]]),
    "x[:, 0]": (lambda x: x[:, 0], (None,), [1, 2]),
    "concatenate": (
        lambda x: OPS.concatenate([x, x], 1),
        (None, 4),
        [[1, 2, 1, 2], [2, 0, 2, 0]],
    ),
    "split": (lambda x: OPS.split(x, 2, axis=1)[1], (None, 1), [[2], [0]]),
    "transpose": (lambda x: OPS.transpose(x), (2, None), [[1, 2], [2, 0]]),
}


@pytest.mark.parametrize(("move", "shape", "expected"), MOVES.values(), ids=MOVES)
def test_operations_put_texts_in_other_places(move, shape, expected, tmp_path) -> None:
    texts = keras.Input((2,), dtype="string")
    moved = move(texts)
    assert moved.shape == shape and moved.dtype == "string"
    model = keras.Model(texts, layers.StringLookup(vocabulary=["a", "b"])(moved))
    assert model(PAIRS).numpy().tolist() == expected
    assert model.predict(PAIRS, verbose=0).tolist() == expected
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again(PAIRS.astype(object)).numpy().tolist() == expected


def test_operations_compare_texts_and_compute_nothing_else_of_them() -> None:
    one, other = (keras.Input((), dtype="string") for _ in range(2))
    model = keras.Model([one, other], OPS.equal(one, other))
    assert model([PAIRS[:, 0], PAIRS[:, 1]]).numpy().tolist() == [False, False]
    assert model([PAIRS[0], PAIRS[0]]).numpy().tolist() == [True, True]
    with pytest.raises(ValueError, match="cannot be converted to a tensor"):
        OPS.exp(one)


def test_texts_of_a_rank_more_train_a_model() -> None:
    texts = keras.Input((), dtype="string")
    model = compiled(keras.Model(texts, body()(vectors(**FIVE)(OPS.expand_dims(texts, -1)))))
    history = model.fit(TEXTS, LABELS, batch_size=2, epochs=2, shuffle=False, verbose=0).history
    np.testing.assert_allclose(history["loss"], LOSSES, rtol=1e-6)


def test_layers_that_move_elements_move_texts() -> None:
    texts = np.array([["a", "b"], ["c", "d"]])
    for layer, shape in (
        (layers.Reshape((2, 1)), (2, 2, 1)),
        (layers.Flatten(), (2, 2)),
        (layers.Permute((1,)), (2, 2)),
        (layers.Identity(), (2, 2)),
        (layers.Lambda(lambda x: x), (2, 2)),
        (layers.RepeatVector(3), (2, 3, 2)),
    ):
        found = layer(texts)
        assert found.shape == shape and found.numpy().ravel()[1] in (b"a", b"b")
        given = keras.Input((2,), dtype="string")
        numbers = layers.StringLookup(vocabulary=["a", "b", "c"])(layer(given))
        assert numbers.shape == (None, *shape[1:])
        assert keras.Model(given, numbers)(texts).numpy().ravel()[-2:].tolist() == [3, 0]
    both = [keras.Input((2,), dtype="string") for _ in range(2)]
    numbers = layers.StringLookup(vocabulary=["a", "b", "c"])(layers.Concatenate()(both))
    found = keras.Model(both, numbers).predict([texts, texts], verbose=0)
    assert found.tolist() == [[1, 2, 1, 2], [3, 0, 3, 0]]
    with pytest.raises(ValueError, match="not both at once"):
        layers.Concatenate()([texts, np.ones((2, 2))])
    with pytest.raises(ValueError, match="takes numbers, not texts"):
        layers.Activation("relu")(texts)


def test_vocabularies_and_boundaries_from_one_batch_after_another() -> None:
    words = layers.StringLookup()
    words.update_state(np.array(["a", "b", "a"]))
    words.update_state(np.array(["c", "a", "b"]))
    assert words.get_vocabulary() == ["[UNK]"]
    words.finalize_state()
    assert words.get_vocabulary() == ["[UNK]", "a", "b", "c"]
    words.update_state(np.array(["z"]))
    words.reset_state()
    words.finalize_state()
    assert words.get_vocabulary() == ["[UNK]", "a", "b", "c"]
    words.update_state(np.array(["c"]))
    words.finalize_state()
    assert words.get_vocabulary() == ["[UNK]", "c"]
    texts = layers.TextVectorization()
    texts.update_state(np.array(["a b", "b a a"]))
    texts.finalize_state()
    assert texts.get_vocabulary() == ["", "[UNK]", "a", "b"]
    shares = layers.StringLookup(output_mode="tf_idf")
    shares.update_state(np.array([["a", "b"], ["a", "c"]]))
    shares.finalize_state()
    np.testing.assert_allclose(
        shares(np.array([["a", "b"]])), [[0.0, 0.5108256, 0.0, 0.6931472]], rtol=1e-6
    )
    bins = layers.Discretization(num_bins=3)
    bins.update_state(np.arange(9.0))
    bins.finalize_state()
    np.testing.assert_allclose(bins.bin_boundaries, [2, 5], rtol=1e-6)
    with pytest.raises(ValueError, match="given its vocabulary"):
        layers.StringLookup(vocabulary=["a"]).update_state(np.array(["b"]))


def test_rows_of_several_lengths_are_said_to_be_filled_up() -> None:
    rows = [np.array(["a", "b"]), np.array(["c"])]
    lookup = tf.keras.layers.StringLookup(vocabulary=["a"])
    back = tf.keras.layers.StringLookup(vocabulary=["a"], invert=True)
    for layer, given in ((lookup, rows), (back, [np.array([1, 0]), np.array([1])])):
        with pytest.raises(ValueError, match="takes rows of one length: call it on each row"):
            layer(given)


def test_words_come_back_as_the_texts_of_tf_strings() -> None:
    back = tf.keras.layers.StringLookup(vocabulary=["é", "b"], invert=True)
    assert back(tf.constant([1, 2, 0])).numpy().tolist() == ["é".encode(), b"b", b"[UNK]"]
    assert back(tf.constant(2)).numpy() == b"b"
    assert back(np.zeros((0, 3), np.int64)).numpy().shape == (0, 3)


def test_layers_of_ones_own_look_texts_up_in_a_model() -> None:
    """Also in a Sequential, and where each text must be in the vocabulary."""

    class Embedded(tf.keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            lookup = tf.keras.layers.StringLookup(vocabulary=["a", "b"], num_oov_indices=0)
            table = tf.keras.layers.Embedding(2, 1, embeddings_initializer="ones")
            self.lookup, self.table = lookup, tf.keras.Sequential([lookup, table])

        def call(self, texts: np.ndarray) -> tf.Tensor:
            return self.table(texts) * tf.cast(self.lookup(texts), tf.float32)[:, None]

    texts = tf.keras.Input((), dtype=tf.string)
    layer = Embedded()
    model = tf.keras.Model(texts, layer.table(texts) + layer(texts))
    assert model(np.array(["b", "a"])).numpy().tolist() == [[2.0], [1.0]]
    with pytest.raises(ValueError, match="'c' is not in the vocabulary"):
        model(np.array(["c"]))
