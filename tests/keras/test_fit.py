"""fit, evaluate and predict on every kind of data, with every kind of loss, metric and step."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
layers = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype(np.float32)
Y = (X @ np.array([[1.0], [-1.0], [0.5], [0.0]])).astype(np.float32)


def linear(**options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([layers.Dense(1)])
    model.compile(**{"optimizer": keras.optimizers.SGD(0.1), "loss": "mse", **options})
    return model


def weights_after(fit, **options) -> list[np.ndarray]:
    model = linear(**options)
    fit(model)
    return model.get_weights()


def same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def generator():
    while True:
        for start in range(0, 40, 8):
            yield X[start : start + 8], Y[start : start + 8]


class Batches(keras.utils.Sequence if hasattr(keras.utils, "Sequence") else object):
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
    tokens = RNG.integers(1, 9, (24, 6)) * (np.arange(6) < RNG.integers(1, 7, (24, 1)))
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


def test_loss_scale_optimizer_by_itself():
    v = tf.Variable([1.0, 2.0])
    scaling = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.5), initial_scale=8.0, dynamic_growth_steps=2
    )
    with tf.GradientTape() as tape:
        loss = scaling.scale_loss(tf.reduce_sum(v * v))
    scaling.apply_gradients([(tape.gradient(loss, v), v)])
    np.testing.assert_array_equal(v.numpy(), [0, 0])
    scaling.apply_gradients([(tf.constant([np.inf, 1.0], "float32"), v)])
    np.testing.assert_array_equal(v.numpy(), [0, 0])
    assert scaling.loss_scale == 4 and int(scaling.iterations) == 1
    for _ in range(2):
        scaling.apply_gradients([(tf.constant([4.0, 0.0]), v)])
    assert scaling.loss_scale == 8 and v.numpy().tolist() == [-1.0, 0.0]
    again = keras.optimizers.get(keras.optimizers.serialize(scaling))
    assert again.get_config() == scaling.get_config()


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


WEIGHTED = tf.data.Dataset.from_tensor_slices((X, Y, np.ones(len(X)))).batch(4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.fit(generator(), Y), "generator"),
        (lambda m: m.fit(X, Y, batch_size=0), "batch_size"),
        (lambda m: m.fit([X, X], Y[:3]), "length"),
        (lambda m: m.fit(X, Y, sample_weight=np.ones(3)), "sample_weight"),
        (lambda m: m.fit(X, Y, validation_split=1.0), "validation_split"),
        (lambda m: m.fit(None), "no data"),
        (lambda m: m.fit(X[:0], Y[:0]), "no samples"),
        (lambda m: m.fit(X, Y, class_weight={0: 1.0}, sample_weight=np.ones(40)), "together"),
        (lambda m: m.fit(WEIGHTED, class_weight={0: 1.0}), "together"),
        (lambda m: m.fit(X, [Y, Y], class_weight={0: 1.0}), "y has 2"),
        (lambda m: m.train_on_batch(X, class_weight={0: 1.0}), "y has none"),
        (lambda m: m.fit(iter([])), "no batch"),
    ],
)
def test_wrong_data_is_a_value_error(call, words):
    with pytest.raises(ValueError, match=words):
        call(linear())


HELD = {"validation_data": (X, Y)}


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"epochs": "3"}, TypeError, "epochs is '3': give a whole number"),
        ({"epochs": 1.5}, TypeError, "epochs is 1.5"),
        ({"epochs": -1}, ValueError, "epochs is -1: give 0 or more"),
        ({"initial_epoch": "1"}, TypeError, "initial_epoch is '1'"),
        ({"batch_size": "4"}, TypeError, "batch_size is '4'.*None for 32"),
        ({"batch_size": -2}, ValueError, "batch_size is -2: give 1 or more"),
        ({"steps_per_epoch": "a"}, TypeError, "steps_per_epoch is 'a'"),
        ({"steps_per_epoch": -1}, ValueError, "steps_per_epoch is -1"),
        ({"validation_split": "a"}, TypeError, "validation_split is 'a'"),
        ({"validation_split": 1.5}, ValueError, "validation_split is 1.5: give a fraction"),
        ({"validation_freq": "a", **HELD}, ValueError, "validation_freq is 'a'"),
        ({"validation_freq": [1, "a"], **HELD}, TypeError, r"validation_freq\[1\] is 'a'"),
        ({"validation_steps": 2.5, **HELD}, TypeError, "validation_steps is 2.5"),
        ({"validation_batch_size": 0, **HELD}, ValueError, "validation_batch_size is 0"),
        ({"validation_data": 3}, ValueError, "no first axis"),
        ({"callbacks": [3]}, TypeError, "callbacks holds 3: give objects of keras.callbacks"),
        ({"callbacks": [keras.callbacks.History]}, TypeError, "callbacks holds <class"),
        ({"class_weight": [1, 2]}, TypeError, "class_weight is .1, 2.: give a dict"),
        ({"class_weight": {0: "a"}}, ValueError, "class_weight is .*: give numbers"),
    ],
    ids=str,
)
def test_arguments_of_fit_are_checked_before_anything_runs(given, kind, words):
    model = linear()
    with pytest.raises(kind, match=words):
        model.fit(X, Y, verbose=0, **given)
    assert not model.built


def test_arguments_of_evaluate_and_predict():
    model = linear()
    for call in (lambda **given: model.evaluate(X, Y, **given), lambda **g: model.predict(X, **g)):
        with pytest.raises(TypeError, match="batch_size is 'a'"):
            call(batch_size="a")
        with pytest.raises(ValueError, match="steps is -1"):
            call(steps=-1)
        with pytest.raises(TypeError, match="callbacks holds 3"):
            call(callbacks=3)
    for x in ("abc", 3.0, b"abc"):
        with pytest.raises(ValueError, match="give arrays, or a dataset of batches"):
            model.predict(x)


def test_whole_numbers_of_numpy_are_whole_numbers():
    history = linear().fit(X, Y, batch_size=np.int64(8), epochs=np.int32(2), verbose=0)
    assert history.epoch == [0, 1]


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


def test_without_a_batch_size_so_many_steps_take_all_samples():
    same(
        weights_after(lambda m: m.fit(X, Y, steps_per_epoch=3, shuffle=False, verbose=0)),
        weights_after(lambda m: m.fit(X, Y, batch_size=14, shuffle=False, verbose=0)),
    )
    model = linear()
    whole = model.evaluate(X, Y, batch_size=40, verbose=0)
    np.testing.assert_allclose(model.evaluate(X, Y, steps=1, verbose=0), whole, rtol=1e-6)
    assert model.predict(X, steps=1, verbose=0).shape == (40, 1)
    assert model.predict(X, batch_size=7, steps=1, verbose=0).shape == (7, 1)


def test_a_batch_size_beside_a_dataset_is_not_used_and_said():
    """Keras takes it without a word."""
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    with pytest.warns(UserWarning, match=r"batch_size is 4, and not used: .*\.batch\(4\)"):
        linear().fit(data, batch_size=4, verbose=0)
    single = tf.data.Dataset.from_tensor_slices((X, Y))
    with pytest.raises(ValueError, match=r"lacks \.batch"):
        linear().fit(single, verbose=0)


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


def test_an_endless_dataset_with_its_steps_given():
    def trained(data, **options):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([layers.Dense(1)])
        model.compile("sgd", "mse")
        return model.fit(data, epochs=2, verbose=0, **options).history["loss"]

    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(20)
    steps = len(data)
    assert trained(data.repeat(), steps_per_epoch=steps) == trained(data)


def test_names_of_metrics_are_unique_as_in_keras():
    """One that is also weighted, and one given twice; return_dict sorts them."""
    model = linear(metrics=["mae", "mae"], weighted_metrics=["mae", lambda a, b: abs(a - b)])
    history = model.fit(X, Y, verbose=0).history
    assert list(history) == ["lambda", "loss", "mae", "mae_1", "weighted_mae"]
    assert list(model.evaluate(X, Y, verbose=0, return_dict=True)) == list(history)
    assert list(model.train_on_batch(X, Y, return_dict=True)) == list(history)


def test_one_array_is_no_target_of_two_outputs():
    given = keras.Input((3,))
    model = keras.Model(given, [layers.Dense(2, name="a")(given), layers.Dense(2, name="b")(given)])
    x, y = np.ones((4, 3)), np.ones((4, 2))
    model.compile("sgd", "mse")
    for call in (model.fit, model.evaluate, model.train_on_batch):
        with pytest.raises(ValueError, match=r"y is one array, and 2 outputs.*\['a', 'b'\]"):
            call(x, y)
    model.fit(x, [y, y], verbose=0)
    model.compile("sgd", ["mse", None])
    model.fit(x, y, verbose=0)


def test_the_one_loss_of_several_outputs_is_not_shown_twice():
    given = keras.Input((4,))
    outputs = [layers.Dense(1, name="a")(given), layers.Dense(1, name="b")(given)]
    model = keras.Model(given, outputs)
    model.compile("sgd", loss=["mse", None])
    assert list(model.fit(X, [Y, Y], verbose=0).history) == ["loss"]
    assert isinstance(model.evaluate(X, [Y, Y], verbose=0), float)


@pytest.mark.parametrize("wrap", [lambda x: [x], lambda x: (x,), lambda x: {"x": x}])
@pytest.mark.parametrize("stated", [True, False])
def test_a_sequential_model_takes_its_input_in_a_list(wrap, stated):
    first = [layers.Input((4,))] if stated else []
    model = keras.Sequential([*first, layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(wrap(X), Y, verbose=0)
    np.testing.assert_array_equal(model.predict(wrap(X), verbose=0), model.predict(X, verbose=0))


def test_fewer_steps_than_batches_go_on_in_the_next_epoch():
    """Keras: of five batches two, two and one; then from the start again."""
    seen = []

    class Seen(keras.Model):
        def train_step(self, data):
            seen.append(float(data[0][0, 0]))
            return {"loss": 0.0}

    model = Seen()
    model.compile("sgd", run_eagerly=True)
    x = np.arange(9, dtype=np.float32)[:, None]
    model.fit(x, x, batch_size=2, epochs=4, steps_per_epoch=2, shuffle=False, verbose=0)
    assert seen == [0, 2, 4, 6, 8, 0, 2]


def test_one_callback_needs_no_list():
    seen = []

    class Note(tf.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(epoch)

    model = tf.keras.Sequential([tf.keras.layers.Dense(1)])
    model.compile(loss="mse", optimizer="sgd")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=2, verbose=0, callbacks=Note())
    assert seen == [0, 1]


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


@pytest.mark.parametrize("kind", ["arrays", "dataset", "generator"])
def test_the_data_begin_with_the_initial_epoch(kind):
    """Steps of an epoch go on where those of the one before ended, not where none was before."""
    x = np.arange(10.0).reshape(10, 1)
    seen = []

    class Seen(tf.keras.Model):
        def train_step(self, data):
            seen.append(float(data[0][0, 0]))
            return {"loss": 0.0}

    model = Seen()
    model.compile("sgd", jit_compile=False)
    batches = tf.data.Dataset.from_tensor_slices((x, x)).batch(2)
    data = {"arrays": (x, x), "dataset": (batches,), "generator": (iter(list(batches)),)}[kind]
    settings = {"initial_epoch": 2, "epochs": 4, "steps_per_epoch": 2, "shuffle": False}
    history = model.fit(*data, batch_size=2 if kind == "arrays" else None, verbose=0, **settings)
    assert history.epoch == [2, 3] and seen[-4:] == [0, 2, 4, 6]
