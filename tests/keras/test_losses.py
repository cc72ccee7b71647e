"""Losses against the stored numbers of Keras 3, their reductions, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf
from distgrad import keras

losses = tf.keras.losses
STORED = json.loads((Path(__file__).parents[1] / "reference" / "keras_losses.json").read_text())
NAMES = sorted(cls.__name__ for cls in losses._CLASSES)
CASES = [pytest.param(case, id=f"{i}-{case['class']}") for i, case in enumerate(STORED["cases"])]


def array(values) -> np.ndarray:
    found = np.asarray(values)
    return found if found.dtype.kind == "i" else found.astype(np.float32)


def close(found, expected) -> None:
    """Equal to 1e-6; near 0 to 1e-7, where the numbers that were added are of order 1.

    A GPU adds in another order, and its exp rounds otherwise.
    """
    atol = 1e-7 if found.device == "/CPU:0" else 1e-6
    np.testing.assert_allclose(np.asarray(found), expected, rtol=10 * atol, atol=atol)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("how", ["plain", "weighted"])
def test_value_and_gradient_are_those_of_keras(case, how):
    make = getattr(losses, case["class"])
    y_true, y_pred = array(case["y_true"]), array(case["y_pred"])
    weight = array(case["weight"]) if how == "weighted" else None
    if how not in case:  # Keras refuses one weight per sample where the mean is not per sample
        with pytest.raises(tf.errors.InvalidArgumentError):
            make(**case["config"])(y_true, y_pred, weight)
        return
    for reduction, expected in zip(STORED["reductions"], case[how], strict=True):
        loss = make(reduction=reduction, **case["config"])
        close(loss(y_true, y_pred, weight), expected)
    prediction = tf.Variable(y_pred)
    with tf.GradientTape() as tape:
        value = make(**case["config"])(y_true, prediction, weight)
    gradient = tape.gradient(value, prediction)
    assert gradient.dtype == tf.float32
    close(gradient, case[f"{how}_gradient"])


@pytest.mark.parametrize("case", STORED["from_activations"], ids=lambda case: case["class"])
def test_probabilities_of_an_activation_go_back_to_its_logits(case):
    logits = tf.Variable(array(case["logits"]))
    with tf.GradientTape() as tape:
        p = getattr(tf.keras.activations, case["activation"])(logits)
        values = getattr(losses, case["class"])(reduction=None)(array(case["y_true"]), p)
    close(values, case["values"])
    close(tape.gradient(values, logits), case["gradient"])


def test_an_activation_s_logits_are_its_own():
    """Binary cross entropy of a softmax is that of its probabilities."""
    logits, hot = np.array([[1.0, 3.0]], np.float32), np.array([[0.0, 1.0]], np.float32)
    p = tf.keras.activations.softmax(logits)
    assert float(losses.bce(hot, p)[0]) == pytest.approx(float(losses.bce(hot, p.numpy())[0]))
    with pytest.warns(UserWarning, match="softmax"):
        value = losses.categorical_crossentropy(hot, p, from_logits=True)
    assert float(value[0]) == pytest.approx(np.log1p(np.exp(-2)))


def test_functions_give_one_value_per_sample():
    y_true, y_pred = array([[0, 1], [2, 4]]).astype(np.float32), np.ones((2, 2), np.float32)
    for names, expected in (
        (("mse", "MSE", "mean_squared_error"), [0.5, 5.0]),
        (("mae", "MAE", "mean_absolute_error"), [0.5, 2.0]),
    ):
        for name in names:
            np.testing.assert_allclose(getattr(losses, name)(y_true, y_pred), expected)
    assert losses.huber(y_true, y_pred, delta=2.0).shape == (2,)


def test_keras_2_s_names_of_reductions():
    y_true, y_pred = np.ones((4, 2), np.float32), np.zeros((4, 2), np.float32)
    R = losses.Reduction
    shapes = {r: losses.MeanSquaredError(reduction=r)(y_true, y_pred).shape for r in R.all()}
    assert shapes == {R.SUM_OVER_BATCH_SIZE: (), R.SUM: (), R.NONE: (4,)}
    assert R.AUTO == R.SUM_OVER_BATCH_SIZE == losses.MeanSquaredError(reduction="auto").reduction


def test_integer_and_float64_targets_are_cast_to_the_predictions():
    class Difference(losses.Loss):
        def call(self, y_true, y_pred):
            assert y_true.dtype == y_pred.dtype == tf.float32
            return tf.reduce_sum(tf.abs(y_true - y_pred), axis=-1)

    assert float(Difference()(np.array([[1, 2]]), np.zeros((1, 2), np.float32))) == 3
    assert float(Difference(reduction="sum")(np.ones((2, 2)), np.zeros((2, 2), np.float32))) == 4


@pytest.mark.parametrize(
    "shape, scores, same_as",
    [
        ((6, 1), 1, "binary_crossentropy"),
        ((6,), 3, "sparse_categorical_crossentropy"),
        ((6, 1), 3, "sparse_categorical_crossentropy"),
        ((6, 3), 3, "categorical_crossentropy"),
    ],
)
def test_crossentropy_is_the_one_that_fits(shape, scores, same_as):
    x = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    y = np.arange(np.prod(shape)).reshape(shape) % (2 if scores == 1 else 3)
    losses_seen = []
    for loss in ("crossentropy", "CE", same_as):
        keras.utils.set_random_seed(0)
        activation = "sigmoid" if scores == 1 else "softmax"
        model = keras.Sequential([keras.layers.Dense(scores, activation=activation)])
        model.compile("sgd", loss)
        losses_seen.append(model.fit(x, y, batch_size=3, epochs=2, verbose=0).history["loss"])
    np.testing.assert_allclose(losses_seen, [losses_seen[-1]] * 3, rtol=1e-5)


def test_losses_are_in_their_own_dtype():
    y, p = np.zeros((1, 1)), tf.constant([[1 + 1e-9]], tf.float64)
    assert losses.MeanSquaredError(dtype="float32")(y, p).dtype == tf.float32
    assert losses.MeanSquaredError()(y, p).dtype == tf.float64  # none loses digits by default
    assert losses.MeanSquaredError()(y, tf.cast(p, "float16")).dtype == tf.float32
    for dtype in ("float64", tf.float64, keras.DTypePolicy("float64")):
        loss = losses.MeanSquaredError(dtype=dtype)
        assert loss.dtype == "float64" and "dtype" not in loss.get_config()
        value = loss(y, p)
        assert value.dtype == tf.float64 and float(value) == pytest.approx(1 + 2e-9, rel=1e-12)
    assert losses.Huber(dtype="mixed_float16").dtype == "float16"
    assert losses.mean_squared_error(y, p).dtype == tf.float64  # a function keeps what it is given


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_takes_a_dtype(name):
    assert getattr(losses, name)(dtype="float64").dtype == "float64"


def test_a_wider_loss_still_knows_the_logits():
    x = tf.constant([[200.0, -200.0]], tf.float16)
    p = keras.activations.sigmoid(x)
    for cls in (losses.BinaryCrossentropy, losses.BinaryFocalCrossentropy):
        value = cls(dtype="float64")(np.array([[0, 1]]), p)
        assert value.dtype == tf.float64 and float(value) == pytest.approx(200.0)


def test_ignored_labels_may_be_any_number_also_beside_small_integers():
    labels = np.array([0, 1, 255], np.uint8)
    p = np.array([[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]], np.float32)
    loss = losses.SparseCategoricalCrossentropy(ignore_class=255)
    assert float(loss(labels, p)) == pytest.approx(-(np.log(0.5) + np.log(0.75)) / 2)
    nothing = losses.SparseCategoricalCrossentropy(ignore_class=-1)
    assert float(nothing(labels[:2], p[:2])) == pytest.approx(float(loss(labels, p)))


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.mse(np.zeros((2, 3)), np.zeros((2, 4))),
        lambda: losses.mse(np.zeros((2, 1)), np.zeros((2, 4))),  # it would broadcast
        lambda: losses.CategoricalCrossentropy()(np.zeros((2, 3)), np.full((2, 2), 0.5)),
        lambda: losses.BinaryCrossentropy()(np.zeros((3, 2)), np.full((2, 2), 0.5)),
        lambda: losses.SparseCategoricalCrossentropy()([0, 1, 1], np.full((2, 2), 0.5)),
        lambda: losses.SparseCategoricalCrossentropy()([0, 2], np.full((2, 2), 0.5)),
        lambda: losses.SparseCategoricalCrossentropy()([0, -1], np.full((2, 2), 0.5)),
    ],
)
def test_wrong_shapes_and_labels_are_invalid_arguments(call):
    with pytest.raises(tf.errors.InvalidArgumentError):
        call()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: losses.Huber(reduction="average"), "average"),
        (lambda: losses.BinaryCrossentropy(label_smoothing=2.0), "label_smoothing"),
        (lambda: losses.get("hubr"), "huber"),
        (lambda: losses.get(3), "3"),
        (lambda: losses.deserialize({"class_name": "Hubr", "config": {}}), "Hubr"),
        (
            lambda: losses.sparse_categorical_crossentropy([0], np.ones((1, 2, 2)), axis=1),
            "axis",
        ),
    ],
)
def test_wrong_settings_are_value_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("name", NAMES)
def test_get_and_config_round_trip(name):
    loss = losses.get(name)
    assert type(loss).__name__ == name
    config = json.loads(json.dumps(losses.serialize(loss)))
    again = losses.get(config)
    assert type(again) is type(loss) and vars(again) == vars(loss)
    assert again.get_config() == loss.get_config()


def test_a_name_in_small_letters_is_a_function():
    y, p = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    for name in ("mse", "MAE", "mean_squared_error", "log_cosh", "sparse_categorical_crossentropy"):
        assert losses.get(name).__name__.islower() and losses.deserialize(name) is losses.get(name)
    assert losses.get("mse")(y, p).shape == (2,)  # one value a sample
    assert losses.get(losses.mae) is losses.mae


def test_a_vector_of_targets_is_a_column_beside_one():
    """Also for functions that would broadcast the two into a matrix."""
    y, p = np.array([0.0, 1.0, 1.0], np.float32), np.array([[0.25], [0.5], [1.0]], np.float32)
    assert float(losses.Dice()(y, p)) == pytest.approx(1 - 2 * 1.5 / 3.75)
    assert float(losses.Tversky(0.3, 0.7)(y, p)) == pytest.approx(1 - 1.5 / (1.5 + 0.15 + 0.175))
    model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Identity()])
    for function in (lambda a, b: tf.square(a - b), lambda a, b: tf.reduce_mean((a - b) ** 2)):
        for eager in (True, False):
            model.compile("sgd", function, run_eagerly=eager)
            for targets in (y, y[:, None]):
                assert model.evaluate(p, targets, verbose=0) == pytest.approx(0.3125 / 3)


def test_a_single_target_fits_the_predictions_of_one_sample():  # as in EarlyStopping's example
    assert losses.mse(np.ones(1), np.arange(3.0)[None]).numpy().tolist() == [pytest.approx(2 / 3)]
    model = tf.keras.Sequential([tf.keras.layers.Dense(10, kernel_initializer="ones")])
    model.compile(tf.keras.optimizers.SGD(1e-5), "mse", metrics=["mae"])
    x = np.arange(100.0).reshape(5, 20) / 100
    logs = model.fit(x, np.ones(5), epochs=2, batch_size=1, shuffle=False, verbose=0).history
    assert logs["loss"] == pytest.approx([111.20483, 111.1887], rel=1e-5)  # of Keras 3.15
    assert logs["mae"] == pytest.approx([8.89983, 8.89914], rel=1e-5)


@pytest.mark.parametrize("name", ["crossentropy", "ce"])
@pytest.mark.parametrize(
    ("own", "units", "y"),
    [
        ("binary", 1, np.array([[0.0], [1.0], [1.0], [0.0]])),
        ("sparse_categorical", 3, np.array([0, 2, 1, 0])),
        ("sparse_categorical", 3, np.array([[0], [2], [1], [0]])),
        ("categorical", 3, np.eye(3)[[0, 2, 1, 0]]),
    ],
)
def test_crossentropy_fits_the_shapes(name, own, units, y):
    def found(loss):
        tf.keras.utils.set_random_seed(1)
        model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(units, "sigmoid")])
        model.compile("sgd", loss)
        history = model.fit(np.eye(4, 2, dtype=np.float32), y, epochs=2, verbose=0)
        assert model.get_compile_config()["loss"] == loss
        return history.history["loss"]

    assert found(name) == found(f"{own}_crossentropy")


def test_get_takes_what_compile_may_be_given():
    assert losses.get(None) is None
    assert isinstance(losses.as_loss("mse"), losses.MeanSquaredError)
    assert isinstance(losses.as_loss("KLD"), losses.KLDivergence)
    assert isinstance(losses.get("MeanSquaredError"), losses.MeanSquaredError)
    assert isinstance(losses.get(losses.Huber), losses.Huber)
    assert losses.get({"class_name": "Huber", "config": {"delta": 0.5}}).delta == 0.5
    of_a_function = losses.as_loss(losses.mae)
    assert of_a_function.name == "mean_absolute_error"
    assert float(of_a_function(np.zeros((2, 2)), np.ones((2, 2), np.float32))) == 1


def test_a_loss_of_one_s_own_takes_lists_and_dicts_of_tensors():
    """Their leaves keep their shapes; the numbers are Keras's."""

    class Features(losses.Loss):
        def call(self, y_true, y_pred):
            assert isinstance(y_true, list) and isinstance(y_pred, list)
            pairs = zip(y_true, y_pred, strict=True)
            return sum(losses.MeanAbsoluteError()(a, b) for a, b in pairs)

    class Named(losses.Loss):
        def call(self, y_true, y_pred):
            return abs(y_true["a"] - y_pred["a"]) + tf.reduce_sum(y_pred["b"])

    ones, others = [tf.ones((2, 3)), tf.ones((2, 5))], [tf.zeros((2, 3)), 2 * tf.ones((2, 5))]
    assert float(Features()(ones, others)) == 2.0
    truth, prediction = {"a": np.ones(3)}, {"a": tf.zeros(3), "b": tf.ones(4)}
    assert float(Named()(truth, prediction)) == 5.0
    assert float(Named()(truth, prediction, sample_weight=[1, 0, 0])) == pytest.approx(5 / 3)
    with tf.GradientTape() as tape:
        tape.watch(others)
        loss = Features()(ones, others)
    np.testing.assert_allclose(tape.gradient(loss, others)[1], np.full((2, 5), 0.1), rtol=1e-6)
