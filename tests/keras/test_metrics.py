"""Metrics against the stored numbers of Keras 3; they are additive, and never recorded."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf

metrics = tf.keras.metrics
STORED = json.loads((Path(__file__).parents[1] / "reference" / "keras_metrics.json").read_text())
BATCHED = [
    pytest.param(case, id=f"{i}-{case['class']}")
    for i, case in enumerate(STORED)
    if "batches" in case
]


def array(values) -> np.ndarray:
    found = np.asarray(values)
    return found if found.dtype.kind == "i" else found.astype(np.float32)


def make(case) -> tf.keras.metrics.Metric:
    return getattr(metrics, case["class"])(**case["config"])


def close(found, expected) -> None:
    """Equal to 1e-6: Keras adds up in float32, we do in float64."""
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-6, atol=2e-7)


@pytest.mark.parametrize("case", BATCHED)
def test_result_is_that_of_keras(case):
    plain, weighted = make(case), make(case)
    for y_true, y_pred, weight in case["batches"]:
        plain.update_state(array(y_true), array(y_pred))
        weighted.update_state(array(y_true), array(y_pred), array(weight))
    assert plain.result().dtype == tf.float32
    close(plain.result(), case["plain"])
    close(weighted.result(), case["weighted"])


@pytest.mark.parametrize("case", BATCHED)
def test_sums_are_a_float64_vector_of_the_size_and_add_up(case):
    metric, total = make(case), 0.0
    for y_true, y_pred, weight in case["batches"]:
        sums = metric.sums(array(y_true), array(y_pred), array(weight))
        assert sums.shape == (metric.size,) and sums.dtype == np.float64
        total = total + sums
    close(metric.value(total), case["weighted"])
    json.dumps(metric.value(total))  # plain numbers, as logs hold them


@pytest.mark.parametrize(
    "case", [case for case in STORED if "updates" in case], ids=lambda case: case["class"]
)
def test_mean_and_sum_of_values(case):
    metric = getattr(metrics, case["class"])()
    for (values, weight), expected in zip(case["updates"], case["results"], strict=True):
        close(metric(array(values), None if weight is None else array(weight)), expected)
    metric.reset_state()
    assert float(metric.result()) == 0


def test_reset_states_does_what_reset_state_does():
    class Own(metrics.Mean):
        def reset_state(self):
            super().reset_state()
            self.was_reset = True

    metric = Own()
    metric.update_state([3.0])
    metric.reset_states()
    assert metric.was_reset and float(metric.result()) == 0


def test_a_result_is_a_tensor_that_prints_and_compares_like_a_number():
    metric = metrics.Mean(name="loss", dtype="float64")
    metric.update_state([1.0, 2.0])
    assert f"{metric.result():.2f}" == "1.50" and metric.result() == 1.5
    assert metric.result().numpy().dtype == np.float64 and metric.name == "loss"


def test_updates_are_not_recorded():
    x = tf.Variable([[1.0, 2.0]])
    metric = metrics.MeanSquaredError()
    with tf.GradientTape() as tape:
        y = x * 2.0
        metric.update_state(np.zeros((1, 2)), y)
        target = metric.result() * 1.0
    assert tape.gradient(target, x) is None
    assert float(metric.result()) == 10


def test_cross_entropies_go_back_to_the_logits_of_an_activation():
    p = tf.keras.activations.softmax(np.array([[90.0, 0.0, -90.0]], np.float32))
    metric = metrics.SparseCategoricalCrossentropy()
    assert float(metric([2], p)) == pytest.approx(180)


@pytest.mark.parametrize(
    "y_true, y_pred, expected",
    [
        ([1, 0, 1], [[0.7], [0.6], [0.2]], 1 / 3),  # one column: binary
        ([1, 0], [[0.2, 0.8], [0.3, 0.7]], 0.5),  # class numbers
        ([[1], [0]], [[0.2, 0.8], [0.3, 0.7]], 0.5),
        ([[0, 1], [1, 0]], [[0.2, 0.8], [0.3, 0.7]], 0.5),  # rows
    ],
)
@pytest.mark.parametrize("name", ["accuracy", "acc"])
def test_accuracy_fits_the_shapes(name, y_true, y_pred, expected):
    metric = metrics.compiled(name)
    assert metric.name == name and metric.direction == "up"
    assert float(metric(y_true, np.array(y_pred, np.float32))) == pytest.approx(expected)


def test_outside_of_a_model_accuracy_is_the_share_of_equal_values():
    metric = metrics.get("accuracy")
    assert type(metric) is metrics.Accuracy and metric.name.startswith("accuracy")
    assert float(metric([[1.0], [2.0]], [[1.0], [2.5]])) == 0.5


class SquaredError:
    def __call__(self, y_true, y_pred):
        return tf.square(y_true - y_pred)


def test_a_loss_or_a_function_as_a_metric():
    y_true, y_pred = np.zeros((2, 2), np.float32), np.array([[1, 1], [3, 3]], np.float32)
    for identifier, name in (
        (tf.keras.losses.mse, "mean_squared_error"),
        (tf.keras.losses.MeanSquaredError(), "mean_squared_error"),
        ("mse", "mean_squared_error"),
        (lambda y_true, y_pred: tf.square(y_true - y_pred), "lambda"),
        (functools.partial(tf.keras.losses.mse), "partial"),
        (SquaredError(), "squared_error"),
    ):
        metric = metrics.get(identifier)
        assert metric.name == name and float(metric(y_true, y_pred)) == 5
    wrapped = metrics.MeanMetricWrapper(tf.keras.losses.huber, name="h", delta=0.5)
    assert float(wrapped(y_true, y_pred)) == pytest.approx((0.375 + 1.375) / 2)


def test_a_metric_has_its_own_name_but_in_a_model():
    first = metrics.get("auc").name
    assert first.startswith("auc") and metrics.get("auc").name != first
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", "mse", metrics=["auc", "mse"])
    history = model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0).history
    assert list(history) == ["auc", "loss", "mse"]


def test_a_function_gets_targets_in_the_floats_of_the_predictions():
    """As fit hands arrays of float64 on in Keras."""
    model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[lambda y_true, y_pred: (y_true - y_pred) ** 2])
    found = model.evaluate(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.parametrize("name", sorted(cls.__name__ for cls in metrics._CLASSES))
def test_config_round_trip(name):
    needed = {
        "F1Score": {"num_classes": 3},
        "FBetaScore": {"average": "macro", "num_classes": 3, "beta": 2.0},
        "IoU": {"num_classes": 3, "target_class_ids": [1]},
        "MeanIoU": {"num_classes": 3},
        "OneHotIoU": {"num_classes": 3, "target_class_ids": [1]},
        "OneHotMeanIoU": {"num_classes": 3},
        "PrecisionAtRecall": {"recall": 0.5},
        "RecallAtPrecision": {"precision": 0.5},
        "SensitivityAtSpecificity": {"specificity": 0.5},
        "SpecificityAtSensitivity": {"sensitivity": 0.5},
    }.get(name, {})
    metric = getattr(metrics, name)(**needed)
    config = json.loads(json.dumps(metrics.serialize(metric)))
    again = metrics.get(config)
    assert type(again) is type(metric) and again.size == metric.size
    assert again.get_config() == metric.get_config()
    if not needed and name not in ("Mean", "Sum"):  # which are none for a model
        assert type(metrics.get(name)) is type(metric)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: metrics.get("acuracy"), "acuracy"),
        (lambda: metrics.get("mean"), "mean"),
        (lambda: metrics.F1Score(average="mean"), "mean"),
        (lambda: metrics.FBetaScore("micro", beta=0.0), "beta"),
        (lambda: metrics.FBetaScore("micro", beta=None), "None"),
        (lambda: metrics.F1Score(threshold="half"), "half"),
        (lambda: metrics.TruePositives(thresholds=[None, 0.5]), "None"),
        (lambda: metrics.AUC(curve="ROCK"), "ROCK"),
        (lambda: metrics.AUC(summation_method="all"), "all"),
        (lambda: metrics.AUC(num_thresholds=1), "num_thresholds"),
        (lambda: metrics.AUC(num_labels=3), "multi_label"),
        (lambda: metrics.Precision(thresholds=[0.5, 1.5]), "1.5"),
        (lambda: metrics.Recall(class_id=1).sums([1.0], [0.4]), "class_id"),
        (lambda: metrics.R2Score("mean"), "mean"),
        (lambda: metrics.R2Score(num_outputs=2).sums(np.ones((3, 1)), np.ones((3, 1))), "2"),
        (lambda: metrics.IoU(2, [2]), "2"),
        (lambda: metrics.RecallAtPrecision(1.2), "precision"),
        (lambda: metrics.BinaryAccuracy(threshold=7), "threshold"),
    ],
)
def test_wrong_settings_are_value_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_score_that_is_no_number_is_no():
    metric = metrics.Precision()
    metric.update_state([1.0, 1.0], [0.9, np.nan])
    assert float(metric.result()) == 1
    assert float(metrics.AUC()([1.0, 0.0], [np.nan, 0.5])) == 0


def test_scores_of_classes_learn_how_many_there_are():
    """Values of Keras 3.15."""
    y = np.eye(3, dtype=np.float32)[[0, 2, 1, 1]]
    p = np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1]], np.float32)
    score = metrics.F1Score()
    np.testing.assert_allclose(score(y, p), [2 / 3, 2 / 3, 1], rtol=1e-6)
    assert metrics.F1Score("macro")(y, p).numpy() == pytest.approx(7 / 9)
    assert metrics.R2Score()(y, p).numpy() == pytest.approx(0.4777778)


def test_fit_tells_a_score_how_many_classes_there_are():
    x, y = np.eye(4, dtype=np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    model = tf.keras.Sequential([tf.keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy", metrics=[metrics.F1Score("macro")])
    history = model.fit(x, y, batch_size=2, verbose=0).history
    assert 0 <= history["f1_score"][0] <= 1
    found = model.evaluate(x, y, verbose=0)[1]
    assert found == pytest.approx(float(metrics.F1Score("macro")(y, model.predict(x, verbose=0))))


def test_areas_of_as_many_labels_as_there_are():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, (20, 3)), rng.uniform(size=(20, 3))
    for options in ({}, {"curve": "PR"}, {"label_weights": [0.2, 0.3, 0.5]}):
        plain = metrics.AUC(multi_label=True, **options)
        told = metrics.AUC(multi_label=True, num_labels=3, **options)
        for half in (slice(0, 10), slice(10, 20)):
            assert float(plain(y[half], p[half])) == float(told(y[half], p[half]))
    model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(3, "sigmoid")])
    model.compile(loss="binary_crossentropy", metrics=[metrics.AUC(multi_label=True, name="auc")])
    history = model.fit(p, y, verbose=0, validation_data=(p, y)).history
    assert 0 < history["val_auc"][0] < 1


def test_dtypes_and_policies():
    assert metrics.Mean(dtype=tf.keras.DTypePolicy("mixed_float16")).dtype == "float16"
    assert metrics.MeanSquaredError(dtype="float64")([1.0], [0.0]).dtype == tf.float64
    tf.keras.config.set_floatx("float64")
    try:
        assert metrics.Mean().dtype == tf.keras.losses.Huber().dtype == "float64"
        tf.keras.config.set_dtype_policy("bfloat16")  # of layers: too coarse for sums
        assert metrics.Mean().dtype == tf.keras.losses.Huber().dtype == "float32"
    finally:
        tf.keras.config.set_floatx("float32")


def test_what_metrics_have_added_up():
    metric = metrics.MeanIoU(2)
    metric.update_state([0, 0, 1, 1], [0, 1, 1, 1])
    assert metric.total_cm.numpy().tolist() == [[1, 1], [0, 2]]
    mean, right = metrics.Mean(), metrics.BinaryAccuracy(dtype="float64")
    mean.update_state([1.0, 4.0], [1.0, 2.0])
    right.update_state([[1.0], [0.0], [1.0]], [[0.9], [0.8], [0.7]])
    assert (float(mean.total), float(mean.count)) == (9, 3)
    assert (float(right.total), float(right.count)) == (2, 3) and right.count.dtype == "float64"
    assert mean.reset_state() is None and float(mean.count) == 0

    y, p = [0.0, 1.0, 1.0, 0.0], [0.1, 0.4, 0.8, 0.6]
    area, precision = metrics.AUC(thresholds=[0.7, 0.5]), metrics.Precision([0.5, 0.3])
    for each in (area, precision):
        each.update_state(y, p)
    assert precision.true_positives.numpy().tolist() == [1, 2]
    assert area.thresholds == pytest.approx([0, 0.5, 0.7, 1], abs=1e-6)
    assert area.get_config()["thresholds"] == [0.5, 0.7]
    assert metrics.AUC().get_config()["thresholds"] is None and len(metrics.AUC().thresholds) == 200
    assert area.false_positives.numpy().tolist() == [2, 1, 0, 0]
    assert area.false_negatives.numpy().tolist() == [0, 1, 1, 2]
    assert area.true_negatives.numpy().tolist() == [0, 1, 2, 2]
    assert metrics.RecallAtPrecision(0.5, num_thresholds=3).thresholds == [0, 0.5, 1]

    class Own(metrics.Mean):
        def __init__(self):
            super().__init__()
            self.count = "mine"  # in the place of the attribute of Keras

    assert Own().count == "mine"


def test_default_names_count_up_as_in_keras():
    class Own(metrics.Metric):
        pass

    class OwnMean(metrics.Mean):
        pass

    tf.keras.utils.clear_session()
    kinds = metrics.AUC, metrics.Precision, metrics.BinaryIoU, Own, OwnMean, metrics.Poisson
    names = [[kind().name for _ in range(2)] for kind in kinds]
    assert [each[0] for each in names[:4]] == ["auc", "precision", "binary_io_u", "own"]
    assert [each[1] for each in names[:4]] == ["auc_1", "precision_1", "binary_io_u_1", "own_1"]
    assert names[4:] == [["mean"] * 2, ["poisson"] * 2]
    assert metrics.MeanMetricWrapper(tf.keras.losses.mse).name == "mean_metric_wrapper"
    assert metrics.AUC.from_config(metrics.AUC(name="mine").get_config()).name == "mine"
    assert tf.keras.backend.get_uid("auc") == 3
    tf.keras.utils.clear_session()
    assert metrics.AUC().name == "auc"


def test_a_history_shows_the_default_names_of_metrics():
    def history(*chosen):
        model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1, "sigmoid")])
        model.compile("sgd", "mse", metrics=list(chosen))
        x, y = np.ones((4, 2)), np.array([0.0, 1, 0, 1])
        return sorted(model.fit(x, y, verbose=0).history)

    tf.keras.utils.clear_session()
    assert history("AUC") == ["AUC", "loss"]  # the numbers are those of Keras 3.15
    assert history(metrics.AUC(), "auc") == ["auc", "auc_1", "loss"]
    assert history(metrics.AUC(), metrics.AUC(curve="PR")) == ["auc_3", "auc_4", "loss"]


def test_metrics_of_jobs_have_the_names_of_their_types():
    from distgrad.keras import specs

    assert [specs.make("metric", {"type": "AUC"}).name for _ in range(2)] == ["auc", "auc"]
    assert specs.make("metric", {"type": "AUC", "name": "mine"}).name == "mine"


def test_what_is_added_up_is_in_variables_as_in_keras():
    found = {
        metric.name: [(v.name, tuple(v.shape)) for v in metric.variables]
        for metric in (
            metrics.Mean("mean"),
            metrics.Sum("sum"),
            metrics.BinaryAccuracy("accuracy"),
            metrics.Precision(name="precision"),
            metrics.Recall([0.5, 0.2], name="recall"),
            metrics.TruePositives(name="hits"),
            metrics.MeanIoU(2, name="iou"),
        )
    }
    mean = [("total", ()), ("count", ())]
    assert found == {
        "mean": mean,
        "sum": mean[:1],
        "accuracy": mean,
        "precision": [("true_positives", (1,)), ("false_positives", (1,))],
        "recall": [("true_positives", (2,)), ("false_negatives", (2,))],
        "hits": [("accumulator", (1,))],
        "iou": [("total_confusion_matrix", (2, 2))],
    }
    assert [v.path for v in metrics.Mean("m").variables] == ["m/total", "m/count"]


@pytest.mark.parametrize(
    "made",
    [
        lambda: metrics.BinaryAccuracy(),
        lambda: metrics.Precision(),
        lambda: metrics.Recall([0.5, 0.2]),
        lambda: metrics.AUC(num_thresholds=5),
        lambda: metrics.SensitivityAtSpecificity(0.5, num_thresholds=3),
        lambda: metrics.FalseNegatives([0.1, 0.2]),
        lambda: metrics.TrueNegatives(),
        lambda: metrics.FalsePositives([0.7, 0.3]),
    ],
)
def test_variables_are_assigned(made):
    """To zeros, as a ``reset_state`` of one's own does; and to what was there."""
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 40).astype("float32"), rng.random(40).astype("float32")
    metric, other = made(), made()
    metric.update_state(y, p)
    other.update_state(y, p)
    first = np.asarray(metric.result())
    kept = [variable.numpy() for variable in metric.variables]
    for variable in metric.variables:
        assert variable.assign(tf.zeros_like(variable)) is variable
    assert not np.any([variable.numpy() for variable in metric.variables])
    assert not np.any(metric.result())
    metric.update_state(y, p)
    np.testing.assert_array_equal(metric.result(), first)
    other.reset_state()
    for variable, value in zip(other.variables, kept, strict=True):
        variable.assign(value)
    np.testing.assert_array_equal(other.result(), first)


def test_a_mean_that_forgets_by_its_variables():
    class Own(metrics.Mean):
        def reset_state(self):
            for variable in self.variables:
                variable.assign(tf.zeros_like(variable))

    mean = Own(name="mean")
    mean.update_state([1.0, 3.0])
    assert float(mean.total) == 4 and float(mean.total / mean.count) == 2
    mean.reset_state()
    mean.update_state([5.0])
    assert float(mean.result()) == 5
    total = mean.total
    total.assign_add(3.0)
    total.assign_sub(1.0)
    assert float(mean.result()) == float(total.value()) == float(total.value) == 7
    assert repr(total) == "<Variable path=mean/total, shape=(), dtype=float32, value=7.0>"
    with pytest.raises(ValueError, match=r"shape \(2,\) to mean/total of shape \(\)"):
        total.assign([1.0, 2.0])

    @tf.function
    def more(x):
        mean.total.assign_add(x)

    for _ in range(3):
        more(tf.constant(2.0))
    assert float(mean.result()) == 13


def test_variables_of_compiled_metrics():
    model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    found = [variable.name for metric in model.metrics for variable in metric.variables]
    assert found == ["total", "count"] * 2


def test_what_is_no_number_is_forgotten_by_an_assignment():
    mean = metrics.Mean()
    mean.update_state([float("nan")])
    mean.total.assign(0.0)
    mean.count.assign(0.0)
    mean.update_state([2.0])
    assert float(mean.result()) == 2


@pytest.mark.parametrize(
    "made",
    [
        lambda: metrics.BinaryAccuracy(),
        lambda: metrics.Precision(),
        lambda: metrics.AUC(),
        lambda: metrics.TruePositives(),
        lambda: metrics.Recall([0.2, 0.7]),
    ],
)
def test_a_loop_of_keras_keeps_the_variables_itself(made):
    """And puts them back, as Keras's guide on training in JAX does."""
    metric, twin = made(), made()
    y, p = np.array([0, 1, 1, 0], "float32"), np.array([0.1, 0.8, 0.3, 0.6], "float32")
    state = [variable.value for variable in metric.variables]
    for _ in range(2):
        state = metric.stateless_update_state(state, y, p)
        twin.update_state(y, p)
    assert len(state) == len(metric.variables)
    np.testing.assert_array_equal(metric.stateless_result(state), twin.result())
    for variable, value in zip(metric.variables, state, strict=True):
        variable.assign(value)
    np.testing.assert_array_equal(metric.result(), twin.result())
    fresh = metric.stateless_reset_state()
    assert not any(np.any(value) for value in fresh) and len(fresh) == len(state)
