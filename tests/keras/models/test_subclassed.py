"""Subclassed layers and models: tracking, nesting, what a user writes in a few lines."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
layers = keras.layers


def x(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


class Block(layers.Layer):
    """Only sublayers, in attributes, lists and dicts."""

    def __init__(self):
        super().__init__()
        self.parts = [layers.Dense(4), [layers.Dense(4)]]
        self.named = {"a": layers.Dense(4, use_bias=False)}

    def call(self, inputs):
        return self.named["a"](self.parts[1][0](self.parts[0](inputs)))


class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [Block(), Block()]
        self.drop = layers.Dropout(0.5)
        self.head = layers.Dense(1)

    def call(self, inputs, training=False):
        for block in self.blocks:
            inputs = block(inputs)
        return self.head(self.drop(inputs, training=training))


def test_everything_below_is_tracked_and_named():
    net = Net()
    net(x(2, 4))
    assert len(net.trainable_variables) == 12 and net.built
    paths = list(net.variable_paths())
    assert paths[0] == "block/dense/kernel" and paths[-1] == "dense/bias"
    assert len(set(paths)) == 12
    assert net.weights[0].path == "net/block/dense/kernel" and net.weights[0].name == "kernel"
    assert net.head.path == "net/dense"
    assert [layer.name for layer in net.layers] == ["block", "block_1", "dropout", "dense"]


def test_build_makes_the_same_model_as_a_call():
    tf.random.set_seed(1)
    built = Net()
    built.build((None, 4))
    tf.random.set_seed(1)
    called = Net()
    called(x(2, 4))
    for a, b in zip(built.get_weights(), called.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_fit_and_frozen_parts():
    net = Net()
    net(x(2, 4))
    net.blocks[0].trainable = False
    assert len(net.trainable_variables) == 7 and len(net.non_trainable_variables) == 5
    frozen = net.blocks[0].get_weights()
    net.compile("adam", "mse")
    net.fit(x(32, 4), x(32, 4).sum(axis=1), epochs=2, verbose=0)
    for a, b in zip(frozen, net.blocks[0].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    net.trainable = False
    assert not net.trainable_variables and not net.head.kernel.trainable
    net.trainable = True
    assert len(net.trainable_variables) == 12


def test_a_tape_watches_weights_of_frozen_layers_too():
    """As GANs need, which freeze a part for the forward pass and train it right after."""
    layer = layers.Dense(1, kernel_initializer="ones")
    layer(x(2, 3))
    layer.trainable = False
    with tf.GradientTape() as tape:
        y = layer(np.full((2, 3), 2.0, np.float32))
    assert list(tape.watched_variables()) == layer.weights
    layer.trainable = True
    np.testing.assert_array_equal(tape.gradient(y, layer.kernel), np.full((3, 1), 4.0))
    norm = layers.BatchNormalization()
    with tf.GradientTape() as tape:
        norm(x(2, 3))
    assert list(tape.watched_variables()) == norm.weights[:2]  # what never trains is not watched


def test_a_subclass_of_model_with_inputs_and_outputs():
    class Doubled(keras.Model):
        def __init__(self, units):
            inputs = keras.Input((4,))
            super().__init__(inputs=inputs, outputs=layers.Dense(units)(inputs) * 2.0)
            self.units = units

    model = Doubled(3)
    assert model.output_shape == (None, 3)
    np.testing.assert_array_equal(model(x(2, 4)), model.layers[1](x(2, 4)) * 2.0)
    twin = Doubled.from_config(model.get_config())
    assert twin.units == 3


def test_inputs_in_lists_and_dicts():
    class Add(layers.Layer):
        def build(self, input_shape):
            self.seen = input_shape
            self.scale = self.add_weight((input_shape["a"][-1],), "ones")

        def call(self, inputs):
            return (inputs["a"] + inputs["b"][0]) * self.scale

    layer = Add()
    found = layer({"a": x(2, 3), "b": [x(2, 3)]})
    assert layer.seen == {"a": (2, 3), "b": [(2, 3)]}
    np.testing.assert_allclose(found, 2 * x(2, 3), rtol=1e-6)


def test_build_with_one_shape_per_argument():
    class Pair(layers.Layer):
        def build(self, query_shape, value_shape):
            self.shapes = query_shape, value_shape

        def call(self, query, value):
            return query + value

    layer = Pair()
    layer(x(2, 3), value=x(1, 3))
    assert layer.shapes == ((2, 3), (1, 3))


def test_forgetting_init_or_call_or_config_is_said():
    class NoInit(layers.Layer):
        def __init__(self):
            self.a = 3

        def call(self, inputs):
            return inputs

    with pytest.raises(RuntimeError, match="super"):
        NoInit()(x(2, 3))
    with pytest.raises(NotImplementedError, match="call"):
        keras.Model()(x(2, 3))

    class NoConfig(layers.Layer):
        def __init__(self, units):
            super().__init__()
            self.size = units

        def call(self, inputs):
            return inputs

    layer = NoConfig(layers.Dense(3))
    layer(x(2, 3))
    with pytest.raises(NotImplementedError, match="units"):
        layer.get_config()


def test_plain_arguments_of_a_layer_need_to_be_kept_nowhere(tmp_path):
    @keras.saving.register_keras_serializable("plain")
    class Plain(layers.Layer):
        def __init__(self, units, rates=(0.1, 0.2), *, act="relu", **kwargs):
            super().__init__(**kwargs)
            self.units = layers.Dense(units, act)  # not what was given under this name
            self.drops = [layers.Dropout(rate) for rate in rates]

        def call(self, inputs):
            return self.units(inputs)

    layer = Plain(3, act="tanh", name="p", dtype=tf.float32)
    config = layer.get_config()
    assert config == {"name": "p", "trainable": True, "dtype": "float32", "units": 3, "act": "tanh"}
    twin = Plain.from_config(config)
    assert twin.units.units == 3 and len(twin.drops) == 2
    model = keras.Sequential([keras.Input((2,)), layer])
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again(x(2, 2)), model(x(2, 2)))
    copied = pickle.loads(pickle.dumps(Plain.from_config(config).get_config()))
    assert copied == config


def test_unknown_keywords_are_named():
    with pytest.raises(ValueError, match="unitz"):
        layers.Dense(3, unitz=4)
    with pytest.raises(ValueError, match="colour"):
        Net.__base__(colour="red")


@pytest.mark.parametrize("begins_with_super", [True, False])
def test_a_build_of_ones_own_is_called_at_the_first_use(begins_with_super, tmp_path):
    class Scaled(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.head = layers.Dense(2)
            self.shapes = []

        def build(self, input_shape):
            if begins_with_super:
                super().build(input_shape)
            self.scale = self.add_weight((input_shape[-1],), "ones", name="scale")
            self.shapes.append(tuple(input_shape))
            if not begins_with_super:
                super().build(input_shape)

        def call(self, inputs):
            return self.head(inputs * self.scale)

    first = Scaled()
    first(x(5, 3))
    first(x(4, 3))
    assert first.shapes == [(5, 3)]
    assert [w.path for w in first.weights] == [
        "scaled/scale",
        "scaled/dense/kernel",
        "scaled/dense/bias",
    ]

    trained = Scaled()
    trained.compile("sgd", "mse")
    trained.fit(x(8, 3), x(8, 2), verbose=0)
    assert len(trained.shapes) == 1 and not np.array_equal(trained.scale.numpy(), np.ones(3))

    by_hand = Scaled()
    by_hand.build((None, 3))
    assert by_hand.shapes == [(None, 3)] and by_hand.built
    by_hand(x(5, 3))
    assert by_hand.shapes == [(None, 3)] and len(by_hand.weights) == 3

    for model in (trained, by_hand):
        model.save(tmp_path / "m.keras")
        loaded = keras.models.load_model(tmp_path / "m.keras", {"Scaled": Scaled})
        np.testing.assert_array_equal(loaded(x(5, 3)), model(x(5, 3)))

    inputs = keras.Input((3,))
    assert keras.Model(inputs, Scaled()(inputs)).output_shape == (None, 2)


def test_layers_without_a_name_count_up_in_theirs():
    net = Net()
    net(x(2, 3))
    dense = ["net/block/dense/kernel", "net/block/dense_1/kernel", "net/block/dense_2/kernel"]
    paths = [weight.path for weight in net.weights]
    assert [path for path in paths if path.startswith("net/block/") and "kernel" in path] == dense
    assert len(set(paths)) == len(paths)
    assert net.get_layer("block_1") is net.blocks[1]
    net.late = [Block(), layers.Dense(1, name="dense_1")]
    net.built = False
    net.build((None, 3))
    assert [layer.name for layer in net.layers[-2:]] == ["block_2", "dense_1"]


def test_a_list_of_numbers_is_no_input():
    class Own(keras.Model):
        def call(self, places):
            return tf.gather(x(4, 2), places)

    with pytest.raises(ValueError, match="list of numbers"):
        Own()([1, 3])
    assert tuple(Own()(tf.constant([1, 3])).shape) == (2, 2)


class _Told(tf.keras.layers.Layer):
    """Of another shape in training, which is its default."""

    def call(self, x, training=True):
        return tf.concat([x, x], -1) if training else x


def test_what_nobody_says_of_training_is_what_a_layer_has_for_its_default():
    x, seen = np.ones((2, 3), "float32"), tf.keras.Input((3,))
    assert _Told()(seen).shape == (None, 6)
    models = [tf.keras.Model(seen, _Told()(seen)), tf.keras.Sequential([_Told()])]

    class Around(tf.keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = _Told()

        def call(self, x, training=None):
            return self.inner(x, training=training)

    for model in [*models, Around()]:
        assert model(x).shape == (2, 6)
        assert model(x, training=False).shape == model.predict(x, verbose=0).shape == (2, 3)


def test_the_default_of_a_model_goes_for_its_layers():
    class Still(tf.keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = _Told()

        def call(self, x, training=False):
            return self.inner(x)

    assert Still()(np.ones((2, 3), "float32")).shape == (2, 3)


def test_a_model_of_code_that_is_in_no_module():
    """As of a notebook's or a test's ``exec``: its functions have None for their module."""
    code = "class Twice(keras.Model):\n    def call(self, x):\n        return 2 * x"
    names = {"keras": tf.keras}
    exec(code, names)
    assert np.array_equal(names["Twice"]()(np.ones((1, 2), "float32")), [[2, 2]])
