"""Generated interpolation beside the NumPy kernel in float64."""

import numpy as np
import pytest

from distgrad.compile.capture import trace
from distgrad.compile.llvm import bands, engine
from distgrad.core.primitive import bind, registry

pytestmark = pytest.mark.skipif(not engine.available(), reason="no llvmlite")

METHODS = [("bilinear", False), ("bilinear", True), ("bicubic", False), ("area", False)]
SIZES = [(7, 18), (18, 7), (5, 5), (1, 4), (4, 1), (9, 3)]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("method", "antialias"), [*METHODS, ("lanczos5", True)])
def test_all_sizes_and_transposes_are_as_in_float64(method, antialias, axis):
    from distgrad.compile.cpu_exec import cpu_executor

    rng = np.random.default_rng(0)
    for before, after in SIZES:
        for transpose in (False, True):
            shape = [3, 4, 21]
            shape[axis] = after if transpose else before
            x = rng.normal(size=shape).astype(np.float32)
            params = {"axis": axis, "before": before, "after": after, "transpose": transpose}
            params |= {"method": method, "antialias": antialias}
            primitive = registry["interpolate"]
            wanted = primitive.kernel(np, x.astype(np.float64), **params)
            found = bands.run(x, **params)
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
            program = trace(lambda x, p=params: bind(registry["interpolate"], x, **p), [x], "f")
            executor = cpu_executor(program.program, [x])
            assert executor([x])[0].tobytes() == found.tobytes()


def test_a_nan_reaches_its_neighbours_and_no_others():
    x = np.zeros((1, 64, 40), np.float32)
    x[0, 20] = np.nan
    params = {"axis": 1, "before": 64, "after": 128, "transpose": False, "method": "bilinear"}
    found = bands.run(x, **params, antialias=False)
    assert 2 <= np.isnan(found[0, :, 0]).sum() <= 6
