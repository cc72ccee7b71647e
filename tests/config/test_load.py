"""Jobs as YAML: what is accepted, what is refused, and where each mistake is said to stand."""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from distgrad.config import Config, ConfigError, Override, load
from distgrad.config.document import dump, parse

from .jobs import CONFIGS, JOB, changed, problems, write

DIGITS = CONFIGS / "digits.yaml"


# What is read


def test_the_shipped_job() -> None:
    config = load(DIGITS)
    assert (config.name, config.seed, config.device) == ("digits-mlp", 0, "cpu")
    assert config.to_dict()["data"] == {
        "source": "digits",
        "test_fraction": 0.2,
        "validation_fraction": None,
    }
    assert [layer.type for layer in config.model.layers] == ["Flatten", "Dense", "Dropout", "Dense"]
    assert config.loss == "sparse_categorical_crossentropy" and config.metrics == ("accuracy",)
    assert config.to_dict()["optimizer"]["learning_rate"] == 0.003
    assert (config.train.epochs, config.train.global_batch_size) == (40, 64)
    assert (config.parallel.workers, config.parallel.virtual_shards) == (1, 8)
    assert (config.checkpoint.every_steps, config.checkpoint.keep_last) == (50, 3)


def test_its_first_line_names_the_schema_for_editors() -> None:
    for job in CONFIGS.glob("*.yaml"):
        assert job.read_text().startswith("# yaml-language-server: $schema=./schema.json\n"), job


def test_defaults_are_filled_in() -> None:
    values = load(write(JOB)).to_dict()
    assert values["seed"] == 0 and values["device"] == "cpu" and values["metrics"] == []
    assert values["data"] == {
        "source": "digits",
        "test_fraction": 0.2,
        "validation_fraction": None,
    }
    assert values["train"] == {
        "epochs": 2,
        "global_batch_size": 32,
        "shuffle": True,
        "class_weight": None,
        "jit": "auto",
        "mixed_precision": None,
        "tensor_float_32": False,
        "recompute": False,
    }
    assert values["parallel"]["launcher"] == "local"
    assert values["parallel"]["threads_per_worker"] is None
    assert values["checkpoint"] == {"every_steps": None, "keep_last": 3}
    # Constructors' defaults are part of the record, too.
    assert values["model"]["layers"][1]["use_bias"] is True
    assert values["optimizer"]["beta_1"] == 0.9


@pytest.mark.parametrize("overrides", [[], ["optimizer.learning_rate=1e-07", "name=on"]])
def test_the_resolved_job_reloads_unchanged(overrides: list[str]) -> None:
    config = load(DIGITS, overrides)
    again = load(write(config.to_yaml()))
    assert again == config
    assert again.to_yaml() == config.to_yaml()


def test_yaml_1_2() -> None:
    text = "a: 1e-3\nb: no\nc: 12:30:00\nd: 2024-01-01\ne: ~\nf: 010\ng: .inf\nh: '3'\ni: True\n"
    assert parse(text, "x").value == {
        "a": 0.001,
        "b": "no",
        "c": "12:30:00",
        "d": "2024-01-01",
        "e": None,
        "f": 10,
        "g": math.inf,
        "h": "3",
        "i": True,
    }


def test_what_is_dumped_is_what_is_parsed() -> None:
    values = {
        "text": ["no", "1e-3", "2024-01-01", "", "a: b", "# x", "ä\n b", "x " * 100, "null", "~"],
        "numbers": [1e-7, 1e22, 5e-324, 0.1, -0.0, 1.0, 10**20, True, None],
        "empty": [{}, []],
    }
    assert parse(dump(values), "x").value == values


def test_a_section_may_be_an_alias() -> None:
    text = changed("- {type: Dense, units: 10}", "- &d {type: Dense, units: 10}\n    - *d")
    assert len(load(write(text)).model.layers) == 3


# What is refused


def test_the_error_of_the_manual() -> None:
    text = "name: a\ndata: {source: digits}\noptimizer:\n  type: Adam\n  learning_rte: 1e-3\n"
    text += "loss: mean_squared_error\nmodel: {layers: [{type: Flatten}]}\n"
    assert problems(text) == [
        "job.yaml:5:3: optimizer.learning_rte: unknown key, did you mean learning_rate?"
    ]


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    text = """\
name: 3
seeed: 1
data: {source: digits, test_fractoin: 0.2}
model:
  layers:
    - {type: Flaten}
    - {type: Dense, unit: 128, activation: 3}
    - {type: Dropout, rate: 1.5}
    - {units: 3}
loss: sparse_crossentropy
optimizer: {type: Adam, lr: 0.001}
train: {epochs: 0, batch_size: 64, epochs: 2}
parallel: {launcher: mpii, workers: 9, virtual_shards: 8}
checkpoint: {keep_last: 1}
epoch: 4
"""
    found = problems(text, "train.shuffle=3", "lr=0.1")
    assert [problem.rsplit(": ", 1)[0] for problem in found[:3]] == [
        "job.yaml:1:1: name",
        "job.yaml:2:1: seeed",
        "job.yaml:3:24: data.test_fractoin",
    ]
    lines = [int(problem.split(":")[1]) for problem in found[:-2]]
    assert lines == [1, 2, 3, 6, 7, 7, 8, 9, 10, 11, 12, 12, 12, 13, 13, 14, 15]
    assert found[-2:] == [
        "command line: train.shuffle=3: must be true or false, got 3",
        "command line: lr=0.1: unknown key, did you mean optimizer.learning_rate?",
    ]


def test_a_misspelt_key_is_not_missing_too() -> None:
    assert len(problems(changed("units: 10", "unit: 10"))) == 1
    assert len(problems(changed("name: small", "nmae: small"))) == 1
    assert len(problems(changed("source: digits", "sourc: digits"))) == 1


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: small\n", "", "1:1: name: required key is missing"),
        ("name: small", "name: a/b", "1:1: name: must hold only letters, digits"),
        ("name: small", "name: 3", "1:1: name: must be text, got 3"),
        ("{epochs: 2}", '{epochs: "2"}', '10:9: train.epochs: must be a whole number, got "2"'),
        ("{epochs: 2}", "{epochs: 2e1}", "10:9: train.epochs: must be a whole number, got 20.0"),
        ("{epochs: 2}", "{epochs: true}", "10:9: train.epochs: must be a whole number, got true"),
        ("{epochs: 2}", "{shuffle: no}", '10:9: train.shuffle: must be true or false, got "no"'),
        ("{epochs: 2}", "", "10:1: train: must be a section of `key: value` lines, got null"),
        ("{epochs: 2}", "{batch_size: 2}", "train.batch_size: unknown key, did you mean glob"),
        ("{epochs: 2}", "{zzz: 2}", "train.zzz: unknown key; the keys here are epochs"),
        ("{epochs: 2}", "{keep_last: 2}", "unknown key, did you mean checkpoint.keep_last?"),
        ("digits}", "digts}", "2:8: data.source: unknown data source digts, did you mean digits?"),
        ("{source: digits}", "{path: x}", "2:1: data.source: required key is missing; there are"),
        ("{source: digits}", "{source: npz}", "2:1: data.path: required key is missing"),
        ("digits}", "digits, test_fraction: 1}", "data.test_fraction: must be less than 1, got 1"),
        ("digits}", "digits, test_fraction: .nan}", "data.test_fraction: must be a finite number"),
        ("workers: 2", "workers: 5", "parallel.workers: 5 workers are more than the 4"),
        ("workers: 2", "launcher: pbs", "must be 'local', 'mpi' or 'ray', got \"pbs\""),
        ("train:", "checkpoint: {keep_last: 1}\ntrain:", "checkpoint.keep_last: must be greater"),
        ("loss: sp", "loss: spp", "7:1: loss: unknown loss spparse_categorical_crossentr"),
        ("train:", "metrics: [accurcy]\ntrain:", "10:11: metrics.0: unknown metric accurcy, did"),
        ("train:", "metrics: accuracy\ntrain:", '10:1: metrics: must be a list, got "accuracy"'),
        ("{type: Flatten}", "{tpe: Flatten}", "5:7: model.layers.0.type: required key is missing"),
        ("{type: Flatten}", "{<<: {}, type: Flatten}", "5:8: model.layers.0.<<: YAML 1.2 has no"),
        ("type: Flatten", "type: flaten", "5:8: model.layers.0.type: unknown layer flaten, did"),
        ("type: Flatten", "type: Layer", "model.layers.0.type: unknown layer Layer"),
        ("units: 10", "unit: 10", "6:21: model.layers.1.unit: unknown key, did you mean units?"),
        (", units: 10", "", "6:7: model.layers.1.units: required key is missing; Dense has"),
        ("units: 10", "units: ten", "6:21: model.layers.1.units: must be a whole number, got"),
        ("Dense, units: 10", "Dropout, rate: 1.5", "6:23: model.layers.1.rate: Dropout: "),
        (
            "units: 10}",
            "units: 1, name: a}\n    - {type: Flatten, name: a}",
            "layers.2.name: another",
        ),
        ("units: 10", "units: 0", "6:21: model.layers.1.units: Dense: units must be"),
        ("10}", "10, activation: rleu}", "6:32: model.layers.1.activation: Dense: unknown act"),
        ("10}", "10, bias_initializer: x}", "6:32: model.layers.1.bias_initializer: Dense: unk"),
        ("Dense, units: 10", "Dropout, rate: .nan", "6:23: model.layers.1.rate: must be a finite"),
        ("type: Adam", "type: adma", "9:3: optimizer.type: unknown optimizer adma, did you mean"),
        ("Adam", "Adam\n  bta_1: 1", "10:3: optimizer.bta_1: unknown key, did you mean beta_1?"),
        ("Adam", "Adam\n  lr: 1", "10:3: optimizer.lr: unknown key, did you mean learning_rate?"),
        ("Adam", "Adam\n  learning_rate: x", "10:3: optimizer.learning_rate: must be "),
    ],
)
def test_one_problem(old: str, new: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(changed(old, new)))


def test_an_empty_list_of_layers() -> None:
    text = JOB.replace("\n    - {type: Flatten}\n    - {type: Dense, units: 10}", " []")
    assert problems(text) == ["job.yaml:4:3: model.layers: must have at least one entry"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "- 1\n", "text\n"])
def test_a_file_without_keys(text: str) -> None:
    assert len(problems(text, "name=x")) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: [1,\n", "job.yaml:2:1: not valid YAML: "),
        ("name: a: b\n", "job.yaml:1:8: not valid YAML: mapping values are not allowed here"),
        ("a: 1\n\tb: 2\n", "job.yaml:2:1: not valid YAML: "),
        ("a: *b\n", "job.yaml:1:4: not valid YAML: found undefined alias 'b'"),
        ("a: 1\n---\nb: 1\n", "job.yaml:2:1: not valid YAML: "),
        ("a: \x07\n", "job.yaml: not valid YAML: "),
    ],
)
def test_broken_yaml_shows_the_place_of_the_parser(text: str, expected: str) -> None:
    assert problems(text)[0].startswith(expected)


def test_broken_yaml_in_other_ways() -> None:
    text = JOB + "name: again\nseed: &a [*a]\ndevice: !gpu cpu\n? [1]\n: 2\nepochs: !!int x\n"
    found = problems(text)
    for expected in (
        "job.yaml:12:1: name: duplicate key, first set on line 1",
        "job.yaml:13:7: seed.0: the alias *a stands inside of itself",
        "job.yaml:14:1: device: the tag !gpu is not for jobs; write plain values",
        "job.yaml:15:3: a key must be plain text",
        "job.yaml:17:1: epochs: 'x' is not of the type that its tag says",
    ):
        assert expected in found


def test_a_missing_file_lists_those_that_are_there() -> None:
    write(JOB, "digits.yaml")
    with pytest.raises(ConfigError, match="digit.yaml: no such job file, did you mean digits."):
        load("digit.yaml")
    with pytest.raises(ConfigError, match=r"other/x.yaml: no such job file, and no other \*.yaml"):
        load("other/x.yaml")
    Path("configs").mkdir()
    write(JOB, "configs/a.yaml")
    with pytest.raises(ConfigError, match="other/zzz: no such job file; there are configs/a.yaml"):
        load("other/zzz")
    with pytest.raises(ConfigError, match="configs: cannot be read"):
        load("configs")
    Path("latin.yaml").write_bytes(b"name: \xe4\n")
    with pytest.raises(ConfigError, match="latin.yaml: not UTF-8 text"):
        load("latin.yaml")


def test_the_error_survives_a_pickle() -> None:
    error = pickle.loads(pickle.dumps(ConfigError(["a", "b"])))
    assert error.problems == ("a", "b") and error.exit_code == 2


# Overrides


def test_overrides_are_yaml_1_2_and_reach_into_lists() -> None:
    config = load(
        write(JOB),
        [
            "optimizer.learning_rate=1e-4",
            "model.layers.1.units=64",
            "parallel.virtual_shards=null",
            "metrics=[accuracy]",
            "checkpoint.every_steps=5",
            "seed=1",
            "seed=2",
        ],
    )
    values = config.to_dict()
    assert values["optimizer"]["learning_rate"] == 1e-4
    assert values["model"]["layers"][1]["units"] == 64
    assert config.parallel.virtual_shards is None
    assert config.metrics == ("accuracy",)
    assert config.checkpoint.every_steps == 5
    assert config.seed == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimizer.learning_rte=1", "unknown key, did you mean learning_rate?"),
        ("optimizr.learning_rate=1", "optimizr: unknown key, did you mean optimizer?"),
        ("optimizer={type: Adam, lr: 1}", "optimizer.lr: unknown key, did you mean learning_rate?"),
        ("learning_rate=1", "unknown key, did you mean optimizer.learning_rate?"),
        ("batch_size=1", "unknown key, did you mean train.global_batch_size?"),
        ("train.epochs=", "must be a whole number, got null"),
        ("train.epochs=[1", "the value is not valid YAML: "),
        ("train={epochs: 1, epochs: 2}", "duplicate key, first set on line 1"),
        ("model.layers.2.units=1", "model.layers has no entry 2, it has 2 entries, counted from 0"),
        ("model.layers.x=1", "model.layers has no entry x, it has 2 entries, counted from 0"),
        ("name.first=1", "name is not a section, so it has no key first"),
        ("parallel.workers=5", "5 workers are more than the 4 virtual shards"),
        ("parallel.deterministic=false", "must be true or auto beside virtual_shards"),
        ("tracking.timeline=[5, 3]", "must be a first and a last step, or how many from the first"),
        ("tracking.timeline=[5]", "must be a first and a last step, or how many from the first"),
        ("tracking.timeline=x", 'must be a whole number or a list, got "x"'),
        ("parallel.deterministic=7", "must be true or false or 'auto', got 7"),
        ("train.class_weight=-1", "must be 'balanced' or a section of `key: value` lines, got -1"),
        ("train.class_weight={a: 0}", "train.class_weight.a: must be greater than 0, got 0"),
        ("train..epochs=1", "an override reads key.sub=value"),
        ("epochs", "an override reads key.sub=value"),
    ],
)
def test_a_wrong_override(override: str, expected: str) -> None:
    (problem,) = problems(JOB, override)
    assert problem.startswith(f"command line: {override}: {expected}")


def test_an_override_mends_what_the_file_has_wrong() -> None:
    assert load(write(changed("epochs: 2", "epochs: x")), ["train.epochs=3"]).train.epochs == 3


def test_an_override_of_the_program_has_its_own_label() -> None:
    override = Override(("parallel", "workers"), 9, "mpirun started 9 workers")
    (problem,) = problems(JOB, override)
    assert problem.startswith("mpirun started 9 workers: 9 workers are more than the 4 virtual")


# One level of reuse


def test_a_base_is_merged() -> None:
    Path("sub").mkdir()
    write(JOB + "metrics: [accuracy]\n", "sub/base.yaml")
    text = "base: base.yaml\ntrain: {global_batch_size: 8}\nmodel: {layers: [{type: Flatten}]}\n"
    config = load(write(text, "sub/job.yaml"))
    assert config.name == "small" and config.metrics == ("accuracy",)
    assert (config.train.epochs, config.train.global_batch_size) == (2, 8)
    assert len(config.model.layers) == 1
    assert "base" not in config.to_yaml()


def test_another_optimizer_takes_no_keys_of_the_base() -> None:
    write(JOB.replace("type: Adam", "type: Adam\n  beta_1: 0.8"), "base.yaml")
    values = load(write("base: base.yaml\noptimizer: {type: SGD}\n")).to_dict()
    assert values["optimizer"]["type"] == "SGD" and "beta_1" not in values["optimizer"]
    values = load(write("base: base.yaml\noptimizer: {learning_rate: 0.1}\n")).to_dict()
    assert values["optimizer"]["beta_1"] == 0.8 and values["optimizer"]["learning_rate"] == 0.1


def test_problems_of_a_base_stand_in_its_file() -> None:
    write(changed("{epochs: 2}", "{epochs: 0}"), "base.yaml")
    found = problems("seed: x\nbase: base.yaml\n")
    assert found[0].startswith("job.yaml:1:1: seed: ")
    assert found[1].startswith("base.yaml:10:9: train.epochs: must be greater than or equal to 1")
    found = problems("base: base.yaml\ntrain: {epochs: -1}\n")
    assert len(found) == 1 and found[0].startswith("job.yaml:2:9: train.epochs: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base: job.yaml\n", "job.yaml:1:1: base: the bases go round in a circle: job.yaml -> job"),
        (
            "base: second.yaml\n",
            "job.yaml:1:1: base: the bases go round in a circle: "
            "job.yaml -> second.yaml -> third.yaml -> job.yaml",
        ),
        ("base: fourth.yaml\n", "fourth.yaml:2:1: base: a base cannot have a base of its own"),
        ("seed: 1\nbase: no.yaml\n", "job.yaml:2:1: base: no.yaml: no such job file"),
        ("base: [a]\n", "job.yaml:1:1: base: must be the name of another job file"),
        ("base: list.yaml\n", "job.yaml:1:1: base: list.yaml is not a job of `key: value` lines"),
    ],
)
def test_a_wrong_base(text: str, expected: str) -> None:
    write("seed: 1\nbase: third.yaml\n", "second.yaml")
    write("base: ./job.yaml\n", "third.yaml")
    write("seed: 1\nbase: list.yaml\n", "fourth.yaml")
    write("- 1\n", "list.yaml")
    assert problems(text)[0].startswith(expected)


def test_a_config_can_be_made_without_a_file() -> None:
    make: Callable[..., Config] = Config
    values = load(write(JOB)).to_dict()
    assert Config.model_validate_json(json.dumps(values)) == load(write(JOB))
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        make(**values, extra=1)


def test_aliases_that_would_fill_the_memory_are_refused_at_once() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for above, here in pairwise("abcdefghi"):
        lines.append(f"{here}: &{here} [{', '.join([f'*{above}'] * 10)}]")
    (found,) = problems("\n".join(lines) + "\n")
    assert re.match(r"job.yaml:\d+:\d+: its aliases make it longer than 100,000 values", found)


def test_sections_too_deep_are_a_problem_of_the_file() -> None:
    (found,) = problems("a: " + "[" * 3000 + "]" * 3000)
    assert found == "job.yaml: its sections stand too deep inside each other"
