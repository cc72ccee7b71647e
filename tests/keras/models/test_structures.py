"""Nests of inputs and outputs: what may be left out, which order counts, what configs keep."""

from __future__ import annotations

import json
from collections import namedtuple

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
layers = keras.layers
tree = keras.tree
Boxes = namedtuple("Boxes", "boxes scores")
A, B = np.full((4, 2), 3.0, np.float32), np.full((4, 2), 1.0, np.float32)


class Beside(layers.Layer):
    """``x``, or ``x + 2 other``."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, x, other=None):
        return self.dense(x if other is None else x + 2 * other)


def with_an_option():
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b", optional=True)
    model = keras.Model({"a": a, "b": b}, Beside()(a, b))
    model.compile("sgd", "mse")
    return model


def test_an_optional_input_may_be_none():
    model = with_an_option()
    dense = model.layers[-1].dense
    for given, x in (({"a": A, "b": None}, A), ([A, None], A), ({"a": A, "b": B}, A + 2 * B)):
        np.testing.assert_allclose(model(given), dense(x))
        np.testing.assert_allclose(model.predict(given, verbose=0), dense(x))
        by_batch = model.fit(given, B[:, :1], batch_size=2, verbose=0).history["loss"]
        assert len(by_batch) == 1
    with pytest.raises(ValueError, match="the input 'a' is None, and not optional"):
        model({"a": None, "b": B})
    with pytest.raises(ValueError, match="not optional"):
        model.fit([None, B], B[:, :1], verbose=0)


@pytest.mark.parametrize("other", [None, B])
def test_an_optional_input_may_be_none_in_batches(other):
    model = with_an_option()
    batches = [({"a": A, "b": other}, B[:, :1], None)] * 2
    model.fit(iter(batches), verbose=0)
    loss = model.evaluate(iter(batches), verbose=0)
    x = A if other is None else A + 2 * other
    assert loss == pytest.approx(np.mean((model.layers[-1].dense(x) - B[:, :1]) ** 2), rel=1e-5)


def test_a_list_is_no_order_for_inputs_by_name():
    a, b = keras.Input((2,), name="first"), keras.Input((2,), name="another")
    model = keras.Model({"first": a, "another": b}, a - b)
    np.testing.assert_array_equal(model({"another": B, "first": A}), A - B)
    with pytest.raises(ValueError, match="a dict with the keys first, another, not a list"):
        model([A, B])
    in_order = keras.Model({"another": b, "first": a}, a - b)
    np.testing.assert_array_equal(in_order([B, A]), A - B)


@pytest.mark.parametrize("kind", [list, tuple, lambda ends: dict(enumerate(ends))])
def test_a_config_keeps_the_kind_of_the_outputs(kind):
    a = keras.Input((2,))
    model = keras.Model(a, kind([layers.Dense(1)(a), layers.Dense(2)(a)]))
    found = keras.Model.from_config(model.get_config())
    assert type(found.output) is type(found(A)) is type(model.output)


def old(kind, name, nodes, **config):
    return {
        "class_name": kind,
        "name": name,
        "config": {"name": name, "trainable": True, "dtype": "float32", **config},
        "inbound_nodes": nodes,
    }


def old_input(name):
    return old("InputLayer", name, [], batch_input_shape=[None, 2], sparse=False, ragged=False)


def old_model(layers, outputs):
    config = {"name": "old", "layers": layers, "input_layers": [["a", 0, 0]]}
    return {"class_name": "Functional", "config": {**config, "output_layers": outputs}}


def test_calls_in_a_config_of_keras_2_are_read():
    inner = old_model([old_input("a"), old("Dense", "d", [[["a", 0, 0, {}]]], units=3)], None)
    inner["config"]["output_layers"] = [["d", 0, 0]]
    inner.update(name="inner", inbound_nodes=[[["a", 0, 0, {}]], [["t", 0, 0, {}]]])
    stack = [
        old_input("a"),
        old("Dense", "t", [[["a", 0, 0, {}]]], units=2, activation="relu"),
        inner,
        old("Concatenate", "c", [[["inner", 1, 0, {}], ["inner", 2, 0, {}]]], axis=-1),
        old("Dropout", "r", [[["c", 0, 0, {"training": False}]]], rate=0.5),
    ]
    config = json.dumps(old_model(stack, [["r", 0, 0], ["inner", 2, 0]]))
    model = keras.models.model_from_json(config)
    both, second = model(A)
    dense = model.get_layer("inner").get_layer("d")
    expected = [dense(A), dense(model.get_layer("t")(A))]
    np.testing.assert_allclose(both, np.concatenate(expected, axis=-1), rtol=1e-6)
    np.testing.assert_allclose(second, expected[1], rtol=1e-6)
    for wrong, words in (("gone", "there is no layer 'gone'"), ("r", "'t' needs itself")):
        stack[1]["inbound_nodes"] = [[[wrong, 0, 0, {}]]]
        with pytest.raises(ValueError, match=words):
            keras.models.model_from_json(json.dumps(old_model(stack, [["r", 0, 0]])))


@pytest.mark.parametrize(
    "loss, targets",
    [
        ({"p": ["mse"], "q": "mae"}, {"p": A, "q": B}),
        (["mse", ["mae"]], [A, B]),
        (["mse", None], A),
        ([None, ["mae"]], [B]),
    ],
)
def test_an_output_may_have_its_loss_in_a_list_and_no_target_without_one(loss, targets):
    x = keras.Input((2,))
    p, q = layers.Dense(2, name="p")(x), layers.Dense(2, name="q")(x)
    model = keras.Model(x, {"p": p, "q": q} if isinstance(loss, dict) else [p, q])
    model.compile("sgd", loss)
    outputs = model.predict(A, verbose=0)
    p, q = outputs.values() if isinstance(outputs, dict) else outputs
    parts = [np.mean((p - A) ** 2), np.mean(abs(q - B))]
    expected = sum(part for part, each in zip(parts, _values(loss), strict=True) if each)
    shown = model.evaluate(A, targets, verbose=0, return_dict=True)
    assert shown["loss"] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="an output has one loss"):
        model.compile("sgd", [["mse", "mae"], "mse"])


@pytest.mark.parametrize(
    "loss, targets, options, expected",
    [
        ({"b": "mse", "a": "mae"}, {"b": 5, "a": 10}, {}, [19, 9, 10]),
        ({"a": "mae", "b": "mse"}, {"b": 5, "a": 10}, {}, [19, 10, 9]),
        (["mse", "mae"], {"b": 5, "a": 10}, {}, [103, 3, 100]),
        ("mse", [5, 10], {}, [89, 64, 25]),
        ({"b": "mse", "a": "mae"}, {"b": 5, "a": 10}, {"loss_weights": [1, 100]}, [910, 9, 10]),
        ("mse", {"b": 5, "a": 10}, {"metrics": [["mae"], ["mape"]]}, [109, 9, 100, 10, 60]),
        ([None, "mse"], [5], {}, [9]),
    ],
)
def test_lists_for_outputs_by_name_go_by_their_sorted_names(loss, targets, options, expected):
    x = keras.Input((2,))
    two, zero = (layers.Dense(1, kernel_initializer=kind)(x) for kind in ("ones", "zeros"))
    model = keras.Model(x, {"b": two, "a": zero})  # of what they give
    model.compile("sgd", loss, **options)

    def full(value):
        return np.full((4, 1), value, np.float32)

    y = {n: full(v) for n, v in targets.items()} if isinstance(targets, dict) else None
    shown = model.evaluate(np.ones((4, 2)), y or [full(v) for v in targets], verbose=0)
    np.testing.assert_allclose(np.ravel(shown), expected, rtol=1e-5)


def test_an_input_in_the_middle_is_an_input_layer_of_the_model(tmp_path):
    x = keras.Input((2,))
    inner = layers.Dense(3, name="inner")(x)
    side = layers.Dense(3, name="side")(inner)
    model = keras.Model([inner, side], layers.Add()([layers.Dense(3, name="last")(inner), side]))
    kinds = ["InputLayer", "Dense", "InputLayer", "Add"]
    assert [type(layer).__name__ for layer in model.layers] == kinds
    lines: list[str] = []
    model.summary(print_fn=lines.append, line_length=200)
    first, second = (model.layers[i].name for i in (0, 2))
    assert f"{first}[0][0]" in lines[0] and f"last[0][0], {second}[0][0]" in lines[0]
    model.save(tmp_path / "m.keras")
    found = keras.models.load_model(tmp_path / "m.keras")
    given = [np.ones((1, 3), np.float32), np.full((1, 3), 2, np.float32)]
    np.testing.assert_array_equal(found(given), model(given))
    assert [type(layer).__name__ for layer in found.layers] == kinds


def _values(loss):
    return loss.values() if isinstance(loss, dict) else loss


def test_the_batch_may_be_of_any_size_where_the_input_states_one():
    x = keras.Input((2,), batch_size=3)
    model = keras.Model(x, layers.Dense(1)(x))
    model.compile("sgd", "mse")
    model.fit(A, A[:, :1], batch_size=3, verbose=0)  # of 3 and of 1
    assert model.predict(A, verbose=0).shape == (4, 1)


@pytest.mark.parametrize("form", [Boxes, lambda a, b: (a, b), lambda a, b: [(a, b), {"b": b}]])
def test_predictions_come_in_the_form_that_call_gives(form):
    class Layer(layers.Layer):
        def call(self, x):
            return form(x, x + 1)

    class Model(keras.Model):
        def call(self, x):
            return form(x, x + 1)

    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    wanted = form(x, x + 1)
    inputs = keras.Input((2,))
    for model in (Model(), keras.Model(inputs, Layer()(inputs))):
        for found in (model.predict(x, batch_size=2, verbose=0), model.predict_on_batch(x)):
            assert tree.map_structure(np.shape, found) == tree.map_structure(np.shape, wanted)
            tree.map_structure(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize("form", [lambda a: a, lambda a: [a], lambda a: (a,), lambda a: {"a": a}])
def test_a_model_shows_its_ends_in_the_form_in_which_they_were_given(form):
    a = keras.Input((2,))
    model = keras.Model(form(a), form(layers.Dense(1)(a)))
    for shown, tensors in ((model.input, model.inputs), (model.output, model.outputs)):
        assert tree.map_structure(id, shown) == form(id(tensors[0]))
    again = keras.Model(model.input, layers.Dense(3)(model.outputs[0]))
    assert model(form(A) if type(model.input) is dict else A) is not None
    assert again.output_shape == (None, 3)
