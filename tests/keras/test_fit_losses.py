"""The losses that fit trains by: of one's own, of layers, of any reduction, scaled."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import distgrad as tf

from .linear import X, Y, linear, same

keras = tf.keras
layers = keras.layers


@pytest.mark.parametrize("older", [False, True])
def test_a_loss_of_ones_own_and_one_that_a_layer_adds(older):
    class Penalty(layers.Layer):
        def call(self, x):
            self.add_loss(0.25 * tf.reduce_mean(x**2))
            return x

    class Own(keras.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return tf.reduce_mean(tf.abs(y - y_pred)) + sum(self.losses)

    class Older(keras.Sequential):  # Keras 3.0 to 3.2 had no ``training``
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
            return tf.reduce_mean(tf.abs(y - y_pred)) + sum(self.losses)

    keras.utils.set_random_seed(1)
    model = (Older if older else Own)([layers.Dense(1), Penalty()])
    model.compile(keras.optimizers.SGD(0.1))
    prediction = model(X).numpy()
    expected = np.abs(Y - prediction).mean() + 0.25 * (prediction**2).mean()
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(expected, rel=1e-5)
    first, *_, last = model.fit(X, Y, epochs=10, verbose=0).history["loss"]
    assert last < first


def test_a_loss_over_as_many_elements_as_a_batch_has():
    """Masked elements have other shapes in each batch, which a program cannot have."""

    def loss(y, found):
        return tf.reduce_mean(tf.boolean_mask((y - found) ** 2, y > 0))

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(12, 1))
    lost = []
    for eagerly in (True, False):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, "linear", True, "ones")])
        model.compile("sgd", loss, run_eagerly=eagerly)
        with contextlib.nullcontext() if eagerly else pytest.warns(UserWarning, match="on values"):
            lost.append(model.fit(x, y, 4, 2, verbose=0, shuffle=False).history["loss"])
    assert lost[0] == lost[1] and np.isfinite(lost[0]).all()


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize("regularized", [False, True])
def test_shards_change_no_loss_whatever_its_reduction(reduction, regularized, monkeypatch):
    """Regularizers count once, and weighted means are those of the whole batch."""

    def trained(shards: int):
        monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", str(shards))
        keras.utils.set_random_seed(1)
        kind = keras.regularizers.L2(0.1) if regularized else None
        model = keras.Sequential([layers.Dense(1, kernel_regularizer=kind)])
        model.compile(keras.optimizers.SGD(0.01), keras.losses.MeanSquaredError(reduction))
        weight = np.where(np.arange(40) < 9, 0.0, np.arange(40.0))
        history = model.fit(X, Y, batch_size=17, epochs=2, sample_weight=weight, verbose=0)
        held = model.evaluate(X, Y, sample_weight=weight, batch_size=13, verbose=0)
        return [*model.get_weights(), history.history["loss"], held]

    whole = trained(1)
    for shards in (3, 8):
        for a, b in zip(trained(shards), whole, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_ignored_classes_and_masks_are_counted_over_the_whole_batch(monkeypatch):
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 9, (24, 6)) * (np.arange(6) < rng.integers(1, 7, (24, 1)))
    labels = np.where(tokens > 0, tokens % 3, -1)

    def trained(shards: int, masked: bool):
        monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", str(shards))
        keras.utils.set_random_seed(1)
        ignore = None if masked else -1
        y = np.maximum(labels, 0) if masked else labels
        model = keras.Sequential(
            [layers.Embedding(9, 5, mask_zero=masked), layers.Dense(3, activation="softmax")]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=ignore)
        model.compile(keras.optimizers.SGD(1.0), loss)
        history = model.fit(tokens, y, batch_size=11, epochs=2, verbose=0)
        return [*model.get_weights(), history.history["loss"]]

    for masked in (False, True):
        whole = trained(1, masked)
        for a, b in zip(trained(4, masked), whole, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)
    for a, b in zip(trained(1, True), trained(1, False), strict=True):
        np.testing.assert_allclose(a, b, rtol=5e-6, atol=1e-6)


def test_half_precision_trains_and_scales_its_loss():
    policy = keras.mixed_precision.global_policy()
    try:
        keras.mixed_precision.set_global_policy("mixed_float16")
        model = linear(optimizer=keras.optimizers.Adam(0.1))
        scaling = model.optimizer
        assert isinstance(scaling, keras.optimizers.LossScaleOptimizer)
        history = model.fit(X, Y, epochs=20, verbose=0).history["loss"]
        assert history[-1] < 0.1 * history[0]
        left_out = np.log2(2.0**15 / scaling.loss_scale)  # the first gradients are large
        assert int(scaling.step_counter) <= int(scaling.iterations) == 40 - left_out
        scale, steps = scaling.loss_scale, int(scaling.iterations)
        assert model.weights[0].dtype == tf.float32
        before = model.get_weights()
        model.fit(1e6 * X, Y, verbose=0)  # overflows: nothing is changed but the scale
        same(before, model.get_weights())
        assert scaling.loss_scale == scale / 4 and int(scaling.iterations) == steps
    finally:
        keras.mixed_precision.set_global_policy(policy)


@pytest.mark.parametrize("shards", ["1", "3"])
def test_a_loss_of_each_sample_is_shown_as_their_mean_and_trained_by_their_sum(shards, monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", shards)
    found = []
    for reduction, rate in ((None, 0.01), ("sum_over_batch_size", 0.1)):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.1))])
        loss = keras.losses.MeanSquaredError(reduction=reduction)
        model.compile(keras.optimizers.SGD(rate), loss, metrics=["mae"])
        history = model.fit(X, Y, batch_size=10, epochs=2, shuffle=False, verbose=0).history
        found.append([*history["loss"], *history["mae"], *model.evaluate(X, Y, verbose=0)])
        found[-1] += model.get_weights()[0].ravel().tolist()
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


def test_the_one_loss_of_several_outputs_is_not_shown_twice():
    given = keras.Input((4,))
    outputs = [layers.Dense(1, name="a")(given), layers.Dense(1, name="b")(given)]
    model = keras.Model(given, outputs)
    model.compile("sgd", loss=["mse", None])
    assert list(model.fit(X, [Y, Y], verbose=0).history) == ["loss"]
    assert isinstance(model.evaluate(X, [Y, Y], verbose=0), float)


@pytest.mark.parametrize("shards", ["1", "4"])
@pytest.mark.parametrize("loss", ["mse", None])
def test_losses_of_single_samples_that_layers_add_count_by_their_sum(loss, shards, monkeypatch):
    """As in Keras, however the batch is cut."""
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", shards)

    class Adds(keras.layers.Layer):
        def call(self, x):
            self.add_loss(tf.reduce_mean(x**2, axis=1, keepdims=True))
            return x

    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, Adds()(keras.layers.Dense(3)(inputs)))
    model.compile(keras.optimizers.SGD(0.0), loss)
    added = np.mean(model(x).numpy() ** 2, axis=1).sum()
    expected = added + (0 if loss is None else np.mean((model(x).numpy() - x) ** 2))
    history = model.fit(x, x, batch_size=8, verbose=0).history
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert model.evaluate(x, x, batch_size=8, verbose=0) == pytest.approx(expected, rel=1e-5)
