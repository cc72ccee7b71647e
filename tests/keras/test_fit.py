"""fit, evaluate and predict on every kind of data, with every kind of metric and step."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

from .linear import X, Y, generator, linear, same, weights_after

keras = tf.keras
layers = keras.layers


class Batches(keras.utils.Sequence):
    def __len__(self):
        return 5

    def __getitem__(self, i):
        return X[8 * i : 8 * i + 8], Y[8 * i : 8 * i + 8]


def test_arrays_datasets_generators_and_sequences_train_alike():
    arrays = weights_after(lambda m: m.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0))
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    same(arrays, weights_after(lambda m: m.fit(dataset, epochs=2, verbose=0)))
    same(arrays, weights_after(lambda m: m.fit(Batches(), epochs=2, verbose=0)))
    same(
        arrays,
        weights_after(lambda m: m.fit(generator(), epochs=2, steps_per_epoch=5, verbose=0)),
    )
    tensors = tf.constant(X), tf.constant(Y)
    same(
        arrays,
        weights_after(lambda m: m.fit(*tensors, batch_size=8, epochs=2, shuffle=False, verbose=0)),
    )


def test_evaluate_and_predict_on_every_kind():
    model = linear(metrics=["mae"])
    loss, mae = model.evaluate(X, Y, verbose=0)
    expected = model.predict(X, verbose=0) - Y
    assert loss == pytest.approx((expected**2).mean(), rel=1e-5)
    assert mae == pytest.approx(np.abs(expected).mean(), rel=1e-5)
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(7)
    assert model.evaluate(dataset, verbose=0) == pytest.approx([loss, mae])
    assert model.evaluate(generator(), steps=5, verbose=0) == pytest.approx([loss, mae])
    found = model.predict(dataset, verbose=0)
    np.testing.assert_allclose(found, model.predict(X, batch_size=7, verbose=0), rtol=1e-6)
    np.testing.assert_array_equal(model.predict_on_batch(X[:3]), model(X[:3]).numpy())


def test_validation_data_may_be_a_dataset_and_come_seldom():
    model = linear()
    held = tf.data.Dataset.from_tensor_slices((X[:8], Y[:8])).batch(4)
    history = model.fit(X, Y, epochs=4, validation_data=held, validation_freq=2, verbose=0).history
    assert len(history["loss"]) == 4 and len(history["val_loss"]) == 2
    assert history["val_loss"][-1] == pytest.approx(model.evaluate(X[:8], Y[:8], verbose=0))


class TwoHeads(keras.Model):
    def __init__(self, kind):
        super().__init__()
        self.a, self.b, self.kind = layers.Dense(2), layers.Dense(1), kind

    def call(self, x):
        if isinstance(x, dict):
            x = x["left"] + x["right"]
        a, b = self.a(x), self.b(x)
        return {"p": a, "q": b} if self.kind is dict else [a, b]


@pytest.mark.parametrize("kind", [dict, list])
def test_several_inputs_and_outputs(kind):
    keras.utils.set_random_seed(3)
    model = TwoHeads(kind)
    wide = np.concatenate([Y, -Y], axis=1)
    if kind is dict:
        model.compile(
            "sgd",
            loss={"p": "mse", "q": "mae"},
            loss_weights={"p": 1.0, "q": 0.5},
            metrics={"p": ["mae"], "q": "mse"},
        )
        y, names = {"p": wide, "q": Y}, ("p", "q")
    else:
        model.compile("sgd", ["mse", "mae"], loss_weights=[1.0, 0.5], metrics=[["mae"], ["mse"]])
        y, names = [wide, Y], ("output_1", "output_2")
    x = {"left": X, "right": 0 * X}
    logs = model.evaluate(x, y, return_dict=True, verbose=0)
    outputs = model.predict(x, verbose=0)
    a, b = (outputs["p"], outputs["q"]) if kind is dict else outputs
    assert logs == pytest.approx(
        {
            f"{names[0]}_loss": ((a - wide) ** 2).mean(),
            f"{names[1]}_loss": np.abs(b - Y).mean(),
            f"{names[0]}_mae": np.abs(a - wide).mean(),
            f"{names[1]}_mse": ((b - Y) ** 2).mean(),
            "loss": ((a - wide) ** 2).mean() + 0.5 * np.abs(b - Y).mean(),
        },
        rel=1e-5,
    )
    history = model.fit(x, y, epochs=3, verbose=0).history
    assert set(history) == set(logs) and history["loss"][-1] < history["loss"][0]
    with pytest.raises(ValueError, match="r"):
        model.compile("sgd", loss={"p": "mse", "r": "mae"})
        model.fit(x, y, verbose=0)


def test_weights_reach_the_loss_and_weighted_metrics_only():
    model = linear(metrics=["mae"], weighted_metrics=["mse"])
    weight = np.arange(40.0)
    error = model.predict(X, verbose=0) - Y
    loss, mae, mse = model.evaluate(X, Y, sample_weight=weight, verbose=0)
    assert loss == pytest.approx((error[:, 0] ** 2 * weight).mean(), rel=1e-5)
    assert mae == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert mse == pytest.approx((error[:, 0] ** 2 * weight).sum() / weight.sum(), rel=1e-5)


def test_a_batch_is_told_of_alone():  # as in Keras 3.15, which resets its metrics before it
    model = linear(metrics=["mae"])
    before = model.evaluate(X, Y, verbose=0)
    first = model.train_on_batch(X, Y)
    assert first == pytest.approx(before)
    now = model.evaluate(X, Y, verbose=0)
    assert model.test_on_batch(X, Y) == pytest.approx(now)
    assert model.test_on_batch(X, Y, return_dict=True) == pytest.approx(
        {"loss": now[0], "mae": now[1]}
    )


def test_train_on_batch_is_a_step_of_fit():
    one = weights_after(lambda m: [m.train_on_batch(X[i : i + 8], Y[i : i + 8]) for i in (0, 8)])
    same(
        one, weights_after(lambda m: m.fit(X[:16], Y[:16], batch_size=8, shuffle=False, verbose=0))
    )


class Custom(keras.Model):
    """A step as Keras's own guide writes it."""

    def __init__(self):
        super().__init__()
        self.dense, self.seen = layers.Dense(1), keras.metrics.Mean(name="seen")

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        self.seen.update_state(y)
        return {"loss": loss, "seen": self.seen.result()}


class Inherited(Custom):
    def train_step(self, data):
        return {**keras.Model.train_step(self, data), "three": 3.0}

    def test_step(self, data):
        return {**super().test_step(data), "four": 4.0}


@pytest.mark.parametrize("kind", [Custom, Inherited])
@pytest.mark.parametrize("shards", ["1", "4"])
def test_a_step_of_ones_own_trains_like_the_built_in_one(kind, shards, monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", shards)

    def trained(make):
        keras.utils.set_random_seed(1)
        model = make()
        model.compile(keras.optimizers.Adam(0.1), "mse")
        history = model.fit(X, Y, batch_size=16, epochs=3, verbose=0).history
        return model, history

    built_in, expected = trained(lambda: keras.Sequential([layers.Dense(1)]))
    model, history = trained(kind)
    for mine, theirs in zip(model.get_weights(), built_in.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-6, atol=1e-6)
    if kind is Inherited:  # that of the other is a plain number
        assert history["loss"] == pytest.approx(expected["loss"], rel=2e-6)
    if kind is Custom:
        assert history["seen"] == pytest.approx([Y.mean()] * 3, abs=1e-5)
        found = model.evaluate(X, Y, verbose=0)  # the built-in step gives ``seen`` nothing
        assert found == pytest.approx([built_in.evaluate(X, Y, verbose=0), 0.0])
    else:
        assert history["three"] == [3.0] * 3
        logs = model.evaluate(X, Y, verbose=0, return_dict=True)
        expected = built_in.evaluate(X, Y, verbose=0)
        assert logs["four"] == 4.0 and logs["loss"] == pytest.approx(expected)


def test_events_of_a_validated_fit_come_in_the_order_of_keras():
    told = []

    class Told(keras.callbacks.Callback):
        pass

    for name in (n for n in dir(keras.callbacks.Callback) if n.startswith("on_")):
        if "on_batch" not in name:
            setattr(Told, name, lambda self, *args, name=name, **kw: told.append(name))
    linear().fit(X, Y, batch_size=40, validation_data=(X, Y), callbacks=[Told()], verbose=0)
    assert told == [
        "on_train_begin",
        "on_epoch_begin",
        "on_train_batch_begin",
        "on_train_batch_end",
        *("on_test_begin", "on_test_batch_begin", "on_test_batch_end", "on_test_end"),
        "on_epoch_end",
        "on_train_end",
    ]


class WrongShare(keras.metrics.Metric):
    """A metric as written for Keras: sums in variables."""

    def __init__(self, name="wrong_share", **kwargs):
        super().__init__(name=name, **kwargs)
        self.wrong = self.add_weight(name="wrong", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.wrong.assign_add(tf.reduce_sum(tf.cast(tf.abs(y_true - y_pred) > 1.0, "float32")))
        self.count.assign_add(float(len(y_true)))

    def result(self):
        return self.wrong / self.count


@pytest.mark.parametrize("shards", ["1", "3"])
def test_a_metric_of_ones_own(shards, monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", shards)
    model = linear(metrics=[WrongShare()])
    logs = model.evaluate(X, Y, batch_size=7, verbose=0, return_dict=True)
    expected = (np.abs(model.predict(X, verbose=0) - Y) > 1).mean()
    assert 0 < logs["wrong_share"] == pytest.approx(expected)
    assert "wrong_share" in model.fit(X, Y, verbose=0).history


def test_names_of_metrics_are_unique_as_in_keras():
    """One that is also weighted, and one given twice; return_dict sorts them."""
    model = linear(metrics=["mae", "mae"], weighted_metrics=["mae", lambda a, b: abs(a - b)])
    history = model.fit(X, Y, verbose=0).history
    assert list(history) == ["lambda", "loss", "mae", "mae_1", "weighted_mae"]
    assert list(model.evaluate(X, Y, verbose=0, return_dict=True)) == list(history)
    assert list(model.train_on_batch(X, Y, return_dict=True)) == list(history)


def test_weights_without_a_gradient_are_named_by_their_paths():
    inputs = keras.Input((X.shape[1],))
    model = keras.Model(
        inputs, [layers.Dense(1, name="a")(inputs), layers.Dense(1, name="b")(inputs)]
    )
    model.compile("sgd", ["mse", None])
    with pytest.warns(UserWarning, match="no gradient for b/kernel, b/bias:"):
        model.fit(X, [Y, Y], verbose=0)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(X)[0])
    gradients = tape.gradient(loss, model.trainable_variables)
    with pytest.warns(UserWarning, match="no gradient for b/kernel, b/bias$"):
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
