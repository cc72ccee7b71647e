"""Keras models of sparse tensors: what they give and learn is what dense rows do."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse

import distgrad as tf

L = tf.keras.layers
RNG = np.random.default_rng(0)
DENSE = (RNG.normal(size=(12, 6)) * (RNG.random((12, 6)) < 0.4)).astype(np.float32)
SPARSE = tf.sparse.from_dense(DENSE)
Y = np.arange(12, dtype="f") % 2

pytestmark = pytest.mark.filterwarnings("ignore:the training step runs eagerly")


def functional(sparse: bool) -> tf.keras.Model:
    x = tf.keras.Input((6,), sparse=sparse)
    return tf.keras.Model(x, L.Dense(1, "sigmoid")(L.Dense(4, "tanh")(x)))


def sequential(sparse: bool) -> tf.keras.Model:
    layers = [L.Reshape((2, 3)), L.Flatten(), L.Dense(4, "tanh"), L.Dense(1, "sigmoid")]
    return tf.keras.Sequential([L.Input((6,), sparse=sparse), *layers])


def unsaid(sparse: bool) -> tf.keras.Model:
    """Without an Input, what is sparse is made dense, as in Keras."""
    return tf.keras.Sequential([L.BatchNormalization(), L.Dense(1, "sigmoid")])


def merged(sparse: bool) -> tf.keras.Model:
    x = tf.keras.Input((6,), sparse=sparse)
    both = L.Concatenate()([x, L.Multiply()([x, x]), L.Maximum()([x, L.Add()([x, x])])])
    return tf.keras.Model(x, L.Dense(1, "sigmoid")(both))


class Own(tf.keras.Model):
    """A model of a user's own, which is not told what it will be given."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.first, self.last = L.Dense(4, "tanh"), L.Dense(1, "sigmoid")

    def call(self, x):
        return self.last(self.first(x))


def learnt(make, x, of_sparse: bool, as_dataset: bool = False) -> list:
    tf.keras.utils.set_random_seed(1)
    model = make(of_sparse)
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    if as_dataset:
        data = tf.data.Dataset.from_tensor_slices((x, Y)).batch(4)
        history = model.fit(data, epochs=3, verbose=0, validation_data=data)
        evaluated, predicted = model.evaluate(data, verbose=0), model.predict(data, verbose=0)
    else:
        options = {"validation_split": 0.25, "sample_weight": 1 + Y}
        history = model.fit(x, Y, batch_size=4, epochs=3, verbose=0, **options)
        evaluated = model.evaluate(x, Y, batch_size=5, verbose=0)
        predicted = model.predict(x, batch_size=5, verbose=0)
    found = [*history.history.values(), evaluated, predicted, *model.get_weights()]
    return [np.asarray(each) for each in found]


@pytest.mark.parametrize("as_dataset", [False, True])
@pytest.mark.parametrize("make", [functional, sequential, unsaid, merged, Own])
def test_fit_evaluate_and_predict_as_on_dense_rows(make, as_dataset):
    expected = learnt(make, DENSE, False, as_dataset)
    for a, b in zip(learnt(make, SPARSE, True, as_dataset), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["csr_matrix", "coo_matrix", "csc_matrix", "csr_array"])
def test_arrays_of_scipy(kind):
    given = getattr(scipy.sparse, kind)(DENSE.astype(np.float64))
    expected = learnt(functional, DENSE, False)
    for a, b in zip(learnt(functional, given, True), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_batches_of_scipy():
    def batches():
        while True:
            for first in range(0, 12, 4):
                rows = slice(first, first + 4)
                yield scipy.sparse.csr_matrix(DENSE[rows]), Y[rows]

    found = []
    for x in (batches(), DENSE):
        tf.keras.utils.set_random_seed(1)
        model = functional(True)
        model.compile("sgd", "mse")
        size = {"steps_per_epoch": 3} if x is not DENSE else {"y": Y, "batch_size": 4}
        found.append(model.fit(x, epochs=2, verbose=0, shuffle=False, **size).history["loss"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


def test_on_batch_steps():
    said = []
    for x in (DENSE, SPARSE, scipy.sparse.csr_matrix(DENSE)):
        tf.keras.utils.set_random_seed(1)
        model = functional(True)
        model.compile("sgd", "mse")
        losses = [model.train_on_batch(x, Y), model.test_on_batch(x, Y)]
        said.append([*losses, *model.predict_on_batch(x).ravel()])
    np.testing.assert_allclose(said[1:], [said[0]] * 2, rtol=1e-5)


def test_several_inputs():
    def make():
        tf.keras.utils.set_random_seed(1)
        a, b = tf.keras.Input((6,), sparse=True, name="a"), tf.keras.Input((6,), name="b")
        model = tf.keras.Model([a, b], L.Dense(1)(L.Concatenate()([a, b])))
        model.compile("adam", "mse")
        return model

    forms = [DENSE, DENSE], [SPARSE, DENSE], {"a": SPARSE, "b": DENSE}, [SPARSE, SPARSE]
    losses = [make().fit(x, Y, batch_size=5, verbose=0).history["loss"] for x in forms]
    np.testing.assert_allclose(losses[1:], [losses[0]] * 3, rtol=1e-5)


def test_shuffled_rows_stay_beside_their_targets():
    seen = []

    class Seen(Own):
        def train_step(self, data):
            x, y = data
            assert isinstance(x, tf.SparseTensor) and x.dtype == tf.float32
            seen.extend(zip(tf.sparse.to_dense(x).numpy().tolist(), y.numpy(), strict=True))
            return super().train_step(data)

    model = Seen(True)
    model.compile("sgd", "mse")
    model.fit(tf.cast(SPARSE, tf.float64), np.arange(12.0), batch_size=5, verbose=0)
    given = list(zip(DENSE.tolist(), range(12), strict=True))
    assert seen != given and sorted(seen, key=lambda pair: pair[1]) == given


SCRIPT = """
import numpy as np
import distgrad as tf
from distgrad import distribute

tf.keras.utils.set_random_seed(1)
rng = np.random.default_rng(0)
rows = tf.sparse.from_dense(rng.normal(size=(10, 8)) * (rng.random((10, 8)) < 0.4))
x = tf.keras.Input((8,), sparse=True)
model = tf.keras.Model(x, tf.keras.layers.Dense(1)(tf.keras.layers.Dense(3, "tanh")(x)))
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
    assert len(said) == 1 and len(said.pop().strip()) == 8 * (27 + 4)


def test_a_model_is_saved_copied_and_cloned_with_its_sparse_input(tmp_path):
    model = merged(True)
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    copies = [again, pickle.loads(pickle.dumps(model)), tf.keras.models.clone_model(model)]
    for copy in copies:
        assert copy.inputs[0].sparse and "sparse=True" in repr(copy.inputs[0])
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(copy.predict(SPARSE, verbose=0), model.predict(SPARSE))


def test_shapes_of_sparse_tensors_that_stand_for_values():
    x = tf.keras.Input((4, 3), sparse=True)
    flat = L.Flatten()(x)
    assert flat.sparse and flat.shape == (None, 12)
    assert L.Permute((2, 1))(x).shape == (None, 3, 4) and L.Identity()(x).sparse
    dense = L.Dense(2)(flat)
    assert not dense.sparse and dense.shape == (None, 2)
    summed = L.Lambda(lambda rows: tf.sparse.reduce_sum(rows, axis=1))(x)
    assert not summed.sparse and summed.shape == (None, 3)
    mixed = L.Add()([tf.keras.Input((12,)), flat])
    assert not mixed.sparse and L.Average()([flat, flat]).sparse
    assert tf.keras.ops.tanh(flat).sparse and not tf.keras.ops.exp(flat).sparse
    texts = tf.keras.Input((3,), dtype="string", sparse=True)
    assert L.StringLookup(vocabulary=["a"])(texts).sparse
    config = L.InputLayer((6,), sparse=True).get_config()
    assert config["sparse"] and L.InputLayer.from_config(config).output.sparse


def test_outputs_that_are_sparse():
    x = tf.keras.Input((6,), sparse=True)
    found = tf.keras.Model(x, L.Activation("tanh")(x)).predict(SPARSE, batch_size=5, verbose=0)
    assert isinstance(found, tf.SparseTensor)
    np.testing.assert_allclose(tf.sparse.to_dense(found), np.tanh(DENSE), rtol=1e-6)


def test_what_does_not_fit():
    model = functional(True)
    model.compile("sgd", "mse")
    for wrong in (DENSE[:, :5], DENSE[None]):
        with pytest.raises(ValueError, match=r"has shape \(None, 6\), a value of shape"):
            model.predict(tf.sparse.from_dense(wrong), verbose=0)
    with pytest.raises(ValueError, match="differ in length: x has 12, y has 11"):
        model.fit(SPARSE, Y[1:], verbose=0)
    with pytest.raises(ValueError, match="dataset of single samples lacks"):
        model.fit(tf.data.Dataset.from_tensor_slices((SPARSE, Y)), verbose=0)
    with pytest.raises(ValueError, match=r"make one by tf\.sparse\.to_dense"):
        model.fit(DENSE, tf.sparse.from_dense(Y[:, None]), verbose=0)
    ragged = tf.keras.Model(*[tf.keras.Input((None,), ragged=True)] * 2)
    with pytest.raises(ValueError, match="is an input of the model, a SparseTensor"):
        ragged(SPARSE)
    with pytest.raises(ValueError, match="is an input of the model, a RaggedTensor"):
        model(tf.ragged.constant([[1.0]]))
