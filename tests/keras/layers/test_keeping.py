"""What a layer keeps and is asked: own files, own builds, stateless calls, specs of inputs."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
layers = keras.layers
X = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")


@keras.saving.register_keras_serializable("tests")
class Table(layers.Layer):
    """A product, and numbers that are no weights; built by a word of its own."""

    def __init__(self, units=2, **kwargs):
        super().__init__(**kwargs)
        self.units, self.table = units, np.zeros(3)

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], self.units), name="w")

    def call(self, x):
        return keras.ops.matmul(x, self.w) + self.table.sum()

    def save_own_variables(self, store):
        store["w"], store["table"] = np.asarray(self.w), self.table

    def load_own_variables(self, store):
        self.w.assign(np.asarray(store["w"]))
        self.table = np.asarray(store["table"])

    def get_build_config(self):
        return {"columns": self.w.shape[0]}

    def build_from_config(self, config):
        self.build((None, config["columns"]))


@keras.saving.register_keras_serializable("tests")
class Scaled(layers.Layer):
    """A ``build`` that needs no shape."""

    def build(self):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, x):
        return self.scale * x


def test_a_build_that_needs_no_shape(tmp_path):
    class Keywords(Scaled):
        def build(self, **kwargs):
            super().build()

    assert layers.Dense(2)(Keywords()(X)).shape == (3, 2)
    model = keras.Sequential([keras.Input((4,)), Scaled(), layers.Dense(1)])
    layer = model.layers[0]
    assert layer.built and layer.get_build_config() == {"shapes_dict": {}}
    layer.scale.assign(2.0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    again = Scaled()
    again.build_from_config(layer.get_build_config())
    assert again.built


def test_a_layer_keeps_what_it_says(tmp_path):
    pytest.importorskip("h5py")
    model = keras.Sequential([keras.Input((4,)), Table(), layers.Dense(1)])
    model.layers[0].table = np.array([1.0, 2.0, 3.0])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].table.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    loaded.layers[0].table = np.zeros(3)
    model.save_weights(tmp_path / "model.weights.h5")
    loaded.load_weights(tmp_path / "model.weights.h5")
    assert loaded.layers[0].table.tolist() == [1, 2, 3]
    config = keras.layers.serialize(model.layers[0])
    assert config["build_config"] == {"columns": 4}
    again = keras.layers.deserialize(config)
    assert again.built and again.w.shape == (4, 2)


def test_stateless_calls_leave_the_layer_alone():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2), layers.BatchNormalization()])
    before = model.get_weights()
    values = [tf.constant(v.numpy() * 2 + 1) for v in model.trainable_variables]
    state = [v.numpy() for v in model.non_trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(values)
        out, new = model.stateless_call(values, state, X, training=True)
        loss = tf.reduce_sum(out**3)
    gradients = tape.gradient(loss, values)
    for ours, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, kept)
    twin = keras.models.clone_model(model)
    for variable, value in zip(twin.trainable_variables, values, strict=True):
        variable.assign(value)
    with tf.GradientTape() as tape:
        wanted = twin(X, training=True)
        loss = tf.reduce_sum(wanted**3)
    np.testing.assert_allclose(out.numpy(), wanted.numpy(), rtol=1e-5)
    for g, w in zip(gradients, tape.gradient(loss, twin.trainable_variables), strict=True):
        np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(new, twin.non_trainable_variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)
    dense = layers.Dense(2, kernel_regularizer="l2")
    with pytest.raises(ValueError, match="must be built"):
        dense.stateless_call([], [], X)
    dense(X)
    *_, losses = dense.stateless_call([np.ones((4, 2)), np.zeros(2)], [], X, return_losses=True)
    assert float(losses[0]) == pytest.approx(0.08)
    with pytest.raises(ValueError, match="expected 2 variables"):
        dense.stateless_call([np.ones((4, 2))], [], X)


def test_specs_of_inputs():
    layer = layers.Dense(2)
    layer.input_spec = layers.InputSpec(min_ndim=2, axes={-1: 4})
    assert layer(X).shape == (3, 2)
    assert layer(keras.Input((4,))).shape == (None, 2)
    with pytest.raises(ValueError, match="expected min_ndim=2, found ndim=1"):
        layer(X[0])
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 4"):
        layer(keras.Input((5,)))
    spec = keras.InputSpec(shape=(None, 4), dtype="float32")
    assert keras.InputSpec.from_config(spec.get_config()).shape == (None, 4)
    layer.input_spec = spec
    with pytest.raises(ValueError, match="expected dtype=float32, found dtype=int32"):
        layer(np.ones((3, 4), "int32"))
    add = layers.Add()
    add.input_spec = [keras.InputSpec(ndim=2, name="a"), keras.InputSpec(ndim=2, name="b")]
    with pytest.raises(ValueError, match="expects 2 input"):
        add([X])
    with pytest.raises(TypeError, match="integer keys"):
        keras.InputSpec(axes={"a": 1})
    with pytest.raises(ValueError, match="greater than the maximum"):
        keras.InputSpec(ndim=2, axes={2: 1})


def test_what_a_layer_is_asked():
    class Counting(layers.Layer):
        def __init__(self):
            super().__init__()
            self.mean = keras.metrics.Mean(name="seen")
            self.inner = layers.Dense(2)

        def call(self, x):
            return self.inner(x)

    layer = Counting()
    assert [metric.name for metric in layer.metrics] == ["seen"]
    assert layer.symbolic_call(keras.KerasTensor((None, 4))).shape == (None, 2)
    assert layer.input_dtype == layer.compute_dtype == "float32"
    dense = layers.Dense(3)
    assert dense.get_build_config() is None
    dense.build((None, 4))
    again = layers.Dense(3)
    again.build_from_config(dense.get_build_config())
    assert again.kernel.shape == (4, 3)
    store = {}
    dense.save_own_variables(store)
    again.load_own_variables(store)
    np.testing.assert_array_equal(again.kernel.numpy(), dense.kernel.numpy())


def test_models_that_make_their_own_functions():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.calls = layers.Dense(1), []

        def call(self, x):
            return self.dense(x)

        def make_train_function(self, force=False):
            def run(iterator):
                self.calls.append("train")
                return self.train_step(next(iterator))

            self.train_function = run

        def make_test_function(self, force=False):
            def run(iterator):
                self.calls.append("test")
                return self.test_step(next(iterator))

            self.test_function = run

    def trained(kind):
        keras.utils.set_random_seed(1)
        model = kind()
        model.compile("sgd", "mse")
        history = model.fit(X, X[:, :1], batch_size=3, epochs=2, verbose=0)
        return model, [*history.history["loss"], model.evaluate(X, X[:, :1], verbose=0)]

    class Plain(Own):
        make_train_function = keras.Model.make_train_function
        make_test_function = keras.Model.make_test_function

    model, values = trained(Own)
    assert model.calls == ["train", "train", "test"]
    assert values == pytest.approx(trained(Plain)[1], rel=1e-5)
    logs = trained(Plain)[0].make_train_function()(iter([(X, X[:, :1])]))
    assert float(logs["loss"]) > 0


def test_volumes_and_channels_are_dropped_whole():
    out = layers.SpatialDropout3D(0.5, seed=1)(np.ones((2, 2, 2, 2, 64), "float32"), training=True)
    assert set(np.unique(out.numpy())) == {0.0, 2.0}
    np.testing.assert_array_equal(out.numpy(), np.broadcast_to(out[:, :1, :1, :1], out.shape))


def test_alpha_dropout_keeps_mean_and_variance():
    x = keras.activations.selu(np.random.default_rng(0).normal(size=(400, 200)).astype("float32"))
    out = layers.AlphaDropout(0.2)(x, training=True).numpy()
    assert out.mean() == pytest.approx(0, abs=0.02) and out.var() == pytest.approx(1, abs=0.03)
    np.testing.assert_array_equal(layers.AlphaDropout(0.2)(x).numpy(), x.numpy())


def test_spectral_norm_is_one_after_training():
    layer = layers.SpectralNormalization(layers.Dense(5), power_iterations=20)
    layer(X)
    layer.layer.kernel.assign(np.random.default_rng(1).normal(size=(4, 5)) * 3)
    layer(X, training=True)
    assert np.linalg.norm(layer.layer.kernel.numpy(), 2) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="neither|nor"):
        layers.SpectralNormalization(layers.ReLU())(X)


def test_cells_upon_cells():
    """As one layer upon the other, also by their config, masked, and with their states."""
    x = np.random.default_rng(2).normal(size=(2, 5, 3)).astype("float32")
    stacked = layers.RNN([layers.LSTMCell(4), layers.GRUCell(2)], return_state=True)
    out, first, second = stacked(x)
    lstm, gru = layers.LSTM(4, return_sequences=True), layers.GRU(2)
    lstm(x), gru(lstm(x))
    lstm.set_weights(stacked.get_weights()[:3])
    gru.set_weights(stacked.get_weights()[3:])
    np.testing.assert_allclose(out.numpy(), gru(lstm(x)).numpy(), rtol=1e-5, atol=1e-6)
    assert [s.shape for s in first] == [(2, 4), (2, 4)] and second.shape == (2, 2)
    again = layers.RNN.from_config(stacked.get_config())
    again(x)
    again.set_weights(stacked.get_weights())
    np.testing.assert_array_equal(again(x)[0].numpy(), out.numpy())
    resumed = stacked(x[:, 2:], initial_state=stacked(x[:, :2])[1:])[0]
    np.testing.assert_allclose(resumed.numpy(), out.numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="call"):
        layers.StackedRNNCells([3])


def test_wrong_equations():
    for equation, shape, given, text in (
        ("ab,bc", 3, X, "Invalid einsum"),
        ("ab,bc->ad", 3, X, "sizes of"),
        ("abc,cd->abd", (7, 3), np.ones((2, 3, 4), "float32"), "shared dimension"),
        ("ab,bc->ac", (3, 4), X, "does not fit"),
    ):
        with pytest.raises(ValueError, match=text):
            layers.EinsumDense(equation, shape)(given)
    with pytest.raises(ValueError, match="Bias dimension"):
        layers.EinsumDense("ab,bc->ac", 3, bias_axes="z")(X)
