"""StatelessScope: a block in which variables have given values, and keep none that they get."""

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def network():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, activity_regularizer="l2"),
            keras.layers.BatchNormalization(),
        ]
    )
    return model, [w.copy() for w in model.get_weights()]


def same(model, weights):
    return all((a == b).all() for a, b in zip(model.get_weights(), weights, strict=True))


def test_given_values_are_followed_by_a_tape():
    model, before = network()
    kernel = tf.constant(2 * before[0])
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        with keras.StatelessScope([(model.weights[0], kernel)]) as scope:
            np.testing.assert_array_equal(model.weights[0], kernel)
            y = tf.reduce_sum(model.layers[0](X))
    assert same(model, before)
    np.testing.assert_allclose(tape.gradient(y, kernel), np.tile(X.sum(0)[:, None], 3), rtol=1e-5)
    np.testing.assert_array_equal(scope.get_current_value(model.weights[0]), kernel)
    assert scope.get_current_value(model.weights[1]) is None


def test_what_a_call_changes_is_told_and_taken_back():
    model, before = network()
    with keras.StatelessScope(collect_losses=True) as scope:
        model(X, training=True)
    assert same(model, before) and len(scope.losses) == 1
    moving_mean = model.layers[1].moving_mean
    hidden = X @ before[0] + before[1]
    found = scope.get_current_value(moving_mean)
    np.testing.assert_allclose(found, 0.01 * hidden.mean(0), rtol=1e-5, atol=1e-6)


def test_the_last_value_counts():
    variable = keras.Variable(np.ones(2, np.float32))
    with keras.StatelessScope([(variable, [2.0, 3.0])]) as scope:
        variable.assign_add([1.0, 1.0])
        assert scope.get_current_value(variable).numpy().tolist() == [3, 4]
        scope.add_update((variable, [7.0, 8.0]))
        assert variable.numpy().tolist() == [7, 8]
    assert variable.numpy().tolist() == [1, 1]
    assert scope.get_current_value(variable).numpy().tolist() == [7, 8]


def test_an_optimizer_leaves_variables_alone_too():
    model, before = network()
    optimizer = keras.optimizers.SGD(0.5)
    weights = model.trainable_variables
    optimizer.build(weights)
    with keras.StatelessScope([(w, tf.zeros(w.shape)) for w in weights]) as scope:
        optimizer.apply([tf.ones(w.shape) for w in weights], weights)
        np.testing.assert_array_equal(weights[0], np.full((4, 3), -0.5))
    assert same(model, before)
    np.testing.assert_array_equal(scope.get_current_value(weights[0]), np.full((4, 3), -0.5))


@pytest.mark.parametrize("pair", [(3, 4), (keras.Variable(np.ones(2)), np.ones(3))])
def test_what_is_no_pair_of_both(pair):
    with pytest.raises(ValueError, match="StatelessScope"):
        keras.StatelessScope([pair])
