"""Generated convolutions over three axes beside the NumPy kernels in float64."""

import numpy as np
import pytest

from distgrad.compile.capture import trace
from distgrad.compile.llvm import engine, volumes
from distgrad.core.primitive import bind, registry
from distgrad.ops.windows import Geometry

pytestmark = pytest.mark.skipif(not engine.available(), reason="no llvmlite")

ONES = (1, 1, 1)
# samples, space, channels in and out, geometry
CASES = [
    (2, (5, 6, 7), 3, 4, Geometry((3, 3, 3), ONES, ((1, 1), (1, 1), (1, 1)), ONES)),
    (2, (6, 5, 5), 16, 17, Geometry((3, 3, 3), ONES, ((1, 1), (0, 0), (1, 1)), ONES)),
    (1, (7, 6, 6), 2, 5, Geometry((2, 2, 2), (2, 2, 2), ((0, 1), (0, 0), (0, 0)), ONES)),
    (3, (4, 5, 6), 4, 3, Geometry((3, 1, 2), (2, 1, 1), ((2, 2), (0, 0), (1, 0)), ONES)),
    (2, (9, 4, 4), 3, 2, Geometry((3, 3, 3), ONES, ((0, 0), (1, 1), (1, 1)), (3, 1, 1))),
    (2, (2, 4, 4), 3, 2, Geometry((5, 1, 1), (3, 1, 1), ((4, 4), (0, 0), (0, 0)), ONES)),
]


@pytest.mark.parametrize("case", CASES)
def test_frames_that_meet_a_filter(case):
    from distgrad.compile.cpu_exec import cpu_executor

    samples, space, channels, outputs, geometry = case
    rng = np.random.default_rng(0)
    shapes = (samples, *space, channels), (*geometry.size, channels, outputs)
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    dy = rng.normal(size=(samples, *geometry.counts(space), outputs)).astype(np.float32)
    for name, arrays, params in (
        ("convolve", (x, w), {}),
        ("convolve_grad_x", (dy, w), {"shape": x.shape}),
        ("convolve_grad_w", (x, dy), {}),
    ):
        params["geometry"] = geometry
        exact = registry[name].kernel(np, *(a.astype(np.float64) for a in arrays), **params)
        found = volumes.run(name, *arrays, **params)
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4, err_msg=name)
        program = trace(lambda *a, n=name, p=params: bind(registry[n], *a, **p), arrays, name)
        executor = cpu_executor(program.program, arrays)
        assert executor(arrays)[0].tobytes() == found.tobytes()
        assert not executor.schedule.whole


def test_other_dilations_are_left_to_numpy():
    geometry = Geometry((2, 2, 2), ONES, ((0, 0),) * 3, (1, 2, 1))
    x, w = np.ones((1, 4, 4, 4, 2), np.float32), np.ones((2, 2, 2, 2, 3), np.float32)
    assert volumes.run("convolve", x, w, geometry=geometry) is None
