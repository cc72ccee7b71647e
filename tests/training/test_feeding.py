"""Batches that are copied to a GPU ahead: right values at the right time, and no thread left."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

import distgrad as tf
from distgrad.backend.base import Backend
from distgrad.backend.sent import Sent
from distgrad.data.loader import Batch, Loader
from distgrad.data.source import ArraySource
from distgrad.testing import cuda_on_cpu, fake_cupy, fake_streams
from distgrad.training.feeding import Feeder, epochs

pytestmark = [
    pytest.mark.cpu,  # it installs the other module itself
    pytest.mark.skipif(not cuda_on_cpu.available(), reason="no g++"),
]


@pytest.fixture
def gpu(new_threads) -> Iterator[Backend]:
    with fake_cupy.installed(2), fake_cupy.own_gpu(1) as backend:
        yield backend
    assert not new_threads(), "a thread is left behind"


def loader(n: int = 50, size: int = 12) -> Loader:
    x = np.arange(3 * n, dtype=np.float32).reshape(n, 3)
    return Loader(ArraySource(x, np.arange(n)), size, 4, range(1, 4), 0)


def rows(batch: Batch) -> list:
    return [(i, [np.asarray(a).tolist() for a in arrays]) for i, arrays in batch.shards]


def test_the_same_batches_come_as_tensors(gpu) -> None:
    feed = Feeder(gpu)
    for epoch in range(2):  # places are used again
        found = list(feed(loader().epoch(epoch)))
        expected = list(loader().epoch(epoch))
        assert [rows(batch) for batch in found] == [rows(batch) for batch in expected]
        assert [batch.size for batch in found] == [12, 12, 12, 12, 2]
        for batch in found:  # good for as long as somebody has them
            for _, arrays in batch.shards:
                assert all(type(a) is tf.Tensor and a.device == "/GPU:0" for a in arrays)
                assert [a.dtype.name for a in arrays] == ["float32", "int64"]


def test_a_batch_may_be_larger_than_those_before_and_hold_what_is_no_number(gpu) -> None:
    def batch(n: int) -> Batch:
        arrays = (np.arange(n), {"b": np.array(["x"] * n, "U1"), "a": np.full((n, 2), n / 2)}, None)
        return Batch(0, n, [0], [(0, arrays), (1, (np.ones((), np.float32), {}, None))], {0: n})

    for n, found in zip((1, 0, 7, 300, 5), Feeder(gpu)(map(batch, (1, 0, 7, 300, 5))), strict=True):
        (_, (x, nest, none)), (_, (scalar, empty, _)) = found.shards
        assert (
            x.numpy().tolist() == list(range(n)) and nest["a"].numpy().tolist() == [[n / 2] * 2] * n
        )
        assert type(nest["b"]) is np.ndarray and none is None and empty == {}
        assert scalar.numpy() == 1


def test_the_next_batch_is_copied_while_one_is_in_use(gpu) -> None:
    read: list[int] = []

    def batches() -> Iterator[Batch]:
        for batch in loader().epoch(0):
            read.append(batch.step_in_epoch)
            yield batch

    source = Feeder(gpu)(batches())
    next(source)
    deadline = threading.Event()
    while len(read) < 3 and not deadline.wait(0.01):
        pass
    assert read[:2] == [0, 1]
    source.close()  # in the middle: the thread ends


def test_an_error_of_the_source_comes_where_its_batch_would(gpu) -> None:
    def batches() -> Iterator[Batch]:
        yield from list(loader().epoch(0))[:2]
        raise ZeroDivisionError("a bug in the data")

    source = Feeder(gpu)(batches())
    assert rows(next(source)) and rows(next(source))
    with pytest.raises(ZeroDivisionError, match="a bug in the data"):
        next(source)


def test_the_host_keeps_its_batches_as_they_are() -> None:
    given = loader()
    assert epochs(given, None) == given.epoch


def test_a_place_is_filled_again_when_the_device_has_done_with_it(gpu) -> None:
    """The device lies behind by three batches, and then goes on."""
    go_on = threading.Event()
    gpu.xp.cuda.get_current_stream().add(go_on.is_set)
    source = Feeder(gpu)(loader().epoch(0))
    found = [next(source) for _ in range(3)]
    threading.Timer(0.2, go_on.set).start()
    found += list(source)
    assert [rows(batch) for batch in found] == [rows(batch) for batch in loader().epoch(0)]


@pytest.fixture
def go_on() -> Iterator[threading.Event]:
    """What a device waits for that lies behind; it comes when ``soon`` has been called."""
    event = threading.Event()
    timer = threading.Timer(0.2, event.set)
    event.soon = timer.start  # type: ignore[attr-defined]
    yield event
    timer.join()


def lent(batch: Batch) -> list:
    """Copies on the device of what lies in the place of a batch, when their turn comes."""
    assert all(type(a) is Sent for _, arrays in batch.shards for a in arrays)
    return [(i, [a.there.copy() for a in arrays]) for i, arrays in batch.shards]


@pytest.mark.parametrize("late", [False, True])
def test_a_place_is_lent_until_the_next_batch_is_asked_for(gpu, go_on, late: bool) -> None:
    """Also by a device that lies behind by three batches: the place waits for it."""
    if late:
        gpu.xp.cuda.get_current_stream().add(go_on.is_set)
    feed = Feeder(gpu, lends=True)
    source = feed(loader().epoch(0))
    found = [lent(next(source)) for _ in range(3)]
    go_on.soon()
    found += map(lent, source)
    found += map(lent, feed(loader().epoch(1)))  # places are used again
    expected = [batch for epoch in range(2) for batch in loader().epoch(epoch)]
    for copies, batch in zip(found, expected, strict=True):
        assert [(i, [a.get().tolist() for a in arrays]) for i, arrays in copies] == rows(batch)


def test_a_lent_place_waits_for_the_device_after_an_epoch_left_early(gpu, go_on) -> None:
    feed = Feeder(gpu, lends=True)
    source = feed(loader().epoch(0))
    batch = next(source)
    gpu.xp.cuda.get_current_stream().add(go_on.is_set)
    copies = lent(batch)
    source.close()
    go_on.soon()
    for _ in map(lent, feed(loader().epoch(1))):
        pass
    assert [(i, [a.get().tolist() for a in arrays]) for i, arrays in copies] == rows(batch)


def test_what_was_sent_ahead_is_an_array_of_the_host_to_numpy(gpu) -> None:
    (batch,) = Feeder(gpu, lends=True)(list(loader().epoch(0))[:1])
    (expected, *_) = loader().epoch(0)
    assert rows(batch) == rows(expected)
    (_, (x, y)), *_ = batch.shards
    assert (x.shape, x.dtype, y.dtype) == ((3, 3), np.float32, np.int64)
    assert x.get() is x.host and np.shares_memory(np.asarray(x), x.host)


def test_a_copy_takes_its_time_on_the_stand_in(gpu) -> None:
    """Else none of these tests would notice a wait that is missing."""
    pinned = fake_streams.empty_pinned(4, np.uint8)
    there = gpu.xp.zeros(4, dtype=np.uint8)
    pinned[...] = 1
    with gpu.stream("input"):
        there.set(pinned)
        copied = gpu.mark()
    assert there.get().tolist() == [0] * 4
    pinned[...] = 2  # too early
    gpu.after(copied)
    assert there.get().tolist() == [2] * 4
