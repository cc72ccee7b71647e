"""Functions of ``keras.ops`` as nodes of functional models: against Keras 3, saved, and wrong.

``tests/reference/make_operation_reference.py`` made the configs, weights and outputs of Keras.
"""

from __future__ import annotations

import importlib.util
import inspect
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf
from distgrad.keras.layers import operation
from distgrad.keras.layers.operation import NamedOperation

keras = tf.keras
layers, ops = keras.layers, keras.ops

REFERENCE = Path(__file__).parents[2] / "reference"
_SPEC = importlib.util.spec_from_file_location("reference_operations", REFERENCE / "operations.py")
operations = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(operations)
ARCHIVE = zipfile.ZipFile(REFERENCE / "keras_operations.zip")


def x(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def of_keras(name: str) -> tuple[dict, list[np.ndarray], list[np.ndarray]]:
    """Its config, weights and outputs of that model."""
    arrays = np.load(io.BytesIO(ARCHIVE.read(f"{name}.npz")))
    parts = ([arrays[k] for k in arrays.files if k.startswith(p)] for p in ("weights/", "outputs/"))
    return json.loads(ARCHIVE.read(f"{name}.json")), *parts


def outputs(model, values) -> list:
    return tf.nest.flatten(model(values if len(values) > 1 else values[0]))


def called(config: dict) -> dict[str, list]:
    """Class, module and settings of the operations in a config, in order, without their names."""
    found: dict[str, list] = {}
    for entry in config["layers"]:
        if entry["module"].startswith("keras.src.ops"):
            settings = {k: v for k, v in entry["config"].items() if k != "name"}
            found.setdefault(entry["class_name"], []).append((entry["module"], settings))
        elif "layers" in entry["config"]:
            for name, inner in called(entry["config"]).items():
                found.setdefault(name, []).extend(inner)
    return {name: sorted(entries, key=str) for name, entries in found.items()}


@pytest.mark.parametrize("name", operations.MODELS)
def test_shapes_dtypes_and_values_are_those_of_keras(name):
    model, values = operations.built(keras, name)
    config, weights, expected = of_keras(name)
    model.set_weights(weights)
    found = outputs(model, values)
    assert len(found) == len(model.outputs) == len(expected)
    for spec, one, other in zip(model.outputs, found, expected, strict=True):
        assert spec.dtype == one.dtype == other.dtype
        assert all(n is None or n == m for n, m in zip(spec.shape, other.shape, strict=True))
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=2e-6)
    ours, theirs = called(model.get_config()), called(config["config"])
    assert {name: len(entries) for name, entries in ours.items()} == {
        name: len(entries) for name, entries in theirs.items()
    }
    for name, entries in ours.items():
        for (module, settings), (wanted, keras_has) in zip(entries, theirs[name], strict=True):
            assert module == wanted
            # None is a default that Keras has looked up
            assert {k: v for k, v in settings.items() if v is not None}.items() <= keras_has.items()


@pytest.mark.parametrize("name", operations.MODELS)
def test_configs_of_keras_are_read(name):
    config, weights, expected = of_keras(name)
    model = keras.models.model_from_json(json.dumps(config))
    model.set_weights(weights)
    _, values = operations.built(keras, name)
    for one, other in zip(outputs(model, values), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", operations.MODELS)
def test_saved_and_cloned_models_have_the_same_bits(name, tmp_path):
    pytest.importorskip("h5py")
    folder = Path(os.environ.get("DISTGRAD_KEEP", tmp_path))
    model, values = operations.built(keras, name)
    expected = outputs(model, values)
    model.save(folder / f"{name}.keras")
    np.savez(folder / f"{name}.npz", **{f"outputs/{i}": v for i, v in enumerate(expected)})
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for other in (keras.models.load_model(folder / f"{name}.keras"), clone):
        assert [t.shape for t in other.outputs] == [t.shape for t in model.outputs]
        for one, two in zip(outputs(other, values), expected, strict=True):
            np.testing.assert_array_equal(one, two)


def test_training_summary_and_layers():
    keras.utils.set_random_seed(0)
    given = keras.Input((6,))
    hidden = ops.relu(layers.Dense(8, name="hidden")(given))
    left, right = ops.split(hidden, 2, axis=-1)
    model = keras.Model(given, ops.mean(left * right, axis=-1, keepdims=True))
    assert [layer.name for layer in model.layers] == ["input_layer", "hidden"]
    assert isinstance(model.get_layer("relu"), keras.Operation)
    lines = []
    model.summary(print_fn=lines.append, line_length=100)
    table = "\n".join(lines)
    assert "split (Split)" in table and "[(None, 4), (None, 4)]" in table
    assert "split[0][0]" in table and "split[0][1]" in table
    model.compile(keras.optimizers.Adam(0.02), "mse")
    targets = x(32, 6)[:, :1] ** 2
    losses = model.fit(x(32, 6), targets, epochs=40, verbose=0).history["loss"]
    assert losses[-1] < 0.6 * losses[0]
    eager = keras.models.clone_model(model)
    eager.set_weights(model.get_weights())
    np.testing.assert_allclose(model.predict(x(5, 6), verbose=0), eager(x(5, 6)), rtol=1e-5)


def test_every_operation_is_made_and_called_as_in_keras():
    theirs = json.loads(ARCHIVE.read("classes.json"))
    theirs |= json.loads((REFERENCE / "keras_image_classes.json").read_text())
    assert ops.image.resize  # which is loaded when it is used, as are others
    for name in ops.__all__:
        getattr(ops, name)
    assert len(operation._functions) > 290
    for name, function in operation._functions.items():
        module, made_of, called_on = theirs[name]
        parameters = inspect.signature(function).parameters
        settings = [p for p in parameters if p not in called_on and p != "kwargs"]
        given = NamedOperation(name, dict.fromkeys(settings))
        assert (given.entry()["module"], list(given._names)) == (module, called_on), name
        assert set(settings) <= set(made_of), name


def test_only_the_outermost_function_becomes_a_node():
    given = keras.Input((3, 4))
    model = keras.Model(given, ops.moments(ops.hstack([given, given]), axes=[1]))
    assert all(isinstance(each, NamedOperation) for each in model._graph_operations[1:])
    assert [each.operation for each in model._graph_operations[1:]] == ["Hstack", "Moments"]


@pytest.mark.parametrize(
    "call, shape",
    [
        (lambda x: ops.map(lambda row: ops.sum(row, axis=0), x), (None, 3)),
        (lambda x: ops.vectorized_map(lambda row: row * 2.0, x), (None, 2, 3)),
        (lambda x: ops.associative_scan(lambda a, b: a + b, x, axis=1), (None, 2, 3)),
        (lambda x: ops.scan(lambda c, row: (c + row, c), ops.zeros((2, 3)), x)[1], (None, 2, 3)),
        (lambda x: ops.while_loop(lambda y: ops.all(y < 99.0), lambda y: y + 9.0, x), (None, 2, 3)),
        (ops.size, ()),
    ],
)
def test_functions_of_functions_and_sizes_become_nodes(call, shape):
    given, values = keras.Input((2, 3)), x(4, 2, 3)
    made = call(given)
    assert made.shape == shape
    np.testing.assert_allclose(keras.Model(given, made)(values), call(ops.array(values)), rtol=1e-6)


def test_a_tensor_that_is_no_setting_of_keras_is_an_argument_here():
    given = keras.Input((4,))
    model = keras.Model(given, ops.clip(given, -1.0, ops.max(given, axis=-1, keepdims=True) / 2))
    again = keras.Model.from_config(json.loads(json.dumps(model.get_config())))
    expected = np.clip(x(3, 4), -1, x(3, 4).max(-1, keepdims=True) / 2)
    for each in (model, again):
        np.testing.assert_allclose(each(x(3, 4)), expected, rtol=1e-6)


def test_tensors_variables_and_arrays_beside_keras_tensors():
    given = keras.Input((3, 4))
    weight, line = tf.Variable(x(4, 2)), tf.constant(x(4))
    outputs = [given @ weight, line + given, 2.0 - given, x(3, 3) @ given, ops.add(x(4), given)]
    outputs.append(given * tf.constant(2.0) + tf.Variable(1.0))
    model = keras.Model(given, outputs)
    p = x(5, 3, 4)
    expected = [p @ x(4, 2), x(4) + p, 2 - p, x(3, 3) @ p, x(4) + p, p * 2 + 1]
    for one, other in zip(model(p), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    again = keras.models.model_from_json(model.to_json())  # in which they are numbers
    for one, other in zip(again(p), model(p), strict=True):
        np.testing.assert_array_equal(one, other)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(p)[0])
    np.testing.assert_allclose(
        tape.gradient(loss, weight), np.broadcast_to(p.sum((0, 1))[:, None], (4, 2)), rtol=1e-6
    )


def test_unknown_sizes_stay_unknown():
    image, text = keras.Input((None, None, 3)), keras.Input((None,))
    assert ops.max_pool(image, 2).shape == (None, None, None, 3)
    assert ops.mean(image, axis=(1, 2)).shape == (None, 3)
    assert ops.transpose(image).shape == (3, None, None, None)
    assert ops.expand_dims(text, 1).shape == (None, 1, None)
    assert ops.reshape(image, (-1, 5)).shape == (None, 5)  # which needs sizes that 5 divides
    column = keras.Input((6, 1))
    assert column.squeeze(axis=-1).shape == (None, 6) and column.reshape((-1, 2)).shape == (None, 2)
    assert [part.shape for part in ops.split(keras.Input((6,)), 4)] == [(None, 6)] * 4
    assert ops.shape(image) == (None, None, None, 3) and ops.ndim(image) == 4
    assert ops.dtype(ops.argmax(text, axis=-1)) == "int32"
    flat = ops.reshape(given := keras.Input((3, 4)), (ops.shape(given)[0], 12))
    assert flat.shape == (None, 12) and keras.Model(given, flat)(x(5, 3, 4)).shape == (5, 12)


@pytest.mark.parametrize(
    ("name", "arguments", "shapes"),
    [
        ("inv", {}, [(None, 4, 4)]),
        ("cholesky", {}, [(None, 4, 4)]),
        ("slogdet", {}, [(None,), (None,)]),
        ("qr", {}, [(None, 4, 4), (None, 4, 4)]),
        ("log", {}, [(None, 4, 4)]),
        ("reciprocal", {}, [(None, 4, 4)]),
    ],
)
def test_functions_that_zeros_would_not_do_for(name, arguments, shapes, recwarn):
    found = getattr(ops, name)(keras.Input((4, 4)), **arguments)
    assert [each.shape for each in tf.nest.flatten(found)] == shapes
    assert not recwarn.list


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda a: a + keras.Input((3, 5)), ValueError, r"Add of shapes \(None, 3, 4\), \(None, 3"),
        (lambda a: ops.matmul(a, a), ValueError, "Matmul of shapes"),
        (lambda a: ops.mean(a, axis=7), ValueError, "Mean of shapes .* axis 7 is out of range"),
        (lambda a: ops.reshape(a, (5, 5)), ValueError, "Reshape of .*newshape=.5, 5"),
        (lambda a: ops.concatenate([a, a[:, :, :2]], axis=1), ValueError, "Concatenate of"),
        (lambda a: ops.softmax(a, axis="last"), TypeError, "Softmax of .*axis='last'"),
        (lambda a: ops.unstack(a, axis=0), ValueError, "Unstack .*an axis that is None"),
        (lambda a: ops.mean(a, axs=1), TypeError, "axs"),
        (lambda a: ops.convert_to_numpy(a), TypeError, "has no value"),
        (lambda a: tf.reduce_mean(a), TypeError, "Use a function of keras.ops"),
        (lambda a: ops.add({1: a}, 1), ValueError, "cannot be converted"),
    ],
)
def test_what_does_not_fit_is_found_at_once_and_named(make, error, match):
    with pytest.raises(error, match=match):
        make(keras.Input((3, 4)))


def test_operations_that_are_not_here_are_named():
    def entry(class_name, **settings):
        return {"module": "keras.src.ops.numpy", "class_name": class_name, "config": settings}

    with pytest.raises(ValueError, match="no operation 'Frobnicate'"):
        layers.deserialize(entry("Frobnicate"))
    with pytest.raises(ValueError, match="LayerNorm takes no rms_scaling=True"):
        layers.deserialize(entry("LayerNorm", rms_scaling=True))
    assert layers.deserialize(entry("LayerNorm", rms_scaling=False, name="n")).name == "n"


def test_files_from_before_operations_had_settings_are_read():
    """What ``x[:, 0]`` and ``x @ w`` were written as; outputs counted nested calls from 0 on."""
    tensor = {"shape": [None, 3, 4], "dtype": "float32", "keras_history": ["a", 0, 0]}
    tensor = {"class_name": "__keras_tensor__", "config": tensor}

    def entry(name, *args):
        return {
            "module": "keras.src.ops.numpy",
            "class_name": name,
            "config": {"name": name.lower()},
            "registered_name": name,
            "name": name.lower(),
            "inbound_nodes": [{"args": list(args), "kwargs": {}}],
        }

    full = {"class_name": "__slice__", "config": {"start": None, "stop": None, "step": None}}
    array = {"class_name": "__numpy__", "config": {"value": [[1.0]] * 4, "dtype": "float32"}}
    source = {**keras.Input((3, 4), name="a").node.layer.get_config()}
    config = {
        "name": "old",
        "trainable": True,
        "layers": [
            {"module": "keras.layers", "class_name": "InputLayer", "config": source, "name": "a"}
            | {"registered_name": None, "inbound_nodes": []},
            entry("GetItem", tensor, [full, 0]),
            entry("Matmul", tensor, array),
        ],
        "input_layers": [["a", 0, 0]],
        "output_layers": [["getitem", 0, 0], ["matmul", 0, 0]],
    }
    first, product = keras.Model.from_config(config)(x(2, 3, 4))
    np.testing.assert_array_equal(first, x(2, 3, 4)[:, 0])
    np.testing.assert_allclose(product, x(2, 3, 4).sum(-1, keepdims=True), rtol=1e-5)
    inner = keras.Input((4,))
    inner = keras.Model(inner, layers.Dense(2)(inner), name="inner")
    a, b = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([a, b], [inner(a), inner(b)])
    config = model.get_config()
    assert config["output_layers"] == [["inner", 1, 0], ["inner", 2, 0]]  # as Keras counts
    config["output_layers"] = [["inner", 0, 0], ["inner", 1, 0]]
    again = keras.Model.from_config(config)
    again.set_weights(model.get_weights())
    for one, other in zip(
        again([x(2, 4), x(2, 4, seed=1)]), model([x(2, 4), x(2, 4, seed=1)]), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_functions_keep_their_names_signatures_and_places():
    assert list(inspect.signature(ops.mean).parameters) == ["x", "axis", "keepdims"]
    np.testing.assert_array_equal(ops.mean(x=x(2, 3), axis=1), ops.mean(x(2, 3), 1))
    assert ops.swish.__name__ == "swish" and "mean" in ops.mean.__doc__.lower()
    for name in ("exp", "mean", "einsum", "relu"):
        assert pickle.loads(pickle.dumps(getattr(ops, name))) is getattr(ops, name)


@pytest.mark.parametrize(
    ("make", "module", "class_name"),
    [
        (lambda a: ops.abs(a), "numpy", "Absolute"),
        (lambda a: ops.log1p(a), "numpy", "Log1p"),
        (lambda a: ops.swish(a), "nn", "Silu"),
        (lambda a: a / 2, "numpy", "TrueDivide"),
        (lambda a: a[0], "numpy", "GetItem"),
        (lambda a: ops.batch_normalization(a, x(3), x(3), -1), "nn", "BatchNorm"),
        (lambda a: ops.in_top_k(np.zeros(2, np.int32), a[:2], 2), "math", "InTopK"),
        (lambda a: ops.erf(a), "math", "Erf"),
        (lambda a: ops.einsum("ij->i", a), "numpy", "Einsum"),
        (lambda a: ops.svd(a)[0], "linalg", "SVD"),
        (lambda a: ops.cast(a, "int32"), "core", "Cast"),
        (lambda a: ops.searchsorted(x(3), a[0]), "numpy", "SearchSorted"),
    ],
)
def test_classes_and_modules_are_those_of_keras(make, module, class_name):
    made = make(keras.Input((3,))).node.layer
    entry = made.entry()
    assert (entry["module"], entry["class_name"]) == (f"keras.src.ops.{module}", class_name)
    again = layers.deserialize(json.loads(json.dumps(entry)))
    assert (again.operation, again.name) == (class_name, made.name)


def test_different_elements_within_a_model():
    a = keras.Input((3,))
    values, index, inverse, counts = ops.unique(a, True, True, True, True, size=3)
    assert values.shape == index.shape == counts.shape == (3,) and inverse.shape == (None, 3)
    assert ops.unique(a).shape == (None,) and ops.unique(a, axis=1).shape == (None, None)
    model = keras.Model(a, [values, index, inverse, counts])
    found = [each.numpy().tolist() for each in model(np.array([[1, 2, 1], [2, 2, 2.0]]))]
    # As Keras 3.15 gives it on TensorFlow.
    assert found == [[1, 2, 0], [0, 1, 1], [[0, 1, 0], [1, 1, 1]], [2, 4, 0]]


def test_a_branch_is_chosen_within_a_model():
    a = keras.Input((2,))
    index = ops.cast(ops.mean(a), "int32")
    model = keras.Model(a, ops.switch(index, [lambda x, y: x * 2, lambda x, y: x + y], a, a + 1))
    for value, expected in ((0.0, 0.0), (1.0, 3.0), (5.0, 11.0), (-3.0, -6.0)):
        assert model(np.full((1, 2), value)).numpy().tolist() == [[expected] * 2]


class Times(keras.Operation):
    def __init__(self, factor, name=None):
        super().__init__(name=name)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


class Sum(keras.Operation):
    def call(self, a, b):
        return a + b


def test_an_operation_of_ones_own_lies_between_layers(tmp_path):
    np.testing.assert_array_equal(Times(3)(np.ones(2)), [3, 3])
    a = keras.Input((2,))
    tripled = Times(3.0, name="tripled")(a)
    dense = layers.Dense(1, kernel_initializer="ones")
    model = keras.Model(a, dense(Sum()(tripled, a)))
    assert tripled.shape == (None, 2) and model.layers == [a.node.layer, dense]
    assert Times(3, name="z").get_config() == {"name": "z", "factor": 3}
    expected = [[8.0]]
    assert model(np.ones((1, 2))).numpy().tolist() == expected
    assert keras.models.clone_model(model).get_layer("tripled").factor == 3
    known = {"Times": Times, "Sum": Sum}
    again = keras.Model.from_config(json.loads(json.dumps(model.get_config())), known)
    again.set_weights(model.get_weights())
    assert again(np.ones((1, 2))).numpy().tolist() == expected
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras", known)
    assert again.predict(np.ones((1, 2)), verbose=0).tolist() == expected
