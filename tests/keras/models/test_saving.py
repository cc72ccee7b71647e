"""Saving and loading: with the files of Keras 3 both ways, bit by bit among ourselves, and errors.

``tests/reference/make_model_reference.py`` made the files of Keras, and reads ours with Keras.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf
from distgrad.core.errors import MissingExtraError

h5py = pytest.importorskip("h5py")
keras = tf.keras
layers = keras.layers

REFERENCE = Path(__file__).parents[2] / "reference"
_SPEC = importlib.util.spec_from_file_location("reference_models", REFERENCE / "models.py")
models = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(models)
ARCHIVE = zipfile.ZipFile(REFERENCE / "keras_models.zip")
WHOLE = [name for name in (*models.MODELS, *models.OPTIMIZERS) if name != "nested"]


def stored(name: str, when: str) -> list[np.ndarray]:
    arrays = np.load(io.BytesIO(ARCHIVE.read(f"{name}.npz")))
    return [arrays[key] for key in arrays.files if key.startswith(f"{when}/")]


def made(name: str):
    if name in models.MODELS:
        return models.compiled(keras, models.MODELS[name](keras), "adam")
    optimizer = getattr(keras.optimizers, name)(**models.OPTIMIZERS[name])
    return models.compiled(keras, models.small(keras), optimizer)


def assert_goes_on_like_keras(model, name: str) -> None:
    """The predictions of Keras, at once and after two more updates with the state it saved."""
    for found, expected in zip(models.predictions(model, name), stored(name, "then"), strict=True):
        # float32: Keras adds up in another order, to some 1e-6 of numbers of order 1
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)
    models.steps(model, name, 2)
    for found, expected in zip(models.predictions(model, name), stored(name, "later"), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", models.MODELS)
def test_weights_and_optimizer_state_of_keras_are_read(name, tmp_path):
    model = made(name)
    models.steps(model, name, 1)  # makes the weights, and those of the optimizer
    ARCHIVE.extract(f"{name}.weights.h5", tmp_path)
    model.load_weights(tmp_path / f"{name}.weights.h5")
    assert_goes_on_like_keras(model, name)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_models_of_keras_are_read(name, tmp_path):
    ARCHIVE.extract(f"{name}.keras", tmp_path)
    model = keras.models.load_model(tmp_path / f"{name}.keras")
    assert int(model.optimizer.iterations) == 2
    assert_goes_on_like_keras(model, name)


@pytest.mark.parametrize("name", models.MODELS)
def test_our_weights_lie_where_those_of_keras_lie(name, tmp_path):
    model = made(name)
    models.steps(model, name, 1)
    model.save_weights(tmp_path / "x.weights.h5")

    def content(data: bytes) -> dict:
        found = {}
        with h5py.File(io.BytesIO(data)) as file:
            file.visititems(
                lambda path, item: (
                    found.update({path: (item.shape, str(item.dtype))})
                    if isinstance(item, h5py.Dataset)
                    else None
                )
            )
        return found

    expected = content(ARCHIVE.read(f"{name}.weights.h5"))
    assert content((tmp_path / "x.weights.h5").read_bytes()) == expected


@pytest.mark.parametrize("name", [*models.MODELS, *models.OPTIMIZERS])
def test_a_model_that_was_saved_goes_on_with_the_same_bits(name, tmp_path):
    # With DISTGRAD_KEEP=DIR the files stay there, for make_model_reference.py to read with Keras.
    folder = Path(os.environ.get("DISTGRAD_KEEP") or tmp_path)
    keras.utils.set_random_seed(5)
    model = made(name)
    models.steps(model, name, 2)
    arrays = {f"then/{i}": each for i, each in enumerate(models.predictions(model, name))}
    if name in models.MODELS:
        model.save_weights(folder / f"{name}.weights.h5")
    if name != "nested":
        model.save(folder / f"{name}.keras")
    models.steps(model, name, 2)
    arrays |= {f"later/{i}": each for i, each in enumerate(models.predictions(model, name))}
    np.savez(folder / f"{name}.npz", **arrays)

    if name != "nested":
        twin = keras.models.load_model(folder / f"{name}.keras")
    else:
        twin = made(name)
        models.steps(twin, name, 1)
        twin.load_weights(folder / f"{name}.weights.h5")
    models.steps(twin, name, 2)
    for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(model.optimizer.variables, twin.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


# Among ourselves


def dense(*sizes: int, dtype: str | None = None):
    model = keras.Sequential([keras.Input((3,)), *(layers.Dense(n, dtype=dtype) for n in sizes)])
    model.compile("adam", "mse")
    return model


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("ending", [".weights.h5", ".safetensors"])
def test_weights_come_back(ending, dtype, tmp_path):
    model, twin = dense(4, 2, dtype=dtype), dense(4, 2, dtype=dtype)
    model.save_weights(tmp_path / f"x{ending}")
    twin.load_weights(str(tmp_path / f"x{ending}"))
    for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert os.listdir(tmp_path) == [f"x{ending}"], "nothing temporary is left"
    assert {w.dtype.name for w in twin.get_weights()} == {dtype or "float32"}


@pytest.mark.parametrize(("policy", "kept"), [("mixed_bfloat16", "float32"), ("bfloat16",) * 2])
def test_bfloat16_in_files_is_as_keras_has_it(policy, kept, tmp_path):
    """Keras 3.15 says so beside two bytes a number, and reads this; so it does the policies."""
    model = dense(4, 2, dtype=policy)
    model.fit(np.ones((8, 3), np.float32), np.zeros((8, 2), np.float32), verbose=0)
    model.save(tmp_path / "x.keras")
    with zipfile.ZipFile(tmp_path / "x.keras") as archive:
        config = json.loads(archive.read("config.json"))
        weights = archive.read("model.weights.h5")
    assert config["config"]["layers"][1]["config"]["dtype"] == policy
    with h5py.File(io.BytesIO(weights)) as file:
        kernel = file["layers/dense/vars/0"]
        assert kernel.attrs.get("dtype") == (kept if kept == "bfloat16" else None)
        assert kernel[()].tobytes() == model.layers[0].kernel.numpy().tobytes()
        assert kernel.dtype == ("V2" if kept == "bfloat16" else "float32")
    twin = keras.models.load_model(tmp_path / "x.keras")
    for a, b in zip(
        (*model.variables, *model.optimizer.variables),
        (*twin.variables, *twin.optimizer.variables),
        strict=True,
    ):
        assert a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()
    assert twin.layers[0].compute_dtype == "bfloat16"


@pytest.mark.parametrize("ending", [".weights.h5", ".safetensors", ".keras"])
@pytest.mark.parametrize("sizes", [(5, 2), (4,), (4, 2, 2)])
def test_another_architecture_is_refused_and_nothing_loaded(ending, sizes, tmp_path):
    dense(4, 2).save_weights(tmp_path / "x.safetensors")
    source = dense(4, 2)
    path = tmp_path / f"x{ending}"
    source.save(path) if ending == ".keras" else source.save_weights(path)
    other = dense(*sizes)
    before = other.get_weights()
    with pytest.raises(ValueError, match=r"dense.*architecture") as error:
        other.load_weights(path)
    assert str(path) in str(error.value)
    for a, b in zip(before, other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_wrong_endings_missing_and_broken_files(tmp_path):
    model = dense(2)
    with pytest.raises(ValueError, match="x[.]h5"):
        model.save_weights(tmp_path / "x.h5")
    for path in ("x.weights", "x.npz"):
        with pytest.raises(ValueError, match=path.replace(".", "[.]")):
            model.save_weights(tmp_path / path)
        with pytest.raises(ValueError, match=path.replace(".", "[.]")):
            model.load_weights(tmp_path / path)
    with pytest.raises(ValueError, match="[.]keras"):
        model.save(tmp_path / "x.npz")
    for path in ("no.weights.h5", "no.safetensors", "no.h5"):
        with pytest.raises(FileNotFoundError, match="no[.]"):
            model.load_weights(tmp_path / path)
    with pytest.raises(FileNotFoundError):
        keras.models.load_model(tmp_path / "no.keras")
    for name in ("bad.keras", "bad.weights.h5", "bad.safetensors"):
        (tmp_path / name).write_bytes(b"this is not it")
    with pytest.raises(ValueError, match="bad[.]keras"):
        keras.models.load_model(tmp_path / "bad.keras")
    for name in ("bad.weights.h5", "bad.safetensors"):
        with pytest.raises(ValueError, match=name.replace(".", "[.]")):
            model.load_weights(tmp_path / name)
    model.save(tmp_path / "x.keras")
    with pytest.raises(FileExistsError):
        model.save(tmp_path / "x.keras", overwrite=False)
    with pytest.raises(ValueError, match="build"):
        keras.Sequential([layers.Dense(2)]).save_weights(tmp_path / "x.safetensors")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.keras"
    dense(2).save(path)
    old = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        dense(3).save(path)
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["x.keras"]


def test_without_h5py(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    model = dense(2)
    with pytest.raises(MissingExtraError, match=r'pip install "distgrad\[h5\]"'):
        model.save_weights(tmp_path / "x.weights.h5")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    model.save(tmp_path / "x.keras")
    assert "model.safetensors" in zipfile.ZipFile(tmp_path / "x.keras").namelist()
    twin = keras.models.load_model(tmp_path / "x.keras")
    for each in (model, twin):
        each.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# Classes of users


class Scale(layers.Layer):
    def __init__(self, start: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.start = start

    def build(self, input_shape):
        self.scale = self.add_weight((input_shape[-1],), name="scale")
        self.scale.assign(np.full(input_shape[-1], self.start))

    def call(self, x):
        return x * self.scale


class Tower(keras.Model):
    def __init__(self, units: int, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.scale, self.dense = Scale(2.0), layers.Dense(units)

    def call(self, inputs):
        return self.dense(self.scale(inputs["a"]) + inputs["b"])


def test_a_users_layer_is_named_or_asked_for(tmp_path):
    model = keras.Sequential([keras.Input((3,)), Scale(3.0), layers.Dense(2)])
    model.save(tmp_path / "x.keras")
    with pytest.raises(ValueError, match="'Scale'.*custom_objects"):
        keras.models.load_model(tmp_path / "x.keras")
    x = np.ones((2, 3))
    twin = keras.models.load_model(tmp_path / "x.keras", custom_objects={"Scale": Scale})
    np.testing.assert_array_equal(model(x), twin(x))
    with keras.saving.custom_object_scope({"Scale": Scale}):
        twin = keras.models.load_model(tmp_path / "x.keras")
    np.testing.assert_array_equal(model(x), twin(x))


def test_a_subclassed_model_comes_back_whole(tmp_path):
    model = Tower(2, name="tower")
    inputs = {"a": np.ones((4, 3), np.float32), "b": np.arange(12.0).reshape(4, 3)}
    model(inputs)
    model.save(tmp_path / "x.keras")
    known = {"Tower": Tower, "Scale": Scale}
    twin = keras.models.load_model(tmp_path / "x.keras", custom_objects=known)
    assert isinstance(twin, Tower) and twin.units == 2 and twin.name == "tower"
    np.testing.assert_array_equal(model(inputs), twin(inputs))


def test_registered_classes_and_functions_need_no_naming(tmp_path):
    @keras.saving.register_keras_serializable("mine")
    class Double(layers.Layer):
        def call(self, x):
            return x * 2.0

    @keras.saving.register_keras_serializable("mine")
    def half(y_true, y_pred):
        return 0.5 * keras.losses.mean_squared_error(y_true, y_pred)

    try:
        model = keras.Sequential([keras.Input((3,)), Double(), layers.Dense(1)])
        model.compile("sgd", half)
        model.save(tmp_path / "x.keras")
        twin = keras.models.load_model(tmp_path / "x.keras")
        data = np.ones((4, 3)), np.ones((4, 1))
        assert model.evaluate(*data, verbose=0) == twin.evaluate(*data, verbose=0)
    finally:
        for name in ("mine>Double", "mine>half"):
            del keras.saving.get_custom_objects()[name]


def test_compile_false_and_settings_that_come_back(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, activation="softmax")])
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9),
        keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=["accuracy"],
    )
    model.save(tmp_path / "x.keras")
    bare = keras.models.load_model(tmp_path / "x.keras", compile=False)
    assert bare.optimizer is None
    twin = keras.models.load_model(tmp_path / "x.keras")
    assert twin.optimizer.get_config() == model.optimizer.get_config()
    assert twin.loss.get_config() == model.loss.get_config()
    assert [metric.name for metric in twin.metrics] == [metric.name for metric in model.metrics]
    with zipfile.ZipFile(tmp_path / "x.keras") as archive:
        assert json.loads(archive.read("config.json"))["class_name"] == "Sequential"
        stored = json.loads(archive.read("config.json"))["compile_config"]["optimizer"]
    # Where Keras 3 looks for the class.
    assert stored["config"]["learning_rate"]["module"] == "keras.optimizers.schedules"


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 5)),
        lambda: keras.optimizers.schedules.CosineDecay(0.1, 5),
        lambda: keras.losses.Huber(0.5),
        lambda: keras.metrics.Precision(thresholds=0.3),
        lambda: keras.initializers.RandomNormal(1.0, 2.0),
        lambda: keras.regularizers.L2(0.1),
        lambda: keras.constraints.MaxNorm(3),
        lambda: layers.Dense(3, activation="relu"),
        lambda: keras.Sequential([keras.Input((3,)), layers.Dense(2)]),
    ],
)
def test_any_object_of_keras_is_read_from_its_config(make):
    made = make()
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(made)))
    twin = keras.saving.deserialize_keras_object(config)
    assert type(twin) is type(made)
    assert keras.saving.serialize_keras_object(twin) == keras.saving.serialize_keras_object(made)


def test_a_vocabulary_beside_the_config_is_read(tmp_path):
    """Keras 3.15 writes adapted words into a text file, and how many into the config."""
    lookup = keras.layers.IntegerLookup(name="look", output_mode="multi_hot")
    lookup.adapt(np.array([3, 4, 3]))
    model = keras.Sequential([keras.Input((2,), dtype="int64"), lookup])
    numbers = np.array([[3, 4], [9, 9]])
    expected = model.predict(numbers, verbose=0)
    model.save(tmp_path / "ours.keras")
    with zipfile.ZipFile(tmp_path / "ours.keras") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    config["config"]["layers"][1]["config"] |= {
        "vocabulary": None,
        "vocabulary_size": 3,
        "vocabulary_dtype": "int64",
        "oov_method": "floormod",
        "salt": None,
        "sparse": False,
    }
    files["config.json"] = json.dumps(config).encode()
    files["assets/layers/integer_lookup/vocabulary.txt"] = b"-1\n3\n4"
    with zipfile.ZipFile(tmp_path / "theirs.keras", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    twin = keras.models.load_model(tmp_path / "theirs.keras")
    assert twin.layers[0].get_vocabulary() == [-1, 3, 4]
    np.testing.assert_array_equal(twin.predict(numbers, verbose=0), expected)
    bare = keras.Sequential.from_config(config["config"])
    with pytest.raises(ValueError, match="no vocabulary yet"):
        bare.predict(numbers, verbose=0)


def test_weights_in_shards_come_back(tmp_path):
    def made():
        model = keras.Sequential([keras.Input((8,)), layers.Dense(64), layers.Dense(64)])
        model.compile("adam", "mse")
        return model

    model, again = made(), made()
    model.fit(np.ones((4, 8)), np.ones((4, 64)), verbose=0)
    path = tmp_path / "m.weights.json"
    model.save_weights(path, max_shard_size=2e-5)  # GiB: 21 KB
    index = json.loads(path.read_text())
    names = {name for each in index["weight_map"].values() for name in each}
    assert names == {f"m_{i:05}.weights.h5" for i in range(3)}
    assert {each.name for each in tmp_path.iterdir()} == {path.name, *names}
    assert index["metadata"]["total_size"] == 3 * 4 * model.count_params() + 8 + 4
    again.load_weights(path)
    for ours, theirs in zip(
        (*again.weights, *again.optimizer.variables),
        (*model.weights, *model.optimizer.variables),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="more than max_shard_size allows"):
        model.save_weights(path, max_shard_size=1e-6)
    with pytest.raises(ValueError, match="must end in"):
        model.save_weights(path)
    with pytest.raises(ValueError, match="latest_checkpoint gives it where it finds no checkpoint"):
        model.load_weights(tf.train.latest_checkpoint(tmp_path / "none"))
    with pytest.warns(UserWarning, match=r"\.weights\.json"):
        model.save_weights(tmp_path / "n.weights.h5", max_shard_size=1)
    again.load_weights(tmp_path / "n.weights.json")


def test_a_model_is_one_file(tmp_path):
    keras.Sequential([keras.Input((2,))]).save(tmp_path / "a.keras", zipped=True)
    with pytest.raises(ValueError, match="zipped=False"):
        keras.Sequential([keras.Input((2,))]).save(tmp_path / "b.keras", zipped=False)


def test_a_class_of_the_script_itself_lies_in_no_module():
    script = type("Doubles", (keras.layers.Layer,), {"__module__": "__main__"})
    elsewhere = type("Doubles", (keras.layers.Layer,), {"__module__": "layers_of_mine"})
    found = [keras.saving.serialize_keras_object(made()) for made in (script, elsewhere)]
    assert [entry["module"] for entry in found] == [None, "layers_of_mine"]
    assert {entry["registered_name"] for entry in found} == {"Doubles"}  # Keras looks it up by that
