"""Several shards at once: the bits that each gives by itself."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile import executors
from distgrad.compile.capture import trace
from distgrad.compile.llvm import engine
from distgrad.compile.passes import simplify
from distgrad.compile.passes.shards import NotWide, draws_from, over_shards
from distgrad.core import recording
from distgrad.ops import random, streams

RNG = np.random.default_rng(0)
EXECUTORS = ["numpy", *(["generated"] if engine.available() else [])]


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


W = tf.Variable(normal(6, 5))
B = tf.Variable(normal(5))
LEFT, RIGHT = tf.Variable(normal(6, 2)), tf.Variable(normal(2, 3))
KERNEL = tf.Variable(normal(3, 3, 2, 4))
TABLE = tf.Variable(normal(7, 6))
IMAGE = tf.Variable(normal(1, 4, 4, 16))
FILTERS = [tf.Variable(0.3 * normal(*s)) for s in ((3, 3, 3, 16), (3, 3, 16, 18), (2, 2, 18, 20))]
BIAS, DEPTHWISE = tf.Variable(normal(16)), tf.Variable(normal(3, 3, 20, 1))


def gradients(loss_of, *variables):
    def run(*args):
        with tf.GradientTape() as tape:
            loss = loss_of(*args)
        return loss, *tape.gradient(loss, variables)

    return run


def dense(x, y):
    logits = tf.nn.relu(tf.matmul(x, W) + B)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))


def factors(x, y):
    """A kernel that is a product of weights: the gradient of one has no samples on one side."""
    return tf.reduce_mean(tf.matmul(x, tf.matmul(LEFT, RIGHT)) ** 2)


def dropout(x, y):
    return dense(tf.nn.dropout(x, 0.4) + random.normal((4, 6)), y)


def convolution(x, y):
    h = tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(x, KERNEL, 1, "SAME")), 2, 2, "VALID")
    return tf.reduce_sum(h * h) + tf.reduce_sum(tf.nn.softmax(tf.reshape(h, (4, -1))) ** 2)


def residual(x, y):
    """Convolutions of all kinds: direct, Winograd, strided, depthwise; batch normalisation."""
    first, second, third = FILTERS
    h = tf.nn.relu(tf.nn.conv2d(x, first, 1, "SAME") + BIAS)
    h = tf.nn.conv2d(tf.nn.max_pool2d(h, 2, 2, "VALID"), second, 1, "SAME")
    mean, variance = tf.nn.moments(h, [0, 1, 2])
    h = tf.nn.relu((h - mean) * tf.math.rsqrt(variance + 1e-3))
    h = tf.nn.conv2d(h, third, 2, "VALID")
    h = tf.nn.avg_pool2d(tf.nn.depthwise_conv2d(h, DEPTHWISE, [1] * 4, "SAME"), 2, 2, "VALID")
    return tf.reduce_sum(h * h)


def made_filters(x, y):
    """Filters that are another one for each shard, and pooling of what is the same for all."""
    h = tf.nn.conv2d(x, tf.reduce_mean(x) * KERNEL, 1, "SAME")
    filters = tf.reshape(h[0], (3, 3, 4, 4))
    h = tf.nn.depthwise_conv2d(h, filters, [1, 2, 2, 1], "VALID")
    pooled = tf.nn.max_pool2d(IMAGE, 2, 2, "VALID") + tf.nn.avg_pool2d(IMAGE, 2, 2, "VALID")
    return tf.reduce_mean(pooled * h)


def statistics(x, y):
    """Moments over the samples, in the middle of a program."""
    mean, variance = tf.nn.moments(x, [0])
    return tf.reduce_mean(tf.square((x - mean) * tf.math.rsqrt(variance + 1e-3) @ W))


def attention(x, y):
    q = tf.transpose(tf.reshape(tf.gather(TABLE, y) @ W, (4, 3, 5, 1)), (0, 3, 1, 2))
    scores = tf.nn.softmax(tf.matmul(q, q, transpose_b=True))
    return tf.reduce_mean(tf.concat([tf.matmul(scores, q), q], -1) ** 2) + tf.reduce_max(q)


CASES = {
    "dense": (gradients(dense, W, B), lambda: normal(4, 6), lambda: RNG.integers(0, 5, 4)),
    "factors": (gradients(factors, LEFT, RIGHT), lambda: normal(4, 6), lambda: normal(1)),
    "dropout": (gradients(dropout, W, B), lambda: normal(4, 6), lambda: RNG.integers(0, 5, 4)),
    "convolution": (gradients(convolution, KERNEL), lambda: normal(4, 6, 6, 2), lambda: normal(1)),
    "residual": (
        gradients(residual, *FILTERS, BIAS, DEPTHWISE),
        lambda: normal(4, 10, 10, 3),
        lambda: normal(1),
    ),
    "made filters": (
        gradients(made_filters, KERNEL, IMAGE),
        lambda: normal(2, 6, 6, 2),
        lambda: normal(1),
    ),
    "statistics": (gradients(statistics, W), lambda: normal(4, 6), lambda: normal(1)),
    "attention": (
        gradients(attention, TABLE, W),
        lambda: normal(1),
        lambda: RNG.integers(0, 7, (4, 3)),
    ),
}


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_the_bits_of_one_shard_at_a_time(executor, name, count):
    fn, *make = CASES[name]
    shards = [[m() for m in make] for _ in range(count)]
    dense_fn = lambda *args: [tf.convert_to_tensor(r) for r in fn(*args)]  # noqa: E731
    program = simplify(trace(dense_fn, shards[0]).program)
    one = executors.make(executor, program, shards[0])
    wanted = []
    for number, arrays in enumerate(shards):
        with streams.stream(1, 2, number):
            wanted.append(one(arrays))

    chosen, leaf = draws_from(), (0,)
    wide, first, _, rest = over_shards(program, [leaf] * count, chosen, stacked=1)
    outputs = [*first, *(row[v] for v in range(count) for row in rest)]
    inputs = [np.stack(arrays) for arrays in zip(*shards, strict=True)]
    several = executors.make(executor, wide.with_(wide.instructions, outputs).verify(), inputs)
    chosen.streams = [streams.stream(1, 2, number) for number in range(count)]
    losses, *found = several(inputs)
    assert losses.tobytes() == np.array([own[0] for own in wanted]).tobytes()
    size = len(rest)
    for v, own in enumerate(wanted):
        for a, b in zip(own[1:], found[v * size : (v + 1) * size], strict=True):
            assert a.shape == b.shape and a.tobytes() == b.tobytes()


def test_work_within_samples_is_done_once_and_gradients_shard_by_shard():
    fn, *make = CASES["dense"]
    program = simplify(trace(fn, [m() for m in make]).program)
    wide = over_shards(program, [(0, 1, 0, 2)], draws_from(), stacked=1).program
    names = [i.name for i in wide.instructions]
    assert names.count("dot") == 1 + 4  # forward, and each shard's gradient of the weight
    assert names.count("relu") == names.count("sparse_cross_entropy") == 1


def test_code_that_may_write_variables_stays_apart():
    def counted(x):
        recording.call(lambda: None)
        return tf.reduce_sum(x)

    program = trace(counted, [normal(3)]).program
    with pytest.raises(NotWide, match="may write variables"):
        over_shards(program, [(0, 1)], draws_from())
