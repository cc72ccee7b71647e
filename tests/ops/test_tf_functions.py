"""Functions under TensorFlow's names against the stored values and gradients of TensorFlow."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf

FOLDER = Path(__file__).parents[1] / "reference"
_spec = importlib.util.spec_from_file_location("tf_functions", FOLDER / "tf_functions.py")
tf_functions = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tf_functions)


@pytest.fixture(scope="module")
def expected():
    with np.load(FOLDER / "tf_functions.npz") as stored:
        found = {}
        for key in stored.files:
            call, _, what = key.rpartition("|")
            found.setdefault(call, {})[what] = stored[key]
    return found


@pytest.mark.parametrize("call", tf_functions.ALL)
def test_values_and_gradients_are_those_of_tensorflow(call, expected):
    wanted = expected[call]
    gradients = any(key.startswith("grad/") for key in wanted)
    found = tf_functions.evaluate(tf, call, gradients)
    assert {k for k in found if k.startswith("out/")} == {k for k in wanted if k[:4] == "out/"}
    for key, value in wanted.items():
        ours = found[key]
        assert (ours.dtype, ours.shape) == (value.dtype, value.shape), key
        if value.dtype == np.uint8:  # a float in between was rounded
            assert np.abs(ours.astype(int) - value).max() <= 1
            continue
        size = np.abs(value[np.isfinite(value)]).max(initial=1.0)
        tolerance = tf_functions.TOLERANCES.get(call, 2e-5)
        np.testing.assert_allclose(
            ours, value, rtol=tolerance, atol=tolerance / 4 * size, err_msg=key
        )
