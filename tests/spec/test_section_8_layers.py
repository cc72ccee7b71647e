"""Section 8, rows "Layers and models": each test names the row it is of."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
layers = keras.layers


def x(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_dense_weights_last_axis_casts_and_refuses_lists():
    """Row 1: Dense."""
    layer = layers.Dense(3, activation="relu")
    assert not layer.weights
    y = layer(x(2, 5, 4).astype(np.float64))
    assert isinstance(y, tf.Tensor) and y.dtype == tf.float32 and tuple(y.shape) == (2, 5, 3)
    assert [tuple(w.shape) for w in layer.weights] == [(4, 3), (3,)]
    assert not layer.bias.numpy().any()
    assert abs(layer.kernel.numpy()).max() <= np.sqrt(6 / 7)
    built = layers.Dense(3)
    built.build((None, 4))
    assert built.built and len(built.weights) == 2
    with pytest.raises(ValueError):
        layers.Dense(3)([[1.0, 2.0]])


def test_variable_names_and_use_as_variables():
    """Row 2: names in Keras 3."""
    layer = layers.Dense(3)
    layer(x(2, 4))
    assert (layer.kernel.name, layer.kernel.path) == ("kernel", "dense/kernel")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x(2, 4)))
    assert len(tape.gradient(loss, layer.trainable_variables)) == 2
    doubled = layer.kernel * 2.0
    layer.kernel.assign(doubled)
    np.testing.assert_array_equal(layer.kernel, doubled)


def built_for_four():
    layer = layers.Dense(2)
    layer(x(2, 4))
    return layer


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: built_for_four()(x(2, 5)), "4.*5"),
        (lambda: layers.Dense(2)(x(3)), "rank"),
        (lambda: layers.Dense(0), "units"),
        (lambda: layers.Dense(-1), "units"),
        (lambda: layers.Dense(2.5), "units"),
        (lambda: layers.Dense(2, activation="reluu"), "reluu"),
        (lambda: layers.Dense(2, kernel_initializer="glorott"), "glorott"),
        (lambda: keras.Sequential().compile("adam", "msee"), "msee"),
        (lambda: keras.Sequential().compile("adamm", "mse"), "adamm"),
        (lambda: keras.Sequential().compile("adam", "mse", metrics=["acuracy"]), "acuracy"),
        (lambda: layers.Dense(2, unitz=2), "unitz"),
        (lambda: layers.Conv2D(2, 3)(x(2, 3, 4)), "rank|dim|shape"),
        (lambda: keras.Sequential([3]), "not a layer"),
        (lambda: keras.Sequential([layers.Dense(1)]).get_layer("nope"), "nope"),
        (lambda: built_for_four().set_weights([x(4, 2)]), "2 weights"),
        (lambda: built_for_four().set_weights([x(4, 3), x(2)]), "shape"),
        (lambda: layers.Dropout(1.5), "1.5"),
        (lambda: layers.Dense(2).count_params(), "build"),
        (lambda: layers.Layer()(x(2, 2)), "call"),
    ],
)
def test_value_errors(call, words):
    """Row 3: ValueError for each of these."""
    with pytest.raises(ValueError, match=words):
        call()


def test_sequential_builds_counts_once_and_sums_up():
    """Row 4: Sequential."""
    for first in (layers.Flatten(input_shape=(2, 3)), keras.Input((2, 3))):
        model = keras.Sequential([first, layers.Flatten(), layers.Dense(4)])
        assert model.built and len(model.weights) == 2
    late = keras.Sequential([layers.Dense(4)])
    assert not late.built
    late(x(2, 3))
    assert late.built
    late.add(layers.Dense(1))
    late.pop()
    assert len(late.layers) == 1
    shared = layers.Dense(3)
    twice = keras.Sequential([keras.Input((3,)), shared, shared])
    assert len(twice.weights) == 2 and twice.count_params() == 12
    lines: list[str] = []
    twice.summary(print_fn=lines.append)
    text = "\n".join(lines)
    for words in (
        "Layer (type)",
        "Output Shape",
        "Param #",
        "Total params: 12",
        "Trainable params",
    ):
        assert words in text


def test_subclasses_track_freeze_and_copy():
    """Row 5: subclassed models and layers."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = [layers.Dense(3), layers.Dense(2)]
            self.extra = tf.Variable(1.0)

        def build(self, input_shape):
            self.mine = self.add_weight(shape=(2,), name="mine")

        def call(self, inputs, training=False):
            for part in self.parts:
                inputs = part(inputs)
            self.trained = training
            return inputs * self.extra + self.mine

    net = Net()
    net.build((None, 4))
    net(x(2, 4), training=True)
    assert net.trained is True and len(net.trainable_variables) == 6
    net.parts[0].trainable = False
    assert len(net.trainable_variables) == 4 and len(net.non_trainable_variables) == 2
    copies = net.get_weights()
    copies[0][...] = 7
    assert all(isinstance(each, np.ndarray) for each in copies)
    assert not any((each == 7).any() for each in net.get_weights())


def test_dropout():
    """Row 6: Dropout."""
    layer, ones = layers.Dropout(0.5), np.ones((20, 20), np.float32)
    np.testing.assert_array_equal(layer(ones), ones)
    value = tf.constant(ones)
    with tf.GradientTape() as tape:
        tape.watch(value)
        first = layer(value, training=True)
    second = layer(value, training=True)
    assert set(np.unique(first)) == {0.0, 2.0} and (first.numpy() != second.numpy()).any()
    np.testing.assert_array_equal(tape.gradient(first, value), first)


def test_normalization():
    """Row 7: BatchNormalization, LayerNormalization."""
    norm, data = layers.BatchNormalization(), x(50, 3) * 2 + 1
    y = norm(data, training=True)
    variance = data.var(axis=0)
    np.testing.assert_allclose(y, (data - data.mean(0)) / np.sqrt(variance + 1e-3), atol=1e-5)
    assert [w.name for w in norm.weights] == ["gamma", "beta", "moving_mean", "moving_variance"]
    np.testing.assert_allclose(norm.weights[2], 0.01 * data.mean(0), rtol=1e-6)
    np.testing.assert_allclose(norm.weights[3], 0.99 + 0.01 * variance, rtol=1e-5)
    before = norm.get_weights()
    norm(data)
    norm.trainable = False
    np.testing.assert_array_equal(norm(data, training=True), norm(data))
    for a, b in zip(before, (norm.gamma, norm.beta, *norm.weights[2:]), strict=True):
        np.testing.assert_array_equal(a, b)
    centred = data - data.mean(1, keepdims=True)
    expected = centred / np.sqrt(data.var(1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(layers.LayerNormalization()(data), expected, atol=1e-5)


def test_saving(tmp_path):
    """Row 8: save_weights and save."""
    pytest.importorskip("h5py")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    with pytest.raises(ValueError):
        model.save_weights(tmp_path / "x.h5")
    with pytest.raises(FileNotFoundError):
        model.load_weights(tmp_path / "x.weights.h5")
    model.save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(ValueError):
        keras.Sequential([keras.Input((3,)), layers.Dense(4)]).load_weights(
            tmp_path / "x.weights.h5"
        )
    model.compile("adam", "mse")
    model.fit(x(8, 3), x(8, 2), verbose=0)
    model.save(tmp_path / "x.keras")
    assert int(keras.models.load_model(tmp_path / "x.keras").optimizer.iterations) == 1
