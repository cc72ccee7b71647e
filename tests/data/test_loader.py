import itertools
import threading
from dataclasses import replace

import numpy as np
import pytest

from distgrad.data.dataset import Dataset
from distgrad.data.loader import BatchLoader, Loader, Repeatable, is_stream
from distgrad.data.source import ArraySource

N = 101
SOURCE = ArraySource(np.arange(N), np.arange(N) * 10)


def ranges(virtual_shards, workers):
    cuts = [virtual_shards * rank // workers for rank in range(workers + 1)]
    return [range(start, stop) for start, stop in itertools.pairwise(cuts)]


def shards_of_an_epoch(workers, epoch=0, virtual_shards=8, size=32, **options):
    """{(step, shard): rows}, gathered from all the workers."""
    gathered = {}
    for own in ranges(virtual_shards, workers):
        loader = Loader(SOURCE, size, virtual_shards, own, seed=1, **options)
        for batch in loader.epoch(epoch):
            for index, (x, y) in batch.shards:
                assert index in own
                assert (batch.step_in_epoch, index) not in gathered
                np.testing.assert_array_equal(y, x * 10)
                gathered[batch.step_in_epoch, index] = x.tolist()
    return gathered


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 5, 8])
def test_every_sample_once_and_the_same_shards_for_any_number_of_workers(workers):
    shards = shards_of_an_epoch(workers)
    assert sorted(row for rows in shards.values() for row in rows) == list(range(N))
    assert shards == shards_of_an_epoch(1)
    assert shards != shards_of_an_epoch(workers, epoch=1)


def test_a_batch_tells_what_the_whole_step_holds():
    loader = Loader(SOURCE, 32, 8, range(4, 8), seed=1)
    batches = list(loader.epoch(0))
    assert loader.steps_per_epoch == len(batches) == 4
    assert [batch.size for batch in batches] == [32, 32, 32, 5]
    assert batches[0].present == list(range(8))
    last = batches[-1]
    assert len(last.present) == 5  # five samples over eight shards: three are empty
    assert [index for index, _ in last.shards] == [i for i in last.present if i >= 4]
    assert all(len(x) > 0 for _, (x, _y) in last.shards)


def test_a_worker_without_samples_still_takes_part_in_the_step():
    source = ArraySource(np.arange(1))
    batches = [list(Loader(source, 4, 4, own, seed=0).epoch(0)) for own in ranges(4, 4)]
    assert [len(own) for own in batches] == [1, 1, 1, 1]
    assert {tuple(own[0].present) for own in batches} == {tuple(batches[0][0].present)}
    assert sorted(len(own[0].shards) for own in batches) == [0, 0, 0, 1]


def test_an_epoch_can_be_resumed_in_the_middle():
    loader = Loader(SOURCE, 32, 8, range(8), seed=1)
    whole, rest = list(loader.epoch(3)), list(loader.epoch(3, start_step=2))
    assert [batch.step_in_epoch for batch in rest] == [2, 3]
    for ours, theirs in zip(rest, whole[2:], strict=True):
        np.testing.assert_equal(ours.shards, theirs.shards)


def test_a_worker_takes_only_its_own_rows():
    class Counting(ArraySource):
        taken = 0

        def take(self, indices):
            self.taken += len(indices)
            return super().take(indices)

    source = Counting(np.arange(64))
    list(Loader(source, 32, 8, range(2, 4), seed=0).epoch(0))
    assert source.taken == 64 * 2 // 8


def test_unshuffled_batches_lie_in_order():
    shards = shards_of_an_epoch(2, shuffle=False)
    assert [row for key in sorted(shards) for row in shards[key]] == list(range(N))


def test_what_a_loader_refuses():
    with pytest.raises(ValueError, match="no samples"):
        Loader(ArraySource(np.zeros(0)), 4, 2, range(2), seed=0)
    for shards in (range(0, 9), range(0, 8, 2), range(-1, 3), range(3, 2)):
        with pytest.raises(ValueError, match="not a contiguous part"):
            Loader(SOURCE, 32, 8, shards, seed=0)
    with pytest.raises(ValueError, match="global_batch_size"):
        Loader(SOURCE, 0, 8, range(8), seed=0)


def test_shards_of_one_size_are_parts_of_the_whole():
    whole = [batch.whole for batch in Loader(SOURCE, 32, 8, range(2, 6), seed=0).epoch(0)]
    batches = list(Loader(SOURCE, 32, 8, range(2, 6), seed=0).epoch(0))
    for batch, arrays in zip(batches, whole, strict=True):
        sizes = {len(rows) for _, (rows, *_) in batch.shards}
        assert bool(arrays) == (len(sizes) == 1)
        for number, array in enumerate(arrays):
            parts = [shard[number] for _, shard in batch.shards]
            np.testing.assert_array_equal(np.concatenate(parts), array)
    assert any(whole) and replace(batches[0], shards=batches[0].shards[:1]).whole == ()


def test_unshuffled_shards_are_views_that_cannot_be_written():
    x = np.arange(N, dtype=np.float32)
    loader = Loader(ArraySource(x), 32, 4, range(4), seed=0, shuffle=False)
    for batch in loader.epoch(0):
        for _, (rows,) in batch.shards:
            assert np.shares_memory(rows, x) and not rows.flags.writeable
    assert x.flags.writeable


def test_reading_in_advance_changes_nothing():
    plain, ahead = (Loader(SOURCE, 8, 4, range(1, 3), 1, prefetch=depth) for depth in (0, 2))
    for start in (0, 5):
        for ours, theirs in zip(ahead.epoch(2, start), plain.epoch(2, start), strict=True):
            np.testing.assert_equal(vars(ours), vars(theirs))
    batches = ahead.epoch(0)
    next(batches)
    batches.close()
    assert [t for t in threading.enumerate() if t.name == "distgrad-prefetch"] == []


def test_only_large_batches_and_files_are_read_in_advance():
    small, large = ArraySource(np.zeros((64, 4))), ArraySource(np.zeros((64, 2**17)))
    assert Loader(small, 32, 1, range(1), 0).prefetch == 0
    assert Loader(large, 32, 1, range(1), 0).prefetch == 2
    assert Loader(large, 32, 1, range(1), 0, shuffle=False).prefetch == 0
    small.slow = True
    assert Loader(small, 32, 1, range(1), 0).prefetch == 2


def test_an_error_of_the_source_is_raised_where_it_would_have_been():
    class Broken(ArraySource):
        slow = True

        def take(self, rows):
            if 5 in rows:
                raise OSError("disk")
            return super().take(rows)

    with pytest.raises(OSError, match="disk"):
        list(Loader(Broken(np.arange(20)), 4, 2, range(2), seed=0).epoch(0))


# Batches that come ready-made


def pairs(n=10, size=4):
    return [(np.arange(i * size, i * size + size), np.full(size, i)) for i in range(n)]


def rows_of(batches):
    return [
        (batch.step_in_epoch, np.concatenate([x for _, (x, *_) in batch.shards]).tolist())
        for batch in batches
    ]


def as_dataset(n=10, size=4):
    return Dataset.from_tensor_slices((np.arange(n * size), np.arange(n * size))).batch(size)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_ready_batches_are_cut_as_a_loader_cuts_them(workers):
    dataset = Dataset.from_tensor_slices((np.arange(N), np.arange(N) * 10)).batch(32)
    source = [
        list(Loader(SOURCE, 32, 8, own, 0, shuffle=False).epoch(0)) for own in ranges(8, workers)
    ]
    ready = [list(BatchLoader(dataset, 8, own).epoch(0)) for own in ranges(8, workers)]
    for ours, theirs in zip(ready, source, strict=True):
        np.testing.assert_equal([vars(batch) for batch in ours], [vars(batch) for batch in theirs])


def test_every_worker_sees_the_same_shuffled_batches():
    def shards(workers, seed):
        dataset = Dataset.range(40).shuffle(40).map(lambda x: (x, x)).batch(16)
        return {
            (batch.step_in_epoch, index): rows[0].tolist()
            for own in ranges(4, workers)
            for batch in BatchLoader(dataset, 4, own, seed).epoch(1)
            for index, rows in batch.shards
        }

    one = Dataset.range(40).shuffle(40).map(lambda x: (x, x)).batch(16)
    batches = list(BatchLoader(one, 4, range(4), 7).epoch(1))
    assert rows_of(batches) == rows_of(BatchLoader(one, 4, range(4), 7).epoch(1))
    assert rows_of(batches) != rows_of(BatchLoader(one, 4, range(4), 8).epoch(1))
    assert rows_of(batches) != rows_of(BatchLoader(one, 4, range(4), 7).epoch(0))
    assert len(shards(2, 7)) == len(shards(1, 7)) == 12


@pytest.mark.parametrize("make", [as_dataset, pairs, lambda: tuple(pairs())])
def test_steps_are_known_and_an_epoch_can_be_resumed(make):
    loader = BatchLoader(make(), 2, range(2))
    assert loader.steps_per_epoch == 10
    whole = rows_of(loader.epoch(0))
    assert [step for step, _ in whole] == list(range(10))
    assert rows_of(loader.epoch(0, start_step=7)) == whole[7:]
    assert rows_of(loader.epoch(0, start_step=10)) == []


def test_what_only_reading_can_tell():
    dataset = as_dataset().filter(lambda x, y: x[0] % 8 == 0)
    loader = BatchLoader(dataset, 2, range(2))
    assert loader.steps_per_epoch is None
    assert [rows[0] for _, rows in rows_of(loader.epoch(0))] == [0, 8, 16, 24, 32]
    assert BatchLoader(iter(pairs()), 2, range(2)).steps_per_epoch is None
    with pytest.raises(ValueError, match="infinite: give steps_per_epoch"):
        BatchLoader(as_dataset().repeat(), 2, range(2))


STREAM = [[0, 4, 8, 12, 16, 20], [24, 28, 32, 36, 0, 4], [8, 12, 16, 20, 24, 28]]
READINGS = [[0, 4, 8, 12, 16, 20], [24, 28, 32, 36], [0, 4, 8, 12, 16, 20]]  # as in Keras 3.15


@pytest.mark.parametrize(
    ("make", "expected"),
    [(lambda: as_dataset().repeat(), STREAM), (as_dataset, READINGS), (pairs, READINGS)],
)
@pytest.mark.filterwarnings("ignore:the data ended after 4 of 6 steps of epoch 2")
def test_epochs_of_given_steps_follow_each_other(make, expected):
    firsts = [
        [rows[0] for _, rows in rows_of(loader.epoch(epoch))]
        for loader in [BatchLoader(make(), 2, range(2), steps_per_epoch=6)]
        for epoch in range(3)
    ]
    assert firsts == expected
    resumed = BatchLoader(make(), 2, range(2), steps_per_epoch=6)
    assert [rows[0] for _, rows in rows_of(resumed.epoch(1, 3))] == expected[1][3:]
    assert rows_of(resumed.epoch(1, 6)) == []
    assert [rows[0] for _, rows in rows_of(resumed.epoch(2))] == firsts[2]


def test_a_generator_goes_on_from_where_it_stands():
    def forever():
        for i in itertools.count():
            yield np.full(4, i), np.zeros(4)

    loader = BatchLoader(forever(), 2, range(2), steps_per_epoch=3)
    assert [rows[0] for _, rows in rows_of(loader.epoch(0))] == [0, 1, 2]
    assert [rows[0] for _, rows in rows_of(loader.epoch(1))] == [3, 4, 5]


def test_a_generator_that_ends():
    loader = BatchLoader(iter(pairs(4)), 2, range(2), steps_per_epoch=3)
    assert len(list(loader.epoch(0))) == 3
    with pytest.warns(UserWarning, match="ended after 1 of 3 steps of epoch 2"):
        assert len(list(loader.epoch(1))) == 1
    with pytest.raises(ValueError, match="no batch in epoch 3"):
        list(loader.epoch(2))
    loader = BatchLoader(iter(pairs(4)), 2, range(2))
    assert len(list(loader.epoch(0))) == 4
    with pytest.raises(ValueError, match="no batch in epoch 2"):
        list(loader.epoch(1))


def test_an_abandoned_epoch_does_not_shift_the_stream():
    loader = BatchLoader(pairs(), 2, range(2), steps_per_epoch=5)
    batches = loader.epoch(0)
    next(batches), next(batches)
    batches.close()
    assert [rows[0] for _, rows in rows_of(loader.epoch(0, 2))] == [8, 12, 16]
    assert [rows[0] for _, rows in rows_of(loader.epoch(1))] == [20, 24, 28, 32, 36]


def test_a_sequence_is_told_of_the_end_of_its_epoch():
    class Sequence:
        ended = 0

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return np.full(2, index + 10 * self.ended), np.zeros(2)

        def on_epoch_end(self):
            self.ended += 1

    loader = BatchLoader(Sequence(), 2, range(2))
    assert [rows[0] for _, rows in rows_of(loader.epoch(0))] == [0, 1, 2]
    assert [rows[0] for _, rows in rows_of(loader.epoch(1))] == [10, 11, 12]


def test_what_a_batch_may_be():
    x, y, w = np.arange(4.0), np.arange(4), np.ones(4)
    several = ({"a": x, "b": x * 2}, [x, y], w)
    (batch,) = BatchLoader([several], 2, range(2)).epoch(0)
    assert (batch.size, batch.present) == (4, [0, 1])
    index, (inputs, targets, weights) = batch.shards[1]
    assert index == 1 and inputs["b"].tolist() == [4, 6]
    assert [part.tolist() for part in targets] == [[2, 3], [2, 3]] and len(weights) == 2
    (alone,) = BatchLoader([x], 2, range(2)).epoch(0)
    assert alone.shards[0][1][0].tolist() == [0, 1]
    (listed,) = BatchLoader([([1, 2], [0, 1])], 1, range(1)).epoch(0)
    assert listed.shards[0][1][0].dtype == np.int32
    for wrong, message in [
        ((x, y[:3]), "differ in their number of samples"),
        ((x, y, w, w), "4 parts"),
        ((x[:0], y[:0]), "no samples"),
        ((x, 3), "first dimension"),
    ]:
        with pytest.raises(ValueError, match=message):
            list(BatchLoader([wrong], 2, range(2)).epoch(0))


def test_inputs_of_several_lengths_are_one_shard():  # the atoms and bonds of molecules
    graphs = ({"atoms": np.arange(5.0), "bonds": np.zeros((7, 2))}, np.ones(2))
    (batch,) = BatchLoader([graphs], 1, range(1)).epoch(0)
    inputs, targets = batch.shards[0][1]
    assert [len(inputs["atoms"]), len(inputs["bonds"]), len(targets)] == [5, 7, 2]
    with pytest.raises(ValueError, match="nobody can cut them into shards: use one process"):
        list(BatchLoader([graphs], 2, range(2)).epoch(0))


def test_what_a_batch_loader_refuses():
    with pytest.raises(TypeError, match="int gives no batches"):
        BatchLoader(3, 2, range(2))
    with pytest.raises(ValueError, match="steps_per_epoch is 0"):
        BatchLoader(pairs(), 2, range(2), steps_per_epoch=0)
    with pytest.raises(ValueError, match="not a contiguous part"):
        BatchLoader(pairs(), 2, range(3))


def test_a_sequence_that_next_takes_too_is_read_again():
    class Both(Repeatable):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return np.full(3, index)

        def __iter__(self):
            return self

        def __next__(self):
            return self[0]

        def iterate(self, epoch, seed=0):
            return (self[index] + 10 * epoch + seed for index in range(2))

    assert not is_stream(Both()) and is_stream(iter([1]))
    loader = BatchLoader(Both(), 1, range(1), seed=5)
    assert loader.steps_per_epoch == 2 and not loader.once
    found = [[int(b.shards[0][1][0][0]) for b in loader.epoch(epoch)] for epoch in (1, 0)]
    assert found == [[15, 16], [5, 6]]
