"""Sequential: building, adding and taking away, names, configs."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
layers = keras.layers


def x(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "first",
    [
        lambda: [keras.Input((4,)), layers.Dense(3)],
        lambda: [layers.InputLayer(shape=(4,)), layers.Dense(3)],
        lambda: [layers.InputLayer(input_shape=(4,)), layers.Dense(3)],
        lambda: [layers.InputLayer(batch_input_shape=(None, 4)), layers.Dense(3)],
        lambda: [layers.Dense(3, input_shape=(4,))],
        lambda: [layers.Dense(3, input_dim=4)],
        lambda: [layers.Dense(3, batch_input_shape=(None, 4))],
    ],
)
def test_a_stated_input_builds_at_once(first):
    model = keras.Sequential(first())
    assert model.built and model.input_shape == (None, 4) and model.output_shape == (None, 3)
    model.add(layers.Dense(2))
    assert len(model.weights) == 4 and model.output_shape == (None, 2)
    assert [layer.name for layer in model.layers] == ["dense", "dense_1"]


@pytest.mark.parametrize("form", [lambda end: end, lambda end: [end], lambda end: (end,)])
def test_a_first_model_of_one_input_builds_at_once(form):
    source = keras.Input((4,))
    base = keras.Model(form(source), form(layers.Dense(3)(source)))
    model = keras.Sequential([base, layers.Dense(2)])
    assert model.built and model.output_shape == (None, 2) and model.count_params() == 23


def test_without_one_the_first_call_builds():
    model = keras.Sequential([layers.Dense(3), layers.Dense(2)])
    assert not model.built
    with pytest.raises(AttributeError, match="built"):
        _ = model.input_shape
    assert tuple(model(x(5, 4)).shape) == (5, 2)
    assert model.built and model.input_shape == (None, 4)


def test_build_without_a_shape_leaves_it_to_the_first_call():
    model = keras.Sequential([layers.Dense(3), layers.BatchNormalization()])
    model.build()
    assert not model.weights
    model.compile("sgd", "mse")
    model.fit(x(8, 4), x(8, 3), verbose=0)
    assert model.built and model.input_shape == (None, 4) and len(model.weights) == 6
    stated = keras.Sequential([layers.Dense(3, input_shape=(4,))])
    stated.build()
    assert len(stated.weights) == 2


def test_pop_and_add_again():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])
    model.pop()
    assert model.output_shape == (None, 3) and len(model.weights) == 2
    model.add(layers.Dense(5))
    assert [layer.name for layer in model.layers] == ["dense", "dense_1"]
    assert tuple(model(x(2, 4)).shape) == (2, 5)
    with pytest.raises(ValueError, match="no layer"):
        keras.Sequential().pop()


def test_what_is_not_a_layer_or_comes_too_late():
    with pytest.raises(ValueError, match="not a layer"):
        keras.Sequential([3])
    with pytest.raises(ValueError, match="first"):
        keras.Sequential([layers.Dense(2), keras.Input((3,))])
    model = keras.Sequential([layers.Dense(2, name="a")])
    with pytest.raises(ValueError, match="two layers"):
        model.add(layers.Dense(2, name="a"))
    assert len(model.layers) == 1


def test_a_layer_keeps_its_name_in_a_second_model():
    first = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(3)])
    second = keras.Sequential([keras.Input((3,)), first.layers[1]])
    assert list(first.variable_paths())[2] == "dense_1/kernel"
    assert next(iter(second.variable_paths())) == "dense_1/kernel"


def test_config_and_clone():
    model = keras.Sequential(
        [layers.Dense(3, "relu"), layers.Dropout(0.1), layers.Dense(2)], name="m"
    )
    model(x(2, 4))
    for twin in (keras.Sequential.from_config(model.get_config()), keras.models.clone_model(model)):
        assert twin.built and twin.get_config() == model.get_config()
        twin.set_weights(model.get_weights())
        np.testing.assert_array_equal(twin(x(2, 4)), model(x(2, 4)))
    halves = keras.models.clone_model(
        model, clone_function=lambda layer: type(layer).from_config(layer.get_config())
    )
    assert [layer.name for layer in halves.layers] == [layer.name for layer in model.layers]


def test_weights_are_those_that_layers_alone_would_draw():
    """Finding out the shapes draws nothing: a seed gives what it gave layer by layer."""
    tf.random.set_seed(3)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.Dropout(0.5), layers.Dense(2)]
    )
    tf.random.set_seed(3)
    first, second = layers.Dense(3), layers.Dense(2)
    first.build((None, 4))
    second.build((None, 3))
    expected = [w.numpy() for w in (*first.weights, *second.weights)]
    for a, b in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_reaches_layers_through_the_model():
    model = keras.Sequential([keras.Input((40,)), layers.Dropout(0.5)])
    ones = np.ones((2, 40), np.float32)
    np.testing.assert_array_equal(model(ones), ones)
    assert (model(ones, training=True).numpy() == 0).any()


@pytest.mark.parametrize("dtype", [np.bool_, np.int64, np.uint8])
def test_truth_values_and_whole_numbers_where_floats_are_asked_for(dtype):
    x = np.arange(24).reshape(2, 3, 4) % 2
    model = keras.Sequential([keras.Input((3, 4)), layers.LSTM(2)])
    np.testing.assert_array_equal(model(x.astype(dtype)), model(x.astype(np.float32)))


def test_a_last_axis_of_one_is_added_or_taken_away():
    """As in a functional model: columns may be given as vectors."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, kernel_initializer="ones")])
    assert model.predict(np.arange(4.0), verbose=0).tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    model.compile(loss="mse", optimizer="sgd")
    model.fit(np.arange(4.0), np.zeros((4, 2)), verbose=0)
    vectors = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    assert vectors(np.ones((4, 3, 1), np.float32)).shape == (4, 2)


def test_a_layer_that_tells_no_output_shape_is_built_by_the_first_call():
    class Untold(layers.Layer):
        def call(self, x):
            return x + 1

        def compute_output_spec(self, *args, **kwargs):
            raise NotImplementedError

    model = keras.Sequential([keras.Input((2,)), layers.Dense(2), Untold(), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    assert len(model.weights) == 4


def test_a_model_that_is_built_is_not_built_for_another_shape():
    model = keras.Sequential([keras.Input((2,), batch_size=3), layers.Dense(1)])
    model.build((None, 2))
    with pytest.raises(ValueError, match=r"built for samples of shape \(2,\), not of \(4,\)"):
        model.build((3, 4))


@pytest.mark.parametrize("kind", [keras.Model, keras.Sequential])
def test_layers_is_no_name_for_an_attribute(kind):
    with pytest.raises(AttributeError, match="cannot be set: give the attribute another name"):
        kind().layers = [layers.Dense(1)]
    assert kind().layers == []


def test_the_shape_of_an_input_is_a_tuple_in_its_config():
    assert layers.InputLayer(batch_shape=[2, None]).get_config()["batch_shape"] == (2, None)
    again = keras.Sequential.from_config(keras.Sequential([keras.Input((3,))]).get_config())
    assert again.get_config()["layers"][0]["config"]["batch_shape"] == (None, 3)


def test_bytes_are_floats_and_wider_numbers_stay_indices() -> None:
    """As in Keras: Resizing alone rounds images of uint8, a model of it does not."""
    image = np.arange(75, dtype="uint8").reshape(1, 5, 5, 3)
    resized = keras.Sequential([layers.Resizing(2, 2)])
    assert resized(image).dtype == "float32"
    np.testing.assert_array_equal(resized(image), tf.image.resize(image, (2, 2)))
    assert layers.Resizing(2, 2)(image).dtype == "uint8"
    flat = keras.Sequential([layers.Flatten()])
    assert flat(np.ones((1, 2, 2), "int32")).dtype == "int32"
