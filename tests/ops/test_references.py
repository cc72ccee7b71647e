"""Every primitive's value against a function that shares no code with its kernel."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from distgrad.testing.primitives import built_in, samples_of

FOLDER = Path(__file__).parent / "references"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"references_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLES = {path.stem: load(path) for path in sorted(FOLDER.glob("*.py"))}
REFERENCES = {name: fn for table in TABLES.values() for name, fn in table.REFERENCES.items()}
PROPERTIES = {
    name: fn for t in TABLES.values() for name, fn in getattr(t, "PROPERTIES", {}).items()
}
PRIMITIVES = built_in()
CASES = [
    pytest.param(name, s, id=f"{name}-{i}")
    for name, p in PRIMITIVES.items()
    for i, s in enumerate(samples_of(p))
]


def test_no_primitive_is_left_out():
    """A primitive without a reference fails, and so does a reference without its primitive."""
    known = set(REFERENCES) | set(PROPERTIES)
    assert not set(PRIMITIVES) - known, f"without a reference: {set(PRIMITIVES) - known}"
    assert not known - set(PRIMITIVES), f"of no primitive: {known - set(PRIMITIVES)}"


def test_no_primitive_has_two_references():
    """Each name stands in one table, so that none hides another."""
    names = [n for t in TABLES.values() for n in [*t.REFERENCES, *getattr(t, "PROPERTIES", ())]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name, s", CASES)
def test_value_equals_the_reference(name, s):
    """The kernel's value on a sample, in float64, to a few of its last digits."""
    p = PRIMITIVES[name]
    value = p.kernel(np, *s.args, **{**p.defaults, **s.params})
    if name in PROPERTIES:
        PROPERTIES[name](value, *s.args, **s.params)
        return
    expected = REFERENCES[name](*s.args, **s.params)
    if not p.multiple:
        value, expected = (value,), (expected,)
    for v, e in zip(value, expected, strict=True):
        assert np.shape(v) == np.shape(e)
        assert np.asarray(v).dtype.kind == np.asarray(e).dtype.kind
        np.testing.assert_allclose(v, e, rtol=1e-10, atol=1e-12)


def test_a_wrong_reference_is_found(monkeypatch):
    """The comparison above can fail."""
    monkeypatch.setitem(REFERENCES, "tanh", np.sinh)
    with pytest.raises(AssertionError):
        test_value_equals_the_reference("tanh", samples_of(PRIMITIVES["tanh"])[0])
