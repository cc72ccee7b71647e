"""Layers of several inputs."""

import json

import numpy as np
import pytest

import distgrad as tf

layers = tf.keras.layers
ELEMENTWISE = ("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract")
LAYERS = (*ELEMENTWISE, "Concatenate", "Dot")


def x(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", LAYERS)
def test_function_form(name):
    pair = [x(2, 3), x(2, 3) + 1]
    settings = {"axes": 1} if name == "Dot" else {}
    layer = getattr(layers, name)(**settings)
    y = getattr(layers, name.lower())(pair, **settings)
    np.testing.assert_array_equal(y.numpy(), layer(pair).numpy())
    assert json.loads(json.dumps(layer.get_config()))["name"] == name.lower()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: layers.Add()(x(2, 3)), "list of tensors"),
        (lambda: layers.Add()([]), "list of tensors"),
        (lambda: layers.Add()([x(2, 3), x(3, 3)]), r"batch sizes"),
        (lambda: layers.Multiply()([x(2, 3), x(2, 4)]), r"\(2, 3\), \(2, 4\).*broadcast"),
        (lambda: layers.Subtract()([x(2, 3)] * 3), "exactly 2.*3"),
        (lambda: layers.Concatenate()(x(2, 3)), "list of tensors"),
        (lambda: layers.Concatenate()([x(2, 3), x(3, 3)]), r"\(2, 3\), \(3, 3\)"),
        (lambda: layers.Concatenate()([x(2, 3), x(2, 3, 1)]), "do not match"),
        (lambda: layers.Concatenate(axis=3)([x(2, 3), x(2, 3)]), "axis 3"),
        (lambda: layers.Dot("1"), "axes.*'1'"),
        (lambda: layers.Dot((1, 2, 3)), r"axes.*\(1, 2, 3\)"),
        (lambda: layers.Dot(1)([x(2, 3), x(2, 4)]), r"\(2, 3\), \(2, 4\)"),
        (lambda: layers.Dot(0)([x(2, 3), x(2, 3)]), "batch"),
        (lambda: layers.Dot(1)([x(2, 3)]), "exactly 2"),
        (lambda: layers.Add(axis=1), "axis"),
    ],
)
def test_wrong_use_is_a_value_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_batch_of_none():
    assert tuple(layers.Add()([x(0, 3), x(0, 3)]).shape) == (0, 3)
    assert tuple(layers.Dot(1)([x(0, 3), x(0, 3)]).shape) == (0, 1)


def test_layers_of_a_model_broadcast_one_sample_over_a_batch():
    """As in Keras, which looks at the batches when it makes the layers."""
    pair = [tf.keras.Input((3,)), tf.keras.Input((3,))]
    model = tf.keras.Model(pair, layers.Add()(pair))
    one, several = x(1, 3), x(4, 3)
    np.testing.assert_array_equal(model([one, several]), one + several)


def test_masks_of_elements_go_with_inputs_of_their_shape():
    a, b = tf.constant([[1.0, 2.0]]), tf.constant([[3.0, 4.0]])
    a._keras_mask = b._keras_mask = tf.constant([[True, False]])
    y = layers.Add()([a, b])
    assert y.numpy().tolist() == [[4, 6]] and y._keras_mask.numpy().tolist() == [[True, False]]


@pytest.mark.parametrize("name", LAYERS)
def test_whole_numbers_beside_floats_become_floats(name):
    settings = {"axes": 1} if name == "Dot" else {}
    a, b = x(2, 3), np.array([[1, 2, 3], [4, 5, 6]])
    layer = getattr(layers, name)(**settings)
    np.testing.assert_array_equal(layer([a, b]), layer([a, b.astype(np.float32)]))
    half = getattr(layers, name)(**settings, dtype="float16")
    assert half([a, b]).dtype == tf.float16


@pytest.mark.parametrize("name", [*ELEMENTWISE, "Concatenate"])
def test_masks_are_a_list_like_the_inputs(name):
    layer = getattr(layers, name)()
    inputs, mask = [x(2, 3, 4), x(2, 3, 4)], np.array([[1, 0, 1], [0, 0, 1]], bool)
    found = np.asarray(layer.compute_mask(inputs, [mask, np.zeros((2, 3), bool)]))
    assert found.tolist() == mask.tolist()
    assert layer.compute_mask(inputs, [None, None]) is None
    for given, masks, words in (
        (inputs, mask, "mask should be a list"),
        (inputs[0], [None, None], "inputs should be a list"),
        (inputs, [None], "1 masks do not fit 2 inputs"),
    ):
        with pytest.raises(ValueError, match=words):
            layer.compute_mask(given, masks)
