"""Dense, Masking, Lambda, Identity, and a layer of the user's own."""

import json

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


def test_sizes_may_be_numbers_of_numpy():
    size, shape = np.int32(4), np.array([4, 4, 3])
    layer_input = tf.keras.Input(np.prod(shape))
    out = layers.Reshape(shape)(layer_input)
    for layer in (
        layers.Conv2D(size, np.int64(3), padding="same"),
        layers.GroupNormalization(np.int32(2)),
        layers.ZeroPadding2D(np.int64(1)),
        layers.MaxPooling2D(np.int64(2)),
        layers.Flatten(),
        layers.Dropout(np.float32(0.5)),
        layers.Dense(size),
    ):
        out = layer(out)
    model = tf.keras.Model(layer_input, out)
    assert model(x(2, 48)).shape == (2, 4)
    assert json.loads(json.dumps(model.get_config())) and model.count_params() == 112 + 8 + 148
    with pytest.raises(ValueError, match="units must be a positive int"):
        layers.Dense(np.float32(4))


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
        (lambda: layers.Dense(0), "units.*0"),
        (lambda: layers.Dense(2.5), "units.*2.5"),
        (lambda: layers.Dense(True), "units.*True"),
        (lambda: layers.Dense(2, activation="reluu"), "reluu"),
        (lambda: layers.Dense(2, kernel_initializer="glorot"), "glorot"),
        (lambda: layers.Dense(2, kernel_regularizer="l3"), "l3"),
        (lambda: layers.Dense(2, bias_constraint="positive"), "positive"),
        (lambda: layers.Dense(2, unitz=3), "unitz"),
        (lambda: layers.Dense(2)(np.ones(3, np.float32)), "rank"),
        (lambda: layers.Dense(2)([[1.0, 2.0]]), "constant"),
        (lambda: layers.Dense(2).build((None, None)), "known"),
        (lambda: layers.Lambda("relu"), "relu"),
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


def test_an_empty_batch():
    layer = layers.Dense(2)
    assert tuple(layer(x(0, 4)).shape) == (0, 2)
    assert tuple(layer(x(0, 3, 4)).shape) == (0, 3, 2)


def test_regularizers_and_constraints_reach_the_weights():
    layer = layers.Dense(
        2, kernel_regularizer="l2", bias_regularizer={"class_name": "L1", "config": {"l1": 0.5}},
        kernel_constraint="non_neg", activity_regularizer="l1",
    )  # fmt: skip
    y = layer(x(3, 4))
    layer.bias.assign([1.0, -2.0])
    kernel, activity = layer.kernel.numpy(), np.abs(y.numpy()).sum() * 0.01 / 3
    expected = sorted([0.01 * np.square(kernel).sum(), 1.5, activity])
    found = sorted(float(loss) for loss in layer.losses)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (layer.kernel.constraint(layer.kernel).numpy() == np.maximum(kernel, 0)).all()
    config = json.loads(json.dumps(layer.get_config()))
    again = layers.Dense.from_config(config)
    assert again.bias_regularizer.l1 == 0.5 and again.get_config() == layer.get_config()


def test_constraints_hold_after_training_steps():
    layer = layers.Dense(1, kernel_constraint=tf.keras.constraints.NonNeg(), use_bias=False)
    model = tf.keras.Sequential([layer])
    model.compile(tf.keras.optimizers.SGD(0.1), "mse")
    model.fit(x(32, 3), -x(32, 3)[:, :1] + x(32, 3)[:, 1:2], epochs=10, verbose=0)
    kernel = layer.kernel.numpy().ravel()
    assert kernel[0] == 0 and kernel[1] > 0.3


def test_lambda_gets_what_it_takes():
    def scaled(inputs, factor, training=False):
        return inputs * (factor if training else 1.0)

    layer = layers.Lambda(scaled, arguments={"factor": 3.0})
    np.testing.assert_array_equal(layer(x(2, 2)).numpy(), x(2, 2))
    np.testing.assert_array_equal(layer(x(2, 2), training=True).numpy(), x(2, 2) * np.float32(3))
    steps = tf.constant(x(2, 3, 1))
    steps._keras_mask = tf.constant([[True, False, True], [True, True, True]])
    seen = []
    layers.Lambda(lambda inputs, mask: seen.append(mask) or inputs)(steps)
    assert seen[0] is steps._keras_mask


def test_lambda_makes_the_mask_that_it_is_given():
    layer = layers.Lambda(lambda t: t, mask=lambda inputs, mask: inputs[..., 0] > 0)
    y = layer(x(2, 3, 1))
    np.testing.assert_array_equal(y._keras_mask.numpy(), x(2, 3, 1)[..., 0] > 0)


def test_lambda_of_an_activation_alone_comes_back_from_its_config():
    layer = layers.Lambda(tf.keras.activations.relu, name="half")
    config = json.loads(json.dumps(layer.get_config()))
    again = layers.Lambda.from_config(config)
    assert again.name == "half" and again.function is tf.keras.activations.relu
    config = json.loads(json.dumps(layers.Lambda(lambda t: t + 1).get_config()))
    with pytest.raises(ValueError, match="lambda"):
        layers.Lambda.from_config(config)


class Scale(layers.Layer):
    """A user's layer: under 15 lines."""

    def build(self, input_shape):
        self.scale = self.add_weight((input_shape[-1],), "ones", name="scale")

    def call(self, inputs):
        return inputs * self.scale


def test_a_user_layer_trains_without_registration():
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential([Scale(), layers.Dense(1)])
    model.compile(tf.keras.optimizers.SGD(0.1), "mse")
    history = model.fit(x(64, 3), x(64, 3).sum(axis=1), epochs=20, verbose=0).history["loss"]
    assert history[-1] < 0.1 * history[0]
    assert list(model.variable_paths()) == ["scale/scale", "dense/kernel", "dense/bias"]


def test_tensors_in_configs_come_back():
    mask = tf.constant([[True, False, True]])
    for layer in (
        layers.Masking(mask_value=tf.constant([0.0])),
        layers.Lambda(tf.keras.activations.relu, mask=mask),
    ):
        config = json.loads(json.dumps(layer.get_config()))
        again = type(layer).from_config(config)
        given = x(1, 3, 2)
        given[:, 1] = 0
        np.testing.assert_array_equal(again(given), layer(given))
        assert again(given)._keras_mask.numpy().tolist() == mask.numpy().tolist()
