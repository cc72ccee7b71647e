"""Layers: values, shapes, names, tracking, errors."""

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing.gradients import check_gradients

layers = tf.keras.layers


def x(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_dense_is_a_matrix_product_plus_bias():
    layer = layers.Dense(3, activation="tanh")
    y = layer(x(5, 4))
    expected = np.tanh(x(5, 4) @ layer.kernel.numpy() + layer.bias.numpy())
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-6)
    assert [v.name for v in layer.trainable_variables] == ["kernel", "bias"]
    assert [v.path for v in layer.weights] == ["dense/kernel", "dense/bias"]
    assert tuple(layer.kernel.shape) == (4, 3)


def test_dense_acts_on_the_last_axis():
    layer = layers.Dense(3)
    y = layer(x(2, 5, 4))
    assert tuple(y.shape) == (2, 5, 3)
    np.testing.assert_allclose(y[1].numpy(), layer(x(2, 5, 4)[1]).numpy(), rtol=1e-6)


def test_dense_casts_its_input_to_float32():
    assert layers.Dense(2)(np.ones((1, 3))).dtype == tf.float32
    assert layers.Dense(2)(tf.constant([[1, 2]])).dtype == tf.float32


def test_gradient_through_dense_in_float64():
    layer = layers.Dense(3, activation="sigmoid", dtype="float64")
    layer.build((None, 4))
    values = [x(2, 4).astype(np.float64), *(w.numpy() for w in layer.weights)]

    def forward(inputs, kernel, bias):
        return tf.sigmoid(tf.matmul(inputs, kernel) + bias)

    check_gradients(forward, values)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(values[0]))
    found = tape.gradient(loss, layer.trainable_variables)
    with tf.GradientTape() as tape:
        tensors = [tf.constant(v) for v in values]
        tape.watch(tensors)
        loss = tf.reduce_sum(forward(*tensors))
    for a, b in zip(found, tape.gradient(loss, tensors)[1:], strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: layers.Dense(0), "units"),
        (lambda: layers.Dense(2.5), "units"),
        (lambda: layers.Dense(2, activation="reluu"), "reluu"),
        (lambda: layers.Dense(2, kernel_initializer="glorot"), "glorot"),
        (lambda: layers.Dropout(1.5), "1.5"),
        (lambda: layers.Dense(2)(np.ones(3, np.float32)), "rank"),
        (lambda: layers.Dense(2)([[1.0, 2.0]]), "constant"),
        (lambda: layers.Dense(2).count_params(), "build"),
        (lambda: layers.Layer()(x(1, 2)), "call"),
        (lambda: tf.keras.Sequential(["dense"]), "dense"),
    ],
)
def test_wrong_use_is_a_value_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_wrong_last_axis_names_both_sizes():
    layer = layers.Dense(2)
    layer(x(1, 4))
    with pytest.raises(ValueError, match=r"4 features.*\(1, 5\)"):
        layer(x(1, 5))


def test_unknown_keyword():
    with pytest.raises((TypeError, ValueError), match="unitz"):
        layers.Dense(2, unitz=3)


def test_flatten():
    y = layers.Flatten()(x(3, 2, 4))
    np.testing.assert_array_equal(y.numpy(), x(3, 2, 4).reshape(3, 8))


def test_dropout_only_in_training():
    layer = layers.Dropout(0.25)
    ones = np.ones((100, 100), np.float32)
    np.testing.assert_array_equal(layer(ones).numpy(), ones)
    first, second = (layer(ones, training=True).numpy() for _ in range(2))
    assert set(np.unique(first)) == {0.0, np.float32(1 / 0.75)}
    assert abs((first == 0).mean() - 0.25) < 0.02
    assert (first != second).any(), "a fresh mask per call"


def test_dropout_gradient_is_the_mask():
    v = tf.constant(np.ones((4, 5), np.float32))
    with tf.GradientTape() as tape:
        tape.watch(v)
        y = layers.Dropout(0.5)(v, training=True)
    np.testing.assert_array_equal(tape.gradient(y, v).numpy(), y.numpy())


def test_set_weights_and_get_weights():
    layer = layers.Dense(2)
    layer.build((None, 3))
    weights = layer.get_weights()
    weights[0][:] = 7
    assert not (layer.kernel.numpy() == 7).any(), "get_weights gives copies"
    layer.set_weights(weights)
    assert (layer.kernel.numpy() == 7).all()
    with pytest.raises(ValueError):
        layer.set_weights(weights[:1])
    with pytest.raises(ValueError):
        layer.set_weights([weights[1], weights[0]])
    assert layer.count_params() == 8


class Scale(layers.Layer):
    """A user's layer: under 15 lines."""

    def build(self, input_shape):
        self.scale = self.add_weight((input_shape[-1],), "ones", name="scale")

    def call(self, inputs):
        return inputs * self.scale


def test_a_user_layer_trains_without_registration():
    model = tf.keras.Sequential([Scale(), layers.Dense(1)])
    model.compile(tf.keras.optimizers.SGD(0.1), "mse")
    history = model.fit(x(64, 3), x(64, 3).sum(axis=1), epochs=20, verbose=0).history["loss"]
    assert history[-1] < 0.1 * history[0]
    assert list(model.variable_paths()) == ["scale/scale", "dense/kernel", "dense/bias"]


def test_subclassed_layer_tracks_lists_and_frozen_parts():
    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.parts = [layers.Dense(4), layers.Dense(4)]
            self.extra = tf.Variable(1.0)

        def call(self, inputs, training=False):
            for part in self.parts:
                inputs = part(inputs)
            return inputs * self.extra

    block = Block()
    block(x(2, 4))
    assert len(block.trainable_variables) == 5
    block.parts[0].trainable = False
    assert len(block.trainable_variables) == 3 and len(block.non_trainable_variables) == 2


def test_automatic_names_start_anew_in_every_model():
    def paths():
        model = tf.keras.Sequential([layers.Dense(3), layers.Dense(2), layers.Dense(2, name="top")])
        model.build((None, 4))
        return list(model.variable_paths())

    assert paths() == paths()
    assert paths()[::2] == ["dense/kernel", "dense_1/kernel", "top/kernel"]


def test_a_layer_used_twice_counts_once():
    shared = layers.Dense(4)
    model = tf.keras.Sequential([shared, shared])
    model.build((None, 4))
    assert len(model.weights) == 2


def test_initial_values_follow_the_seed():
    def kernel(seed):
        tf.keras.utils.set_random_seed(seed)
        layer = layers.Dense(50)
        layer.build((None, 30))
        return layer.kernel.numpy()

    np.testing.assert_array_equal(kernel(1), kernel(1))
    assert (kernel(1) != kernel(2)).any()
    limit = np.sqrt(6 / 80)
    assert abs(kernel(3)).max() <= limit and abs(kernel(3)).max() > 0.95 * limit
