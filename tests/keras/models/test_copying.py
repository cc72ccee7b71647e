"""Copies of models, by copy, by pickle and by clone_model, and what they share: nothing."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
layers = keras.layers
X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32)


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def unbuilt():
    return keras.Sequential([layers.Dense(5, "tanh"), layers.BatchNormalization(), layers.Dense(3)])


def sequential():
    return keras.Sequential([keras.Input((4,), name="a"), layers.Dense(3, name="d")], name="s")


def functional():
    a = keras.Input((4,), name="a")
    shared = layers.Dense(4)
    inner_in = keras.Input((4,))
    inner = keras.Model(inner_in, layers.Dense(4, "tanh")(inner_in), name="inner")
    left, right = tf.keras.ops.split(inner(shared(shared(a))) * 2, 2, axis=-1)
    return keras.Model({"a": a}, layers.Dense(3)(layers.Concatenate()([left, right, left + 1])))


def masked():
    a = keras.Input((4,))
    x = layers.Masking()(layers.Reshape((2, 2))(a))
    return keras.Model(a, layers.LSTM(3)(x))


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def given(model):
    return {"a": X} if isinstance(getattr(model, "input", None), dict) else X


def trained(model):
    x = given(model)
    model.compile(keras.optimizers.Adam(0.1), "mse", metrics=["mae"])
    model.fit(x, Y, epochs=2, verbose=0)
    model.train_on_batch(x, Y)
    return model


@pytest.mark.parametrize("way", [copy.deepcopy, pickled])
@pytest.mark.parametrize("make", [unbuilt, sequential, functional, masked, Own])
def test_a_copy_goes_on_as_the_model_would_and_leaves_it_alone(make, way):
    model = trained(make())
    x = given(model)
    twin = way(model)
    assert type(twin) is type(model) and twin.name == model.name
    assert [v.path for v in twin.variables] == [v.path for v in model.variables]
    assert twin.optimizer.iterations.numpy() == model.optimizer.iterations.numpy() == 3
    assert not {id(v) for v in twin.variables} & {id(v) for v in model.variables}
    before = model.predict(x, verbose=0)
    np.testing.assert_array_equal(twin.predict(x, verbose=0), before)
    losses = twin.fit(x, Y, epochs=2, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    assert model.fit(x, Y, epochs=2, shuffle=False, verbose=0).history["loss"] == losses
    if make is not Own:
        assert twin.get_config() == model.get_config()
        assert twin.summary(print_fn=lambda line: None) is None


def test_copies_of_models_that_have_not_been_built():
    twin = copy.deepcopy(unbuilt())
    assert not twin.built and twin(X).shape == (8, 3)


def test_a_copied_layer_has_its_weights_and_lies_in_no_model():
    model = sequential()
    twin = copy.deepcopy(model.layers[0])
    np.testing.assert_array_equal(twin(X), model(X))
    with pytest.raises(AttributeError, match="has not been called"):
        twin.output  # noqa: B018
    model.layers[0].kernel.assign_add(tf.ones((4, 3)))
    assert (twin(X).numpy() != model(X).numpy()).any()


def test_a_deep_model_is_copied_without_recursion():
    y = a = keras.Input((2,))
    for _ in range(1500):
        y = y + 1.0
    for way in (copy.deepcopy, pickled):
        np.testing.assert_array_equal(way(keras.Model(a, y))(np.zeros((1, 2))), [[1500.0, 1500.0]])


def test_a_part_of_a_model_is_copied_from_its_input_on():
    a = keras.Input((4,))
    hidden = layers.Dense(6)(a)
    part = keras.Model(hidden, layers.Dense(2)(hidden))
    twin = copy.deepcopy(part)
    h = np.ones((3, 6), np.float32)
    np.testing.assert_array_equal(twin(h), part(h))
    assert len(twin.weights) == 2 and twin.input_shape == (None, 6)


# Clones


def test_clones_have_weights_of_their_own_and_are_compiled():
    for make in (unbuilt, sequential, functional, masked):
        model = trained(make())
        clone = keras.models.clone_model(model)
        assert clone.get_config() == model.get_config() and type(clone) is type(model)
        assert clone.optimizer is not model.optimizer and not clone.optimizer.built
        assert clone.optimizer.get_config() == model.optimizer.get_config()
        clone.set_weights(model.get_weights())
        x = given(model)
        np.testing.assert_array_equal(clone.predict(x, verbose=0), model.predict(x, verbose=0))
        assert clone.evaluate(x, Y, verbose=0) == model.evaluate(x, Y, verbose=0)


def test_clones_of_other_layers_inputs_and_calls():
    wider = keras.models.clone_model(
        sequential(),
        clone_function=lambda layer: layers.Dense(layer.units + 2, name=f"{layer.name}_wide"),
    )
    assert wider.output_shape == (None, 5) and wider.layers[-1].name == "d_wide"
    new = keras.Input((4,), name="new")
    assert keras.models.clone_model(sequential(), new).inputs == [new]
    model = functional()
    same = keras.models.clone_model(model, {"a": new}, clone_function=lambda layer: layer)
    assert same.input["a"] is new and same.weights == model.weights

    def call(layer, *args, **kwargs):
        out = layer(*args, **kwargs)
        return layers.Dropout(0.5)(out) if isinstance(layer, layers.Dense) else out

    more = keras.models.clone_model(model, None, lambda layer: layer, call)
    kinds = [type(layer).__name__ for layer in more.layers]
    assert kinds.count("Dropout") == 3  # the shared layer is called twice
    inside = keras.models.clone_model(
        model, clone_function=lambda layer: type(layer).from_config(layer.get_config()),
        call_function=call, recursive=True,
    )  # fmt: skip
    assert "Dropout" in [type(layer).__name__ for layer in inside.get_layer("inner").layers]


@pytest.mark.parametrize("outer", [False, True])
def test_clones_keep_the_functions_of_lambdas(outer):
    inputs = keras.Input((4,))
    tripled = keras.layers.Lambda(lambda x: 3 * x, mask=lambda x, mask: x[:, 0] > 0)
    model = keras.Model(inputs, tripled(inputs))
    if outer:
        again = keras.Input((4,))
        model = keras.Sequential([again, model, keras.layers.Lambda(lambda x: x - 1)])
    clone = keras.models.clone_model(model)
    np.testing.assert_array_equal(clone(X), model(X))
    np.testing.assert_array_equal(clone(X), 3 * X - outer)
    with pytest.raises(ValueError, match="Could not locate function '<lambda>'.*custom_objects"):
        keras.models.model_from_json(model.to_json())


def test_clones_that_cannot_be_made():
    with pytest.raises(ValueError, match="Own calls its layers itself"):
        keras.models.clone_model(Own(), clone_function=lambda layer: layer)
    with pytest.raises(ValueError, match="call_function"):
        keras.models.clone_model(sequential(), call_function=lambda layer, x: layer(x))
    with pytest.raises(ValueError, match="one input"):
        keras.models.clone_model(sequential(), [keras.Input((4,)), keras.Input((4,))])
    with pytest.raises(ValueError, match="KerasTensors"):
        keras.models.clone_model(sequential(), X)
    with pytest.raises(ValueError, match="nested as"):
        keras.models.clone_model(functional(), [keras.Input((4,)), keras.Input((4,))])


def test_pickled_data_trains_with_the_same_bits():
    """The dtype of an unpickled array equals NumPy's own, and is another object."""
    found = []
    for x, y in ((X, Y), pickle.loads(pickle.dumps((X, Y)))):
        keras.utils.set_random_seed(3)
        model = unbuilt()
        model.compile("adam", "mse", run_eagerly=True)
        model.fit(x, y, epochs=3, verbose=0)
        found.append([w.tobytes() for w in (*model.get_weights(), model.predict(x, verbose=0))])
    assert found[0] == found[1]
