"""Dtype policies: what layers compute in, what they keep, which gradient comes back."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
layers = keras.layers
mixed = keras.mixed_precision


@pytest.fixture(autouse=True)
def float32_afterwards():
    yield
    mixed.set_global_policy("float32")


def x(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_policies_have_the_dtypes_of_their_names():
    found = {n: (mixed.Policy(n).compute_dtype, mixed.Policy(n).variable_dtype)
             for n in ("float16", "float32", "float64", "mixed_float16")}  # fmt: skip
    assert found == {
        "float16": ("float16", "float16"),
        "float32": ("float32", "float32"),
        "float64": ("float64", "float64"),
        "mixed_float16": ("float16", "float32"),
    }
    for name in ("mixed_bfloat16", "bfloat16"):
        with pytest.raises(ValueError, match="NumPy has no bfloat16"):
            mixed.Policy(name)
    for name in ("float12", "mixed_float64", ""):
        with pytest.raises(ValueError, match=f"'{name}'"):
            mixed.Policy(name)


def test_mixed_layers_compute_in_half_and_keep_float32():
    layer = layers.Dense(3, dtype="mixed_float16")
    with tf.GradientTape() as tape:
        y = layer(x(4, 5))
        loss = tf.reduce_sum(tf.cast(y, "float32"))
    assert (y.dtype, layer.kernel.dtype) == ("float16", "float32")
    half = x(4, 5).astype(np.float16) @ layer.kernel.numpy().astype(np.float16)
    # one rounding to half precision apart, whatever the order of the sum
    np.testing.assert_allclose(y, half, rtol=2e-3, atol=2e-3)
    gradient = tape.gradient(loss, layer.kernel)
    assert gradient.dtype == "float32"
    expected = np.repeat(x(4, 5).astype(np.float16).sum(axis=0)[:, None], 3, axis=1)
    np.testing.assert_allclose(gradient, expected, rtol=5e-3, atol=5e-3)
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


def test_a_mixed_model_trains():
    mixed.set_global_policy("mixed_float16")
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(8, "tanh"), layers.Dense(1, dtype="float32")]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse")
    losses = model.fit(x(64, 3), x(64, 3).sum(axis=1), epochs=10, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]
    assert all(w.dtype == "float32" for w in model.weights)
