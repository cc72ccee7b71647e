"""Every primitive against an independent function of NumPy, SciPy or plain Python.

The tables lie in ``references``; a primitive that is in none of them fails.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import distgrad  # noqa: F401
from distgrad.core.primitive import registry

# The updates of optimizers are compared with Keras, step by step, in tests/keras.
BUILT_IN = {n: p for n, p in registry.items() if p.__module__ != "distgrad.ops.optim"}


def tables() -> dict:
    merged: dict = {}
    for path in sorted((Path(__file__).parent / "references").glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"references_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        twice = merged.keys() & module.REFERENCES.keys()
        assert not twice, f"two references for {sorted(twice)}"
        merged.update(module.REFERENCES)
    return merged


REFERENCES = tables()


def outputs(value) -> list:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def test_every_primitive_has_a_reference_and_every_reference_a_primitive():
    assert sorted(BUILT_IN.keys() - REFERENCES.keys()) == []
    assert sorted(REFERENCES.keys() - BUILT_IN.keys()) == []


CASES = [
    pytest.param(name, s, id=f"{name}-{i}")
    for name in sorted(BUILT_IN.keys() & REFERENCES.keys())
    for i, s in enumerate(BUILT_IN[name].make_samples(np.random.default_rng(0)))
]


@pytest.mark.parametrize("name, s", CASES)
def test_forward_value(name, s):
    p = BUILT_IN[name]
    found = outputs(p(*s.args, **s.params))
    expected = outputs(REFERENCES[name](*s.args, **{**p.defaults, **s.params}))
    assert len(found) == len(expected)
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f.numpy(), e, rtol=1e-9, atol=1e-12)
        assert tuple(f.shape) == np.shape(e)
