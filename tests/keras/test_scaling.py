"""Updates by the mean of several calls, and of losses that are scaled."""

from __future__ import annotations

import math

import numpy as np
import pytest

import distgrad as tf

optimizers = tf.keras.optimizers


def test_several_small_batches_make_one_large_one():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)).astype("float32"), rng.normal(size=(12, 1)).astype("float32")

    def fitted(batch_size, **options):
        model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(3,))])
        model.set_weights([np.full((3, 1), 0.5), np.zeros(1)])
        model.compile(optimizers.Adam(0.1, **options), "mse")
        model.fit(x, y, batch_size=batch_size, epochs=2, shuffle=False, verbose=0)
        return model

    small, large = fitted(4, gradient_accumulation_steps=3), fitted(12)
    for one, other in zip(small.get_weights(), large.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert int(small.optimizer.iterations) == int(large.optimizer.iterations) == 2
    assert int(small.optimizer.calls) == 6
    assert not any(v.numpy().any() for v in small.optimizer.slots["gradient_accumulator"])


def test_scaled_losses_accumulate_too():
    variable = tf.Variable([1.0])
    inner = optimizers.SGD(0.5, gradient_accumulation_steps=2)
    optimizer = optimizers.LossScaleOptimizer(inner, initial_scale=8.0)
    for gradient, expected in ((16.0, 1.0), (math.inf, 1.0), (8.0, 0.0)):  # 2 and 2: their mean
        optimizer.apply_gradients([(tf.constant([gradient]), variable)])
        assert float(variable[0]) == expected
    assert float(optimizer.dynamic_scale) == 4.0 and int(optimizer.iterations) == 1


def test_a_scale_around_a_fixed_one_takes_its_place():
    variable, inner = tf.Variable([1.0]), optimizers.SGD(0.5, loss_scale_factor=4.0)
    optimizer = optimizers.LossScaleOptimizer(inner, initial_scale=8.0, clipnorm=None, dynamic=True)
    optimizer.apply_gradients([(tf.constant([8.0]), variable)])
    assert float(variable[0]) == 0.5
    optimizer.apply([tf.constant([4.0])])  # for the variables that it knows by now
    assert float(variable[0]) == 0.25
    for wrong in ({"clipnorm": 1.0}, {"dynamic": False}, {"beta_1": 0.9}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            optimizers.LossScaleOptimizer(inner, **wrong)


def test_loss_scale_optimizer_by_itself():
    v = tf.Variable([1.0, 2.0])
    scaling = optimizers.LossScaleOptimizer(
        optimizers.SGD(0.5), initial_scale=8.0, dynamic_growth_steps=2
    )
    with tf.GradientTape() as tape:
        loss = scaling.scale_loss(tf.reduce_sum(v * v))
    scaling.apply_gradients([(tape.gradient(loss, v), v)])
    np.testing.assert_array_equal(v.numpy(), [0, 0])
    scaling.apply_gradients([(tf.constant([np.inf, 1.0], "float32"), v)])
    np.testing.assert_array_equal(v.numpy(), [0, 0])
    assert scaling.loss_scale == 4 and int(scaling.iterations) == 1
    for _ in range(2):
        scaling.apply_gradients([(tf.constant([4.0, 0.0]), v)])
    assert scaling.loss_scale == 8 and v.numpy().tolist() == [-1.0, 0.0]
    again = optimizers.get(optimizers.serialize(scaling))
    assert again.get_config() == scaling.get_config()
