"""Generated sums over middle axes: the bits of NumPy, and of one block alone."""

import numpy as np
import pytest

from distgrad.compile.capture import trace
from distgrad.compile.llvm import engine, middle
from distgrad.core.primitive import bind, registry

pytestmark = pytest.mark.skipif(not engine.available(), reason="no llvmlite")


@pytest.mark.parametrize("shape", [(3, 5, 16), (2, 4, 3, 35), (2, 1, 9, 100), (4, 6, 3)])
@pytest.mark.parametrize("name", ["sum", "mean", "sum_to"])
def test_middle_axes(shape, name):
    from distgrad.compile.cpu_exec import cpu_executor

    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    middle = tuple(range(1, len(shape) - 1))
    kept = (shape[0], *(1 for _ in middle), shape[-1])
    params = {"shape": kept} if name == "sum_to" else {"axis": middle, "keepdims": True}
    program = trace(lambda x: bind(registry[name], x, **params), [x], name).program
    executor = cpu_executor(program, [x])
    assert "Native" in [type(step.fn).__name__ for step in executor.schedule.steps]
    (found,) = executor([x])
    wanted = registry[name].kernel(np, x, **params)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [(0, 2), (1, 3)])
def test_other_axes_are_left_to_numpy(axis):
    from distgrad.compile.cpu_exec import cpu_executor

    x = np.random.default_rng(0).normal(size=(2, 3, 4, 16)).astype(np.float32)
    params = {"axis": axis, "keepdims": False}
    program = trace(lambda x: bind(registry["sum"], x, **params), [x], "sum").program
    (found,) = cpu_executor(program, [x])([x])
    np.testing.assert_allclose(found, x.sum(axis), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 50, 40), (60, 50, 3), (2, 600, 5), (3, 700, 1)])
@pytest.mark.parametrize("name", ["sum", "mean", "sum_to"])
def test_arrays_have_the_bits_of_numpy(shape, name):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for keepdims in (True, False)[: 2 - (name == "sum_to")]:
        params = {"axis": (1,), "keepdims": keepdims}
        if name == "sum_to":
            params = {"shape": (shape[0], 1, shape[2])}
        wanted = registry[name].kernel(np, x, **params)
        found = middle.run(name, x, None, **params)
        if shape[2] == 1:
            assert found is None  # NumPy adds a single column in pairs
            continue
        assert found.shape == wanted.shape and found.tobytes() == wanted.tobytes()
        out = np.empty_like(wanted)
        assert middle.run(name, x, out, **params) is out and out.tobytes() == wanted.tobytes()
