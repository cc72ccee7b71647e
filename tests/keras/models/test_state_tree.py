"""get_state_tree and set_state_tree: variables as nested dicts, laid out as Keras does."""

from __future__ import annotations

import numpy as np
import pytest

from distgrad import keras

layers = keras.layers
X, Y = np.arange(6.0, dtype=np.float32).reshape(3, 2), np.ones((3, 1), np.float32)


def trained(steps: int = 1):
    stack = [keras.Input((2,)), layers.BatchNormalization(name="norm"), layers.Dense(1, name="out")]
    model = keras.Sequential(stack, name="mine")
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(X, Y, epochs=steps, verbose=0)
    return model


def test_values_lie_under_the_parts_of_their_paths():
    model = trained()
    found = model.get_state_tree("numpy_array")
    assert list(found["trainable_variables"]["mine"]) == ["norm", "out"]
    kernel = found["trainable_variables"]["mine"]["out"]["kernel"]
    np.testing.assert_array_equal(kernel, model.layers[-1].kernel)
    assert set(found["non_trainable_variables"]["mine"]["norm"]) == {
        "moving_mean",
        "moving_variance",
    }
    assert found["optimizer_variables"]["adam"]["iteration"] == 1
    assert "mine_out_kernel_momentum" in found["optimizer_variables"]["adam"]


def test_a_model_goes_on_from_the_state_of_another():
    one, other = trained(2), trained(1)
    state = one.get_state_tree()
    before = other.get_state_tree("numpy_array")["trainable_variables"]["mine"]["out"]["kernel"]
    other.set_state_tree(state)
    one.fit(X, Y, verbose=0)
    other.fit(X, Y, verbose=0)
    for a, b in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(other.optimizer.iterations) == 3
    assert not np.array_equal(before, other.layers[-1].kernel)
    one.set_state_tree(state)  # what was read has not changed meanwhile
    assert int(one.optimizer.iterations) == 2


def test_what_is_refused_and_what_is_left_out():
    model = trained()
    with pytest.raises(ValueError, match="'backend_tensor' or 'numpy_array'"):
        model.get_state_tree("jax")
    with pytest.raises(ValueError, match="'weights' is no kind of variables: trainable"):
        model.set_state_tree({"weights": {}})
    model.set_state_tree({"metrics_variables": {"loss": {"total": 1.0}}})


class Twins(keras.Model):
    def __init__(self):
        super().__init__(name="twins")
        self.one, self.other = layers.Dense(1, name="out"), layers.Dense(1, name="out")

    def call(self, x):
        return self.other(self.one(x))


def test_two_variables_of_one_path_are_named():
    model = Twins()
    model(X)
    with pytest.raises(ValueError, match="two variables have the path 'twins/out/kernel'"):
        model.get_state_tree()
