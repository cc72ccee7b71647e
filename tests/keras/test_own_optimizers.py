"""Optimizers written as Keras's documentation has it: ``build`` and ``update_step``."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


@keras.saving.register_keras_serializable("tests")
class Heavy(keras.optimizers.Optimizer):
    """Momentum, its step divided by how many updates came before."""

    def __init__(self, learning_rate=0.1, momentum=0.9, name="heavy", **kwargs):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum

    def build(self, variables):
        super().build(variables)
        self.momenta = [self.add_variable_from_reference(v, name="momentum") for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        m = self.momenta[self._get_variable_index(variable)]
        self.assign(m, m * self.momentum + gradient)
        steps = keras.ops.cast(self.iterations, variable.dtype) + 1
        self.assign_sub(variable, learning_rate * m / steps)

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum}


def by_hand(start, gradients, rate=0.1, momentum=0.9):
    value, m = start, 0.0
    for step, g in enumerate(gradients, 1):
        m = m * momentum + g
        value = value - rate * m / step
    return value


def model(optimizer):
    keras.utils.set_random_seed(3)
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    made.compile(optimizer, "mse")
    return made


def test_steps_by_hand():
    variable, optimizer = tf.Variable(np.ones(3)), Heavy()
    gradients = RNG.normal(size=(4, 3))
    for g in gradients:
        optimizer.apply_gradients([(tf.constant(g), variable)])
    np.testing.assert_allclose(variable.numpy(), by_hand(np.ones(3), gradients), rtol=1e-12)
    names = ["iteration", "learning_rate", "Variable_0_momentum"]  # as in Keras 3.15
    assert int(optimizer.iterations) == 4
    assert [v.name for v in optimizer.variables] == names
    assert [v.path for v in optimizer.variables] == [f"heavy/{name}" for name in names]


def test_gradients_are_gathered_clipped_and_weights_decay():
    gradients = RNG.normal(size=(4, 3))
    variable = tf.Variable(np.ones(3))
    optimizer = Heavy(gradient_accumulation_steps=2)
    for g in gradients:
        optimizer.apply_gradients([(tf.constant(g), variable)])
    means = gradients.reshape(2, 2, 3).mean(1)
    np.testing.assert_allclose(variable.numpy(), by_hand(np.ones(3), means), rtol=1e-12)
    variable = tf.Variable(np.ones(3))
    Heavy(clipnorm=0.5, weight_decay=0.2).apply([tf.constant([3.0, 4.0, 0.0])], [variable])
    wanted = 1 - 0.2 * 0.1 - 0.1 * np.array([0.3, 0.4, 0.0])
    np.testing.assert_allclose(variable.numpy(), wanted, rtol=1e-6)


@pytest.mark.parametrize("make", [Heavy, lambda **k: keras.optimizers.Lamb(0.01, **k)])
def test_fit_is_a_loop_and_any_number_of_shards(make, monkeypatch):
    found = []
    for shards in ("1", "4"):
        monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", shards)
        trained = model(make())
        trained.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        found.append(trained.get_weights())
    looped, optimizer = model(make()), make()
    for start in (*range(0, 32, 8), *range(0, 32, 8)):
        with tf.GradientTape() as tape:
            error = looped(X[start : start + 8]) - Y[start : start + 8]
            loss = tf.reduce_mean(error**2)
        grads = tape.gradient(loss, looped.trainable_variables)
        optimizer.apply_gradients(zip(grads, looped.trainable_variables, strict=True))
    for one, four, other in zip(*found, looped.get_weights(), strict=True):
        np.testing.assert_allclose(one, four, rtol=5e-6, atol=1e-6)
        np.testing.assert_allclose(one, other, rtol=5e-6, atol=1e-6)


def test_saved_with_its_model(tmp_path):
    whole, first = model(Heavy()), model(Heavy())
    whole.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    first.fit(X, Y, batch_size=8, epochs=1, shuffle=False, verbose=0)
    first.save(tmp_path / "half.keras")
    second = keras.models.load_model(tmp_path / "half.keras")
    assert isinstance(second.optimizer, Heavy) and int(second.optimizer.iterations) == 4
    second.fit(X, Y, batch_size=8, epochs=1, shuffle=False, verbose=0)
    for ours, wanted in zip(second.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, wanted)


def test_what_lies_upon_a_built_in_rule():
    """``super().update_step`` with another gradient and rate runs the kernel with these."""

    class Doubled(keras.optimizers.Adam):
        def update_step(self, gradient, variable, learning_rate):
            super().update_step(gradient * 2, variable, learning_rate / 2)

    ours, plain = tf.Variable(np.ones(3)), tf.Variable(np.ones(3))
    doubled, adam = Doubled(0.1), keras.optimizers.Adam(0.05)
    for g in RNG.normal(size=(3, 3)):
        doubled.apply_gradients([(tf.constant(g), ours)])
        adam.apply_gradients([(tf.constant(2 * g), plain)])
    np.testing.assert_allclose(ours.numpy(), plain.numpy(), rtol=1e-12)


def test_state_in_the_hands_of_the_caller():
    variable, optimizer = tf.Variable(np.ones(3)), Heavy()
    optimizer.build([variable])
    state = [v.numpy() for v in optimizer.variables]
    g = tf.constant([1.0, 2.0, 3.0], "float64")
    values, new = optimizer.stateless_apply(state, [g], [np.zeros(3)])
    np.testing.assert_allclose(values[0].numpy(), -0.1 * g.numpy())
    assert int(new[0].numpy()) == 1 and int(optimizer.iterations) == 0
    assert variable.numpy().tolist() == [1, 1, 1]
    optimizer.set_weights([v.numpy() for v in new])
    store = {}
    optimizer.save_own_variables(store)
    other = Heavy()
    other.build([variable])
    other.load_own_variables(store)
    np.testing.assert_allclose(other.variables[2].numpy(), g.numpy())
    with pytest.raises(ValueError, match="variables"):
        other.set_weights([1])


def test_a_class_that_says_nothing():
    optimizer = keras.optimizers.Optimizer(0.1)
    with pytest.raises(NotImplementedError, match="update_step"):
        optimizer.apply_gradients([(tf.constant([1.0]), tf.Variable([1.0]))])


class ByPairs(keras.optimizers.SGD):
    def apply_gradients(self, grads_and_vars):
        return super().apply_gradients([(2 * g, v) for g, v in grads_and_vars])


class ByLists(keras.optimizers.SGD):
    def apply(self, grads, trainable_variables=None):
        return super().apply([2 * g for g in grads], trainable_variables)


@pytest.mark.parametrize("own", [ByPairs, ByLists])
@pytest.mark.parametrize("shards", ["1", "4"])
@pytest.mark.parametrize("way", ["fit", "step", "loop", "scaled"])
def test_gradients_that_a_class_changes_before_it_applies_them(own, shards, way, monkeypatch):
    """Once, in fit and in steps and loops of one's own."""
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", shards)

    class Stepping(keras.Sequential):
        def train_step(self, data):
            with tf.GradientTape() as tape:
                loss = self.compute_loss(data[0], data[1], self(data[0], training=True))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return {"loss": loss}

    def trained(optimizer):
        kind = Stepping if way == "step" else keras.Sequential
        model = kind([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])
        if way == "loop":
            for at in range(0, 32, 8):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean((model(X[at : at + 8]) - Y[at : at + 8]) ** 2)
                gradients = tape.gradient(loss, model.trainable_variables)
                optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        else:
            if way == "scaled":
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            model.compile(optimizer, "mse")
            model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
        return model.get_weights()

    expected = trained(keras.optimizers.SGD(0.02))
    for found, wanted in zip(trained(own(0.01)), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
