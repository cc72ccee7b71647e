"""Gradients as sums over shards: which are, and that they are the same gradients."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile import executors
from distgrad.compile.capture import trace
from distgrad.compile.llvm import engine
from distgrad.compile.passes import simplify
from distgrad.compile.passes.shards import draws_from, over_shards
from distgrad.compile.passes.tree_sums import SUMS, sum_over_one_shard
from distgrad.ops.tree_sums import in_tree

RNG = np.random.default_rng(0)
EXECUTORS = ["numpy", *(["generated"] if engine.available() else [])]


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


W, B = tf.Variable(normal(6, 6)), tf.Variable(normal(6))


def layer(x):
    return tf.reduce_sum(tf.tanh(tf.matmul(x, W) + B))


def again(x):
    """A weight for each of three steps."""
    for _ in range(3):
        x = tf.tanh(tf.matmul(x, W) + B)
    return tf.reduce_sum(x)


def penalised(x):
    return layer(x) + tf.reduce_sum(W * W)


def looked_up(x):
    rows = tf.gather(W, tf.cast(tf.abs(x[:, 0]) * 2.0, "int32") % 6)
    return tf.reduce_sum(tf.tanh(rows * B))


def gradients(loss_of, *arrays):
    def run(*args):
        with tf.GradientTape() as tape:
            loss = loss_of(*args)
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, [W, B])]

    return simplify(trace(run, arrays).program)


def sums_in(program):
    return sorted(i.name for i in program.instructions if i.name in SUMS)


@pytest.mark.parametrize(
    ("loss", "wanted"),
    [
        (layer, ["product_over_shards", "sum_over_shards"]),
        (again, ["product_over_shards"]),
        (penalised, ["sum_over_shards"]),
        (looked_up, ["rows_over_shards", "sum_over_shards"]),
    ],
)
def test_sums_over_samples_are_found(loss, wanted):
    program = gradients(loss, normal(5, 6))
    assert sums_in(sum_over_one_shard(program, [0, 1]).verify()) == wanted
    assert sums_in(sum_over_one_shard(program, [])) == []
    several = [name for name in wanted if loss is again]
    assert sums_in(sum_over_one_shard(program, [0, 1], least=2)) == several


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("loss", [layer, again, penalised, looked_up])
def test_they_are_the_gradients(executor, loss):
    x = normal(5, 6)
    program = gradients(loss, x)
    wanted = executors.make("numpy", program, [x])([x])
    found = executors.make(executor, sum_over_one_shard(program, [0, 1]), [x])([x])
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("samples", [5, 600])  # more than are multiplied at once
@pytest.mark.parametrize("trees", [[(0, 1, 0, 2)], [(0,), (0, 1)], [(0, 1, 1), (0,), (0,)]])
@pytest.mark.parametrize("loss", [layer, again, penalised, looked_up])
def test_shards_are_added_up_in_their_trees(executor, samples, trees, loss):
    count = sum(map(len, trees))
    shards = [normal(samples, 6) for _ in range(count)]
    program = sum_over_one_shard(gradients(loss, shards[0]), [0, 1])
    one = executors.make(executor, program, [shards[0]])
    alone = [one([x]) for x in shards]

    made = over_shards(program, trees, draws_from(), summed=2)
    outputs = [row[t] for t in range(len(trees)) for row in made.summed]
    whole = made.program.with_(made.program.instructions, outputs).verify()
    inputs = [np.stack(shards)]
    found = iter(executors.make(executor, whole, inputs)(inputs))
    start = 0
    for merges in trees:
        own = alone[start : start + len(merges)]
        start += len(merges)
        for position in range(2):
            wanted = in_tree([gradient[position] for gradient in own], merges)
            assert next(found).tobytes() == wanted.tobytes()
