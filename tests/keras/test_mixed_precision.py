"""Dtype policies: what layers compute in, what they keep, which gradient comes back."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
layers = keras.layers
mixed = keras.mixed_precision
MIXED = ["mixed_float16", "mixed_bfloat16"]


@pytest.fixture(autouse=True)
def float32_afterwards():
    yield
    mixed.set_global_policy("float32")


def x(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_policies_have_the_dtypes_of_their_names():
    found = {n: (mixed.Policy(n).compute_dtype, mixed.Policy(n).variable_dtype)
             for n in ("float16", "bfloat16", "float32", "float64", *MIXED)}  # fmt: skip
    assert found == {
        "float16": ("float16", "float16"),
        "bfloat16": ("bfloat16", "bfloat16"),
        "float32": ("float32", "float32"),
        "float64": ("float64", "float64"),
        "mixed_float16": ("float16", "float32"),
        "mixed_bfloat16": ("bfloat16", "float32"),
    }
    for name in ("float12", "mixed_float64", "mixed_float32", ""):
        with pytest.raises(ValueError, match=f"'{name}'"):
            mixed.Policy(name)


@pytest.mark.parametrize("policy", MIXED)
def test_mixed_layers_compute_in_half_and_keep_float32(policy):
    layer = layers.Dense(3, dtype=policy)
    dtype = tf.as_dtype(policy.removeprefix("mixed_"))
    ulp = {"float16": 2**-10, "bfloat16": 2**-7}[dtype.name]
    with tf.GradientTape() as tape:
        y = layer(x(4, 5))
        loss = tf.reduce_sum(tf.cast(y, "float32"))
    assert (y.dtype, layer.kernel.dtype) == (dtype, "float32")
    half = [a.astype(dtype.numpy_dtype).astype(np.float32) for a in (x(4, 5), layer.kernel.numpy())]
    # one rounding to half precision apart, whatever the order of the sum
    np.testing.assert_allclose(tf.cast(y, "float32"), half[0] @ half[1], rtol=2 * ulp, atol=2 * ulp)
    gradient = tape.gradient(loss, layer.kernel)
    assert gradient.dtype == "float32"
    expected = np.repeat(half[0].sum(axis=0)[:, None], 3, axis=1)
    np.testing.assert_allclose(gradient, expected, rtol=5 * ulp, atol=5 * ulp)
    assert layer.kernel.value().dtype == "float32", "outside of the call it is what it is"


def test_the_global_policy_holds_for_new_layers():
    before = layers.Dense(2)
    mixed.set_global_policy("mixed_float16")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2), layers.Dense(2, dtype="float32")])
    assert mixed.global_policy().name == mixed.dtype_policy().name == "mixed_float16"
    assert [layer.compute_dtype for layer in model.layers] == ["float16", "float32"]
    assert before.compute_dtype == "float32" and model(x(2, 3)).dtype == "float32"
    assert model.layers[0].get_config()["dtype"] == "mixed_float16"


def test_a_float32_layer_inside_a_mixed_one_reads_float32():
    class Outer(layers.Layer):
        def __init__(self):
            super().__init__(dtype="mixed_float16")
            self.inner = layers.Dense(2, dtype="float32")
            self.mine = self.add_weight((2,), "ones")

        def call(self, inputs):
            y = self.inner(inputs)
            self.seen = y.dtype
            return tf.cast(y, "float16") * self.mine

    outer = Outer()
    assert outer(x(2, 3)).dtype == "float16" and outer.seen == "float32"


def test_the_scope_is_that_of_one_thread():
    seen = []

    class Slow(layers.Layer):
        def build(self, input_shape):
            self.w = self.add_weight((2,))

        def call(self, inputs):
            other = threading.Thread(target=lambda: seen.append((self.w + 0.0).dtype.name))
            other.start()
            other.join(10)
            return inputs * self.w

    assert Slow(dtype="mixed_float16")(x(2, 2)).dtype == "float16"
    assert seen == ["float32"]


@pytest.mark.parametrize("policy", MIXED)
def test_a_mixed_model_trains(policy):
    mixed.set_global_policy(policy)
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(8, "tanh"), layers.Dense(1, dtype="float32")]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse")
    losses = model.fit(x(64, 3), x(64, 3).sum(axis=1), epochs=10, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]
    assert all(w.dtype == "float32" for w in model.weights)
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16"), "bfloat16 has the range of float32"


@pytest.mark.parametrize("jit", [False, True])
def test_a_model_of_bfloat16_alone_trains(jit):
    """Weights, moments and outputs; the loss is computed in float32, as in Keras."""
    keras.backend.set_floatx("bfloat16")
    assert keras.backend.floatx() == "bfloat16"
    stack = [layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(), layers.Flatten()]
    model = keras.Sequential([keras.Input((6, 6, 1)), *stack, layers.Dense(3, "softmax")])
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"], jit_compile=jit)
    images, labels = x(96, 6, 6, 1), (x(96, 6, 6, 1).sum(axis=(1, 2, 3)) > 0).astype(int)
    history = model.fit(images, labels, epochs=12, batch_size=32, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0] and history["accuracy"][-1] > 0.8
    slots = [v for slot in model.optimizer.slots.values() for v in slot]
    assert {v.dtype.name for v in (*model.weights, *slots)} == {"bfloat16"}
    assert model(images[:2]).dtype == model.predict(images[:2], verbose=0).dtype == "bfloat16"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_losses_and_metrics_of_floats_of_16_bits_are_computed_in_float32(dtype):
    scores, target = tf.cast(x(64, 3), dtype), x(64, 3)
    wide = tf.cast(scores, "float32")
    for loss in (keras.losses.MeanSquaredError(), keras.losses.Huber()):
        found = loss(target, scores)
        assert found.dtype == "float32" and float(found) == float(loss(target, wide))
    metric = keras.metrics.MeanAbsoluteError()
    assert float(metric(target, scores)) == float(keras.metrics.MeanAbsoluteError()(target, wide))
    labels = np.arange(64) % 3
    outputs = layers.Activation("softmax", dtype=dtype)(scores)
    found = keras.losses.SparseCategoricalCrossentropy()(labels, outputs)
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, wide)
    assert found.dtype == "float32" and float(found) == float(expected), "by the logits behind it"
    accuracy = keras.metrics.SparseCategoricalAccuracy()(labels, outputs)
    assert float(accuracy) == np.mean(outputs.numpy().argmax(-1) == labels)


def test_loss_scaling_is_where_tensorflows_guide_has_it():
    found = tf.keras.mixed_precision.LossScaleOptimizer
    assert found is tf.keras.optimizers.LossScaleOptimizer
    with pytest.raises(AttributeError, match="Scale"):
        tf.keras.mixed_precision.Scale  # noqa: B018


@pytest.mark.parametrize("clip", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_the_gradient_of_a_scalar_is_clipped_after_it_is_unscaled(clip):
    v = tf.Variable(1.0)
    optimizer = keras.optimizers.SGD(1.0, **{clip: 0.5})
    optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0)
    optimizer.apply_gradients([(tf.constant(80.0), v)])
    assert float(v) == 0.5


def test_the_dtype_of_a_weight_is_that_in_which_it_is_read():
    class Counting(keras.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(2,), initializer="ones")
            self.mean = self.add_weight(shape=(), initializer="zeros", trainable=False)
            self.whole = self.add_weight(shape=(), dtype="int32", initializer="zeros")

        def call(self, x):
            seen.append((self.w.dtype, self.mean.dtype, self.whole.dtype))
            self.mean.assign(0.5 * self.mean + tf.cast(tf.reduce_mean(x), self.mean.dtype))
            self.whole.assign_add(1)
            return tf.cast(x, self.w.dtype) * self.w

    for policy in ("mixed_float16", "mixed_bfloat16", "float32"):
        seen, layer = [], Counting(dtype=policy)
        for _ in range(2):
            y = layer(np.full((3, 2), 2.0, np.float32))
        read = policy.removeprefix("mixed_")
        assert y.dtype == read and seen == [(read, read, "int32")] * 2
        assert layer.w.dtype == layer.mean.dtype == layer.mean.numpy().dtype == "float32"
        assert float(layer.mean) == 3 and int(layer.whole) == 2
