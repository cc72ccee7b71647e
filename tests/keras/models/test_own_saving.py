"""What users' own layers, models and functions say of how they are saved."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf

keras, layers = tf.keras, tf.keras.layers


@pytest.fixture
def registered():
    """What a test registers is forgotten after it."""
    known = dict(keras.saving.get_custom_objects())
    yield keras.saving.register_keras_serializable("mine")
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(known)


class Scale(layers.Layer):
    """Keeps its argument under another name."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.by = factor

    def call(self, inputs):
        return inputs * self.by

    def get_config(self):
        return dict(factor=self.by, **super().get_config())


def test_a_config_of_ones_own_begins_with_that_of_the_base():
    config = Scale(3.0, name="s").get_config()
    assert config == {"factor": 3.0, "name": "s", "trainable": True, "dtype": "float32"}

    class Named(layers.Dense):
        def __init__(self, units, title, **kwargs):
            super().__init__(units, **kwargs)
            self._title = title

        def get_config(self):
            return {**super().get_config(), "title": self._title}

    config = Named(3, "a", activation="relu", name="n").get_config()
    assert config == {**layers.Dense(3, activation="relu", name="n").get_config(), "title": "a"}
    assert Named.from_config(config).get_config() == config

    class Weighed(keras.losses.Loss):
        def __init__(self, factor, **kwargs):
            super().__init__(**kwargs)
            self.by = factor

        def get_config(self):
            return dict(factor=self.by, **super().get_config())

    config = Weighed(2.0, name="w").get_config()
    assert config == {"factor": 2.0, "name": "w", "reduction": "sum_over_batch_size"}


def test_a_config_may_hold_functions_objects_and_numbers_of_numpy(tmp_path, registered):
    @registered
    def square(x):
        return x * x

    @registered
    class Project(layers.Layer):
        def __init__(self, activation, initializer, factor, **kwargs):
            super().__init__(**kwargs)
            self.activation = keras.activations.get(activation)
            self.initializer = keras.initializers.get(initializer)
            self.factor = factor

        def build(self, input_shape):
            self.w = self.add_weight((input_shape[-1], 2), self.initializer)

        def call(self, inputs):
            return self.activation(tf.matmul(inputs, self.w) * self.factor)

        def get_config(self):
            own = {"activation": self.activation, "initializer": self.initializer}
            return {**super().get_config(), **own, "factor": np.float32(self.factor)}

    first = Project(square, keras.initializers.HeNormal(3), 0.5)
    model = keras.Sequential([keras.Input((3,)), first, Project("tanh", "ones", 1)])
    model.save(tmp_path / "x.keras")
    twin = keras.models.load_model(tmp_path / "x.keras")
    assert [layer.activation for layer in twin.layers] == [square, keras.activations.tanh]
    assert twin.layers[0].initializer.get_config() == {"seed": 3}
    np.testing.assert_array_equal(model(np.ones((2, 3))), twin(np.ones((2, 3))))


def test_functions_and_nests_are_read_from_their_configs(registered):
    @registered
    def half(x):
        return x / 2

    given = {
        "functions": [half, keras.activations.relu, keras.losses.mean_squared_error],
        "plain": ["accuracy", 3, None, True],
    }
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(given)))
    assert config["functions"][0] == {
        "module": "builtins",
        "class_name": "function",
        "config": "half",
        "registered_name": "mine>half",
    }
    assert keras.saving.deserialize_keras_object(config) == given
    assert keras.saving.serialize_keras_object([np.float32(2), tf.float16]) == [2.0, "float16"]
    with pytest.raises(ValueError, match="unknown function 'other'"):
        keras.saving.deserialize_keras_object({"class_name": "function", "config": "other"})


@pytest.mark.parametrize(
    "given",
    [b"text", ..., slice(None, 20, 1), np.arange(3), np.ones((2, 1), np.float16), tf.constant(2.0)],
)
def test_values_that_json_has_not_are_read_from_their_configs(given):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object({"given": given})))
    found = keras.saving.deserialize_keras_object(config, safe_mode=True)["given"]
    assert type(found) is type(given)
    assert np.array_equal(found, given) and getattr(found, "dtype", 0) == getattr(given, "dtype", 0)
    for wrong in ({"class_name": "Dense", "config": [1]}, {"class_name": "function", "config": []}):
        with pytest.raises(TypeError, match=f"the config of a {wrong['class_name']} is a"):
            keras.saving.deserialize_keras_object(wrong)


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_a_functional_model_of_a_class_of_ones_own(tmp_path, registered, ending):
    @registered
    class Plain(keras.Model):
        def train_step(self, data):
            return super().train_step(data)

    @registered
    class Scaled(keras.Model):
        def __init__(self, *args, factor=1, **kwargs):
            super().__init__(*args, **kwargs)
            self.factor = factor

        def get_config(self):
            return {**super().get_config(), "factor": self.factor}

    x = keras.Input((3,))
    for cls, options in ((Plain, {}), (Scaled, {"factor": 3})):
        model = cls(x, keras.layers.Dense(2)(x), **options)
        model.save(tmp_path / f"m.{ending}")
        found = keras.models.load_model(tmp_path / f"m.{ending}")
        assert type(found) is cls and vars(found).get("factor") == vars(model).get("factor")
        np.testing.assert_array_equal(found(np.ones((1, 3))), model(np.ones((1, 3))))
        assert type(keras.models.clone_model(model)) is cls


def test_any_object_with_a_config_may_lie_in_another_one(tmp_path, registered):
    @registered
    class Grow:
        def __init__(self, factor):
            self.factor = factor

        def __call__(self, x):
            return x * self.factor

        def get_config(self):
            return {"factor": self.factor}

        @classmethod
        def from_config(cls, config):
            return cls(**config)

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation=Grow(3.0))])
    model.save(tmp_path / "m.keras")
    found = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(found(np.ones((1, 3))), model(np.ones((1, 3))))
    policy = keras.DTypePolicy("mixed_float16")
    for given in (Grow(2.0), policy):
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(given)))
        assert vars(keras.saving.deserialize_keras_object(config)) == vars(given)
    del Grow.from_config
    with pytest.raises(TypeError, match="Grow has no from_config"):
        keras.models.load_model(tmp_path / "m.keras")


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_a_lambda_keeps_the_tensors_among_its_arguments(tmp_path, registered, ending):
    @registered
    def standard(x, mean, std):
        return (x - mean) / std

    arguments = {"mean": tf.constant([1.0, 2.0]), "std": np.array([2.0, 4.0], np.float32)}
    layer = keras.layers.Lambda(standard, arguments=arguments)
    model = keras.Sequential([keras.Input((2,)), layer])
    model.save(tmp_path / f"m.{ending}")
    found = keras.models.load_model(tmp_path / f"m.{ending}").layers[0].arguments
    assert [type(each) for each in found.values()] == [type(each) for each in arguments.values()]
    np.testing.assert_array_equal(found["mean"], [1, 2])


def test_a_compile_of_the_models_own_is_not_called_when_it_is_loaded(tmp_path, registered):
    @registered
    class Pair(keras.Model):
        def compile(self, first, second):
            super().compile()
            self.first, self.second = keras.optimizers.get(first), keras.optimizers.get(second)

    x = keras.Input((3,))
    model = Pair(x, keras.layers.Dense(2)(x))
    model.compile("sgd", "adam")
    model.save(tmp_path / "m.keras")
    with pytest.warns(UserWarning, match="Pair defines its own compile"):
        found = keras.models.load_model(tmp_path / "m.keras")
    assert not found.compiled
    np.testing.assert_array_equal(found(np.ones((1, 3))), model(np.ones((1, 3))))


@pytest.mark.parametrize("name, kind", [("m.keras", "keras"), ("m.h5", "h5")])
def test_a_save_format_is_what_the_name_says(tmp_path, name, kind):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    with pytest.warns(UserWarning, match=f"save_format='{kind}' is not used"):
        model.save(tmp_path / name, save_format=kind)
    assert keras.models.load_model(tmp_path / name).count_params() == 4
    with pytest.raises(ValueError, match="the name must end in"):
        model.save(tmp_path / "m", save_format="tf")


def test_a_model_may_say_itself_how_it_was_compiled(tmp_path, registered):
    @registered
    def squares(y_true, y_pred):
        return tf.reduce_sum((y_true - y_pred) ** 2, axis=1)

    @registered
    class Own(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.Dense(1)

        def call(self, inputs):
            return self.dense(inputs)

        def compile(self, rule, loss_fn, scores):
            super().compile(rule, loss_fn, metrics=scores)
            self.rule, self.loss_fn, self.scores = rule, loss_fn, scores

        def get_compile_config(self):
            return {"rule": self.rule, "loss_fn": self.loss_fn, "scores": self.scores}

        def compile_from_config(self, config):
            self.compile(*map(keras.saving.deserialize_keras_object, config.values()))

    model = Own()
    model.compile(keras.optimizers.SGD(0.5), squares, ["mae", squares])
    data = np.ones((4, 3)), np.ones((4, 1))
    model.fit(*data, verbose=0)
    model.save(tmp_path / "x.keras")
    twin = keras.models.load_model(tmp_path / "x.keras")
    assert twin.loss_fn is squares and twin.scores == ["mae", squares]
    assert float(twin.rule.learning_rate) == 0.5
    assert model.evaluate(*data, verbose=0) == twin.evaluate(*data, verbose=0)


def test_layers_keep_files_of_their_own(tmp_path, registered):
    @registered
    class Worded(layers.Dense):
        def __init__(self, words=None, **kwargs):
            super().__init__(**kwargs)
            self.words = words

        def save_assets(self, inner_path):
            Path(inner_path, "deep").mkdir()
            Path(inner_path, "deep", "words.txt").write_text(self.words)

        def load_assets(self, inner_path):
            text = Path(inner_path, "deep", "words.txt").read_text()
            self.words = f"{text} with {len(self.weights)} weights"

    model = keras.Sequential([keras.Input((3,)), Worded("one", units=2), Worded("two", units=2)])
    model.save(tmp_path / "x.keras")
    twin = keras.models.load_model(tmp_path / "x.keras")
    assert [layer.words for layer in twin.layers] == ["one with 2 weights", "two with 2 weights"]


@pytest.mark.parametrize("ending", [".weights.h5", ".safetensors"])
def test_layers_whose_weights_do_not_fit_may_be_skipped(ending, tmp_path):
    if ending == ".weights.h5":
        pytest.importorskip("h5py")

    def made(classes):
        return keras.Sequential(
            [keras.Input((3,)), layers.Dense(4, name="body"), layers.Dense(classes, name="head")]
        )

    source, model = made(2), made(5)
    source.save_weights(tmp_path / f"x{ending}")
    kept = model.get_weights()
    with pytest.raises(ValueError, match=r"head.*architecture"):
        model.load_weights(tmp_path / f"x{ending}")
    with pytest.warns(UserWarning, match=r"head.*left as it is"):
        model.load_weights(tmp_path / f"x{ending}", skip_mismatch=True)
    expected = source.get_weights()[:2] + kept[2:]
    for found, wanted in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


class BuiltAtOnce(keras.Model):
    """Its ``build`` builds its layers, and its call refuses what it has not been taught by data."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        if not np.asarray(x).any():
            raise ValueError("zeros are no data")
        return self.dense(x)


def test_a_model_that_builds_its_layers_is_not_called_to_be_loaded(registered, tmp_path):
    registered(BuiltAtOnce)
    model = BuiltAtOnce()
    x = np.ones((3, 4), np.float32)
    expected = model(x)
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "m.keras")(x), expected)
