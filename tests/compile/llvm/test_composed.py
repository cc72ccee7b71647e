"""Convolutions that are made of plain generated ones, beside the NumPy kernels in float64."""

import numpy as np
import pytest

from distgrad.compile.capture import trace
from distgrad.compile.llvm import composed, engine
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


def square(size, stride, before, after, dilation):
    return Geometry((size,) * 2, (stride,) * 2, ((before, after),) * 2, (dilation,) * 2)


DILATED = [
    (2, (12, 13), 16, 17, square(3, 1, 2, 2, 2)),
    (2, (11, 9), 3, 4, square(2, 1, 0, 3, 3)),
    (2, (9, 20), 5, 6, Geometry((3, 2), (1, 1), ((1, 0), (4, 0)), (1, 4))),
    (4, (60,), 12, 9, Geometry((3,), (1,), ((10, 0),), (5,))),
    (4, (40,), 12, 9, Geometry((4,), (1,), ((0, 0),), (2,))),
]


def error(found, wanted):
    return np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2))


def check(name, arrays, params):
    """Eagerly and in a program, both without anything of NumPy's."""
    from distgrad.compile.cpu_exec import cpu_executor

    exact = registry[name].kernel(np, *(a.astype(np.float64) for a in arrays), **params)
    found = composed.run(name, *arrays, **params)
    assert found.shape == exact.shape and error(found, exact) < 1e-6, name
    program = trace(lambda *a: bind(registry[name], *a, **params), arrays, name).program
    executor = cpu_executor(program, arrays)
    assert executor(arrays)[0].tobytes() == found.tobytes()
    assert not executor.schedule.whole


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("case", [*CASES, *DILATED])
def test_three_axes_and_dilations(case):
    samples, space, channels, outputs, geometry = case
    samples *= 64  # small ones are NumPy's
    x, w = normal(samples, *space, channels), normal(*geometry.size, channels, outputs)
    dy = normal(samples, *geometry.counts(space), outputs)
    check("convolve", (x, w), {"geometry": geometry})
    check("convolve_grad_x", (dy, w), {"geometry": geometry, "shape": x.shape})
    check("convolve_grad_w", (x, dy), {"geometry": geometry})


@pytest.mark.parametrize("multiplier", [1, 2, 3])
@pytest.mark.parametrize("geometry", [square(3, 1, 1, 1, 2), square(3, 2, 1, 1, 1)])
def test_several_outputs_for_each_channel(multiplier, geometry):
    x, w = normal(40, 9, 10, 7), normal(3, 3, 7, multiplier)
    dy = normal(40, *geometry.counts((9, 10)), 7 * multiplier)
    check("depthwise_convolve", (x, w), {"geometry": geometry})
    check("depthwise_convolve_grad_x", (dy, w), {"geometry": geometry, "shape": x.shape})
    check("depthwise_convolve_grad_w", (x, dy), {"geometry": geometry})


def test_others_are_left_to_numpy():
    for size, geometry in (
        (4, Geometry((2, 2, 2), ONES, ((0, 0),) * 3, (1, 2, 1))),
        (16, square(3, 2, 0, 0, 2)),
    ):
        x = np.ones((16, *(size,) * len(geometry.size), 8), np.float32)
        w = np.ones((*geometry.size, 8, 3), np.float32)
        assert composed.run("convolve", x, w, geometry=geometry) is None
