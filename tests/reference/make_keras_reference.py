"""Writes the numbers of Keras 3 that tests/keras compares with, as JSON beside this file.

    python tests/reference/make_keras_reference.py

It needs keras and tensorflow; the tests do not. Every case holds what Keras's object was made
with, what it was given, and what it gave: ``class``, ``config``, inputs, results. Numbers are
float32 (those of the optimizers float64), written with as many digits as tell them apart.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent


def plain(value: Any) -> Any:
    """Tensors and arrays as nested lists of the shortest numbers that are these float32."""
    array = np.asarray(value)
    if array.ndim:
        return [plain(item) for item in array]
    if array.dtype.kind in "iub":
        return int(array)
    return float(str(np.float32(array)))


def write(name: str, cases: Any) -> None:
    text = json.dumps(cases, separators=(",", ":")).replace("},{", "},\n{")
    (HERE / f"keras_{name}.json").write_text(text + "\n")


# Losses

RNG = np.random.default_rng(7)


def rows(n: int, k: int) -> np.ndarray:
    return RNG.dirichlet(np.ones(k), size=n).astype(np.float32)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def loss_inputs() -> Iterator[tuple[str, dict, np.ndarray, np.ndarray]]:
    """(class, config, y_true, y_pred)."""
    numbers = normal(4, 3), normal(4, 3)
    for name in (
        "MeanSquaredError",
        "MeanAbsoluteError",
        "MeanAbsolutePercentageError",
        "LogCosh",
        "Huber",
        "CosineSimilarity",
        "Hinge",
        "SquaredHinge",
        "CategoricalHinge",
    ):
        yield name, {}, *numbers
    yield "MeanSquaredLogarithmicError", {}, np.abs(numbers[0]) * 3, numbers[1] + 1
    yield "LogCosh", {}, numbers[0] * 100, numbers[1] * 100
    yield "Huber", {"delta": 0.3}, *numbers
    yield "CosineSimilarity", {"axis": 0}, *numbers
    yield "CosineSimilarity", {}, numbers[0] * np.array([[0], [1], [1], [1]]), numbers[1]
    yield "MeanSquaredError", {}, normal(4), normal(4, 1)  # a column gets a column
    yield "MeanSquaredError", {}, normal(4, 1), normal(4)
    yield "MeanAbsoluteError", {}, normal(2, 3), normal(2, 3, 1)
    yield "MeanAbsoluteError", {}, normal(2, 3, 2), normal(2, 3, 2)
    signs = np.sign(normal(5, 2))
    yield "Hinge", {}, signs, normal(5, 2)
    yield "Hinge", {}, (signs + 1) / 2, normal(5, 2)
    yield "SquaredHinge", {}, (signs + 1) / 2, normal(5, 2)
    hot = np.eye(4, dtype=np.float32)[[2, 0, 3, 1, 1]]
    yield "CategoricalHinge", {}, hot, normal(5, 4)
    yield "KLDivergence", {}, rows(4, 3), rows(4, 3)
    yield "KLDivergence", {}, hot, rows(5, 4)
    yield "Poisson", {}, RNG.poisson(2, size=(4, 3)).astype(np.float32), rows(4, 3) * 5
    labels, p, logits = np.array([2, 0, 3, 1, 1]), rows(5, 4), normal(5, 4) * 3
    sure = np.eye(4, dtype=np.float32)[[2, 1, 3, 1, 0]]
    name = "SparseCategoricalCrossentropy"
    yield name, {}, labels, p
    yield name, {}, labels[:, None], p
    yield name, {}, labels, p * 3  # rows that do not add up to 1 are clipped, then renormalised
    yield name, {}, labels, sure
    yield name, {"from_logits": True}, labels, logits
    yield name, {"from_logits": True}, np.array([[1, 2], [0, 0]]), normal(2, 2, 3)
    yield name, {"ignore_class": 1}, labels, p
    yield name, {"ignore_class": -1, "from_logits": True}, labels - 1, normal(5, 3)
    name = "CategoricalCrossentropy"
    yield name, {}, rows(5, 4), p
    yield name, {}, hot, p * 3
    yield name, {}, hot, sure
    yield name, {"label_smoothing": 0.2}, hot, p
    yield name, {"from_logits": True}, rows(5, 4), logits
    yield name, {"from_logits": True, "label_smoothing": 0.1}, hot, logits
    columns = rows(8, 3).reshape(2, 4, 3).swapaxes(1, 2)
    yield name, {"from_logits": True, "axis": 1}, columns, normal(2, 3, 4)
    yield name, {"axis": 1}, columns, rows(8, 3).reshape(2, 4, 3).swapaxes(1, 2)
    yes, chance = (normal(5, 2) > 0).astype(np.float32), RNG.uniform(size=(5, 2)).astype("float32")
    name = "BinaryCrossentropy"
    yield name, {}, yes, chance
    yield name, {}, yes[:, 0], chance[:, :1]
    yield name, {}, yes, 1 - yes
    yield name, {"label_smoothing": 0.1}, yes, chance
    yield name, {"from_logits": True}, yes, normal(5, 2) * 30
    yield name, {"axis": 0}, yes, chance
    name = "BinaryFocalCrossentropy"
    yield name, {}, yes, chance
    yield name, {"apply_class_balancing": True, "alpha": 0.3, "gamma": 1.5}, yes, chance
    yield name, {"from_logits": True, "label_smoothing": 0.1}, yes, normal(5, 2)
    name = "CategoricalFocalCrossentropy"
    yield name, {}, hot, p
    yield name, {"alpha": 0.5, "gamma": 3.0, "label_smoothing": 0.1}, hot, p * 2
    yield name, {"from_logits": True}, hot, logits


REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", None)


def make_losses() -> None:
    cases = []
    for name, config, y_true, y_pred in loss_inputs():
        cls = getattr(keras.losses, name)
        weight = RNG.uniform(0.1, 2, size=len(y_true)).astype(np.float32)
        case = {"class": name, "config": config, "y_true": plain(y_true), "y_pred": plain(y_pred)}
        case["weight"] = plain(weight)
        for key, given in (("plain", None), ("weighted", weight)):
            try:
                case[key] = [
                    plain(cls(reduction=r, **config)(y_true, y_pred, given)) for r in REDUCTIONS
                ]
            except (ValueError, tf.errors.InvalidArgumentError):
                continue  # the weights of samples do not fit values over another axis
            prediction = tf.Variable(y_pred)
            with tf.GradientTape() as tape:
                value = cls(**config)(y_true, prediction, given)
            case[f"{key}_gradient"] = plain(tape.gradient(value, prediction))
        cases.append(case)
    write("losses", {"reductions": REDUCTIONS, "cases": cases, "from_activations": activated()})


def activated() -> list[dict]:
    """Losses of probabilities that come from an activation: Keras goes back to its logits."""
    labels, hot = np.array([0, 2, 1]), np.eye(3, dtype=np.float32)[[0, 2, 1]]
    logits = np.array([[1, 2, 3], [90, 0, -90], [-5, 50, 5]], np.float32)
    cases = []
    for name, activation, y_true in (
        ("SparseCategoricalCrossentropy", "softmax", labels),
        ("CategoricalCrossentropy", "softmax", hot),
        ("BinaryCrossentropy", "sigmoid", hot),
        ("BinaryFocalCrossentropy", "sigmoid", hot),
    ):
        x = tf.Variable(logits)
        with tf.GradientTape() as tape:
            p = getattr(keras.activations, activation)(x)
            value = getattr(keras.losses, name)(reduction=None)(y_true, p)
        cases.append(
            {
                "class": name,
                "activation": activation,
                "y_true": plain(y_true),
                "logits": plain(logits),
                "values": plain(value),
                "gradient": plain(tape.gradient(value, x)),
            }
        )
    return cases


# Metrics


def metric_inputs() -> Iterator[tuple[str, dict, list[tuple]]]:
    """(class, config, [(y_true, y_pred), ...]); a config of Keras, and of ours what differs."""
    numbers = [(normal(n, 3), normal(n, 3)) for n in (4, 1, 6)]
    for name in (
        "MeanSquaredError",
        "RootMeanSquaredError",
        "MeanAbsoluteError",
        "MeanAbsolutePercentageError",
        "LogCoshError",
        "CosineSimilarity",
        "Hinge",
        "SquaredHinge",
        "CategoricalHinge",
    ):
        yield name, {}, numbers
    yield "MeanSquaredLogarithmicError", {}, [(abs(a), abs(b)) for a, b in numbers]
    yield "MeanSquaredError", {}, [(normal(n), normal(n, 1)) for n in (4, 2)]
    yield "R2Score", {"num_outputs": 3}, numbers
    for how in ("variance_weighted_average", None):
        yield "R2Score", {"class_aggregation": how, "num_outputs": 3}, numbers
    yield "R2Score", {"num_regressors": 2}, [(normal(n, 1), normal(n, 1)) for n in (5, 4)]
    whole = [(RNG.integers(0, 3, (n, 2)), RNG.integers(0, 3, (n, 2))) for n in (5, 3)]
    yield "Accuracy", {}, [(a.astype("float32"), b.astype("float32")) for a, b in whole]
    rowed = [(rows(n, 4), rows(n, 4)) for n in (5, 2, 7)]
    yield "KLDivergence", {}, rowed
    yield "Poisson", {}, rowed
    yield "CategoricalAccuracy", {}, rowed
    yield "CategoricalCrossentropy", {}, rowed
    yield "CategoricalCrossentropy", {"label_smoothing": 0.1}, rowed
    yield "TopKCategoricalAccuracy", {"k": 2}, rowed
    sparse = [(RNG.integers(0, 4, len(p)), p) for _, p in rowed]
    yield "SparseCategoricalAccuracy", {}, sparse
    yield "SparseCategoricalAccuracy", {}, [(y[:, None], p) for y, p in sparse]
    yield "SparseCategoricalCrossentropy", {}, sparse
    yield "SparseCategoricalCrossentropy", {"ignore_class": 2}, sparse
    yield "SparseTopKCategoricalAccuracy", {"k": 2}, sparse
    ties = [(y, np.round(p * 4) / 4) for y, p in sparse]
    yield "SparseTopKCategoricalAccuracy", {"k": 2}, ties
    steps = [
        (RNG.integers(0, 3, (n, 2, 1)).astype("float32"), rows(2 * n, 3).reshape(n, 2, 3))
        for n in (3, 2)
    ]
    yield "SparseCategoricalAccuracy", {}, steps
    yes = []
    for n in (30, 1, 20):
        truth = (RNG.uniform(size=(n, 2)) > 0.6).astype("float32")
        score = np.clip(truth * 0.3 + RNG.uniform(size=(n, 2)) * 0.7, 0, 1)
        score[0] = [0.0, 1.0]
        yes.append((truth, np.round(score, 2).astype("float32")))
    column = [(y[:, 0], p[:, :1]) for y, p in yes]
    yield "BinaryAccuracy", {}, yes
    yield "BinaryAccuracy", {"threshold": 0.25}, column
    yield "BinaryCrossentropy", {}, yes
    yield "BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, yes
    for name in ("TruePositives", "FalsePositives", "TrueNegatives", "FalseNegatives"):
        yield name, {}, yes
        yield name, {"thresholds": [0.7, 0.2]}, column
    for name in ("Precision", "Recall"):
        yield name, {}, yes
        yield name, {"thresholds": 0.3}, column
        yield name, {"thresholds": [0.0, 0.5, 1.0]}, yes
        yield name, {"thresholds": [0.9, 0.1, 0.4]}, yes
        yield name, {"class_id": 1}, yes
        yield name, {"top_k": 1}, yes
        yield name, {"top_k": 2, "class_id": 0}, rowed
    for curve in ("ROC", "PR", "PRGAIN"):
        for method in ("interpolation", "minoring", "majoring"):
            yield "AUC", {"curve": curve, "summation_method": method}, column
    yield "AUC", {"num_thresholds": 7}, yes
    yield "AUC", {"thresholds": [0.5, 0.2, 0.21]}, yes
    yield "AUC", {"from_logits": True}, [(y, 6 * p - 3) for y, p in yes]
    yield "AUC", {"multi_label": True, "num_labels": 2}, yes
    weights = {"label_weights": [0.3, 1.7]}
    yield "AUC", {"multi_label": True, "num_labels": 2, **weights}, yes
    yield "AUC", weights, yes
    yield "SensitivityAtSpecificity", {"specificity": 0.6}, column
    yield "SpecificityAtSensitivity", {"sensitivity": 0.8, "num_thresholds": 20}, column
    yield "PrecisionAtRecall", {"recall": 0.7}, yes
    yield "RecallAtPrecision", {"precision": 0.6, "class_id": 1}, yes
    hot = [(np.eye(4, dtype="float32")[y], p) for y, p in sparse]
    for average in (None, "micro", "macro", "weighted"):
        yield "F1Score", {"average": average, "num_classes": 4}, hot
        yield (
            "FBetaScore",
            {"average": average, "beta": 0.5, "threshold": 0.3, "num_classes": 4},
            hot,
        )
    classes = [(RNG.integers(0, 3, (n,)), RNG.integers(0, 3, (n,))) for n in (9, 5)]
    yield "IoU", {"num_classes": 3, "target_class_ids": [0, 2]}, classes
    yield "MeanIoU", {"num_classes": 3}, classes
    yield "MeanIoU", {"num_classes": 3, "ignore_class": 1}, classes
    yield "MeanIoU", {"num_classes": 4, "sparse_y_pred": False}, sparse
    yield "BinaryIoU", {"target_class_ids": [1], "threshold": 0.4}, column


OURS_ALONE = ("num_outputs", "num_classes")  # sizes that Keras learns from the data


def make_metrics() -> None:
    cases = []
    for name, config, batches in metric_inputs():
        cls = getattr(keras.metrics, name)
        accepted = dict(config)
        if name in ("R2Score", "F1Score", "FBetaScore"):
            accepted = {key: v for key, v in config.items() if key not in OURS_ALONE}
        plainly, weighted, weights = cls(**accepted), cls(**accepted), []
        for y_true, y_pred in batches:
            weight = RNG.uniform(0.1, 2, size=len(y_true)).astype(np.float32)
            if name.endswith("IoU"):  # whose counts are integers in Keras
                weight = np.ceil(weight)
            weights.append(weight)
            plainly.update_state(y_true, y_pred)
            weighted.update_state(y_true, y_pred, weight)
        cases.append(
            {
                "class": name,
                "config": config,
                "batches": [
                    [plain(t), plain(p), plain(w)]
                    for (t, p), w in zip(batches, weights, strict=True)
                ],
                "plain": plain(plainly.result()),
                "weighted": plain(weighted.result()),
            }
        )
    for name in ("Mean", "Sum"):
        metric = getattr(keras.metrics, name)()
        given = [(normal(3), None), (normal(2, 2), normal(2)), (normal(), None)]
        results = []
        for values, weight in given:
            metric.update_state(values, weight)
            results.append(plain(metric.result()))
        updates = [[plain(v), None if w is None else plain(w)] for v, w in given]
        cases.append({"class": name, "updates": updates, "results": results})
    write("metrics", cases)


# Optimizers

# In float64, so that a formula that differs in any detail shows. Keras rounds some settings to
# float32 on the way, so the ones given here are numbers that float32 holds; a case whose defaults
# it rounds is not exact.

SHAPES = ((3, 2), (2,), ())
EXCLUDED = "bias"
RATE = 0.125
BETAS = {"beta_1": 0.875, "beta_2": 1 - 2.0**-10}


def optimizer_configs() -> Iterator[tuple[str, dict, bool]]:
    """(class, config, whether Keras computes it in float64 throughout)."""
    yield "SGD", {}, True
    yield "SGD", {"momentum": 0.875}, True
    yield "SGD", {"momentum": 0.875, "nesterov": True}, True
    for name in ("Adam", "AdamW", "Adamax", "Nadam"):
        yield name, {}, False
        exact = name in ("Adam", "Adamax")  # AdamW's decay and Nadam's 0.96 are rounded
        yield name, BETAS, exact
        yield name, {"beta_1": 0.75, "beta_2": 0.875, "epsilon": 1e-3}, exact
    yield "Adam", {"amsgrad": True, "beta_1": 0.75, "beta_2": 0.5}, True
    yield "AdamW", {**BETAS, "weight_decay": 0.25}, True
    yield "RMSprop", {}, True
    yield "RMSprop", {"momentum": 0.8, "rho": 0.7}, True
    yield "RMSprop", {"centered": True, "epsilon": 1e-3}, True
    yield "RMSprop", {"centered": True, "momentum": 0.8, "epsilon": 1e-3}, True
    yield "Adagrad", {}, False  # its accumulator starts from 0.1 in float32
    yield "Adagrad", {"initial_accumulator_value": 0.5, "epsilon": 1e-2}, True
    yield "Adadelta", {}, True
    yield "Adadelta", {"rho": 0.8, "epsilon": 1e-2}, True
    yield "Ftrl", {}, False
    strengths = {
        "l1_regularization_strength": 0.1,
        "l2_regularization_strength": 0.2,
        "l2_shrinkage_regularization_strength": 0.05,
    }
    start = {"initial_accumulator_value": 0.25}
    yield "Ftrl", {**strengths, **start, "learning_rate_power": -0.7, "beta": 0.3}, True
    yield "Lion", {}, False
    yield "Lion", {"beta_1": 0.625, "beta_2": 0.75}, True
    for options in (
        {"clipvalue": 0.5},
        {"clipnorm": 0.75},
        {"global_clipnorm": 0.875},
        {"weight_decay": 0.25},
        {"weight_decay": 0.25, "global_clipnorm": 0.875},
        {"use_ema": True, "ema_momentum": 0.625},
        {"use_ema": True, "ema_momentum": 0.625, "ema_overwrite_frequency": 2},
    ):
        yield "SGD", options, True
        yield "Adam", {**BETAS, **options}, True
        yield "RMSprop", options, True
    yield "Nadam", {"weight_decay": 0.25, "clipnorm": 0.75}, False
    yield "Adamax", {**BETAS, "weight_decay": 0.25, "clipvalue": 0.5}, True
    yield "Lion", {"beta_1": 0.625, "beta_2": 0.75, "weight_decay": 0.25}, True
    steps = keras.optimizers.schedules.PiecewiseConstantDecay([0, 2], [0.25, RATE, 0.5])
    yield "SGD", {"learning_rate": steps, "momentum": 0.875}, True
    yield "AdamW", {**BETAS, "learning_rate": steps, "weight_decay": 0.25}, True
    yield "Nadam", {"learning_rate": steps}, False
    for options in (
        {},
        {"weight_decay": 0.25, "clipnorm": 0.75},
        {"use_ema": True, "ema_momentum": 0.625, "ema_overwrite_frequency": 2},
        {"learning_rate": steps},
    ):
        yield "SGD", {"gradient_accumulation_steps": 2, "momentum": 0.875, **options}, True
        yield "Adam", {**BETAS, "gradient_accumulation_steps": 2, **options}, True
    yield "Nadam", {"gradient_accumulation_steps": 2}, False
    yield "RMSprop", {"gradient_accumulation_steps": 3, "momentum": 0.8}, True


def make_optimizers() -> None:
    start = [RNG.normal(size=shape).round(3) for shape in SHAPES]
    gradients = [[RNG.normal(size=shape).round(3) for shape in SHAPES] for _ in range(5)]
    cases = []
    for excluded in (False, True):
        for name, config, exact in optimizer_configs():
            config = {"learning_rate": RATE, **config}
            if excluded and "weight_decay" not in config:
                continue
            variables = [
                keras.Variable(value, dtype="float64", name=each)
                for value, each in zip(start, ("kernel", "bias", "x"), strict=True)
            ]
            optimizer = getattr(keras.optimizers, name)(**config)
            if excluded:
                optimizer.exclude_from_weight_decay(var_names=[EXCLUDED])
            steps = []
            for each in gradients:
                optimizer.apply_gradients(zip(map(tf.constant, each), variables, strict=True))
                steps.append([np.asarray(v).tolist() for v in variables])
            rate = config["learning_rate"]
            if not isinstance(rate, float):
                given = {"class_name": type(rate).__name__, "config": rate.get_config()}
                config = {**config, "learning_rate": given}
            case = {"class": name, "config": config, "exact": exact, "steps": steps}
            cases.append({**case, "excluded": EXCLUDED} if excluded else case)
    write(
        "optimizers",
        {
            "start": [v.tolist() for v in start],
            "gradients": [[g.tolist() for g in each] for each in gradients],
            "cases": cases,
        },
    )


# Schedules


def schedule_configs() -> Iterator[tuple[str, dict]]:
    start = {"initial_learning_rate": 0.1}
    for staircase in (False, True):
        decay = {**start, "decay_steps": 7, "decay_rate": 0.6, "staircase": staircase}
        yield "ExponentialDecay", decay
        yield "InverseTimeDecay", decay
    yield "PiecewiseConstantDecay", {"boundaries": [3, 10, 20], "values": [1.0, 0.5, 0.1, 0.02]}
    for cycle in (False, True):
        yield "PolynomialDecay", {**start, "decay_steps": 9, "cycle": cycle}
        more = {"end_learning_rate": 0.02, "power": 2.5, "cycle": cycle}
        yield "PolynomialDecay", {**start, "decay_steps": 9, **more}
    yield "CosineDecay", {**start, "decay_steps": 17}
    yield "CosineDecay", {**start, "decay_steps": 17, "alpha": 0.2}
    warm = {"warmup_target": 0.5, "warmup_steps": 6}
    yield "CosineDecay", {"initial_learning_rate": 0.01, "decay_steps": 17, "alpha": 0.1, **warm}
    yield "CosineDecayRestarts", {**start, "first_decay_steps": 6}
    yield "CosineDecayRestarts", {**start, "first_decay_steps": 6, "t_mul": 1.0, "m_mul": 0.7}
    more = {"t_mul": 1.5, "m_mul": 0.8, "alpha": 0.1}
    yield "CosineDecayRestarts", {**start, "first_decay_steps": 6, **more}


def make_schedules() -> None:
    steps = list(range(0, 44))
    cases = []
    for name, config in schedule_configs():
        schedule = getattr(keras.optimizers.schedules, name)(**config)
        rates = [plain(schedule(step)) for step in steps]
        cases.append({"class": name, "config": config, "rates": rates})
    write("schedules", {"steps": steps, "cases": cases})


# Activations, regularizers and constraints


def make_functions() -> None:
    x = np.concatenate([np.linspace(-6.5, 6.5, 14), normal(6)]).reshape(5, 4).astype(np.float32)
    cases = []
    for name, config in (
        *((n, {}) for n in ("celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu")),
        *((n, {}) for n in ("hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax")),
        *((n, {}) for n in ("mish", "relu", "relu6", "selu", "sigmoid", "silu", "softmax")),
        *((n, {}) for n in ("softplus", "softsign", "tanh", "tanh_shrink", "glu")),
        *((n, {}) for n in ("hard_shrink", "soft_shrink", "squareplus", "sparse_plus")),
        ("sparse_sigmoid", {}),
        ("hard_shrink", {"threshold": 1.2}),
        ("soft_shrink", {"threshold": 1.2}),
        ("squareplus", {"b": 1.5}),
        ("threshold", {"threshold": 0.3, "default_value": -2.0}),
        ("celu", {"alpha": 0.3}),
        ("elu", {"alpha": 0.3}),
        ("gelu", {"approximate": True}),
        ("leaky_relu", {"negative_slope": 0.05}),
        ("relu", {"negative_slope": 0.1}),
        ("relu", {"max_value": 3.0}),
        ("relu", {"max_value": 6.0}),
        ("relu", {"threshold": 1.5}),
        ("relu", {"negative_slope": 0.1, "max_value": 4.0, "threshold": 1.5}),
        ("softmax", {"axis": 0}),
        ("log_softmax", {"axis": 0}),
    ):
        value = tf.Variable(x)
        weight = tf.constant(np.cos(np.arange(20)).reshape(5, 4).astype(np.float32))
        with tf.GradientTape() as tape:
            y = getattr(keras.activations, name)(tf.convert_to_tensor(value), **config)
            total = tf.reduce_sum(y * weight[:, : y.shape[1]])
        gradient = tape.gradient(total, value)
        cases.append(
            {"name": name, "config": config, "value": plain(y), "gradient": plain(gradient)}
        )
    others = []
    for kind, name, config in (
        ("regularizers", "L1", {}),
        ("regularizers", "L2", {"l2": 0.3}),
        ("regularizers", "L1L2", {"l1": 0.1, "l2": 0.2}),
        ("regularizers", "OrthogonalRegularizer", {}),
        ("regularizers", "OrthogonalRegularizer", {"factor": 0.1, "mode": "columns"}),
        ("constraints", "NonNeg", {}),
        ("constraints", "MaxNorm", {}),
        ("constraints", "MaxNorm", {"max_value": 3, "axis": 1}),
        ("constraints", "UnitNorm", {"axis": [0, 1]}),
        ("constraints", "MinMaxNorm", {"min_value": 4.0, "max_value": 8.0, "rate": 0.7}),
    ):
        value = getattr(getattr(keras, kind), name)(**config)(tf.constant(x))
        others.append({"kind": kind, "class": name, "config": config, "value": plain(value)})
    write("functions", {"x": plain(x), "weight": plain(weight), "cases": cases, "others": others})


# Callbacks


class Played:
    """Stands for a model whose monitored value goes as given."""

    metrics = ()
    stop_training = False

    def __init__(self) -> None:
        self.optimizer = keras.optimizers.SGD(1.0)


def make_callbacks() -> None:
    stopping = []
    for values, options in (
        ([5, 4, 3, 2, 1], {}),
        ([5, 4, 4, 3, 1], {}),
        ([5, 6, 4, 7, 8, 1], {"patience": 2}),
        ([5, 4.75, 4.5, 4.25, 1], {"min_delta": 0.5, "patience": 1}),
        ([5, 4.75, 4.5, 4.25, 1], {"min_delta": 0.5, "patience": 2}),
        ([1, 2, 3, 2, 1], {"mode": "max"}),
        ([9, 8, 7, 6, 5, 5, 3], {"baseline": 4, "patience": 2}),
        ([3, 9, 9, 2, 9, 9], {"start_from_epoch": 3}),
        ([5, float("nan"), 4, 3, 2], {"patience": 2}),
        ([5, 6], {"patience": 0}),
    ):
        callback, model = keras.callbacks.EarlyStopping("val_loss", **options), Played()
        callback.set_model(model)
        callback.on_train_begin()
        last = 0
        for last, value in enumerate(values):
            callback.on_epoch_end(last, {"val_loss": value})
            if model.stop_training:
                break
        found = [last, callback.stopped_epoch, float(callback.best), callback.wait]
        stopping.append({"values": values, "options": options, "found": found})
    reducing = []
    for values, options in (
        ([5] * 9, {"factor": 0.5, "patience": 2}),
        ([5] * 9 + [1, 1, 1], {"factor": 0.5, "patience": 2, "cooldown": 1, "min_lr": 0.25}),
        ([5, 5, 5, 4, 5, 5], {"factor": 0.5, "patience": 1, "cooldown": 2}),
        ([1, 2, 2, 3, 3, 3], {"factor": 0.5, "patience": 1, "mode": "max"}),
        ([1, 0.9, 0.8, 0.7], {"factor": 0.5, "patience": 1, "min_delta": 0.15}),
    ):
        callback, model = keras.callbacks.ReduceLROnPlateau("val_loss", **options), Played()
        callback.set_model(model)
        callback.on_train_begin()
        rates = []
        for epoch, value in enumerate(values):
            callback.on_epoch_end(epoch, {"val_loss": value})
            rates.append(plain(model.optimizer.learning_rate))
        reducing.append({"values": values, "options": options, "rates": rates})
    write("callbacks", {"early_stopping": stopping, "reduce_lr_on_plateau": reducing})


if __name__ == "__main__":
    make_losses()
    make_metrics()
    make_optimizers()
    make_schedules()
    make_functions()
    make_callbacks()
    for path in sorted(HERE.glob("keras_*.json")):
        print(f"{path.name}: {path.stat().st_size:,} bytes")
