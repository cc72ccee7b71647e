"""Users' own training steps: shards take turns, and meet where gradients are applied."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import worker_shards
from distgrad.data.loader import Loader
from distgrad.data.source import ArraySource
from distgrad.testing.thread_world import run_world
from distgrad.training.turns import CustomStep, brings_gradients

SGD = tf.keras.optimizers.SGD
X = np.arange(1.0, 14.0)


def batches(c: Communicator, shards: int, size: int = 5):
    own = worker_shards(shards, c.rank, c.world_size)
    return Loader(ArraySource(X), size, shards, own, 7).epoch(0)


def two_players(world_size: int, shards: int, noise: float = 0.0) -> list:
    """Two variables with an optimizer each; the second sees the first one's update."""
    groups = [
        ([tf.Variable(1.0, dtype="float64"), tf.Variable(2.0, dtype="float64")], SGD(0.1), SGD(0.2))
        for _ in range(world_size)
    ]

    def work(c: Communicator) -> tuple:
        (a, b), first, second = groups[c.rank]

        def train(arrays):
            (x,) = arrays
            x = x + noise * tf.random.normal(x.shape, dtype="float64")
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((a * x - 1.0) ** 2)
            first.apply_gradients([(tape.gradient(loss, a), a)])
            with tf.GradientTape() as tape:
                other = tf.reduce_mean((b - a * x) ** 2)
            second.apply_gradients([(tape.gradient(other, b), b)])
            return {"loss": loss, "other": other}

        step = CustomStep(train, c, shards, 3)
        results = [step(i, batch) for i, batch in enumerate(batches(c, shards))]
        shown = [step.results(r.loss, r.sums) for r in results]
        return a.numpy().tobytes(), b.numpy().tobytes(), shown

    ranks = run_world(world_size, work, time_limit=60)
    assert all(rank == ranks[0] for rank in ranks)
    return ranks[0]


def test_two_optimizers_in_one_step_follow_the_formula():
    a, b = 1.0, 2.0
    order = [np.asarray(batch.shards[0][1][0]) for batch in batches(Communicator(), 1)]
    for x in order:
        a -= 0.1 * np.mean(2 * x * (a * x - 1))
        b -= 0.2 * np.mean(2 * (b - a * x))
    found = two_players(1, 1)
    assert np.frombuffer(found[0])[0] == pytest.approx(a, rel=1e-12)
    assert np.frombuffer(found[1])[0] == pytest.approx(b, rel=1e-12)
    in_parts = two_players(1, 4)
    assert np.frombuffer(in_parts[0])[0] == pytest.approx(a, rel=1e-12)
    for whole, parts in zip(found[2], in_parts[2], strict=True):
        assert parts == pytest.approx(whole)


@pytest.mark.parametrize("shards", [4, 5])
def test_equal_bits_for_1_2_3_and_4_workers(shards):
    """The last batch has 3 samples: some workers have no shard of it, and still take part."""
    alone = two_players(1, shards, noise=0.5)
    for world_size in (2, 3, 4):
        assert two_players(world_size, shards, noise=0.5) == alone
    assert two_players(1, 2, noise=0.5)[0] != alone[0]


@pytest.mark.parametrize("world_size", [1, 2])
def test_state_that_a_step_assigns_is_the_mean_over_the_shards(world_size):
    groups = [[tf.Variable(0.0, dtype="float64", trainable=False) for _ in range(2)] for _ in "ab"]

    def work(c: Communicator) -> list[float]:
        seen, calls = groups[c.rank]

        def train(arrays):
            seen.assign(0.5 * seen + 0.5 * tf.reduce_mean(arrays[0]))
            calls.assign_add(1.0)
            return {}

        step = CustomStep(train, c, 3, 3, state=[seen, calls])
        means = []
        for i, batch in enumerate(batches(c, 3)):
            step(i, batch)
            means.append(float(seen))
        return [*means, float(calls)]

    found = run_world(world_size, work, time_limit=60)
    value, expected = 0.0, []
    for batch in batches(Communicator(), 1):
        value = 0.5 * value + 0.5 * batch.shards[0][1][0].mean()
        expected.append(value)
    assert found[0] == pytest.approx([*expected, 3.0])
    assert all(each == found[0] for each in found)


def test_an_error_in_one_shard_ends_the_others_and_comes_through():
    v = tf.Variable(1.0, dtype="float64")
    optimizer, ended = SGD(0.1), []

    def train(arrays):
        try:
            if arrays[0].max() > 8:
                raise KeyError("this one")
            optimizer.apply_gradients([(tf.constant(1.0, "float64"), v)])
        finally:
            ended.append(1)
        return {}

    step = CustomStep(train, Communicator(), 5, 3)
    with pytest.raises(KeyError, match="this one"):
        for i, batch in enumerate(batches(Communicator(), 5)):
            step(i, batch)
    assert float(v) == 1.0 and len(ended) == 5
    assert brings_gradients() is None


def test_shards_that_take_different_turns_are_refused():
    v = tf.Variable(1.0, dtype="float64")
    optimizer = SGD(0.1)

    def train(arrays):
        if arrays[0].max() > 8:
            optimizer.apply_gradients([(tf.constant(1.0, "float64"), v)])
        return {}

    step = CustomStep(train, Communicator(), 5, 3)
    with pytest.raises(RuntimeError, match="equally often"):
        for i, batch in enumerate(batches(Communicator(), 5)):
            step(i, batch)
    assert float(v) == 1.0


def test_returned_values_are_numbers_by_name():
    step = CustomStep(lambda arrays: {"loss": "low"}, Communicator(), 2, 3)
    (first, *_) = batches(Communicator(), 2)
    with pytest.raises(ValueError, match="'loss'"):
        step(0, first)


@pytest.mark.parametrize("world_size", [1, 2])
def test_returned_arrays_are_those_of_the_last_batch_over_all_shards(world_size):
    def work(c: Communicator) -> dict:
        def train(arrays):
            (x,) = arrays
            return {"loss": x.mean(), "sum": [x.sum(), 1.0], "each": x, "one": x[:1]}

        step = CustomStep(train, c, 2, 3)
        for i, batch in enumerate(batches(c, 2)):
            result = step(i, batch)
        return step.results(result.loss, result.sums)

    (last,) = [each for each in batches(Communicator(), 1)][-1:]
    x = np.asarray(last.shards[0][1][0])  # 3 samples: one of a shard, two of the other
    for found in run_world(world_size, work, time_limit=60):
        assert found["loss"] == pytest.approx(x.mean())
        np.testing.assert_array_equal(found["each"], x)
        np.testing.assert_allclose(found["sum"], [(x[0] + 2 * x[1:].sum()) / 3, 1.0])
        np.testing.assert_allclose(found["one"], [(x[0] + 2 * x[1]) / 3])
