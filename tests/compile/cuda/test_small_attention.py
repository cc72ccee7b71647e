"""Small attention in kernels of its own: beside its operation over NumPy, and in models."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile.capture import trace
from distgrad.compile.cuda import attention as small
from distgrad.compile.cupy_exec import CudaExecutor, cuda_executor
from distgrad.core import dispatch
from distgrad.core.primitive import bind
from distgrad.ops.attention import attention, attention_grad

RNG = np.random.default_rng(0)
pytestmark = pytest.mark.usefixtures("on_gpu")


@pytest.fixture(autouse=True)
def without_cudnn(monkeypatch):
    monkeypatch.setattr(dispatch.current().dnn, "wanted", False)


def executor_of(fn, *arrays) -> CudaExecutor:
    return cuda_executor(trace(fn, arrays).program, arrays)


def is_one_kernel(executor) -> bool:
    return not any(node.opaque for node in executor.plan.nodes)


_HALF = ("float16", "bfloat16")
CASES = {
    "one of each": ((1, 1), 1, 1, 1, 1, False, None),
    "keys of a warp": ((2, 3), 8, 32, 16, 16, False, None),
    "more than a warp": ((2,), 33, 65, 5, 7, False, None),
    "causal": ((1, 2), 64, 64, 32, 32, True, None),
    "causal and odd": ((3,), 37, 41, 33, 40, True, None),
    "two lanes wide": ((1, 1), 20, 45, 64, 64, False, None),
    "long": ((1, 1), 256, 256, 8, 8, True, None),
    "a bias for all": ((2, 2), 6, 40, 4, 4, False, (6, 40)),
    "a bias for heads": ((2, 2), 6, 40, 4, 4, True, (2, 6, 40)),
    "a bias for samples": ((3, 2), 6, 9, 4, 4, False, (3, 1, 6, 9)),
}


HALVES = ("causal and odd", "two lanes wide", "a bias for heads")


@pytest.mark.parametrize(
    ("case", "dtype"),
    [*((case, "float32") for case in CASES), *((c, t) for c in HALVES for t in _HALF)],
)
def test_attention_and_its_gradients(case, dtype):
    batch, s, t, d, e, causal, biased = CASES[case]
    tf.as_dtype(dtype)  # NumPy knows the name from here on
    shapes = [(*batch, s, d), (*batch, t, d), (*batch, t, e), (*batch, s, e)]
    wide = [RNG.normal(size=shape).astype(dtype).astype(np.float64) for shape in shapes]
    bias = None if biased is None else RNG.normal(size=biased).astype(dtype).astype(np.float64)
    words = {"scale": 0.3, "causal": causal}

    def f(q, k, v, dy, *more):
        given = more[0] if more else 0.0
        o, stats = bind(attention, q, k, v, given, **words)
        return o, stats, *bind(attention_grad, dy, q, k, v, o, stats, given, **words)

    arrays = [array.astype(dtype) for array in (*wide, *([] if bias is None else [bias]))]
    executor = executor_of(f, *arrays)
    assert is_one_kernel(executor) and len(executor.plan.kernels) == 2
    q, k, v, dy = wide
    more = 0.0 if bias is None else bias
    o, stats = attention.kernel(np, q, k, v, more, **words)
    expected = o, stats, *attention_grad.kernel(np, dy, q, k, v, o, stats, more, **words)
    rtol = {"float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}[dtype]
    for _ in range(2):
        for found, value in zip(executor(arrays), expected, strict=True):
            found = np.asarray(found.get())
            assert found.dtype == (np.float32 if value is stats else np.dtype(dtype))
            np.testing.assert_allclose(found.astype(np.float64), value, rtol=rtol, atol=rtol)


def attend(q, k, v, mask):
    scores = tf.matmul(q, k, transpose_b=True) * 0.25
    return tf.matmul(tf.nn.softmax(tf.where(mask, scores, -1e9)), v)


def test_what_a_model_writes_is_found_and_has_its_values():
    mask = np.tri(12, dtype=bool)
    arrays = [RNG.normal(size=(2, 3, 12, 8)).astype(np.float32) for _ in range(4)]

    def f(q, k, v, dy):
        with tf.GradientTape() as tape:
            tape.watch([q, k, v])
            o = attend(q, k, v, mask)
        return o, *tape.gradient(o, [q, k, v], output_gradients=dy)

    executor = executor_of(f, *arrays)
    assert len(executor.plan.nodes) == 2
    eager = [t.numpy() for t in f(*map(tf.constant, arrays))]
    for found, value in zip(executor(arrays), eager, strict=True):
        np.testing.assert_allclose(found.get(), value, rtol=1e-4, atol=1e-5)


def test_heads_that_lie_beside_each_other_are_read_where_they_are():
    x = RNG.normal(size=(2, 10, 3 * 4 * 8)).astype(np.float32)

    def f(x):
        q, k, v = tf.unstack(tf.transpose(tf.reshape(x, (2, 10, 3, 4, 8)), (2, 0, 3, 1, 4)))
        o = attend(q, k, v, np.tri(10, dtype=bool))
        return tf.reshape(tf.transpose(o, (0, 2, 1, 3)), (2, 10, 32))

    executor = executor_of(f, x)
    assert len(executor.plan.kernels) == 1
    np.testing.assert_allclose(
        executor([x])[0].get(), f(tf.constant(x)).numpy(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("batch", "s", "d"), [((1, 1), 257, 4), ((1, 1), 16, 65), ((512, 16), 128, 16)]
)
def test_what_is_not_small_is_left_to_products(batch, s, d):
    assert not small._Sizes.of((*batch, s, d), (*batch, s, d)).fit()


def test_all_that_fits_has_room_in_shared_memory():
    for s in range(1, 257, 5):
        for d in range(1, 65, 3):
            sizes = small._Sizes(1, s, s, d, d)
            if sizes.fit():
                assert 4 * (2 * s * (d + 1) + 2 * s) <= 48 << 10
