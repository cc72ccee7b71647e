"""Gradients that are computed where they belong: the bits of a plain tape, and no copies."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.core.dispatch import as_tensor
from distgrad.data.loader import cut
from distgrad.ops.normalization import layer_norm
from distgrad.testing.thread_world import run_world
from distgrad.training import buckets
from distgrad.training.reduction import GradientSum, ShardResult

pytestmark = pytest.mark.cpu  # it counts what the kernels over NumPy write in place

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 7, 6)).astype(np.float32)


def variable(*shape, dtype=np.float32):
    return tf.Variable(RNG.normal(size=shape).astype(dtype))


def dense(x, w, b, gamma, beta):
    rows = layer_norm(tf.reshape(x, (-1, 6)) @ w) * gamma + beta
    return tf.reduce_mean(tf.square(tf.nn.relu(rows + b)))


def batched(x, w, b):  # a product with one matrix for all, and a bias that is broadcast twice
    return tf.reduce_sum(tf.tanh(x @ w + b))


def recurrent(x, w, u):  # several contributions to each
    return read_anew(x, as_tensor(w), as_tensor(u))


def read_anew(x, w, u):  # each from a reading of its own
    h = tf.zeros((x.shape[0], 6))
    for t in range(4):
        h = tf.tanh(x[:, t] @ w + h @ u)
    return tf.reduce_sum(h * h)


def tied(x, w):  # as a factor on either side, and elementwise
    y = tf.reshape(x, (-1, 6)) @ w
    return tf.reduce_sum((y @ tf.transpose(w)) ** 2) + tf.reduce_sum(w * w * w)


def looked_up(x, table):
    return tf.reduce_sum(tf.gather(table, tf.cast(tf.abs(x[..., 0]), "int32")) ** 2)


def looked_up_and_multiplied(x, table):
    return looked_up(x, table) + tf.reduce_sum((tf.reshape(x, (-1, 6)) @ table) ** 2)


def convolved(x, filters, each, b):
    y = tf.nn.conv1d(x, filters, 1, "SAME") + b
    return tf.reduce_sum(tf.nn.depthwise_conv2d(y[:, None], each, (1, 1, 1, 1), "VALID") ** 2)


def of_two_types(x, w, v):
    wide = tf.cast(tf.reshape(x, (-1, 6)), "float64") @ v
    return dense_sum(x, w) + tf.cast(tf.reduce_sum(wide * wide), "float32")


def dense_sum(x, w):
    return tf.reduce_sum((tf.reshape(x, (-1, 6)) @ w) ** 2)


def unused(x, w, v):
    return dense_sum(x, w)


# The loss, its variables, and how many of their gradients are copied.
CASES = {
    "dense": (dense, [variable(6, 5), variable(5), variable(5), variable(1, 5)], 0),
    "batched": (batched, [variable(6, 5), variable(7, 1)], 0),
    "recurrent": (recurrent, [variable(6, 6), variable(6, 6)], 0),
    "read anew": (read_anew, [variable(6, 6), variable(6, 6)], None),
    "tied": (tied, [variable(6, 6)], None),
    "looked up": (looked_up, [variable(9, 6)], 0),
    "looked up and multiplied": (looked_up_and_multiplied, [variable(6, 5)], None),
    "convolved": (convolved, [variable(3, 6, 4), variable(1, 2, 4, 2), variable(4)], 0),
    "two types": (of_two_types, [variable(6, 5), variable(6, 5, dtype=np.float64)], 0),
    "unused": (unused, [variable(6, 5), variable(6, 5)], 0),
}


def reduced(loss, variables, shards, overlap=False):
    def compute(arrays, training):
        return ShardResult(loss(tf.constant(arrays[0]), *variables), np.zeros(0))

    def work(communicator):
        total = GradientSum(
            compute, 0, variables, communicator, shards, 0, mean_loss=False, bucket_bytes=64
        )
        total.overlap = overlap
        total(0, cut(0, len(X), shards, range(shards), lambda a, b: (X[a:b],)))
        return total.gradients

    return run_world(1, work)[0]


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_bits_are_those_of_a_plain_tape(case, shards, overlap, monkeypatch):
    loss, variables, copies = CASES[case]
    wanted = []
    for part in np.split(X, shards):
        with tf.GradientTape() as tape:
            value = loss(tf.constant(part), *variables)
        wanted.append(tape.gradient(value, variables))
    copied = []
    with monkeypatch.context() as patch:
        beside = buckets.beside
        patch.setattr(buckets, "beside", lambda a, b: (copied.append(1), beside(a, b))[1])
        found = reduced(loss, variables, shards, overlap)
    if copies is not None:
        assert len(copied) == copies * shards
    for own, parts in zip(found, zip(*wanted, strict=True), strict=True):
        if parts[0] is None:
            assert own is None
            continue
        first, *others = [tf.convert_to_tensor(p).numpy() for p in parts]
        for other in others:
            first = first + other
        assert own.tobytes() == first.tobytes()


def test_a_variable_that_is_listed_twice():
    w = variable(6, 5)
    a, b = reduced(lambda x, w, again: dense_sum(x, w), [w, w], 2)
    assert a.tobytes() == b.tobytes() and a.any()


def test_what_a_user_gets_is_his_own():
    w = variable(6, 5)
    found = []
    for _ in range(2):
        with tf.GradientTape() as tape:
            loss = dense_sum(tf.constant(X), w)
        found.append(tape.gradient(loss, w))
    reduced(dense_sum, [w], 1)
    assert not np.shares_memory(found[0].numpy(), found[1].numpy())
    assert found[0].numpy().tobytes() == found[1].numpy().tobytes()
