"""Objects in a job: keys and values as their constructors take them, specs within specs."""

from __future__ import annotations

import pytest

from distgrad.config import constructors, load
from distgrad.job import Job
from distgrad.keras import specs

from .jobs import JOB, changed, problems, write


class Base:
    def __init__(self, needed: int, name: str | None = None, hidden: object = None) -> None:
        self.name = name


class Middle(Base):
    def __init__(self, rate: float, *, size: tuple[int, ...] = (1, 2), **kwargs: object) -> None:
        super().__init__(1, **kwargs)  # type: ignore[arg-type]
        if rate > 1:
            raise ValueError(f"rate is {rate},\n  above 1")
        if size == [3]:
            raise TypeError("rate and size do not fit")


class Last(Middle):
    pass


def test_a_key_may_hold_keys_of_its_own() -> None:
    """`BatchNormalization` takes such a mapping of numbers, or null."""
    spec = {"type": "BatchNormalization", "renorm": True}
    assert not list(constructors.check("layer", {**spec, "renorm_clipping": {"rmax": 2}}))
    ((key, words),) = constructors.check("layer", {**spec, "renorm_clipping": {"rmax": "x"}})
    assert key == ("renorm_clipping",) and "must be keys, each a number or null" in words


@pytest.fixture
def _local_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specs, "classes", lambda kind: {"Last": Last, "Middle": Middle})


def test_keywords_come_from_the_class_and_from_its_bases() -> None:
    assert list(constructors.keys(Last)) == ["rate", "size", "name", "hidden"]
    assert [key.name for key in constructors.keys(Last).values() if key.required] == ["rate"]


@pytest.mark.usefixtures("_local_layers")
@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"rate": 0.5, "size": [1], "name": None, "hidden": {"a": 1}}, []),
        ({"rate": 1}, []),
        ({}, [(("rate",), "required key is missing; Middle has no default for it")]),
        ({"rate": "1"}, [(("rate",), 'must be a number, got "1"')]),
        ({"rate": True}, [(("rate",), "must be a number, got true")]),
        ({"rate": 1, "size": 3}, [(("size",), "must be a list, each a whole number, got 3")]),
        ({"rate": 1, "name": 3}, [(("name",), "must be text or null, got 3")]),
        ({"rate": 1, "needed": 3}, "unknown key; Middle takes rate, size, name, hidden"),
        ({"rate": 2}, [(("rate",), "Middle: rate is 2, above 1")]),
        ({"rate": 1, "size": [3]}, [((), "Middle: rate and size do not fit")]),
    ],
)
def test_keywords_are_checked(spec: dict, expected: list | str) -> None:
    found = list(constructors.check("layer", {"type": "Middle", **spec}))
    if isinstance(expected, str):
        assert [message for _, message in found] == [expected]
    else:
        assert found == expected


@pytest.mark.usefixtures("_local_layers")
def test_only_a_class_s_own_plain_defaults_are_recorded() -> None:
    resolved = constructors.resolve("layer", {"type": "Middle", "name": "a", "rate": 1})
    assert resolved == {"type": "Middle", "rate": 1, "size": [1, 2], "name": "a"}


def test_every_public_layer_and_optimizer_has_a_schema() -> None:
    for kind in ("layer", "optimizer"):
        titles = [entry["title"] for entry in constructors.schema(kind)["anyOf"]]
        assert titles == sorted(constructors.classes(kind))
    assert "sparse_categorical_crossentropy" in constructors.names("loss")
    assert "accuracy" in constructors.names("metric")
    for kind in ("loss", "metric"):
        for name in constructors.names(kind):
            assert constructors.check_name(kind, name) is None, name


# Specs in specs


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "10}",
            "10, kernel_regularizer: {type: L3}}",
            "6:53: model.layers.1.kernel_regularizer.type: unknown regularizer L3; there are L1L2",
        ),
        (
            "10}",
            "10, kernel_regularizer: {l2: 1}}",
            "6:32: model.layers.1.kernel_regularizer.type: required key is missing; there are L1L2",
        ),
        (
            "10}",
            "10, bias_initializer: {type: Constant, valu: 1}}",
            "model.layers.1.bias_initializer.valu: unknown key, did you mean value?",
        ),
        (
            "10}",
            "10, kernel_regularizer: {type: L2, l2: -1}}",
            "6:63: model.layers.1.kernel_regularizer.l2: L2: l2 must be a number of 0 or more",
        ),
        (
            "10}",
            "10, kernel_constraint: {type: MaxNorm, max_value: many}}",
            "model.layers.1.kernel_constraint.max_value: must be a number, got",
        ),
        (
            "{type: Flatten}",
            "{type: Bidirectional, layer: {type: LSTM, unit: 3}}",
            "5:49: model.layers.0.layer.unit: unknown key, did you mean units?",
        ),
        (
            "Adam",
            "Adam\n  learning_rate: {type: CosineDecay, initial_learning_rate: 1, decay_step: 5}",
            "10:64: optimizer.learning_rate.decay_step: unknown key, did you mean decay_steps?",
        ),
        (
            "Adam",
            "Adam\n  learning_rate: {type: CosineDecay, initial_learning_rate: 1, decay_steps: 0}",
            "10:64: optimizer.learning_rate.decay_steps: CosineDecay: decay_steps must be positive",
        ),
        ("Adam", "Adam\n  learning_rate: {type: Cosine}", "unknown schedule Cosine"),
        (
            "loss: sparse_categorical_crossentropy",
            "loss: {type: Huber, delt: 1}",
            "7:21: loss.delt: unknown key, did you mean delta?",
        ),
        ("loss: sparse_categorical_crossentropy", "loss: {type: Huge}", "7:8: loss.type: unknown"),
        (
            "loss: sparse_categorical_crossentropy",
            "loss: {delta: 1}",
            "7:1: loss.type: required key is missing",
        ),
        ("loss: sparse_categorical_crossentropy", "loss: 3", "7:1: loss: must be text, got 3"),
        ("train:", "metrics: [{type: AUC, curve: 3}]\ntrain:", "10:23: metrics.0.curve: must be t"),
        ("train:", "metrics: [{type: AUC, name: [a]}]\ntrain:", "10:23: metrics.0.name: must be"),
        ("train:", "metrics: [mae, 3]\ntrain:", "10:16: metrics.1: must be text, got 3"),
        ("train:", "metrics: [mae, {k: 3}]\ntrain:", "metrics.1.type: required key is missing"),
        ("{epochs: 2}", "{mixed_precision: float8}", "train.mixed_precision: must be 'mixed_float"),
        ("digits}", "digits, validation_fraction: 1}", "2:24: data.validation_fraction: must be"),
        ("digits}", "digits, validation_fracton: 1}", "did you mean validation_fraction?"),
    ],
)
def test_one_problem_in_a_spec(old: str, new: str, expected: str) -> None:
    found = problems(changed(old, new))
    assert len(found) == 1 and expected in found[0], found


def test_specs_are_kept_with_their_defaults() -> None:
    config = load(
        write(JOB),
        [
            "model.layers.1.kernel_regularizer={type: L2, l2: 0.5}",
            "model.layers.1.kernel_initializer={type: RandomNormal}",
            "loss={type: SparseCategoricalCrossentropy, from_logits: true}",
            "metrics=[accuracy, {type: SparseTopKCategoricalAccuracy, k: 3}]",
            "optimizer.learning_rate={type: PolynomialDecay, initial_learning_rate: 1, "
            "decay_steps: 5}",
            "train.mixed_precision=mixed_float16",
            "data.validation_fraction=0.25",
        ],
    )
    values = config.to_dict()
    dense = values["model"]["layers"][1]
    assert dense["kernel_regularizer"] == {"type": "L2", "l2": 0.5}
    assert dense["kernel_initializer"] == {"type": "RandomNormal", "mean": 0.0, "stddev": 0.05}
    assert values["optimizer"]["learning_rate"]["power"] == 1.0
    assert values["loss"]["from_logits"] is True and values["loss"]["axis"] == -1
    assert values["metrics"][0] == "accuracy" and values["metrics"][1]["k"] == 3
    assert values["train"]["mixed_precision"] == "mixed_float16"
    assert values["data"]["validation_fraction"] == 0.25
    assert load(write(config.to_yaml(), "again.yaml")) == config
    job = Job.from_config(config)
    assert (job.loss, job.mixed_precision) == (values["loss"], "mixed_float16")
    half = load(write(JOB), ["train.mixed_precision=mixed_bfloat16"])
    assert Job.from_config(half).mixed_precision == "mixed_bfloat16"
    assert job.config_hash != Job.from_config(load(write(JOB))).config_hash
    regularizer = specs.make("layer", dense).kernel_regularizer
    assert type(regularizer).__name__ == "L2" and regularizer.l2 == 0.5
    assert specs.make("optimizer", values["optimizer"]).rate(5) == pytest.approx(0.20008)
    wrapped = {"type": "TimeDistributed", "layer": {"type": "Dense", "units": 2}}
    made = specs.make("layer", wrapped, dtype="mixed_float16")
    assert made.layer.units == 2 and made.layer.compute_dtype == "float16"


def test_layers_hold_cells_and_lists_of_layers() -> None:
    """With the defaults of each, and mistakes in them found at their place."""
    cells = [{"type": "LSTMCell", "units": 3}, {"type": "GRUCell", "units": 2}]
    spec = {"type": "RNN", "cell": {"type": "StackedRNNCells", "cells": cells}}
    assert not list(constructors.check("layer", spec))
    resolved = constructors.resolve("layer", spec)["cell"]["cells"]
    assert [cell["recurrent_activation"] for cell in resolved] == ["sigmoid", "sigmoid"]
    made = specs.make("layer", spec, dtype="mixed_bfloat16").cell
    assert [cell.units for cell in made.cells] == [3, 2]
    assert made.cells[1].compute_dtype == "bfloat16"
    pipe = {"type": "Pipeline", "layers": [{"type": "Rescaling", "scal": 2.0}]}
    found, _ = constructors.check("layer", pipe)  # the other: scale is missing
    assert found == (("layers", 0, "scal"), "unknown key, did you mean scale?")
    pipe["layers"] = [{"type": "Rescaling", "scale": 2.0}]
    assert specs.make("layer", pipe, dtype="mixed_bfloat16").layers[0].compute_dtype == "bfloat16"


def test_every_kind_has_its_classes_and_no_bases() -> None:
    assert set(specs.classes("regularizer")) == {"L1", "L2", "L1L2", "OrthogonalRegularizer"}
    assert {"CosineDecay", "PiecewiseConstantDecay"} <= set(specs.classes("schedule"))
    assert {"HeNormal", "Zeros"} <= set(specs.classes("initializer"))
    assert not {"Initializer", "RandomInitializer"} & set(specs.classes("initializer"))
    assert set(specs.classes("constraint")) == {"NonNeg", "MinMaxNorm", "MaxNorm", "UnitNorm"}
    assert specs.kind_of("beta_regularizer") == "regularizer" and specs.kind_of("rate") is None
