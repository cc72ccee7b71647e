"""Keras models of ragged tensors: what they give and learn is what padded rows with a mask do."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

L = tf.keras.layers
RNG = np.random.default_rng(0)
LENGTHS = [3, 1, 5, 2, 4, 1, 2, 6, 3, 2, 1, 4]
ROWS = tf.RaggedTensor.from_row_lengths(RNG.integers(1, 9, sum(LENGTHS)), LENGTHS)
Y = np.arange(12, dtype="f") % 2

pytestmark = pytest.mark.filterwarnings("ignore:the training step runs eagerly")


def functional(ragged: bool) -> tf.keras.Model:
    ids = tf.keras.Input((None,), dtype="int64", ragged=ragged)
    x = L.Embedding(9, 4, mask_zero=not ragged)(ids)
    x = L.Dropout(0.0)(L.Activation("tanh")(x))
    return tf.keras.Model(ids, L.Dense(1, "sigmoid")(L.GlobalAveragePooling1D()(x)))


def sequential(ragged: bool) -> tf.keras.Model:
    ids = L.Input((None,), dtype="int64", ragged=ragged)
    table, mean = L.Embedding(9, 4, mask_zero=not ragged), L.GlobalAveragePooling1D()
    return tf.keras.Sequential([ids, table, mean, L.Dense(1, "sigmoid")])


class Own(tf.keras.Model):
    """A model of a user's own, which is not told what it will be given."""

    def __init__(self, ragged: bool) -> None:
        super().__init__()
        self.table, self.dense = L.Embedding(9, 4, mask_zero=not ragged), L.Dense(1, "sigmoid")
        self.mean = L.GlobalAveragePooling1D()

    def call(self, ids):
        return self.dense(self.mean(self.table(ids)))


def learnt(make, ragged: bool, as_dataset: bool = False) -> list:
    tf.keras.utils.set_random_seed(1)
    model = make(ragged)
    x = ROWS if ragged else ROWS.to_tensor()
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    if as_dataset:
        data = tf.data.Dataset.from_tensor_slices((x, Y)).batch(4)
        history = model.fit(data, epochs=3, verbose=0, shuffle=False)
        evaluated, predicted = model.evaluate(data, verbose=0), model.predict(data, verbose=0)
    else:
        history = model.fit(
            x, Y, batch_size=4, epochs=3, verbose=0, validation_split=0.25, sample_weight=1 + Y
        )
        evaluated = model.evaluate(x, Y, batch_size=5, verbose=0)
        predicted = model.predict(x, batch_size=5, verbose=0)
    found = [*history.history.values(), evaluated, predicted, *model.get_weights()]
    return [np.asarray(each) for each in found]


@pytest.mark.parametrize("as_dataset", [False, True])
@pytest.mark.parametrize("make", [functional, sequential, Own])
def test_fit_evaluate_and_predict_as_on_padded_rows(make, as_dataset):
    found, expected = learnt(make, True, as_dataset), learnt(make, False, as_dataset)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_on_batch_steps():
    models = [functional(True), functional(False)]
    models[1].set_weights(models[0].get_weights())
    said = []
    for model, x in zip(models, (ROWS, ROWS.to_tensor()), strict=True):
        model.compile("sgd", "mse")
        losses = [model.train_on_batch(x, Y), model.test_on_batch(x, Y)]
        said.append([*losses, *model.predict_on_batch(x).ravel()])
    assert not models[0].passes().predict.executors  # which would be one for each set of rows
    np.testing.assert_allclose(said[0], said[1], rtol=1e-5)


def test_shuffled_rows_stay_beside_their_targets():
    seen = []

    class Seen(Own):
        def train_step(self, data):
            x, y = data
            seen.extend(zip(x.to_list(), y.numpy().tolist(), strict=True))
            return super().train_step(data)

    model = Seen(True)
    model.compile("sgd", "mse")
    model.fit(ROWS, Y, batch_size=5, verbose=0)
    given = list(zip(ROWS.to_list(), Y.tolist(), strict=True))
    assert seen != given and sorted(seen) == sorted(given)


SCRIPT = """
import numpy as np
import distgrad as tf
from distgrad import distribute

tf.keras.utils.set_random_seed(1)
rows = tf.RaggedTensor.from_row_lengths(np.arange(1, 29) % 9, [3, 1, 5, 2, 4, 1, 2, 6, 3, 1])
ids = tf.keras.Input((None,), dtype="int64", ragged=True)
x = tf.keras.layers.GlobalMaxPooling1D()(tf.keras.layers.Embedding(9, 4)(ids))
model = tf.keras.Model(ids, tf.keras.layers.Dense(1)(x))
model.compile("adam", "mse")
model.fit(rows, np.arange(10.0), batch_size=5, epochs=2, verbose=0)
if distribute.rank() == 0:
    print(b"".join(w.tobytes() for w in model.get_weights()).hex())
"""


@pytest.mark.timeout_s(100)
def test_fit_has_the_same_bits_on_two_processes(run_cli, tmp_path):
    (tmp_path / "fit.py").write_text(SCRIPT)
    said = {
        run_cli("launch", "-n", n, tmp_path / "fit.py", env={"DISTGRAD_VIRTUAL_SHARDS": "4"}).stdout
        for n in (1, 2)
    }
    assert len(said) == 1 and len(said.pop().strip()) == 8 * (36 + 5)


def test_a_model_is_saved_with_its_ragged_input(tmp_path):
    model = functional(True)
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    assert again.inputs[0].ragged and "ragged=True" in repr(again.inputs[0])
    np.testing.assert_array_equal(again.predict(ROWS, verbose=0), model.predict(ROWS, verbose=0))


def test_shapes_of_ragged_tensors_that_stand_for_values():
    ids = tf.keras.Input((None,), ragged=True)
    x = L.Embedding(9, 4)(ids)
    assert x.ragged and x.shape == (None, None, 4)
    assert L.Concatenate()([x, L.Add()([x, x])]).shape == (None, None, 8)
    pooled = L.Lambda(lambda rows: tf.reduce_sum(rows, axis=1))(x)
    assert not pooled.ragged and pooled.shape == (None, 4)
    texts = tf.keras.Input((None,), dtype="string", ragged=True)
    found = L.StringLookup(vocabulary=["a", "b"])(texts)
    assert found.ragged and found.dtype == "int64"
    model = tf.keras.Model(texts, found)
    assert model(tf.ragged.constant([["a"], ["b", "c"]])).to_list() == [[1], [2, 0]]


def test_a_layer_at_a_time_and_outputs_that_are_ragged():
    model = tf.keras.Sequential([L.Rescaling(0.5)])
    rows = tf.RaggedTensor.from_row_lengths(np.arange(14, dtype="f").reshape(7, 2), [3, 0, 1, 3])
    found = model.predict(rows, batch_size=3, verbose=0)
    assert isinstance(found, tf.RaggedTensor) and model.inputs[0].ragged
    assert found.to_list() == (rows * 0.5).to_list()


def test_what_does_not_fit():
    dense, ragged = functional(False), functional(True)
    with pytest.raises(ValueError, match="is an input of the model, a RaggedTensor of shape"):
        dense(ROWS)
    with pytest.raises(ValueError, match="is an input of the model, a RaggedTensor of shape"):
        ragged(tf.ragged.constant([[[1], [2]], [[3]]]))
    with pytest.raises(ValueError, match="layer 'lstm.*' takes no RaggedTensor: give it to_tensor"):
        L.LSTM(2)(L.Embedding(9, 4)(tf.keras.Input((None,), ragged=True)))
    with pytest.raises(ValueError, match="makes its rows of whole ones"):
        L.Activation("log_softmax")(tf.ragged.constant([[1.0], [2.0, 3.0]]))
    with pytest.raises(ValueError, match="sparse or ragged, not both"):
        tf.keras.Input((3,), sparse=True, ragged=True)
    model = functional(True)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="differ in length: x has 12, y has 11"):
        model.fit(ROWS, Y[1:], verbose=0)
    data = tf.data.Dataset.from_tensor_slices((ROWS, Y))
    with pytest.raises(ValueError, match="let single samples have their .batch"):
        model.fit(data, verbose=0)
