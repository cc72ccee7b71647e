"""Arrays that are joined on a GPU: parts that are made in place, and parts that are copied."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile.capture import trace
from distgrad.compile.cupy_exec import CudaExecutor, cuda_executor

pytestmark = pytest.mark.usefixtures("on_gpu")


def floats(*shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def executor_of(fn, *arrays) -> CudaExecutor:
    return cuda_executor(trace(fn, arrays).program, arrays)


def check(fn, *arrays, launches: int) -> None:
    executor = executor_of(fn, *arrays)
    assert len(executor.plan.nodes) == launches
    wanted = tf.nest.flatten(fn(*map(tf.constant, arrays)))
    for _ in range(2):
        for found, value in zip(executor(arrays), wanted, strict=True):
            assert np.asarray(found.get()).tobytes() == value.numpy().tobytes()


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_what_groups_make_for_a_join_alone_is_made_there(axis):
    def fn(x, y):
        return tf.concat([x * 2.0, y + 1.0], axis)

    check(fn, floats(4, 5), floats(4, 5, seed=1), launches=1)


def test_what_others_look_at_is_copied():
    def fn(x, y):
        a, b = x * 2.0, y + 1.0
        return tf.concat([a, b, x, b], 0), a

    check(fn, floats(4, 5), floats(4, 5, seed=1), launches=2)


def test_parts_come_by_other_shapes_and_go_on_in_another_order():
    def fn(x, y, z):
        parts = [tf.reshape(part, (2, 3, 4)) for part in (x * 2.0, y + 1.0, z - 3.0)]
        return tf.reshape(tf.transpose(tf.stack(parts), (1, 2, 0, 3)), (6, 12)) * 2.0

    check(fn, *(floats(6, 4, seed=seed) for seed in range(3)), launches=2)


def test_a_shape_that_the_part_cannot_have_in_place_is_copied():
    def fn(x, y):
        turned = tf.reshape(tf.transpose(x * 2.0), (4, 5))
        return tf.concat([turned, y + 1.0], 1)

    check(fn, floats(4, 5), floats(4, 3, seed=1), launches=3)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_gradients_of_queries_keys_and_values_side_by_side(dtype):
    """By our own kernel, and by cuDNN: with three launches, of which the product is one."""
    width, heads, steps = 32, 2, 12

    def attend(x):
        parts = tf.transpose(tf.reshape(x, (2, steps, 3, heads, width // heads)), (2, 0, 3, 1, 4))
        q, k, v = tf.unstack(parts)
        scores = tf.matmul(q, k, transpose_b=True) * 0.25
        mixed = tf.matmul(tf.nn.softmax(tf.where(np.tri(steps, dtype=bool), scores, -3e4)), v)
        return tf.reshape(tf.transpose(mixed, (0, 2, 1, 3)), (2, steps, width))

    def fn(x, dy, w):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = attend(x)
        g = tape.gradient(y, x, output_gradients=dy)
        return y, tf.matmul(tf.reshape(g, (2 * steps, 3 * width)), w)

    arrays = (
        floats(2, steps, 3 * width, dtype=dtype),
        floats(2, steps, width, dtype=dtype, seed=1),
        floats(3 * width, 8, dtype=dtype, seed=2),
    )
    executor = executor_of(fn, *arrays)
    assert len(executor.plan.nodes) == 3 and not any(node.opaque for node in executor.plan.nodes)
    wanted = [t.numpy() for t in fn(*map(tf.constant, arrays))]
    tolerance = 2e-5 if dtype == "float32" else 2e-2
    for found, value in zip(executor(arrays), wanted, strict=True):
        np.testing.assert_allclose(
            np.asarray(found.get()).astype(float),
            value.astype(float),
            atol=tolerance,
            rtol=tolerance,
        )
