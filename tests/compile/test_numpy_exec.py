"""The NumPy executor: the bits of eager execution, and no allocation once it runs."""

from __future__ import annotations

import itertools
import threading
import tracemalloc

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile.capture import trace
from distgrad.compile.lower import lower
from distgrad.compile.numpy_exec import Executor, numpy_executor
from distgrad.compile.program import Apply
from distgrad.compile.traced import Fallback
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.testing.primitives import built_in, samples_of

pytestmark = pytest.mark.usefixtures("plain_kernels")

PRIMITIVES = {n: p for n, p in built_in().items() if not (p.effect or p.varies)}
CASES = [(n, i) for n, p in PRIMITIVES.items() for i in range(len(samples_of(p)))]


def executor_of(fn, *arrays) -> Executor:
    program = trace(fn, arrays).program
    assert program is not None
    return numpy_executor(program, arrays)


def calling(primitive, given, dtype):
    """A call of it on tensors for its arrays, with floats of ``dtype``, and these arrays."""
    args = [
        a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a
        for a in given.args
    ]

    def fn(*tensors):
        rest = iter(tensors)
        full = [next(rest) if isinstance(a, np.ndarray) else a for a in args]
        return bind(primitive, *full, **{**primitive.defaults, **given.params})

    return fn, [a for a in args if isinstance(a, np.ndarray)]


def same_bits(found, wanted):
    for a, b in zip(found, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        assert (a.shape, a.dtype) == (b._data.shape, b._data.dtype)
        assert a.tobytes() == b._data.tobytes()


@pytest.mark.parametrize(("name", "index"), CASES)
def test_every_primitive_gives_its_own_bits(name, index):
    """Replayed on its samples, and on the same in float32, whether it was taken apart or not."""
    primitive = PRIMITIVES[name]
    given = samples_of(primitive)[index]
    for dtype in (np.float64, np.float32):
        fn, arrays = calling(primitive, given, dtype)
        wanted = fn(*map(Tensor, arrays))
        executor = executor_of(fn, *arrays)
        for _ in range(2):
            same_bits(executor(arrays), wanted)


# From zeros, random_candidates would draw forever.
@pytest.mark.parametrize(("name", "index"), [c for c in CASES if c[0] != "random_candidates"])
def test_no_value_that_a_plan_was_made_with_stays_in_it(name, index):
    primitive = PRIMITIVES[name]
    given = samples_of(primitive)[index]
    for dtype in (np.float32, tf.bfloat16.as_numpy_dtype):
        fn, arrays = calling(primitive, given, dtype)
        zeros = [np.zeros_like(a) for a in arrays]
        try:
            wanted = fn(*map(Tensor, arrays))
            executor = executor_of(fn, *zeros)
        except (TypeError, ValueError, RuntimeError, Fallback):
            continue  # it takes no zeros, or no bfloat16
        same_bits(executor(arrays), wanted)


# What a step of training is made of must not be left whole.
TAKEN_APART = [
    *("add", "multiply", "relu", "relu_grad", "tanh", "tanh_grad", "sigmoid", "sigmoid_grad"),
    *("dot", "sum", "mean", "sum_to", "select", "softmax_along", "standardize"),
    *("standardize_grad", "sparse_cross_entropy", "sparse_cross_entropy_grad", "cross_entropy"),
    *("cross_entropy_grad", "gelu_exact", "gelu_exact_grad", "take", "take_grad", "max_windows"),
    *("max_windows_grad", "broadcast_to", "reshape_to", "permute"),
]


@pytest.mark.parametrize("name", TAKEN_APART)
def test_taken_apart(name):
    primitive = PRIMITIVES[name]
    given = samples_of(primitive)[0]
    assert lower(Apply(given.args, (), primitive=primitive, params=given.params), given.args)


def layers(depth: int = 3):
    rng = np.random.default_rng(0)
    weights = [tf.Variable(rng.normal(size=(16, 16)).astype(np.float32)) for _ in range(depth)]

    def step(x, y):
        with tf.GradientTape() as tape:
            h = x
            for w in weights:
                h = tf.nn.relu(tf.matmul(h, w))
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, h)
            loss = tf.reduce_mean(losses)
        return loss, tape.gradient(loss, weights)

    return step, rng.normal(size=(8, 16)).astype(np.float32), np.arange(8)


def test_nothing_is_allocated_after_the_first_run():
    """But for outputs, and what NumPy's loops take for broadcasting: up to 8192 elements."""
    rng = np.random.default_rng(0)
    weight = tf.Variable(rng.normal(size=(256, 256)).astype(np.float32))

    def step(x):
        with tf.GradientTape() as tape:
            h = tf.tanh(tf.matmul(x, weight)) + 1.0
            loss = tf.reduce_sum(tf.nn.softmax(h) * h)
        weight.assign_sub(0.01 * tape.gradient(loss, weight))
        return loss

    x = rng.normal(size=(256, 256)).astype(np.float32)
    executor = executor_of(step, x)
    assert executor.schedule.whole == []
    executor([x])
    tracemalloc.start()
    try:
        for _ in range(3):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            executor([x])
            assert tracemalloc.get_traced_memory()[1] - before < 48 * 1024  # an array has 256 KB
    finally:
        tracemalloc.stop()


def test_memory_is_used_again():
    step, x, y = layers(depth=20)
    executor = executor_of(step, x, y)
    values = {v.buffer: v.buffer.nbytes for s in executor.schedule.steps for v in s.mentions}
    total = sum(n for b, n in values.items() if b.kind == "temporary")
    assert executor.nbytes < 0.75 * total  # the 20 gradients are outputs, and stay


def test_the_code_is_readable():
    executor = executor_of(lambda x: tf.nn.relu(x * 2.0), np.ones((2, 2), np.float32))
    assert executor.source == "\n    ".join(
        ["def run(x0):", "multiply(x0, k0, out=a0)", "maximum(a0, k1, out=a1)", "return\n"]
    )


def test_what_is_given_stays_as_it_was_and_what_comes_back_is_fresh():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    executor = executor_of(lambda x: (x, tf.exp(x), tf.transpose(x)), x)
    first = executor([x])
    kept = [a.copy() for a in first]
    again = executor([x + 1])
    for a, k, b in zip(first, kept, again, strict=True):
        np.testing.assert_array_equal(a, k)
        assert not np.shares_memory(a, b) and not np.shares_memory(a, x)
    np.testing.assert_array_equal(x, np.arange(6).reshape(2, 3))


def test_an_argument_in_another_layout():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    executor = executor_of(lambda x: tf.reduce_sum(x * 2.0, 0), x)
    (found,) = executor([np.asfortranarray(x)])
    np.testing.assert_array_equal(found, (x * 2).sum(0))


def test_a_read_before_a_write_keeps_its_value():
    v = tf.Variable([1.0, 2.0])

    def fn(x):
        old = tf.reshape(v, [2, 1])
        v.assign(x)
        return old, tf.reshape(old, [2]) + v

    x = np.array([10.0, 20.0], np.float32)
    executor = executor_of(fn, x)
    old, total = executor([x])
    np.testing.assert_array_equal(old, [[1], [2]])
    np.testing.assert_array_equal(total, [11, 22])
    np.testing.assert_array_equal(v.numpy(), x)


def test_a_variable_that_moves_is_found_again():
    v = tf.Variable(np.ones(3, np.float32))
    executor = executor_of(lambda x: x * v, np.ones(3, np.float32))
    arena = np.zeros(8, np.float32)
    v._relocate(arena[2:5])
    v.assign([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(executor([np.ones(3, np.float32)])[0], [1, 2, 3])


def test_threads_do_not_share_memory():
    step, x, y = layers()
    executor = executor_of(step, x, y)
    inputs = [x * (i + 1) for i in range(4)]
    wanted = [executor([each, y]) for each in inputs]
    failed = []

    def work(i):
        for _ in range(50):
            for a, b in zip(executor([inputs[i], y]), wanted[i], strict=True):
                if a.tobytes() != b.tobytes():
                    failed.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failed


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [*itertools.product((False, True), repeat=2)])
def test_products_of_matrices_have_the_bits_of_matmul(dtype, transposed):
    """The code calls ``dot``: column, row, small and large, and a matrix times itself.

    But not for two numbers: their product may be a zero of another sign.
    """
    rng = np.random.default_rng(0)
    for m, k, n in itertools.product((1, 2, 17, 64), repeat=3):
        x = rng.normal(size=(k, m) if transposed[0] else (m, k)).astype(dtype)
        y = rng.normal(size=(n, k) if transposed[1] else (k, n)).astype(dtype)

        def f(x, y):
            a, b = (tf.transpose(v) if t else v for v, t in zip((x, y), transposed, strict=True))
            return tf.matmul(a, b), tf.matmul(a, a, transpose_b=True)

        executor = executor_of(f, x, y)
        assert ("dot(" in executor.source) == ((m, k, n) != (1, 1, 1))
        for found, wanted in zip(executor([x, y]), f(tf.constant(x), tf.constant(y)), strict=True):
            assert found.tobytes() == wanted.numpy().tobytes()
