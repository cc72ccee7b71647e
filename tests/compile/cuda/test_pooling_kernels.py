"""Max pooling in kernels of its own: the bits of its primitives, also at ties, nan and edges."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile.capture import trace
from distgrad.compile.cupy_exec import cuda_executor
from distgrad.core.primitive import bind
from distgrad.ops.pooling import max_windows, max_windows_grad
from distgrad.ops.windows import Geometry

RNG = np.random.default_rng(0)
pytestmark = pytest.mark.usefixtures("on_gpu")
CASES = {
    "apart": ((2, 6, 4, 3), Geometry((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))),
    "a rest": ((2, 7, 5, 3), Geometry((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))),
    "over each other": ((2, 7, 6, 2), Geometry((3, 3), (2, 2), ((1, 1), (0, 1)), (1, 1))),
    "one by one": ((1, 5, 5, 1), Geometry((2, 3), (1, 1), ((0, 1), (1, 1)), (1, 1))),
    "dilated": ((2, 9, 8, 2), Geometry((2, 2), (1, 2), ((0, 0), (1, 0)), (3, 2))),
    "a line": ((3, 11, 2), Geometry((3,), (2,), ((2, 2),), (1,))),
    "a volume": ((1, 4, 3, 4, 2), Geometry((2, 2, 2), (2, 1, 2), ((0, 0),) * 3, (1, 1, 1))),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_windows_and_their_gradients_have_the_bits_of_the_primitives(case, dtype):
    shape, geometry = CASES[case]
    kind = tf.as_dtype(dtype).numpy_dtype
    x = RNG.integers(-2, 3, shape).astype(kind)  # most windows have their maximum twice
    x.flat[3], x.flat[-2] = np.nan, -np.inf
    dy = RNG.normal(size=(shape[0], *geometry.counts(shape[1:-1]), shape[-1])).astype(kind)

    def f(x, dy):
        y = bind(max_windows, x, geometry=geometry)
        return y, bind(max_windows_grad, dy, x, geometry=geometry)

    executor = cuda_executor(trace(f, (x, dy)).program, (x, dy))
    assert not any(node.opaque for node in executor.plan.nodes)
    if dtype == "bfloat16":  # of the same numbers in float32; sums of two are rounded once
        wide = x.astype(np.float32), dy.astype(np.float32)
    else:
        wide = x, dy
    expected = (
        max_windows.kernel(np, wide[0], geometry=geometry),
        max_windows_grad.kernel(np, wide[1], wide[0], geometry=geometry),
    )
    for found, value in zip(executor((x, dy)), expected, strict=True):
        found = np.asarray(found.get())
        assert found.dtype == kind
        if dtype == "bfloat16":
            found = found.astype(np.float32)
            np.testing.assert_allclose(found, value, rtol=2**-6, atol=2**-6)
        else:
            np.testing.assert_array_equal(found, value)


def test_large_windows_are_left_to_the_primitive():
    x = RNG.normal(size=(1, 10, 10, 1)).astype(np.float32)
    executor = cuda_executor(
        trace(lambda x: tf.nn.max_pool2d(x, 5, 1, "VALID"), (x,)).program, (x,)
    )
    assert any(node.opaque for node in executor.plan.nodes)
    np.testing.assert_array_equal(
        executor((x,))[0].get(), tf.nn.max_pool2d(tf.constant(x), 5, 1, "VALID").numpy()
    )
