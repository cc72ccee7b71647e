"""The section that says where the data come from, and the schema for editors."""

from __future__ import annotations

import json

import pytest

from distgrad.config import load
from distgrad.config.editors import json_schema

from .jobs import CONFIGS, changed, problems, write

SOURCES = {
    "{source: mnist}": {"path": None},
    "{source: fashion_mnist, path: folder}": {"path": "folder"},
    "{source: cifar10}": {"path": None},
    "{source: breast_cancer}": {"test_fraction": 0.2, "standardize": True},
    "{source: npy, x: a.npy, y: b.npy, scale: 255}": {"test_x": None, "scale": 255.0},
    "{source: idx, images: a, labels: b}": {"test_images": None, "test_fraction": 0.2},
    "{source: csv, path: a.csv, label: b}": {"delimiter": ",", "header": True, "standardize": True},
    "{source: parquet, path: a, label: b, standardize: false}": {"standardize": False},
    "{source: text, builtin: python-help, sequence_length: 64}": {"vocabulary": None, "path": None},
    "{source: series, path: a.csv, window: 24}": {"horizon": 1, "column": None, "builtin": None},
}


@pytest.mark.parametrize("section", SOURCES)
def test_sources_of_data(section: str) -> None:
    data = load(write(changed("{source: digits}", section))).to_dict()["data"]
    assert data["source"] in section
    assert {key: data[key] for key in SOURCES[section]} == SOURCES[section]


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("{source: csv, path: a}", "2:1: data.label: required key is missing"),
        ("{source: csv, path: a, label: 3}", "data.label: must be text, got 3"),
        ("{source: csv, path: a, label: b, delimiter: ''}", "data.delimiter: "),
        ("{source: csv, path: a, label: b, standardise: true}", "did you mean standardize?"),
        ("{source: text, sequence_length: 8}", "2:1: data: give one of path and builtin"),
        (
            "{source: series, window: 8, path: a, builtin: el-nino}",
            "2:1: data: give one of path and builtin",
        ),
        ("{source: text, builtin: shakespeare, sequence_length: 8}", "must be 'python-help'"),
        ("{source: series, path: a, window: 0}", "data.window: must be greater than or equal to 1"),
        ("{source: npy, x: a, y: b, test_y: c}", "data: test_x and test_y go together"),
        (
            "{source: idx, images: a, labels: b, test_images: c}",
            "data: test_images and test_labels go together",
        ),
        ("{source: cifar}", "unknown data source cifar, did you mean cifar10?"),
    ],
)
def test_a_wrong_source_of_data(section: str, expected: str) -> None:
    (problem,) = problems(changed("{source: digits}", section))
    assert expected in problem


def test_the_shipped_schema_is_current() -> None:
    shipped = json.loads((CONFIGS / "schema.json").read_text())
    hint = "write it again with `distgrad config schema > configs/schema.json`"
    assert shipped == json.loads(json.dumps(json_schema())), hint
