"""Functions of scripts written for TensorFlow, against the stored values of TensorFlow."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf

HERE = Path(__file__).parent / "reference"
STORED = json.loads((HERE / "expressions.json").read_text())


def _module(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


expressions = _module("expressions")
MORE = ("ragged_expressions", "sparse_expressions", "raw_expressions")
GROUPS = {**expressions.GROUPS, **{k: v for name in MORE for k, v in _module(name).GROUPS.items()}}


@pytest.fixture(scope="module")
def found():
    return expressions.values(tf, np, GROUPS)


@pytest.mark.parametrize(
    "group, expression", [(group, each) for group in STORED for each in STORED[group]]
)
def test_value_is_that_of_tensorflow(group, expression, found):
    check(found[group][expression], STORED[group][expression])


def check(value, expected):
    """Equal; to 2e-6 where they are floats."""
    if isinstance(expected, list):
        assert len(value) == len(expected)
        for each, wanted in zip(value, expected, strict=True):
            check(each, wanted)
    elif isinstance(expected, dict):
        assert (value["dtype"], value["shape"]) == (expected["dtype"], expected["shape"])
        if expected["dtype"] == "string":
            assert value["values"] == expected["values"]
            return
        exact = "float" not in expected["dtype"] and "complex" not in expected["dtype"]
        tolerance = 0 if exact else 2e-6
        np.testing.assert_allclose(
            value["values"], expected["values"], rtol=tolerance, atol=tolerance
        )
    else:
        assert value == expected
