import itertools

import numpy as np
import pytest

from distgrad.data.loader import Loader
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
