"""Convolutions and their gradients beside the CPU's in float64, by whatever does them on a GPU.

Some plans of cuDNN 9.19 give wrong numbers for gradients of filters with more padding on one side.
"""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.backend.cudnn import CONVOLUTIONS
from distgrad.core.primitive import bind, registry
from distgrad.ops.windows import Geometry

pytestmark = pytest.mark.usefixtures("on_gpu")
GEOMETRIES = [
    Geometry((3,), (2,), ((0, 1),), (1,)),
    Geometry((3,), (1,), ((2, 0),), (1,)),
    Geometry((3,), (2,), ((1, 1),), (1,)),
    Geometry((3, 2), (1, 1), ((1, 1), (0, 1)), (1, 1)),
    Geometry((3, 3), (2, 1), ((0, 1), (1, 1)), (1, 2)),
    Geometry((3, 3), (2, 2), ((0, 1), (0, 1)), (1, 1)),
    Geometry((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    Geometry((2, 2), (3, 2), ((0, 0), (0, 0)), (2, 1)),
    Geometry((1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    Geometry((2, 1, 3), (1, 2, 1), ((1, 0), (0, 0), (1, 1)), (1, 1, 2)),
]
# Batch, space, channels of images and results.
SIZES = [(2, (9, 8, 7), 3, 5), (2, (8, 8, 7), 4, 4), (8, (16, 15, 9), 32, 64)]


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("dtype, near", [("float32", 2e-5), ("float16", 4e-3), ("bfloat16", 3e-2)])
def test_the_numbers_are_those_of_the_cpu(name, geometry, dtype, near):
    rng = np.random.default_rng(0)
    for n, space, channels, units in SIZES:
        depthwise = name.startswith("depthwise")
        space = space[: len(geometry.size)]
        x = rng.normal(size=(n, *space, channels))
        w = rng.normal(size=(*geometry.size, channels, 2 if depthwise else units))
        y = rng.normal(size=(n, *geometry.counts(space), 2 * channels if depthwise else units))
        pairs = {"e": (x, w), "x": (y, w), "w": (x, y)}
        params = {"geometry": geometry, **({"shape": x.shape} if name.endswith("_x") else {})}
        tensors = [tf.cast(tf.constant(a), dtype) for a in pairs[name[-1]]]
        wide = [tf.cast(t, "float64").numpy() for t in tensors]
        expected = registry[name].kernel(np, *wide, **params)
        found = tf.cast(bind(registry[name], *tensors, **params), "float64").numpy()
        atol = near * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=near, atol=atol, err_msg=f"{x.shape}")
