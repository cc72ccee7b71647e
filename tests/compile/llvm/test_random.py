"""Generated random numbers: the bits of eager ones, and as many as are asked for."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile.capture import trace
from distgrad.compile.llvm import engine
from distgrad.core.primitive import bind
from distgrad.ops.draws import random_uniform

pytestmark = pytest.mark.skipif(not engine.available(), reason="needs llvmlite and FMA")

from distgrad.compile.cpu_exec import cpu_executor  # noqa: E402


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (8,), (5, 7), (16, 33), (0, 4)])
def test_uniform_numbers_have_the_bits_of_eager_ones(shape, dtype):
    keys = np.array([[1, 2, 3, 4], [2**64 - 1, 2**63, 2**64 - 1, 0], [0, 0, 0, 0]], np.uint64)

    def fn(key):
        return bind(random_uniform, key, shape=shape, dtype=np.dtype(dtype))

    program = trace(fn, [keys[0]]).program
    assert program is not None
    executor = cpu_executor(program, [keys[0]])
    for key in keys:
        (found,) = executor([key])
        wanted = fn(tf.constant(key)).numpy()
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        assert found.tobytes() == wanted.tobytes()


def test_dropout_draws_the_same_mask_as_eager():
    x = np.ones((33, 17), np.float32)

    def fn(x):
        return tf.nn.dropout(x, 0.3)

    tf.random.set_seed(5)
    program = trace(fn, [x]).program
    assert program is not None
    executor = cpu_executor(program, [x])
    tf.random.set_seed(5)
    found = [executor([x])[0] for _ in range(3)]
    tf.random.set_seed(5)
    for each in found:
        assert each.tobytes() == fn(tf.constant(x)).numpy().tobytes()
