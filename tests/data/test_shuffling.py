"""Orders of datasets: shuffles, their seeds, and what comes again."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.data import INFINITE_CARDINALITY, Dataset

from .elements import SOURCES, numbers, unindexed, values


@pytest.mark.parametrize("source", SOURCES)
def test_shuffle_of_all(source):
    dataset = source(100).shuffle(100, seed=3)
    first, second = values(dataset), values(dataset)
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second and first != sorted(first)
    again = source(100).shuffle(200, seed=3)
    assert [values(again), values(again)] == [first, second], "seed and iteration decide alone"
    assert values(source(100).shuffle(100, seed=4)) != first
    fixed = source(100).shuffle(100, seed=3, reshuffle_each_iteration=False)
    assert values(fixed) == values(fixed) == first


def test_both_kinds_of_source_are_shuffled_alike():
    for buffer_size in (50, 7):
        one, other = (make(50).shuffle(buffer_size, seed=1) for make in SOURCES)
        assert values(one) == values(other)
        assert values(one.skip(3).shard(2, 1)) == values(other.skip(3).shard(2, 1))


def test_rows_shuffled_by_a_small_buffer_are_gathered_at_once(monkeypatch):
    shuffled = numbers(50).shuffle(7, seed=1)
    wanted = values(shuffled)
    monkeypatch.setattr("distgrad.data.nest.stack", None)
    dataset = numbers(50).shuffle(7, seed=1).batch(8)
    assert np.concatenate(values(dataset)).tolist() == wanted


def test_shuffle_with_a_small_buffer():
    dataset = numbers(1000).shuffle(10, seed=3)
    first = values(dataset)
    assert sorted(first) == list(range(1000)) and first != values(dataset)
    assert all(value < place + 10 for place, value in enumerate(first))
    assert np.abs(np.array(first) - np.arange(1000)).mean() > 2
    assert values(numbers(1000).shuffle(10, seed=3)) == first
    with pytest.raises(ValueError, match="buffer_size is 0"):
        numbers().shuffle(0)


def test_shuffle_is_uniform():
    """Each element comes to each place about equally often: chi-square over 2,000 orders."""
    for buffer_size in (6, 5):
        counts = np.zeros((6, 6))
        for seed in range(2000):
            order = values(numbers(6).shuffle(buffer_size, seed=seed))
            counts[np.arange(6), order] += 1
        if buffer_size == 6:
            assert ((counts - 2000 / 6) ** 2 / (2000 / 6)).sum() < 60  # 25 degrees of freedom
        else:
            np.testing.assert_allclose(counts[0, :5], 400, atol=80)


def test_shuffles_made_after_a_seed_was_set_are_those_after_it_was_set_before():
    def orders():
        tf.random.set_seed(1)
        twice = [tf.data.Dataset.range(20).shuffle(20) for _ in range(2)]
        mixed = tf.data.Dataset.sample_from_datasets(twice)
        return [[int(x) for x in each] for each in (*twice, mixed)]

    first, second, mixed = orders()
    assert [first, second, mixed] == orders() and first != second


def test_shuffles_without_a_seed_take_that_of_the_run():
    dataset = numbers(30).shuffle(30)
    runs = [[int(x) for x in dataset.iterate(epoch, seed)] for epoch, seed in [(0, 1), (0, 2)]]
    assert runs[0] != runs[1]
    assert runs[0] == [int(x) for x in dataset.iterate(0, 1)]
    seeded = numbers(30).shuffle(30, seed=1)
    assert list(seeded.iterate(0, 1)) == list(seeded.iterate(0, 2))
    assert values(Dataset.zip(dataset, numbers(30).shuffle(30)))[0] != (0, 0)


def test_repeat():
    dataset = numbers(4).shuffle(4, seed=0).repeat(3)
    assert len(dataset) == 12
    rounds = np.array(values(dataset)).reshape(3, 4)
    assert (np.sort(rounds) == np.arange(4)).all() and (rounds[0] != rounds[1]).any()
    assert values(numbers(2).repeat(0)) == []
    forever = numbers(2).repeat()
    assert forever.cardinality() == INFINITE_CARDINALITY
    assert values(forever.take(5)) == [0, 1, 0, 1, 0]
    assert len(forever.take(5)) == 5
    assert values(unindexed(0).repeat()) == [], "nothing without end is nothing"


def test_repeat_before_and_after_batch():
    assert values(numbers(3).repeat(2).batch(2)) == [[0, 1], [2, 0], [1, 2]]
    assert values(numbers(3).batch(2).repeat(2)) == [[0, 1], [2], [0, 1], [2]]


def test_what_a_thread_draws_does_not_depend_on_what_others_draw():
    """And each pass has numbers of its own."""

    def drawn(more):
        tf.random.set_seed(1)
        data = numbers(40).map(lambda x: tf.random.uniform([])).prefetch(1)
        first = []
        for x in data:
            first.append(float(x))
            for _ in range(more):
                tf.random.uniform([])
        tf.random.set_seed(2)
        return first, values(data)

    first, second = drawn(1)
    assert (first, second) == drawn(3)
    assert not set(first) & set(second)
