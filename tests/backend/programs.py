"""Programs captured for a GPU, for the tests of what runs them."""

from __future__ import annotations

import numpy as np

import distgrad as tf
from distgrad.compile.capture import trace
from distgrad.compile.cupy_exec import CudaExecutor, cuda_executor

RNG = np.random.default_rng(0)


def floats(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def executor_of(fn, *arrays):
    return cuda_executor(trace(fn, arrays).program, arrays)


def on_host(arrays):
    return [array.get() for array in arrays]


def pieces(executor: CudaExecutor):
    """What the frame of an executor does for a run, by kind."""
    ((script, _),) = executor._idle[0]._scripts.values()
    kinds = [getattr(piece, "__qualname__", type(piece).__name__) for piece in script]
    return [
        "graph" if "launch" in kind else "alone"
        for kind in kinds
        if "launch" in kind or "by_itself" in kind or kind == "partial"
    ]


def check(fn, *arrays, rtol=1e-5, equal=False):
    """The program of ``fn``, run twice, beside its eager run."""
    eager = [t.numpy() for t in tf.nest.flatten(fn(*map(tf.constant, arrays)))]
    executor = executor_of(fn, *arrays)
    for _ in range(2):
        found = on_host(executor(arrays))
        for a, b in zip(found, eager, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            if equal:
                np.testing.assert_array_equal(a, b)
            else:
                np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)
    return executor
