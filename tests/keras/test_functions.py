"""Activations, regularizers and constraints against the stored numbers of Keras 3."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf

STORED = json.loads((Path(__file__).parents[1] / "reference" / "keras_functions.json").read_text())
X = np.array(STORED["x"], np.float32)
CASES = [pytest.param(case, id=f"{i}-{case['name']}") for i, case in enumerate(STORED["cases"])]


@pytest.mark.parametrize("case", CASES)
def test_activation_and_its_gradient_are_those_of_keras(case):
    """To 1e-6; near 0 to 1e-6 of the order of the input, where tails cancel in float32."""
    activation = getattr(tf.keras.activations, case["name"])
    x = tf.Variable(X)
    with tf.GradientTape() as tape:
        y = activation(x, **case["config"])
        target = tf.reduce_sum(y * np.array(STORED["weight"], np.float32)[:, : y.shape[1]])
    np.testing.assert_allclose(y.numpy(), case["value"], rtol=1e-6, atol=1e-6)
    gradient = tape.gradient(target, x)
    np.testing.assert_allclose(gradient.numpy(), case["gradient"], rtol=1e-6, atol=1e-6)
    between = tf.keras.Input(X.shape[1:])
    model = tf.keras.Model(between, activation(between, **case["config"]))
    for each in (model, tf.keras.models.clone_model(model)):
        np.testing.assert_array_equal(each(X).numpy(), y.numpy())
    assert model.output_shape == (None, *y.shape[1:])
    assert tf.keras.activations.get(case["name"]) is activation
    assert tf.keras.activations.serialize(activation) == case["name"]


def test_sparsemax_gives_the_nearest_probabilities():
    """Keras 3.15 adds up too much where more than one is kept: its rows do not sum to 1."""
    x = tf.Variable([[0.1, 1.0, 0.9, -2.0], [3.0, 0.0, 1.0, 1.5], [0.2, 0.2, 0.2, 0.2]])
    with tf.GradientTape() as tape:
        p = tf.keras.activations.sparsemax(x)
        target = tf.reduce_sum(p * p)
    np.testing.assert_allclose(p, [[0, 0.55, 0.45, 0], [1, 0, 0, 0], [0.25] * 4], atol=1e-6)
    down = tf.keras.activations.sparsemax(tf.transpose(x), axis=0)
    np.testing.assert_array_equal(down, tf.transpose(p))
    expected = [[0, 0.1, -0.1, 0], [0] * 4, [0] * 4]  # 2 p, less its mean where p is not 0
    np.testing.assert_allclose(tape.gradient(target, x), expected, atol=1e-6)


def test_softmax_over_several_axes():
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4)
    for room in (tf.keras.activations, tf.keras.ops):
        for axis in ((1, 2), [0, -1], None):
            along = axis if axis is None else tuple(axis)
            expected = np.exp(x) / np.exp(x).sum(along, keepdims=True)
            np.testing.assert_allclose(room.softmax(x, axis), expected, rtol=1e-5)
            np.testing.assert_allclose(room.log_softmax(x, axis), np.log(expected), rtol=1e-5)


def test_functions_of_tensorflow_refuse_keras_tensors_as_in_keras():
    x = tf.keras.Input((4,))
    calls = [tf.nn.relu, tf.exp, tf.convert_to_tensor, tf.constant, tf.shape]
    calls += [
        lambda x: tf.reshape(x, (-1, 2)),
        lambda x: tf.concat([x, x], 1),
        lambda x: tf.add(x, 1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="KerasTensor.*keras.ops.*Lambda"):
            call(x)


@pytest.mark.parametrize("case", STORED["others"], ids=lambda case: case["class"])
def test_regularizer_or_constraint_is_that_of_keras(case):
    room = getattr(tf.keras, case["kind"])
    made = getattr(room, case["class"])(**case["config"])
    np.testing.assert_allclose(made(X).numpy(), case["value"], rtol=1e-6, atol=1e-7)
    again = room.get(json.loads(json.dumps(room.serialize(made))))
    assert type(again) is type(made) and again.get_config() == made.get_config()


@tf.keras.saving.register_keras_serializable("tests")
def halved(w):
    return w * 0.5


@tf.keras.saving.register_keras_serializable("tests")
def threes(shape, dtype=None):
    return np.full(shape, 3.0)


def test_layers_keep_functions_of_a_user():
    keras, own = tf.keras, {"kernel_constraint": halved, "kernel_regularizer": halved}
    layer = keras.layers.Dense(2, kernel_initializer=threes, **own)
    model = keras.Sequential([keras.Input((3,)), layer])
    read = [keras.models.clone_model(model), keras.models.model_from_json(model.to_json())]
    for each in (again.layers[-1] for again in read):
        assert each.kernel_constraint is each.kernel_regularizer is halved
        np.testing.assert_array_equal(each.kernel, np.full((3, 2), 3.0, np.float32))
        assert each.get_config() == layer.get_config()
    assert keras.constraints.get("tests>halved") is halved
    with keras.saving.custom_object_scope(None):  # no more names than before
        assert keras.regularizers.get("tests>halved") is halved


def test_what_a_user_registers_takes_no_place_of_ours():
    keras, x = tf.keras, np.ones((2, 3), np.float32)
    everything = keras.utils.get_custom_objects()
    before = dict(everything)
    try:

        @keras.saving.register_keras_serializable("tests")
        class Dense(keras.layers.Layer):
            def call(self, x):
                return 2 * x

        @keras.saving.register_keras_serializable("tests")
        def mse(y_true, y_pred):
            return 7.0

        ours = keras.layers.Dense(3, kernel_initializer="ones")
        model = keras.Sequential([keras.Input((3,)), ours, Dense()])
        again = keras.models.clone_model(model)
        assert type(again.layers[0]) is keras.layers.Dense and type(again.layers[1]) is Dense
        np.testing.assert_array_equal(again(x), np.full((2, 3), 6.0))
        assert keras.losses.get("mse") is keras.losses.mean_squared_error
        model.compile("sgd", "mse", metrics=["mse"])
        again.compile_from_config(model.get_compile_config())
        assert again.evaluate(x, 6 * x, verbose=0) == [0, 0]
        assert keras.losses.get("tests>mse") is mse
    finally:
        everything.clear()
        everything.update(before)


def test_get():
    regularizers, constraints = tf.keras.regularizers, tf.keras.constraints
    assert regularizers.get(None) is None and constraints.get(None) is None
    assert float(regularizers.get("l2")(tf.constant([1.0, 2.0]))) == pytest.approx(0.05)
    assert regularizers.get("l1_l2").l1 == 0.01 and regularizers.get("L1L2").l1 == 0.0
    assert regularizers.l1_l2 is regularizers.L1L2  # with its defaults, as in Keras 3
    assert regularizers.get(regularizers.l1).l1 == 0.01
    assert regularizers.L1(None).l1 == regularizers.L2(l2=None).l2 == 0.01
    assert isinstance(constraints.get("max_norm"), constraints.MaxNorm)
    for room, kind in ((regularizers, "regularizer"), (constraints, "constraint")):
        with pytest.raises(ValueError, match=f"unknown {kind} 'l3'"):
            room.get("l3")
    with pytest.raises(ValueError, match="l1"):
        regularizers.L1(-0.5)
    with pytest.raises(ValueError, match="mode"):
        regularizers.OrthogonalRegularizer(mode="diagonals")
    with pytest.raises(ValueError, match="unknown activation 'rellu'.*relu"):
        tf.keras.activations.get("rellu")
