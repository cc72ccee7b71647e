"""Section 8, losses, optimizers, fit, evaluate and predict: one test for each row."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
layers, losses, optimizers = keras.layers, keras.losses, keras.optimizers
RNG = np.random.default_rng(8)
X = RNG.normal(size=(20, 3)).astype(np.float32)
Y = (X.sum(axis=1) > 0).astype(np.int64)


def classifier(**options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Dense(8, activation="relu"), layers.Dense(2, "softmax")])
    model.compile(**{"optimizer": "adam", "loss": "sparse_categorical_crossentropy", **options})
    return model


# Losses


def test_default_reduction_is_the_weighted_sum_over_the_number_of_elements():
    y, p, w = np.zeros((2, 2), "f"), np.array([[1.0, 2.0], [3.0, 5.0]], "f"), np.array([1.0, 3.0])
    per_sample = np.array([2.5, 17.0])
    assert float(losses.MeanSquaredError()(y, p)) == pytest.approx(per_sample.mean())
    weighted = float(losses.MeanSquaredError()(y, p, sample_weight=w))
    assert weighted == pytest.approx((per_sample * w).sum() / 2)
    assert float(losses.MeanSquaredError(reduction="sum")(y, p)) == pytest.approx(19.5)
    np.testing.assert_allclose(losses.MeanSquaredError(reduction=None)(y, p).numpy(), per_sample)
    np.testing.assert_allclose(losses.mse(y, p).numpy(), per_sample)
    assert losses.MSE is losses.mse


def test_probabilities_are_clipped_and_rows_renormalised():
    sure = np.array([[1.0, 0.0]], "f")
    assert float(losses.SparseCategoricalCrossentropy()([1], sure)) == pytest.approx(
        16.118, abs=1e-3
    )
    row = np.array([[0.2, 0.6]], "f")
    for loss, y in (
        (losses.SparseCategoricalCrossentropy(), np.array([1])),
        (losses.CategoricalCrossentropy(), np.array([[0.0, 1.0]], "f")),
    ):
        assert float(loss(y, row)) == pytest.approx(-np.log(0.75), rel=1e-6)
    two = float(losses.BinaryCrossentropy()(np.array([[1.0, 0.0]], "f"), row))
    assert two == pytest.approx(np.mean([-np.log(0.2), -np.log(0.4)]), rel=1e-5)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_outputs_of_an_activation_are_taken_back_to_their_logits(activation):
    logits = tf.constant([[40.0, -40.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        p = getattr(keras.activations, activation)(logits)
        if activation == "softmax":
            loss = losses.SparseCategoricalCrossentropy()([1], p)
        else:
            loss = losses.BinaryCrossentropy()(np.array([[0.0, 1.0]], "f"), p)
    expected = ([[1.0, -1.0]], 80.0) if activation == "softmax" else ([[0.5, -0.5]], 40.0)
    assert float(loss) == pytest.approx(expected[1])
    np.testing.assert_allclose(tape.gradient(loss, logits).numpy(), expected[0], atol=1e-6)


def test_labels_out_of_range_and_mismatched_shapes_are_invalid_arguments():
    with pytest.raises(tf.errors.InvalidArgumentError):
        losses.SparseCategoricalCrossentropy()([2], np.array([[0.5, 0.5]], "f"))
    with pytest.raises(tf.errors.InvalidArgumentError):
        losses.MeanSquaredError()(np.zeros((2, 3), "f"), np.zeros((2, 2), "f"))


# Optimizers


def updated(optimizer, gradients, start=1.0):
    v = tf.Variable(np.float64(start))
    for g in gradients:
        optimizer.apply_gradients([(tf.constant(np.float64(g)), v)])
    return float(v)


def test_sgd_momentum_and_nesterov():
    assert float(optimizers.SGD().learning_rate) == pytest.approx(0.01)
    assert updated(optimizers.SGD(), [2.0]) == pytest.approx(1 - 0.02)
    m1 = -0.1 * 2
    m2 = 0.9 * m1 - 0.1 * 3
    assert updated(optimizers.SGD(0.1, momentum=0.9), [2, 3]) == pytest.approx(1 + m1 + m2)
    nesterov = 1 + (0.9 * m1 - 0.2) + (0.9 * m2 - 0.3)
    found = updated(optimizers.SGD(0.1, momentum=0.9, nesterov=True), [2, 3])
    assert found == pytest.approx(nesterov)
    for momentum in (-0.1, 1.1):
        with pytest.raises(ValueError, match="momentum"):
            optimizers.SGD(momentum=momentum)


def test_adam_adds_epsilon_to_the_uncorrected_root():
    m = s = top = 0.0
    v = w = 1.0
    for t, g in enumerate([1.0, -0.001, 0.01], 1):
        a = 0.001 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        m += (g - m) * (1 - 0.9)
        s += (g * g - s) * (1 - 0.999)
        top = max(top, s)
        v -= a * m / (np.sqrt(s) + 1e-7)
        w -= a * m / (np.sqrt(top) + 1e-7)
    assert updated(optimizers.Adam(), [1.0, -0.001, 0.01]) == pytest.approx(v, rel=1e-12)
    assert updated(optimizers.Adam(amsgrad=True), [1.0, -0.001, 0.01]) == pytest.approx(
        w, rel=1e-12
    )


def test_weight_decay_comes_before_the_update():
    plain = updated(optimizers.Adam(0.1), [1.0], start=2.0)
    assert updated(optimizers.AdamW(0.1), [1.0], start=2.0) == pytest.approx(
        plain - 2 * 0.1 * 0.004
    )
    assert updated(optimizers.SGD(0.1, weight_decay=0.5), [1.0], start=2.0) == pytest.approx(
        2 - 2 * 0.1 * 0.5 - 0.1
    )


def test_rmsprop_and_adagrad_defaults():
    assert optimizers.RMSprop().rho == 0.9
    found = updated(optimizers.RMSprop(0.1), [2.0])
    assert found == pytest.approx(1 - 0.1 * 2 / np.sqrt(0.1 * 4 + 1e-7), rel=1e-6)
    found = updated(optimizers.Adagrad(0.1), [2.0])
    assert found == pytest.approx(1 - 0.1 * 2 / np.sqrt(0.1 + 4 + 1e-7), rel=1e-6)


def test_at_most_one_way_of_clipping():
    assert updated(optimizers.SGD(1.0, clipvalue=0.5), [3.0]) == 0.5
    assert updated(optimizers.SGD(1.0, clipnorm=0.25), [3.0]) == 0.75
    a, b = tf.Variable(np.float64(0)), tf.Variable(np.float64(0))
    optimizers.SGD(1.0, global_clipnorm=1.0).apply_gradients(
        [(tf.constant(np.float64(3)), a), (tf.constant(np.float64(4)), b)]
    )
    assert (float(a), float(b)) == pytest.approx((-0.6, -0.8))
    with pytest.raises(ValueError, match="clip"):
        optimizers.SGD(clipnorm=1.0, clipvalue=1.0)


def test_apply_gradients_and_its_errors():
    v, other = tf.Variable(1.0), tf.Variable(1.0)
    optimizer = optimizers.SGD(0.5)
    with pytest.warns(UserWarning, match="no gradient"):
        optimizer.apply_gradients(zip([tf.constant(1.0), None], [v, other], strict=True))
    assert (float(v), float(other), int(optimizer.iterations)) == (0.5, 1.0, 1)
    for pairs, words in (
        ([(None, v)], "gradient"),
        ([], "empty"),
        ([(tf.constant(1.0), tf.Variable(2.0))], "Unknown variable"),
    ):
        with pytest.raises(ValueError, match=words):
            optimizer.apply_gradients(pairs)
    with pytest.raises(tf.errors.InvalidArgumentError):
        optimizer.apply_gradients([(tf.constant([1.0, 2.0]), v)])
    with pytest.raises(ValueError, match="learning_rat"):
        optimizers.SGD(learning_rat=0.1)


def test_learning_rate_can_be_read_set_and_scheduled():
    optimizer = optimizers.SGD(0.5)
    assert float(optimizer.learning_rate) == 0.5
    optimizer.learning_rate = 0.25
    optimizer.learning_rate.assign(0.125)
    assert float(optimizer.learning_rate) == 0.125

    class Halving(optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 1.0 / 2.0 ** tf.cast(step, "float32")

    assert updated(optimizers.SGD(Halving()), [1.0, 1.0, 1.0]) == pytest.approx(1 - 1.75)


def test_indexed_slices_and_dense_moments():
    table = tf.Variable(np.zeros((3, 2), "f"))
    optimizer = optimizers.Adam(0.1)

    def step(rows):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(table, rows))
        gradient = tape.gradient(loss, table)
        assert isinstance(gradient, tf.IndexedSlices)
        optimizer.apply_gradients([(gradient, table)])
        return table.numpy()

    first, second = step([0]), step([1])
    assert (second[0] < first[0]).all()  # touched once, it goes on moving
    assert (second[2] == 0).all()


# fit, evaluate, predict


def test_history_and_the_loss_of_an_epoch():
    model = classifier(optimizer=optimizers.SGD(0.0), metrics=["accuracy"])
    history = model.fit(X, Y, batch_size=7, epochs=2, validation_data=(X[:5], Y[:5]), verbose=0)
    assert sorted(history.history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert history.epoch == [0, 1]
    assert all(type(v) is float for values in history.history.values() for v in values)
    loss, accuracy = model.evaluate(X, Y, verbose=0)
    assert history.history["loss"] == pytest.approx([loss] * 2, rel=1e-6)  # 7 + 7 + 6 samples
    assert history.history["accuracy"] == pytest.approx([accuracy] * 2)


@pytest.mark.parametrize(
    ("loss", "y", "units", "name"),
    [
        ("sparse_categorical_crossentropy", Y, 2, "SparseCategoricalAccuracy"),
        ("categorical_crossentropy", np.eye(2)[Y], 2, "CategoricalAccuracy"),
        ("binary_crossentropy", Y[:, None], 1, "BinaryAccuracy"),
    ],
)
def test_accuracy_is_chosen_by_the_loss(loss, y, units, name):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Dense(units, "softmax" if units == 2 else "sigmoid")])
    model.compile("sgd", loss, metrics=["accuracy"])
    found = model.evaluate(X, y, verbose=0, return_dict=True)["accuracy"]
    metric = getattr(keras.metrics, name)()
    metric.update_state(y, model.predict(X, verbose=0))
    assert found == pytest.approx(float(metric.result()))


def test_evaluate_and_predict_return_what_keras_returns():
    model = classifier(metrics=["accuracy"])
    found = model.evaluate(X, Y, verbose=0)
    assert isinstance(found, list) and len(found) == 2
    assert model.evaluate(X, Y, verbose=0, return_dict=True) == dict(
        zip(("loss", "accuracy"), found, strict=True)
    )
    assert isinstance(classifier().evaluate(X, Y, verbose=0), float)
    prediction = model.predict(X, verbose=0)
    assert type(prediction) is np.ndarray and prediction.dtype == np.float32


def test_what_is_printed(capsys):
    model = classifier(metrics=["accuracy"])
    model.fit(X, Y, epochs=2, verbose=0)
    assert capsys.readouterr().out == ""
    model.fit(X, Y, epochs=2)
    text = capsys.readouterr().out
    assert "Epoch 1/2" in text and "1/1" in text and "accuracy" in text and "loss" in text


def test_use_before_compile_and_wrong_lengths():
    bare = keras.Sequential([layers.Dense(1)])
    for call in (lambda: bare.fit(X, Y), lambda: bare.evaluate(X, Y)):
        with pytest.raises(ValueError, match="compile"):
            call()
    no_loss = keras.Sequential([layers.Dense(1)])
    no_loss.compile("sgd")
    with pytest.raises(ValueError, match="loss"):
        no_loss.fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match="length"):
        classifier().fit(X, Y[:3], verbose=0)
    model = classifier()
    model.fit(X, Y, verbose=0)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        model.fit(X[:, :2], Y, verbose=0)


def test_callbacks_and_stopping():
    told = []

    class Told(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            told.append("begin")

        def on_epoch_begin(self, epoch, logs=None):
            told.append(epoch)

        def on_train_batch_end(self, batch, logs=None):
            assert "loss" in logs

        def on_epoch_end(self, epoch, logs=None):
            assert list(logs) == sorted(logs)
            self.model.stop_training = epoch == 1

        def on_train_end(self, logs=None):
            told.append("end")

    classifier().fit(X, Y, epochs=9, callbacks=[Told()], verbose=0)
    assert told == ["begin", 0, 1, "end"]
    model = classifier(optimizer=optimizers.SGD(0.0))
    stopping = keras.callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True)
    history = model.fit(X, Y, epochs=9, shuffle=False, callbacks=[stopping], verbose=0)
    assert stopping.stopped_epoch == 1 and len(history.epoch) == 2


def test_mnist_reads_the_file_that_keras_keeps(tmp_path, monkeypatch):
    folder = tmp_path / ".keras" / "datasets"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    arrays = {
        "x_train": RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8),
        "y_train": np.arange(6, dtype=np.uint8),
        "x_test": RNG.integers(0, 256, (2, 28, 28), dtype=np.uint8),
        "y_test": np.arange(2, dtype=np.uint8),
    }
    np.savez(folder / "mnist.npz", **arrays)
    with pytest.warns(UserWarning):  # its hash is not that of the real file
        (x, y), (x_test, y_test) = keras.datasets.mnist.load_data()
    for found, name in ((x, "x_train"), (y, "y_train"), (x_test, "x_test"), (y_test, "y_test")):
        np.testing.assert_array_equal(found, arrays[name])
        assert found.dtype == np.uint8
