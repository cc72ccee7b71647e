"""Keras's older ``.h5``: whole models, weights alone, and what Keras 2 has written."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

import distgrad as tf
from distgrad.keras.models import whole_h5

h5py = pytest.importorskip("h5py")
keras = tf.keras
layers = keras.layers

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
Y = np.arange(8) % 3


def sequential():
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(5), layers.BatchNormalization(), layers.Dense(3)]
    )


def functional():
    x = keras.Input((4,))
    inner = keras.Sequential([layers.Dense(4, name="within")], name="inner")
    y = layers.Add()([inner(x), x])
    return keras.Model(x, [layers.Dense(3, name="a")(y), layers.Dense(3, name="b")(y)])


def compiled(make):
    model = make()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    outputs = len(model.outputs)
    model.compile("adam", loss if outputs == 1 else [loss] * outputs)
    return model


def fit(model):
    target = Y if len(model.outputs) == 1 else [Y] * len(model.outputs)
    model.fit(X, target, batch_size=4, shuffle=False, verbose=0)
    return model


@pytest.mark.parametrize("make", [sequential, functional])
def test_a_model_goes_on_with_the_same_bits(make, tmp_path):
    model = fit(compiled(make))
    model.save(tmp_path / "x.h5")
    twin = keras.models.load_model(tmp_path / "x.h5")
    for each in (model, twin):
        fit(each)
    for a, b in zip(
        (*model.weights, *model.optimizer.variables),
        (*twin.weights, *twin.optimizer.variables),
        strict=True,
    ):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    other = make()
    other.load_weights(tmp_path / "x.h5")
    later = keras.models.load_model(tmp_path / "x.h5", compile=False)
    assert later.optimizer is None
    for a, b in zip(other.weights, later.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_the_file_is_laid_out_as_keras_has_it(tmp_path):
    model = fit(compiled(sequential))
    model.save(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        training = json.loads(file.attrs["training_config"])
        assert training["optimizer_config"]["class_name"] == "Adam"
        assert json.loads(file.attrs["model_config"])["class_name"] == "Sequential"
        weights = file["model_weights"]
        assert [n.decode() for n in weights.attrs["layer_names"]] == [x.name for x in model.layers]
        normal = weights["batch_normalization"]
        names = [name.decode().rpartition("/")[2] for name in normal.attrs["weight_names"]]
        assert names == ["gamma", "beta", "moving_mean", "moving_variance"]
        assert weights["top_level_model_weights"].attrs["weight_names"].size == 0
        assert file["optimizer_weights"].attrs["weight_names"].size == 2 + 2 * 6
    model.save(tmp_path / "new" / "y.h5", include_optimizer=False)
    assert keras.models.load_model(tmp_path / "new" / "y.h5").optimizer is None


def dense(name, units, **more):
    known = {"activation": "linear", "kernel_initializer": {"class_name": "Zeros", "config": {}}}
    return {"class_name": "Dense", "config": {"name": name, "units": units, **known, **more}}


def keras_2(path, *, whole=True):
    """A file as Keras 2 has written it: names end in ":0", and configs have options of its own."""
    kernel = X[:, :3]
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights") if whole else file
        group.attrs["layer_names"] = [b"dense", b"dropout"]
        group.create_group("dropout").attrs["weight_names"] = np.array([], "S1")
        found = group.create_group("dense")
        found.attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
        found["dense/kernel:0"], found["dense/bias:0"] = kernel[:4], np.ones(3, np.float32)
        if not whole:
            return
        stack = [dense("dense", 3, batch_input_shape=[None, 4], dtype="float32")]
        stack.append({"class_name": "Dropout", "config": {"name": "dropout", "rate": 0.5}})
        model = {"class_name": "Sequential", "config": {"name": "sequential", "layers": stack}}
        file.attrs["model_config"] = json.dumps(model).encode()
        metric = {"name": "accuracy", "dtype": "float32", "fn": "sparse_categorical_accuracy"}
        loss = {"reduction": "auto", "name": "x", "from_logits": True}
        training = {
            "loss": {"class_name": "SparseCategoricalCrossentropy", "config": loss},
            "metrics": [[{"class_name": "MeanMetricWrapper", "config": metric}]],
            "weighted_metrics": None,
            "loss_weights": None,
            "optimizer_config": {
                "class_name": "Adam",
                "config": {"name": "Adam", "learning_rate": 0.5, "decay": 0.0},
            },
        }
        file.attrs["training_config"] = json.dumps(training)


def test_files_of_keras_2_are_read(tmp_path):
    keras_2(tmp_path / "x.h5")
    model = keras.models.load_model(tmp_path / "x.h5")
    np.testing.assert_array_equal(model(X), tf.matmul(X, X[:4, :3]) + 1)
    assert set(model.evaluate(X, Y, verbose=0, return_dict=True)) == {"loss", "accuracy"}
    assert float(model.optimizer.learning_rate) == 0.5
    twin = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    for name in ("y.h5", "y.weights.h5"):
        keras_2(tmp_path / name, whole=False)
        twin.set_weights([np.zeros((4, 3)), np.zeros(3)])
        twin.load_weights(tmp_path / name)
        np.testing.assert_array_equal(twin.get_weights()[0], X[:4, :3])
    with pytest.raises(ValueError, match=r"y[.]h5.*weights alone"):
        keras.models.load_model(tmp_path / "y.h5")


def test_a_model_that_is_built_by_its_first_call_comes_back(tmp_path):
    class Own(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.first, self.second = layers.Dense(5), layers.Dense(3)

        def call(self, x):
            return self.second(self.first(x))

    for model in (Own(), keras.Sequential([layers.Dense(5), layers.Dense(3)])):
        expected = model(X)
        model.save(tmp_path / "x.h5")
        twin = keras.models.load_model(tmp_path / "x.h5", custom_objects={"Own": Own})
        np.testing.assert_array_equal(twin(X), expected)


def test_another_architecture_and_other_files_are_refused(tmp_path):
    compiled(sequential).save(tmp_path / "x.h5")
    for make, words in (
        (lambda: keras.Sequential([keras.Input((4,)), layers.Dense(3)]), "1 layers.*file has 3"),
        (lambda: keras.Sequential([keras.Input((4,)), *map(layers.Dense, (5, 5, 3))]), "shapes"),
    ):
        model = make()
        before = model.get_weights()
        with pytest.raises(ValueError, match=rf"x[.]h5.*{words}.*architecture"):
            model.load_weights(tmp_path / "x.h5")
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    (tmp_path / "bad.h5").write_bytes(b"this is not it")
    with pytest.raises(ValueError, match=r"bad[.]h5.*no HDF5 file"):
        keras.models.load_model(tmp_path / "bad.h5")


def test_layers_are_filled_by_name(tmp_path):
    model = functional()
    model.save(tmp_path / "x.h5")
    other = functional()
    head = layers.Dense(7, name="other")(other.get_layer("add").output)
    other = keras.Model(other.input, [other.output[1], head])
    kept = head.node.layer.get_weights()
    other.load_weights(tmp_path / "x.h5", by_name=True)
    for name in ("inner", "b"):
        for a, b in zip(model.get_layer(name).weights, other.get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(kept, head.node.layer.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="by_name=True takes layers of the same name"):
        keras.Sequential([keras.Input((4,)), layers.Dense(4)]).load_weights(tmp_path / "x.h5")
    model.save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(ValueError, match="by_name is for Keras's older"):
        other.load_weights(tmp_path / "x.weights.h5", by_name=True)


def test_weights_of_another_shape_are_skipped_one_by_one(tmp_path):
    model = sequential()
    model.layers[-1].bias.assign([1.0, 2.0, 3.0])
    model.save(tmp_path / "x.h5")
    other = keras.Sequential([keras.Input((4,)), layers.Dense(6), layers.Dense(3)])
    with pytest.raises(ValueError, match="2 layers with weights, the file has 3"):
        other.load_weights(tmp_path / "x.h5", skip_mismatch=True)
    for by_name in (None, True):
        wide = keras.Sequential(
            [keras.Input((4,)), layers.Dense(6), layers.BatchNormalization(), layers.Dense(3)]
        )
        with pytest.warns(UserWarning, match="Those of another shape are left"):
            wide.load_weights(tmp_path / "x.h5", skip_mismatch=True, by_name=by_name)
        np.testing.assert_array_equal(wide.layers[-1].bias, [1, 2, 3])


def test_more_names_than_one_attribute_has_room_for(monkeypatch):
    monkeypatch.setattr(whole_h5, "_LIMIT", 20)
    names = [f"layer_{i}" for i in range(9)]
    with h5py.File(io.BytesIO(), "w") as file:
        whole_h5._list(file, "names", names)
        assert len(file.attrs) > 1 and whole_h5._listed(file, "names") == names
