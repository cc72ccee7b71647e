"""compile, fit, evaluate, predict; losses, metrics and optimizers against plain formulas."""

import numpy as np
import pytest

import distgrad as tf

layers = tf.keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(100, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)


def model(dropout=0.0, **compile_options):
    tf.keras.utils.set_random_seed(0)
    made = tf.keras.Sequential(
        [layers.Dense(16, "relu"), layers.Dropout(dropout), layers.Dense(3, "softmax")]
    )
    options = {
        "optimizer": "adam",
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
    }
    made.compile(**{**options, **compile_options})
    return made


def test_fit_learns_and_reports():
    m = model(dropout=0.1, optimizer=tf.keras.optimizers.Adam(0.02))
    history = m.fit(X, Y, epochs=30, verbose=0)
    assert set(history.history) == {"loss", "accuracy"} and history.epoch == list(range(30))
    assert all(type(v) is float for v in history.history["loss"])
    loss, accuracy = m.evaluate(X, Y, verbose=0)
    assert accuracy > 0.9 and loss < 0.4
    assert m.evaluate(X, Y, verbose=0, return_dict=True) == {"loss": loss, "accuracy": accuracy}
    prediction = m.predict(X)
    assert prediction.shape == (100, 3) and prediction.dtype == np.float32
    assert (prediction.argmax(axis=1) == Y).mean() == pytest.approx(accuracy)


def test_fit_is_repeatable_and_the_loss_is_the_mean_over_samples():
    first = model(dropout=0.3).fit(X, Y, epochs=2, verbose=0).history
    assert first == model(dropout=0.3).fit(X, Y, epochs=2, verbose=0).history
    m = model(optimizer=tf.keras.optimizers.SGD(0.0))
    fitted = m.fit(X, Y, epochs=1, batch_size=33, verbose=0).history  # 33 + 33 + 33 + 1
    loss, accuracy = m.evaluate(X, Y, batch_size=7, verbose=0)
    assert fitted["loss"][0] == pytest.approx(loss, rel=1e-6)
    assert fitted["accuracy"][0] == pytest.approx(accuracy)


def test_progress_lines(capsys):
    m = model()
    m.fit(X, Y, epochs=2)
    m.evaluate(X, Y)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Epoch 1/2" and lines[2] == "Epoch 2/2"
    for line in (lines[1], lines[3], lines[4]):
        assert line.startswith("4/4 - ") and "accuracy: " in line and "loss: " in line
    m.fit(X, Y, verbose=0)
    assert capsys.readouterr().out == ""


def test_validation_and_callbacks():
    class Stop(tf.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            assert set(logs) == {"loss", "accuracy", "val_loss", "val_accuracy"}
            self.model.stop_training = epoch == 1

    history = model().fit(X, Y, epochs=9, verbose=0, validation_split=0.2, callbacks=[Stop()])
    assert history.epoch == [0, 1]
    history = model().fit(X, Y, epochs=1, verbose=0, validation_data=(X[:9], Y[:9]))
    assert "val_loss" in history.history


def test_sample_and_class_weights_select_what_is_learned():
    wrong = np.where(np.arange(100) < 50, Y, (Y + 1) % 3)
    trusted = (np.arange(100) < 50).astype(np.float32)
    m = model(optimizer=tf.keras.optimizers.Adam(0.02))
    m.fit(X, wrong, sample_weight=trusted, epochs=40, verbose=0)
    assert m.evaluate(X, Y, verbose=0)[1] > 0.85
    only_zero = model(optimizer=tf.keras.optimizers.Adam(0.02))
    only_zero.fit(X, Y, class_weight={0: 1.0, 1: 0.0, 2: 0.0}, epochs=40, verbose=0)
    assert (only_zero.predict(X).argmax(axis=1) == 0).mean() > 0.9


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: tf.keras.Sequential([layers.Dense(1)]).fit(X, Y), "compile"),
        (lambda: model().fit(X, Y[:50]), "length"),
        (lambda: model(loss="crossentropi"), "crossentropi"),
        (lambda: model(metrics=["acuracy"]), "acuracy"),
        (lambda: model(optimizer="adamm"), "adamm"),
        (lambda: tf.keras.optimizers.SGD(momentum=1.5), "momentum"),
        (lambda: model().get_layer("nothing"), "nothing"),
    ],
)
def test_wrong_use_is_a_value_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_labels_out_of_range():
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[0, 3\)"):
        model().fit(X, Y + 2, verbose=0)


def cross_entropy(labels, probabilities):
    return -np.log(probabilities[np.arange(len(labels)), labels])


def test_sparse_categorical_crossentropy():
    loss = tf.keras.losses.SparseCategoricalCrossentropy()
    p = np.array([[0.1, 0.6, 0.3], [0.5, 0.25, 0.25]], np.float32)
    labels = np.array([1, 0])
    assert float(loss(labels, p)) == pytest.approx(cross_entropy(labels, p).mean(), rel=1e-6)
    assert float(loss(labels, p / 2)) == pytest.approx(cross_entropy(labels, p).mean(), rel=1e-6)
    none = tf.keras.losses.SparseCategoricalCrossentropy(reduction=None)
    assert tuple(none(labels, p).shape) == (2,)
    sure = np.array([[1.0, 0.0]], np.float32)
    assert float(loss([1], sure)) == pytest.approx(16.118, abs=1e-3)
    logits = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert float(logits(labels, np.log(p))) == pytest.approx(float(loss(labels, p)), rel=1e-6)
    weighted = float(loss(labels, p, sample_weight=[1.0, 0.0]))
    assert weighted == pytest.approx(cross_entropy(labels, p)[0] / 2, rel=1e-6)


def test_a_saturated_softmax_activation_keeps_an_exact_loss_and_gradient():
    logits = tf.constant([[60.0, 0.0, -60.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        p = tf.keras.activations.softmax(logits)
        value = tf.keras.losses.SparseCategoricalCrossentropy()([2], p)
    assert float(value) == pytest.approx(120.0)
    np.testing.assert_allclose(tape.gradient(value, logits).numpy(), [[1, 0, -1]], atol=1e-6)


def keras_adam(v, gradients, lr=0.001, b1=0.9, b2=0.999, eps=1e-7):
    m = s = 0.0
    for t, g in enumerate(gradients, 1):
        alpha = lr * np.sqrt(1 - b2**t) / (1 - b1**t)
        m += (g - m) * (1 - b1)
        s += (g * g - s) * (1 - b2)
        v = v - alpha * m / (np.sqrt(s) + eps)
    return v


def keras_sgd(v, gradients, lr=0.01, momentum=0.0, nesterov=False):
    m = 0.0
    for g in gradients:
        m = momentum * m - lr * g
        v = v + (momentum * m - lr * g if nesterov else m)
    return v


@pytest.mark.parametrize(
    "make, formula",
    [
        (lambda: tf.keras.optimizers.Adam(), keras_adam),
        (
            lambda: tf.keras.optimizers.Adam(0.1, beta_1=0.8, epsilon=1e-3),
            lambda v, g: keras_adam(v, g, 0.1, 0.8, 0.999, 1e-3),
        ),
        (lambda: tf.keras.optimizers.SGD(), keras_sgd),
        (
            lambda: tf.keras.optimizers.SGD(0.1, momentum=0.9),
            lambda v, g: keras_sgd(v, g, 0.1, 0.9),
        ),
        (
            lambda: tf.keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
            lambda v, g: keras_sgd(v, g, 0.1, 0.9, True),
        ),
    ],
)
def test_optimizer_follows_the_formula_of_keras(make, formula):
    gradients = np.random.default_rng(1).normal(size=(5, 3))
    start = np.array([1.0, -2.0, 0.5])
    v = tf.Variable(start)
    optimizer = make()
    for g in gradients:
        optimizer.apply_gradients([(tf.constant(g), v)])
    np.testing.assert_allclose(v.numpy(), formula(start, gradients), rtol=1e-12)
    assert int(optimizer.iterations) == 5


def test_apply_gradients_errors():
    v, w = tf.Variable([1.0, 2.0]), tf.Variable(1.0)
    optimizer = tf.keras.optimizers.SGD(0.5)
    with pytest.raises(ValueError, match="empty"):
        optimizer.apply_gradients([])
    with pytest.raises(ValueError, match="gradient"):
        optimizer.apply_gradients([(None, v)])
    with pytest.raises(tf.errors.InvalidArgumentError):
        optimizer.apply_gradients([(tf.constant([1.0, 2.0, 3.0]), v)])
    with pytest.warns(UserWarning, match="no gradient"):
        optimizer.apply_gradients([(tf.constant([1.0, 1.0]), v), (None, w)])
    np.testing.assert_array_equal(v.numpy(), [0.5, 1.5])
    with pytest.raises(ValueError, match="nknown variable"):
        optimizer.apply_gradients([(tf.constant(1.0), tf.Variable(1.0))])


def test_an_update_leaves_borrowed_values_alone():
    v = tf.Variable([1.0, 2.0])
    with tf.GradientTape(persistent=True) as tape:
        y = v * v
    held, part = v.value(), v[1]
    g = tape.gradient(y, v)
    tf.keras.optimizers.SGD(0.5).apply_gradients([(g, v)])
    np.testing.assert_array_equal(held.numpy(), [1.0, 2.0])
    assert float(part) == 2.0
    np.testing.assert_array_equal(tape.gradient(y, v).numpy(), [2.0, 4.0])
    np.testing.assert_array_equal(v.numpy(), [0.0, 0.0])


def test_metrics_in_the_place_of_loss_weights_are_said():
    model = tf.keras.Sequential([tf.keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"not 'accuracy'.*say metrics="):
        model.compile("adam", "mse", ["accuracy"])


def test_a_dataset_without_batches_is_said():
    model = tf.keras.Sequential([tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    samples = tf.data.Dataset.from_tensor_slices((np.ones((4, 2), np.float32), np.ones(4)))
    with pytest.raises(ValueError, match=r"single samples lacks \.batch"):
        model.fit(samples, verbose=0)


@pytest.mark.parametrize("jit", ["auto", False])
@pytest.mark.parametrize("turns", ["ftftft", "tetfet", "etftef"])
def test_fit_train_on_batch_and_an_own_loop_take_turns(turns, jit):
    """Each goes on from what the others have made of weights and moments."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 4)).astype(np.float32)
    y = x.sum(1, keepdims=True)

    def losses(order: str) -> list[float]:
        tf.keras.utils.set_random_seed(0)
        model = tf.keras.Sequential(
            [tf.keras.layers.Dense(3, activation="tanh"), tf.keras.layers.Dense(1)]
        )
        model.compile(tf.keras.optimizers.Adam(0.1), "mse", jit_compile=jit)
        found = []
        for turn in order:
            if turn == "t":
                found.append(float(model.train_on_batch(x, y)))
            elif turn == "f":
                found += model.fit(x, y, batch_size=32, shuffle=False, verbose=0).history["loss"]
            else:
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean((model(x) - y) ** 2)
                weights = model.trainable_variables
                pairs = zip(tape.gradient(loss, weights), weights, strict=True)
                model.optimizer.apply_gradients(pairs)
                found.append(float(loss))
        return found

    np.testing.assert_allclose(losses(turns), losses("f" * len(turns)), rtol=1e-5)


def test_two_models_that_share_weights_train_in_turns():
    x = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)

    def trained(apart: bool) -> list[np.ndarray]:
        tf.keras.utils.set_random_seed(0)
        trunk = tf.keras.layers.Dense(3, use_bias=False)
        models = []
        for _ in range(2):
            model = tf.keras.Sequential([trunk, tf.keras.layers.Dense(1)])
            model.compile(tf.keras.optimizers.SGD(0.1), "mse", jit_compile=not apart)
            models.append(model)
        for _ in range(3):
            for model in models:
                if apart:
                    model.fit(x, x[:, :1], batch_size=8, shuffle=False, verbose=0)
                else:
                    model.train_on_batch(x, x[:, :1])
        return [w for model in models for w in model.get_weights()]

    for mine, expected in zip(trained(False), trained(True), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)


def test_compile_forgets_the_step_of_train_on_batch():
    x = np.ones((4, 2), np.float32)
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, kernel_initializer="zeros")])
    optimizer = tf.keras.optimizers.SGD(0.0)
    found = []
    for loss in ("mse", "mae"):
        model.compile(optimizer, loss)
        found.append(float(model.train_on_batch(x, 3 * x[:, :1])))
    assert found == [9.0, 3.0]


def test_a_metric_that_is_also_weighted_is_returned_twice():
    """As in Keras: once for each metric of that name, then the rest by name."""
    x = np.ones((4, 2), np.float32)
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile("sgd", "mae", metrics=["mae", "mse"], weighted_metrics=["mse"])
    weight = np.array([0.0, 1.0, 1.0, 2.0])
    found = model.evaluate(x, np.arange(4.0)[:, None], sample_weight=weight, verbose=0)
    assert found == [2.25, 1.5, 3.5, 3.5, 5.75]
    assert model.metrics_names == ["loss", "mae", "mse", "mse", "weighted_mse"]


@pytest.mark.parametrize("verbose", [0, 1, 2, "auto"])
def test_predict_says_how_many_batches_it_did(capsys, verbose):
    made = tf.keras.Sequential([tf.keras.Input((2,)), layers.Dense(1)])
    made.predict(np.ones((5, 2), np.float32), batch_size=2, verbose=verbose)
    said = capsys.readouterr().out
    assert said.startswith("3/3 - ") and said.count("\n") == 1 if verbose else not said
