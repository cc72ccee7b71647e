"""keras.Function: what lies between KerasTensors, to be called."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras


def parts():
    x, y = keras.Input((3,), name="x"), keras.Input((3,), name="y")
    h = keras.layers.Dense(4, activation="relu")(x)
    return x, y, h, keras.ops.concatenate([h, y], axis=1)


def test_it_gives_what_its_layers_give():
    x, y, h, out = parts()
    f = keras.Function([x, y], {"h": h, "out": out})
    a, b = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    found = f([a, b])
    dense = f.operations[2] if hasattr(f.operations[2], "kernel") else f.operations[1]
    expected = np.maximum(a @ dense.kernel.numpy() + dense.bias.numpy(), 0)
    np.testing.assert_allclose(found["h"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["out"], np.concatenate([expected, b], 1), rtol=1e-5)
    assert [t.shape for t in f.inputs] == [(None, 3)] * 2
    assert [t.shape for t in f.outputs] == [(None, 4), (None, 7)]
    assert f.compute_output_shape([(8, 3), (8, 3)]) == {"h": (8, 4), "out": (8, 7)}
    assert f.name == "function" and keras.Function(x, h, name="first").name == "first"


def test_gradients_reach_the_layers():
    x, _, h, _ = parts()
    f = keras.Function(x, h)
    dense = next(each for each in f.operations if hasattr(each, "kernel"))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(f(np.ones((2, 3), np.float32)))
    assert tape.gradient(loss, dense.kernel).shape == (3, 4)


def test_on_keras_tensors_it_calls_its_layers_once_more():
    x, y, _, out = parts()
    f = keras.Function([x, y], out)
    z = keras.Input((3,))
    model = keras.Model(z, f([z, z]))
    a = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(a), f([a, a]))
    assert model.output_shape == (None, 7) and len(model.trainable_variables) == 2


def test_what_does_not_fit_is_an_error():
    x, y, _, out = parts()
    with pytest.raises(ValueError, match="the graph is disconnected"):
        keras.Function(x, out)
    f = keras.Function([x, y], out)
    with pytest.raises(ValueError, match="takes 2 inputs, 1 were given"):
        f([np.ones((2, 3), np.float32)])
    with pytest.raises(ValueError, match="has shape"):
        f([np.ones((2, 4), np.float32)] * 2)


def test_keras_tensors_that_are_no_inputs_of_models_are_inputs_of_functions():
    x, y = tf.keras.KerasTensor((None, 3)), tf.keras.KerasTensor((2, 3))
    fn = tf.keras.Function({"x": x, "y": y}, [x * y, x + 1.0])
    assert fn.compute_output_shape({"x": (2, 3), "y": (2, 3)}) == [(2, 3), (2, 3)]
    given = np.arange(6.0, dtype="f").reshape(2, 3)
    product, more = fn({"x": given, "y": given})
    np.testing.assert_array_equal(product, given**2)
    np.testing.assert_array_equal(more, given + 1)
    with pytest.raises(ValueError, match="has outputs"):
        tf.keras.Function(x, [])
