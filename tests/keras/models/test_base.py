"""Layer: losses, masks, training mode, weights, configs."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
layers = keras.layers


def x(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


class Penalty(layers.Layer):
    def call(self, inputs):
        self.add_loss(tf.reduce_sum(inputs))
        return inputs


def test_losses_of_the_last_call_each_once():
    shared = Penalty()
    model = keras.Sequential(
        [
            keras.Input((2,)),
            shared,
            layers.Dense(2, kernel_regularizer="l2", activity_regularizer="l1"),
            shared,
        ]
    )
    assert len(model.losses) == 1, "what was tried out on zeros is no loss"
    for _ in range(2):
        y = model(x(3, 2))
    found = [float(loss) for loss in model.losses]
    dense = model.layers[1]
    hidden = dense(x(3, 2)).numpy()
    expected = [x(3, 2).sum(), y.numpy().sum(), abs(hidden).sum() * 0.01 / 3]
    expected.append(0.01 * (dense.kernel.numpy() ** 2).sum())
    np.testing.assert_allclose(sorted(found), sorted(expected), rtol=1e-5)
    dense.trainable = False
    model(x(3, 2))
    assert len(model.losses) == 3, "weights that are not trained are not penalised"


def test_a_function_as_loss_follows_the_weight_and_has_a_gradient():
    layer = layers.Dense(1, use_bias=False)
    layer(x(2, 3))
    layer.add_loss(lambda: tf.reduce_sum(layer.kernel * layer.kernel))
    with tf.GradientTape() as tape:
        (loss,) = layer.losses
    np.testing.assert_allclose(tape.gradient(loss, layer.kernel), 2 * layer.kernel.numpy())
    with pytest.raises(ValueError, match="add_loss"):
        layer.add_loss("l2")


def test_losses_join_the_loss_in_fit():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, kernel_regularizer="l2")])
    model.compile("sgd", "mse")
    plain = float(tf.reduce_mean(keras.losses.mean_squared_error(x(4, 1), model(x(4, 2)))))
    found = model.evaluate(x(4, 2), x(4, 1), verbose=0)
    np.testing.assert_allclose(found, plain + float(model.losses[0]), rtol=1e-6)


class Last(layers.Layer):
    """Sums the steps that count."""

    supports_masking = True

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def call(self, inputs, mask=None):
        self.seen = mask
        if mask is None:
            return tf.reduce_sum(inputs, axis=1)
        return tf.reduce_sum(inputs * tf.cast(mask, inputs.dtype)[:, :, None], axis=1)


def test_masks_travel_with_tensors():
    ids = np.array([[3, 1, 0], [2, 0, 0]])
    embed, last = layers.Embedding(5, 2, mask_zero=True), Last()
    model = keras.Sequential([embed, layers.Dropout(0.3), last])
    found = model(ids).numpy()
    np.testing.assert_array_equal(last.seen, ids != 0)
    table = embed.embeddings.numpy()
    np.testing.assert_allclose(found, [table[3] + table[1], table[2]], rtol=1e-6)
    i = keras.Input((3,), dtype="int32")
    functional = keras.Model(i, last(embed(i)))
    np.testing.assert_array_equal(functional(ids), found)
    last(embed(ids), mask=tf.constant(np.ones((2, 3), bool)))
    assert np.asarray(last.seen).all(), "a mask that is given wins"


def test_a_layer_that_loses_a_mask_says_so():
    embedded = layers.Embedding(5, 2, mask_zero=True)(np.array([[1, 0]]))

    class Plain(layers.Layer):
        def call(self, inputs):
            return inputs * 2.0

    with pytest.warns(UserWarning, match="plain.*mask"):
        Plain()(embedded)


def test_training_is_that_of_the_outer_call():
    class Outer(layers.Layer):
        def __init__(self):
            super().__init__()
            self.drop = layers.Dropout(0.5)

        def call(self, inputs):
            return self.drop(inputs)

    outer, ones = Outer(), np.ones((4, 50), np.float32)
    assert (outer(ones, training=True).numpy() == 0).any()
    np.testing.assert_array_equal(outer(ones), ones)

    class Always(layers.Layer):
        def call(self, inputs, training=True):
            return inputs if training else inputs * 0.0

    assert Always()(ones).numpy().all() and not Always()(ones, training=False).numpy().any()


def test_add_weight_as_keras_takes_it():
    layer = layers.Layer()
    weight = layer.add_weight((2, 3), name="w", regularizer="l2", constraint="non_neg")
    assert weight.regularizer is not None and weight.constraint is not None
    assert abs(weight.numpy()).max() <= np.sqrt(6 / 5) and weight.numpy().any()
    count = layer.add_weight(dtype="int32", trainable=False)
    assert count.shape == () and int(count) == 0
    assert [w.name for w in layer.weights] == ["w", "variable"]
    assert layer.trainable_variables[0] is weight and len(layer.non_trainable_variables) == 1


def test_integers_reach_layers_as_users_expect():
    class See(layers.Layer):
        def call(self, inputs):
            self.seen = inputs.dtype
            return inputs

    see = See()
    see(np.array([[1, 2]]))
    assert see.seen == "int64"
    see(np.ones((1, 2)))
    assert see.seen == "float32"
    assert layers.Dense(2)(np.array([[1, 2]])).dtype == "float32"


def test_config_round_trip_keeps_common_settings():
    layer = layers.Dense(3, "relu", name="d", trainable=False, dtype="float64")
    twin = layers.Dense.from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()
    assert (twin.name, twin.trainable, twin.dtype) == ("d", False, "float64")

    class Plain(layers.Layer):
        def __init__(self, factor=2.0):
            super().__init__(name="mine")
            self.factor = factor

    twin = Plain.from_config(Plain(3.0).get_config())
    assert (twin.factor, twin.name) == (3.0, "mine")


def test_compute_output_shape_runs_nothing_of_the_users_data():
    assert layers.Dense(3).compute_output_shape((None, 4)) == (None, 3)
    assert layers.Concatenate().compute_output_shape([(None, 4), (None, 2)]) == (None, 6)
    spec = layers.Flatten().compute_output_spec(keras.KerasTensor((None, 2, 3)))
    assert spec.shape == (None, 6)


def test_whole_numbers_stay_what_they_are_in_layers_of_a_users_own() -> None:
    """As in Keras: edges of a graph, say, beside the features of its nodes."""

    class Gathers(keras.layers.Layer):
        def build(self, shapes):
            self.kernel = self.add_weight(shape=(shapes[0][-1], 2), initializer="ones")
            self.built = True

        def call(self, inputs):
            features, rows = inputs
            return keras.ops.take(keras.ops.matmul(features, self.kernel), rows, axis=0), rows

    x, rows = np.eye(3, dtype=np.float64), np.array([[2, 0], [1, 1]])
    layer = Gathers()
    for given in (rows, tf.constant(rows), tf.constant(rows, tf.int32)):
        found, same = layer([x, given])
        assert same.dtype == given.dtype and found.dtype == tf.float32
        assert found.shape == (2, 2, 2)
    inputs = keras.Input((3,)), keras.Input((2,), dtype="int32")
    model = keras.Model(inputs, layer(list(inputs)))
    assert model((x, rows))[1].dtype == tf.int32
    assert keras.layers.Dense(2)(rows).dtype == tf.float32  # ours multiply them
