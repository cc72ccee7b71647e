"""Steps of one's own, as Keras's guide "Customizing what happens in fit()" writes them."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

from .own_steps import WEIGHT, Guide, X, Y, made

keras, layers = tf.keras, tf.keras.layers


class Short(Guide):
    """The same by ``compute_metrics``."""

    def _tell(self, loss, y, y_pred, weight):
        return {"loss": loss, **self.compute_metrics(None, y, y_pred, weight)} | {"loss": loss}


class Old(Guide):
    """The same by the names of Keras 2."""

    def train_step(self, data):
        x, y, weight = data if len(data) == 3 else (*data, None)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compiled_loss(y, y_pred, weight, regularization_losses=self.losses)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return self._tell(loss, y, y_pred, weight)

    def test_step(self, data):
        x, y = data
        y_pred = self(x, training=False)
        return self._tell(self.compiled_loss(y, y_pred), y, y_pred, None)

    def _tell(self, loss, y, y_pred, weight):
        self.compiled_metrics.update_state(y, y_pred, weight)
        return {m.name: m.result() for m in self.metrics}


@pytest.mark.filterwarnings("ignore:.model.compiled_")
@pytest.mark.parametrize("kind", [Guide, Short, Old])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shards", ["1", "4"])
def test_metrics_are_those_of_all_samples(kind, weighted, shards, monkeypatch):
    """Also where they are no means over samples, and whatever the shards of a batch."""
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", shards)
    histories, tested = [], []
    for each in (keras.Model, kind):
        model = made(each)
        model.compile(
            keras.optimizers.SGD(0.1),
            "mse",
            metrics=["mae", keras.metrics.AUC(name="auc")],
            weighted_metrics=[keras.metrics.Precision(name="precision")],
        )
        weight = WEIGHT if weighted else None
        fitted = model.fit(
            X, Y, batch_size=8, epochs=2, sample_weight=weight, shuffle=False, verbose=0
        )
        histories.append(fitted.history)
        tested.append(model.evaluate(X, Y, batch_size=8, verbose=0, return_dict=True))
    for expected, found in (histories, tested):
        assert expected.keys() == found.keys() == {"loss", "mae", "auc", "precision"}
        for name in found.keys() - ({"loss"} if kind is Short else set()):  # a plain number
            assert found[name] == pytest.approx(expected[name], rel=1e-6), name


@pytest.mark.parametrize("shards", ["1", "3"])
def test_plain_numbers_are_those_of_the_last_batch(shards, monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", shards)
    model, told = made(Short), []
    model.compile(keras.optimizers.SGD(0.0), "mse")
    tell = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: told.append(logs))
    fitted = model.fit(X, Y, batch_size=16, shuffle=False, verbose=0, callbacks=[tell])
    squares = (model.predict(X, verbose=0) - Y) ** 2
    expected = [squares[start : start + 16].mean() for start in (0, 16, 32)]
    np.testing.assert_allclose([logs["loss"] for logs in told], expected, rtol=1e-5)
    np.testing.assert_allclose(fitted.history["loss"], expected[-1:], rtol=1e-5)
    tested = model.evaluate(X, Y, batch_size=16, verbose=0)
    np.testing.assert_allclose(tested, expected[-1], rtol=1e-5)


def test_the_old_names_of_loss_and_metrics():
    """They say which are the new ones, and take losses in place of those of the layers."""
    model = keras.Sequential([layers.Dense(1, kernel_regularizer="l2")])
    model.compile(loss="mse", metrics=["mae"])
    y_pred = model(X)
    with pytest.warns(UserWarning, match="use `model.compute_loss"):
        loss = model.compiled_loss(Y, y_pred, regularization_losses=[])
        whole = model.compiled_loss(Y, y_pred)
    assert float(loss) == pytest.approx(np.mean((Y - y_pred.numpy()) ** 2), rel=1e-5)
    assert float(whole) == pytest.approx(float(loss + model.losses[0]), rel=1e-5)
    assert float(model.metrics[0].result()) == pytest.approx(float(loss + whole) / 2, rel=1e-5)
    with pytest.warns(UserWarning, match="use `model.compute_metrics"):
        model.compiled_metrics.update_state(Y, y_pred)
    assert float(model.get_metrics_result()["mae"]) == pytest.approx(
        np.mean(np.abs(Y - y_pred.numpy())), rel=1e-5
    )
    model.reset_metrics()


@pytest.mark.parametrize("shards", ["1", "3"])
def test_a_loss_given_to_a_mean_counts_once_a_batch(shards, monkeypatch):
    """As in Keras, the short batch at the end as much as the others, however it is cut."""
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", shards)

    class Loss(Guide):
        def test_step(self, data):
            x, y = data
            metric = self.metrics[0]
            metric.update_state(tf.reduce_mean((y - self(x)) ** 2))
            return {"error": metric.result()}

    model = made(Loss)
    model.compile(loss="mse")
    squares = (Y - model.predict(X, verbose=0)) ** 2
    expected = (squares[:32].mean() + squares[32:].mean()) / 2
    found = model.evaluate(X, Y, batch_size=32, verbose=0)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shards", ["1", "4"])
@pytest.mark.parametrize("by", ["compute_metrics", "get_metrics_result"])
def test_a_model_may_show_more_than_its_metrics(by, shards, monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", shards)

    class Shows(keras.Model):
        if by == "compute_metrics":

            def compute_metrics(self, x, y, y_pred, sample_weight=None):
                found = super().compute_metrics(x, y, y_pred, sample_weight)
                return {**found, "more": tf.reduce_mean(x[:, 0])}

        else:

            def get_metrics_result(self):
                return {**super().get_metrics_result(), "more": X[:, 0].mean()}

    model = made(Shows)
    model.compile("sgd", "mse", metrics=["mae"])
    fitted = model.fit(X, Y, batch_size=8, shuffle=False, verbose=0).history
    tested = model.evaluate(X, Y, batch_size=8, verbose=0, return_dict=True)
    assert fitted.keys() == tested.keys() == {"loss", "mae", "more"}
    last = X[32:] if by == "compute_metrics" else X  # a plain number is that of the last batch
    assert fitted["more"][0] == pytest.approx(last[:, 0].mean(), rel=1e-5)
    assert tested["mae"] == pytest.approx(np.abs(model.predict(X, verbose=0) - Y).mean(), rel=1e-5)


def test_a_metric_with_a_result_of_its_own_and_another_name():
    class Positives(keras.metrics.Metric):
        def __init__(self):
            super().__init__(name="positives")
            self.count = self.add_weight(name="count", initializer="zeros")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.count.assign_add(tf.reduce_sum(y_true))

        def result(self):
            return self.count

    class Counting(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.positives = layers.Dense(1), Positives()

        def call(self, x):
            return self.dense(x)

        def test_step(self, data):
            x, y = data
            self.positives.update_state(y, self(x))
            return {"found": self.positives.result()}

    model = Counting()
    model.compile(loss="mse")
    assert model.evaluate(X, Y, batch_size=7, verbose=0) == Y.sum()


def test_a_gan_has_no_call():
    class Gan(keras.Model):
        def __init__(self, judge, maker):
            super().__init__()
            self.judge, self.maker = judge, maker
            self.judged, self.fooled = (keras.metrics.Mean(name=n) for n in ("judged", "fooled"))

        @property
        def metrics(self):
            return [self.judged, self.fooled]

        def compile(self, first, second, loss_fn):
            super().compile()
            self.first, self.second, self.loss_fn = first, second, loss_fn

        def train_step(self, real):
            size = tf.shape(real)[0]
            made = self.maker(tf.random.normal((size, 2)))
            labels = tf.concat([tf.ones((size, 1)), tf.zeros((size, 1))], axis=0)
            with tf.GradientTape() as tape:
                loss = self.loss_fn(labels, self.judge(tf.concat([made, real], axis=0)))
            weights = self.judge.trainable_weights
            self.first.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            with tf.GradientTape() as tape:
                fake = self.judge(self.maker(tf.random.normal((size, 2))))
                fooled = self.loss_fn(tf.zeros((size, 1)), fake)
            weights = self.maker.trainable_weights
            self.second.apply_gradients(zip(tape.gradient(fooled, weights), weights, strict=True))
            self.judged.update_state(loss)
            self.fooled.update_state(fooled)
            return {"judged": self.judged.result(), "fooled": self.fooled.result()}

    judge = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    maker = keras.Sequential([keras.Input((2,)), layers.Dense(4)])
    gan = Gan(judge, maker)
    gan.compile(
        keras.optimizers.Adam(0.1),
        keras.optimizers.Adam(0.1),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )
    before = [*judge.get_weights(), *maker.get_weights()]
    history = gan.fit(X, batch_size=16, epochs=2, verbose=0).history
    assert history.keys() == {"judged", "fooled"}
    after = [*judge.get_weights(), *maker.get_weights()]
    assert all((a != b).any() for a, b in zip(before, after, strict=True))


def test_a_model_without_call_or_step_is_refused():
    class Empty(keras.Model):
        pass

    model = Empty()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="call"):
        model.fit(X, Y, verbose=0)


def test_losses_of_layers_alone_are_enough():
    class Endpoint(layers.Layer):
        def call(self, targets, logits):
            self.add_loss(keras.losses.BinaryCrossentropy(from_logits=True)(targets, logits))
            return tf.nn.sigmoid(logits)

    inputs, targets = keras.Input((4,), name="inputs"), keras.Input((1,), name="targets")
    outputs = Endpoint()(targets, layers.Dense(1)(inputs))
    model = keras.Model([inputs, targets], outputs)
    model.compile(keras.optimizers.SGD(0.5))
    history = model.fit({"inputs": X, "targets": Y}, epochs=20, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]


def test_names_of_metrics():
    model = made(keras.Model)
    model.compile(loss="mse", metrics=["mae"])
    assert [m.name for m in model.metrics] == ["loss", "compile_metrics"]
    assert model.metrics_names == ["loss", "mae"]


def test_a_model_may_make_its_metrics_after_it_is_compiled():
    """As the diffusion models of keras.io do, in a ``compile`` of their own."""

    class Late(tf.keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = tf.keras.layers.Dense(1)

        def compile(self, **settings):
            super().compile(**settings)
            self.tracker = tf.keras.metrics.Mean(name="noise")

        @property
        def metrics(self):
            return [self.tracker]

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            self.tracker.update_state(tf.reduce_mean(self(data[0])) * 0 + 3.0)
            return {m.name: m.result() for m in self.metrics}

    model = Late()
    model.compile(optimizer="sgd", loss="mse")
    history = model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0).history
    assert history == {"noise": [3.0]}


def test_layers_that_build_themselves_in_a_step_begin_alike_for_all_shards(monkeypatch):
    """A model without ``call``, as in many listings; the rehearsal leaves no trace."""

    class Lazy(tf.keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.norm = tf.keras.layers.Dense(3), tf.keras.layers.BatchNormalization()
            self.unused = tf.keras.layers.Dense(4)

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self.norm(self.dense(x), training=True) - y) ** 2)
            variables = self.dense.trainable_variables
            self.optimizer.apply_gradients(
                zip(tape.gradient(loss, variables), variables, strict=True)
            )
            return {"loss": loss}

    def trained(shards):
        monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", str(shards))
        tf.keras.utils.set_random_seed(5)
        model = Lazy()
        model.compile(optimizer=tf.keras.optimizers.SGD(0.0), loss="mse")
        model.fit(np.arange(24.0).reshape(12, 2), np.ones((12, 1)), batch_size=12, verbose=0)
        assert model.optimizer.iterations.numpy() == 1 and not model.unused.built
        return model.dense.kernel.numpy(), model.norm.moving_mean.numpy()

    (one, mean), (three, _) = trained(1), trained(3)
    np.testing.assert_array_equal(one, three)
    expected = 0.01 * (np.arange(24.0).reshape(12, 2) @ one).mean(0)
    np.testing.assert_allclose(mean, expected, rtol=1e-5)


def test_a_loss_of_ones_own_keeps_a_metric():
    class Own(keras.Model):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.tracker = keras.metrics.Mean(name="tracked")

        def compute_loss(self, x, y, y_pred, sample_weight, training=True):
            loss = tf.reduce_mean((y_pred - y) ** 2)
            self.tracker.update_state(loss)
            return loss

    model, known = made(Own), made(keras.Model)
    model.compile(keras.optimizers.SGD(0.1))
    known.compile(keras.optimizers.SGD(0.1), "mse")
    histories = [
        each.fit(X, Y, batch_size=20, epochs=2, shuffle=False, verbose=0).history
        for each in (model, known)
    ]
    np.testing.assert_allclose(histories[0]["tracked"], histories[1]["loss"], rtol=1e-6)
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-6)
    for one, other in zip(model.get_weights(), known.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_a_step_may_return_arrays_of_which_those_of_the_last_batch_are_shown(capsys):
    class Own(keras.Model):
        def train_step(self, data):
            return {**super().train_step(data), "each": self(data[0])[:, 0]}

        def test_step(self, data):
            return {**super().test_step(data), "each": self(data[0])[:, 0]}

    model = made(Own)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    history = model.fit(X, Y, batch_size=16, shuffle=False, validation_data=(X, Y), verbose=2)
    last = model(X).numpy()[:, 0]
    np.testing.assert_allclose(history.history["each"][0], last[32:], rtol=1e-5)
    np.testing.assert_allclose(history.history["val_each"][0], last[32:], rtol=1e-5)
    assert f"- each: {last[32:].mean():.4f} -" in capsys.readouterr().out
    loss, each = model.evaluate(X, Y, batch_size=30, verbose=0)
    assert loss == pytest.approx(np.mean((last - Y[:, 0]) ** 2), rel=1e-5)
    np.testing.assert_allclose(each, last[30:], rtol=1e-5)


class Graph(Guide):
    """The same with ``tf.gradients``, as in TensorFlow's graphs."""

    def train_step(self, data):
        x, y = data
        y_pred = self(x, training=True)
        loss = self.compute_loss(y=y, y_pred=y_pred) + tf.reduce_mean(tf.gradients(y_pred, x)[0])
        self.optimizer.apply(tf.gradients(loss, self.trainable_variables), self.trainable_variables)
        return self._tell(loss, y, y_pred, None)


class Taped(Guide):
    """The same with tapes."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            with tf.GradientTape() as inner:
                inner.watch(x)
                y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
            loss += tf.reduce_mean(inner.gradient(y_pred, x))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return self._tell(loss, y, y_pred, None)


@pytest.mark.parametrize("shards", ["1", "4"])
def test_gradients_without_a_tape(shards, monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", shards)
    weights = []
    for kind in (Graph, Taped):
        model = made(kind)
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_an_eager_step_has_gradients_by_a_function_alone():
    model = made(Graph)
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    with pytest.raises(RuntimeError, match="GradientTape"):
        model.fit(X, Y, batch_size=8, epochs=1, verbose=0)
