"""What a job is told whose data and layers do not fit, and what it may hold besides names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distgrad.assembly import build_model, class_weights
from distgrad.config import load
from distgrad.core.errors import DataError, UsageError
from distgrad.data import source
from distgrad.data.preparation import Preparation
from distgrad.data.source import ArraySource, Splits
from distgrad.job import Job
from distgrad.keras.metrics.base import one_by_one

DIGITS = Path(__file__).parents[1] / "configs" / "digits.yaml"
SOFTMAX = "model.layers.0.activation=softmax"
DENSE = "model.layers=[{type: Dense, units: 3}]"


def job(*changes: str) -> Job:
    return Job.from_config(load(DIGITS, ["data={source: npz, path: own.npz}", *changes]))


def splits(x: np.ndarray, y: np.ndarray, test_y: np.ndarray | None = None) -> Splits:
    held = ArraySource(x[:4], y[:4] if test_y is None else test_y)
    return Splits(ArraySource(x, y), held, "own")


X = np.zeros((6, 5), np.float32)
Y = np.array([0, 1, 2, 0, 1, 2], np.int32)


@pytest.mark.parametrize(
    ("changes", "y", "test_y", "says"),
    [
        ([], [0, 1, 2, 0, 1, 3], None, "own.npz: the label 3 of training sample 5 is none of the"),
        ([], [0, -1, 2, 0, 9, 3], None, "the label -1 of training sample 1, the first of 3, is no"),
        ([], [0, 1, 2, 0, 1, 2], [0, 1, 4, 0], "the label 4 of test sample 2 is none of the 3 cla"),
        ([], [0.0, 1.5, 2, 0, 1, 2], None, "the label 1.5 of training sample 1 is none of the 3"),
        (
            ["loss={type: SparseCategoricalCrossentropy, ignore_class: -1}"],
            [0, -1, 2, 0, 7, 1],
            [0, 0, 0, 0],
            "the label 7 of training sample 4 is none of the 3 classes, 0 to 2,",
        ),
        (
            ["loss=binary_crossentropy", "model.layers=[{type: Dense, units: 1}]"],
            [0, 1, 2, 0, 1, 2],
            None,
            "the label 2 of training sample 2, the first of 2, is not between 0 and 1",
        ),
    ],
)
def test_a_label_that_the_model_cannot_give(
    changes: list[str], y: list, test_y: list | None, says: str
) -> None:
    labels = np.array(y, np.float32 if any(isinstance(v, float) for v in y) else np.int32)
    held = None if test_y is None else np.array(test_y, np.int32)
    with pytest.raises(DataError, match="own.npz") as caught:
        build_model(job(DENSE, *changes), splits(X, labels, held))
    assert caught.value.exit_code == 4 and says in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "y", "says"),
    [
        (
            ["model.layers=[{type: Dense, units: 3}, {type: LSTM, units: 2}]"],
            Y,
            "model.layers.1 (LSTM) cannot take what layer 0 gives, shape (3,) a sample",
        ),
        (
            [DENSE, "loss=mse"],
            np.zeros((6, 2), np.float32),
            "mean_squared_error needs targets of shape (3,) a sample where the last layer gives "
            "shape (3,); those of own.npz have shape (2,)",
        ),
        ([DENSE, "loss=mse"], Y, "those of own.npz have one number"),
        ([DENSE], np.zeros((6, 2), np.int32), "needs targets of one number a sample where"),
    ],
)
def test_shapes_that_do_not_fit(changes: list[str], y: np.ndarray, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_model(job(*changes), splits(X, y))
    assert caught.value.exit_code == 2 and says in str(caught.value)


def test_tokens_beyond_the_table() -> None:
    tokens = np.array([[1, 2], [3, 9]], np.int32)
    layers = "model.layers=[{type: Embedding, input_dim: 9, output_dim: 4}]"
    with pytest.raises(UsageError, match="model.layers.0.input_dim is 9, but the training samples"):
        build_model(job(layers), splits(tokens, tokens % 9))
    build_model(job(layers), splits(tokens - 1, tokens % 9))


@pytest.mark.parametrize(
    ("changes", "y"),
    [
        ([DENSE], Y),
        ([DENSE], Y[:, None]),
        (["model.layers=[{type: Dense, units: 1}]", "loss=mse"], Y.astype(np.float32)),
        (["model.layers=[{type: Dense, units: 1}]", "loss=mse"], np.zeros((6, 1), np.float32)),
        ([DENSE, SOFTMAX, "loss=categorical_crossentropy"], np.eye(3, dtype=np.float32)[Y]),
    ],
)
def test_what_fits_is_let_pass(changes: list[str], y: np.ndarray) -> None:
    model = build_model(job(*changes), splits(X, y))
    assert np.isfinite(model.compute((X, y), False).loss.numpy())


@pytest.mark.parametrize(
    ("dtype", "optimizer"), [("float16", "LossScaleOptimizer"), ("bfloat16", "Adam")]
)
def test_half_precision_for_layers_without_a_dtype_of_their_own(dtype: str, optimizer: str) -> None:
    layers = "model.layers=[{type: Dense, units: 4}, {type: Dense, units: 3, dtype: float32}]"
    model = build_model(job(layers, f"train.mixed_precision=mixed_{dtype}"), splits(X, Y))
    assert [layer.compute_dtype for layer in model.layers] == [dtype, "float32"]
    assert type(model.optimizer).__name__ == optimizer
    assert {variable.dtype.name for variable in model.trainable_variables} == {"float32"}


def test_layers_that_compute_their_inner_values_again() -> None:
    for recompute in (False, True):
        model = build_model(job(DENSE, f"train.recompute={recompute}".lower()), splits(X, Y))
        assert all((layer._remat_mode is not None) == recompute for layer in model.layers)


def test_specs_become_objects() -> None:
    model = build_model(
        job(
            DENSE,
            "model.layers.0.kernel_regularizer={type: L2, l2: 0.5}",
            "loss={type: SparseCategoricalCrossentropy, from_logits: true}",
            "metrics=[accuracy, {type: SparseTopKCategoricalAccuracy, k: 2, name: top2}]",
            "optimizer.learning_rate={type: PiecewiseConstantDecay, boundaries: [2], "
            "values: [1, 0.5]}",
        ),
        splits(X, Y),
    )
    assert model.layers[0].kernel_regularizer.l2 == 0.5 and model.loss.from_logits
    assert [metric.name for metric in one_by_one(model.metrics)] == ["loss", "accuracy", "top2"]
    assert [model.optimizer.rate(step) for step in (1, 3, 4)] == [1, 1, 0.5]


# Samples held out for validation


def parts(**spec: object) -> tuple[Splits, Splits]:
    return (
        source.load(spec, 3, announce=lambda text: None),
        source.load({**spec, "validation_fraction": 0.25}, 3, announce=lambda text: None),
    )


def rows(part: ArraySource) -> list[bytes]:
    arrays = part.take(slice(0, len(part)))
    return [b"".join(a[i].tobytes() for a in arrays) for i in range(len(part))]


@pytest.mark.parametrize(
    "spec",
    [
        {"source": "digits", "test_fraction": 0.2},
        {"source": "breast_cancer"},
        {"source": "series", "builtin": "el-nino", "window": 12},
    ],
    ids=lambda spec: spec["source"],
)
def test_validation_is_a_part_of_what_was_trained_on(spec: dict) -> None:
    whole, cut = parts(**spec)
    assert cut.validation is not None and whole.validation is None
    assert sorted([*rows(cut.train), *rows(cut.validation)]) == sorted(rows(whole.train))
    assert rows(cut.test) == rows(whole.test)
    assert len(cut.validation) == -(-len(whole.train) // 4)
    some = np.array([3, 0])
    for taken, array in zip(cut.train.take(some), cut.train.take(slice(0, 4)), strict=True):
        np.testing.assert_array_equal(taken, array[some])


def test_a_forecast_of_the_validation_part_was_not_trained_on() -> None:
    _, cut = parts(source="series", builtin="el-nino", window=12, horizon=3)
    last = cut.train.take(np.array([len(cut.train) - 1]))[1][0]
    first = cut.validation.take(np.array([0]))
    # The window before the first forecast holds the last value that was trained for.
    assert first[0][0, -1, 0] == last[-1]


def test_a_part_that_would_be_empty(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x=X, y=Y * 0)
    spec = {"source": "npz", "path": str(tmp_path / "own.npz"), "test_fraction": 0.5}
    with pytest.raises(DataError, match="validation_fraction 0.9 of 3 samples"):
        source.load({**spec, "validation_fraction": 0.9}, 0)


def test_a_metric_that_cannot_compare_targets_and_outputs() -> None:
    says = "metrics.1: mae cannot compare the targets of own.npz with what the last layer gives"
    given = job("metrics=[accuracy, mae]", DENSE)
    with pytest.raises(UsageError, match=says):
        build_model(given, splits(X, Y))
    build_model(
        job(
            "metrics=[accuracy, {type: AUC}]",
            "loss=binary_crossentropy",
            "model.layers=[{type: Dense, units: 1, activation: sigmoid}]",
        ),
        splits(X, Y % 2),
    )


def test_layers_that_are_far_too_large() -> None:
    huge = "model.layers=[{type: Dense, units: 1000000000}, {type: Dense, units: 1000000000}]"
    with pytest.raises(UsageError, match=r"more memory than there is \(Unable to allocate"):
        build_model(job(huge), splits(np.zeros((6, 1000000), np.float32), Y))


def test_what_classes_weigh() -> None:
    y = np.array([0, 0, 0, 4, 0, 4], np.int32)
    whole = splits(X, y)
    assert class_weights(job(), whole) is None
    found = class_weights(job("train.class_weight=balanced"), whole)
    assert found == {0: 6 / (2 * 4), 4: 6 / (2 * 2)}
    assert class_weights(job("train.class_weight={'4': 2.5}"), whole) == {4: 2.5}
    how = Preparation.of("table", whole.train, classes=("cat", "dog"))
    named = Splits(whole.train, whole.test, "own", preparation=how)
    assert class_weights(job("train.class_weight={dog: 3}"), named) == {1: 3}
    with pytest.raises(UsageError, match=r"class_weight\.1: own.npz has no such class, but 0, 4"):
        class_weights(job("train.class_weight={'1': 2}"), whole)
    with pytest.raises(UsageError, match="no such class, but cat, dog"):
        class_weights(job("train.class_weight={bird: 2}"), named)
    for other in (y.astype(np.float32), np.eye(5, dtype=np.int32)[y]):
        with pytest.raises(UsageError, match=r"class_weight is for classes, but the targets of"):
            class_weights(job("train.class_weight=balanced"), splits(X, other))
