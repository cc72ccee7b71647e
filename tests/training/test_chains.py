"""Shards of a rank that one launch runs on a GPU: bits, launches and copies.

They run on GPUs of a stand-in, whose streams do their work as late as they may.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm.communicator import Communicator
from distgrad.core import dispatch
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, registry
from distgrad.data.loader import Batch, cut
from distgrad.testing import fake_graphs, fake_streams
from distgrad.training import chains
from distgrad.training.feeding import Feeder
from distgrad.training.reduction import GradientSum, ShardResult

from .gpus import MARKS, SEED, step_of, train
from .models import bits, network, samples

pytestmark = [*MARKS, pytest.mark.usefixtures("gpus")]
CAPTURED = {"executor": "cuda", "strict": True}


@contextmanager
def at_most(launches: int) -> Iterator[None]:
    """Context in which a graph has about as many launches: with none, those of one shard."""
    before, chains.most_launches = chains.most_launches, launches
    try:
        yield
    finally:
        chains.most_launches = before


@pytest.fixture
def counts(gpus, monkeypatch) -> Counter:
    """Counts launches of graphs, and copies by their kind."""
    import cupy

    found: Counter = Counter()
    launch, copy = fake_graphs.Graph.launch, fake_streams.memcpy_async

    def launched(graph, stream=None):
        found["launch"] += 1
        launch(graph, stream)

    def copied(to, source, size, kind, stream):
        found[{1: "to device", 2: "to host", 3: "on device"}[kind]] += 1
        copy(to, source, size, kind, stream)

    monkeypatch.setattr(fake_graphs.Graph, "launch", launched)
    monkeypatch.setattr(cupy.cuda.runtime, "memcpyAsync", copied)
    return found


def batch_of(shards: int, size: int, step: int = 0) -> Batch:
    x, y = samples(size + step)
    return cut(step, size, shards, range(shards), lambda a, b: (x[step:][a:b], y[step:][a:b]))


# Bits


@pytest.mark.parametrize("shards", range(1, 9))
@pytest.mark.parametrize("batch", [8, 20], ids=["even", "uneven"])
def test_the_bits_are_those_of_shards_one_by_one(shards: int, batch: int) -> None:
    """On one, two and four ranks, also where shards of two sizes follow each other in turn."""
    with at_most(0):
        expected = train(1, shards, batch=batch, **CAPTURED)
    for world_size in (1, 2, 4):
        if world_size <= shards:
            assert train(world_size, shards, batch=batch, **CAPTURED) == expected
            small = {"bucket_bytes": 1, "overlap": True, "batch": batch}
            assert train(world_size, shards, **small, **CAPTURED) == expected


@pytest.mark.parametrize("most", [30, 60, 90])
def test_the_bits_do_not_depend_on_how_many_shards_are_in_a_graph(most: int) -> None:
    expected = train(1, 8, batch=16, **CAPTURED)
    with at_most(most):
        assert train(1, 8, batch=16, **CAPTURED) == expected


def test_the_bits_of_layers_that_run_python_code_or_cannot_be_captured() -> None:
    """They split a graph of several shards as they split that of one."""
    seen: list[int] = []

    class Sorted(tf.keras.layers.Layer):
        def call(self, x):
            y = bind(registry["host_values"], x, fn=lambda a: seen.append(len(a)) or a)
            return x * tf.gather(y, tf.argsort(tf.reduce_sum(tf.nn.dropout(x, 0.1), 1)))

    def make() -> tf.keras.Sequential:
        return network(Sorted())

    with at_most(0):
        expected = train(1, 4, batch=8, make=make, **CAPTURED)
    looks = Counter(seen)
    assert looks[2] >= 5 * 4 and looks[1] >= 3
    seen.clear()
    assert train(1, 4, batch=8, make=make, **CAPTURED) == expected
    assert Counter(seen) == looks


@pytest.mark.filterwarnings("ignore:no gradient for")
def test_variables_without_a_gradient_have_none_in_any_shard() -> None:
    class Unused(tf.keras.layers.Layer):
        def build(self, shape):
            self.unused = self.add_weight(shape=(5,), initializer="ones")

        def call(self, x):
            return x

    def make() -> tf.keras.Sequential:
        return network(Unused())

    with at_most(0):
        expected = train(1, 4, batch=8, make=make, **CAPTURED)
    for world_size in (1, 2):
        found = train(world_size, 4, batch=8, make=make, bucket_bytes=1, **CAPTURED)
        assert found == expected


def test_a_sum_without_variables() -> None:
    def compute(arrays, training):
        return ShardResult(tf.reduce_sum(arrays[0] * 2.0), tf.cast(arrays[1][:1], tf.float64))

    total = GradientSum(compute, 1, [], Communicator(), 4, SEED, mean_loss=False, **CAPTURED)
    x, y = np.arange(8, dtype=np.float32), np.arange(8)
    result = total(0, cut(0, 8, 4, range(4), lambda a, b: (x[a:b], y[a:b])))
    assert result.loss == 2 * x.sum() and result.sums.tolist() == [0 + 2 + 4 + 6]


# Launches and copies


@pytest.mark.parametrize("shards", [1, 2, 5, 8])
def test_a_launch_ends_at_the_loss_and_where_a_bucket_is_full(counts, shards: int) -> None:
    """That of the last shard alone: there are as many for one shard and for eight."""
    batch, full = batch_of(shards, 4 * shards), []
    step = step_of(network(), Communicator(), shards, **CAPTURED)
    step(0, batch)
    counts.clear()
    step(1, batch)
    averages = int(shards > 1)  # of several there is a mean, which the host makes
    assert counts == {"launch": 2, "to device": 1, "to host": 1 + averages}
    with at_most(0):
        step = step_of(network(), Communicator(), shards, **CAPTURED)
        step(0, batch)
    counts.clear()
    step(1, batch)
    assert counts == {"launch": 2 * shards, "to device": shards, "to host": (1 + averages) * shards}
    total = step_of(network(), Communicator(), shards, bucket_bytes=1, **CAPTURED).sum
    assert len(total.buckets.buckets) > 4
    for number in range(2):
        counts.clear()
        full.clear()
        total.buckets.start(batch.present)
        (run,) = total._start(number, batch)
        run.finish([1.0] * shards, 1.0, full.append)
    assert len(full) == len(total.buckets.buckets)
    assert 2 < counts["launch"] <= 2 + len(full)  # the last one for the moving averages
    assert counts["to device"] == 1


def test_a_bucket_is_whole_as_soon_as_it_is_told() -> None:
    """Also the first one, while the last shard's backward pass has not been launched."""
    total = step_of(network(), Communicator(), 8, bucket_bytes=1, **CAPTURED).sum
    buckets = total.buckets.buckets
    for number in range(2):
        batch, early = batch_of(8, 16, number), []
        total.buckets.start(batch.present)
        (run,) = total._start(number, batch)

        def send(job, early=early):
            early.append([bucket.total.get() for bucket in buckets])

        run.finish([0.5] * 8, 1.0, send)
        for turn, bucket in enumerate(buckets):
            np.testing.assert_array_equal(early[turn][turn], bucket.total.get())
    assert not np.array_equal(early[0][-1], buckets[-1].total.get())


def test_shards_of_two_sizes_have_a_launch_for_each_run_of_a_size(counts) -> None:
    step = step_of(network(), Communicator(), 8, **CAPTURED)
    for number, (size, runs) in enumerate([(20, 8), (20, 8), (17, 2), (17, 2), (16, 1), (16, 1)]):
        batch = batch_of(8, size)
        sizes = [batch.sizes[i] for i in range(8)]
        assert 1 + sum(a != b for a, b in pairwise(sizes)) == runs
        counts.clear()
        step(number, batch)
        assert number % 2 == 0 or counts["launch"] == 2 * runs


def test_a_batch_sent_ahead_is_one_copy_on_the_device(counts) -> None:
    batches = [batch_of(8, 16, number) for number in range(4)]
    losses = []
    for feed in (iter, Feeder(dispatch.current(), lends=True)):
        step = step_of(network(), Communicator(), 8, **CAPTURED)
        losses.append([])
        for number, batch in enumerate(feed(batches)):
            counts.clear()
            losses[-1].append(step(number, batch).loss)
    assert losses[0] == losses[1]
    # The keys and weights of shards are the copy from the host.
    assert counts == {"launch": 2, "to device": 1, "on device": 1, "to host": 2}


def test_labels_that_were_sent_ahead_are_checked_on_the_host(counts) -> None:
    step = step_of(network(), Communicator(), 2, **CAPTURED)
    good, bad = batch_of(2, 8), batch_of(2, 8)
    for _, arrays in bad.shards:
        arrays[1][...] = 3
    with pytest.raises(InvalidArgumentError, match=r"outside \[0, 3\)"):
        for number, batch in enumerate(Feeder(dispatch.current(), lends=True)([good, good, bad])):
            counts.clear()
            step(number, batch)
    assert not counts  # nothing was launched, or fetched


def test_a_shape_that_runs_eagerly_takes_what_was_sent_ahead() -> None:
    found = []
    for feed in (iter, Feeder(dispatch.current(), lends=True)):
        flips = tf.keras.layers.Lambda(lambda x: x if tf.reduce_sum(x) > 0.0 else -x)
        step = step_of(network(flips), Communicator(), 2, executor="cuda")
        with pytest.warns(UserWarning, match="runs eagerly"):
            found.append([step(0, batch).loss for batch in feed([batch_of(2, 8)])])
    assert found[0] == found[1]


def test_few_chains_are_kept(monkeypatch) -> None:
    models = [network(), network()]
    for most, model in zip((1, 64), models, strict=True):
        monkeypatch.setattr(chains, "_CHAINS", most)
        step = step_of(model, Communicator(), 5, **CAPTURED)
        for number, present in enumerate([(0, 1, 2, 3, 4), (0, 1, 2), (0, 1, 2, 3, 4), (1, 4)]):
            batch = batch_of(5, 10)
            kept = [batch.shards[i] for i in present]
            step(number, replace(batch, present=list(present), shards=kept))
    assert bits(models[0].variables) == bits(models[1].variables)


def test_what_lies_between_variables_stays_zero() -> None:
    """A loss scale looks at whole buckets, whatever was in the memory before."""
    total = step_of(network(), Communicator(), 8, **CAPTURED).sum
    total(0, batch_of(8, 16))
    layouts, flats = total.buckets.layouts, total.buckets.flats
    for layout, flat in zip(layouts, flats, strict=True):
        found, between = flat.get(), np.ones(layout.size, bool)
        for where in layout.slices:
            between[where] = False
        assert between.any() and np.isfinite(found).all() and not found[between].any()
