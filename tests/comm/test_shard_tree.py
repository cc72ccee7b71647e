"""The canonical tree: the same bits for every division of the shards among workers."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distgrad.comm.tree import ShardTree, TreeSum, worker_shards
from distgrad.core.errors import InvalidArgumentError, UsageError

SIZE = 37


def shard_values(virtual_shards: int, seed: int = 0) -> list[np.ndarray]:
    """Float32 data over 8 decades and both signs, where every order of addition shows."""
    rng = np.random.default_rng([seed, virtual_shards])
    shape = (virtual_shards, SIZE)
    values = 10.0 ** rng.uniform(-4, 4, shape) * rng.choice([-1.0, 1.0], shape)
    return list(values.astype(np.float32))


def by_definition(values: list[np.ndarray], present: set[int], level: int, index: int):
    """The value of a node, straight from its definition; None where no shard is present."""
    if level == 0:
        return values[index].copy() if index in present else None
    left = by_definition(values, present, level - 1, 2 * index)
    right = by_definition(values, present, level - 1, 2 * index + 1)
    if left is None or right is None:
        return right if left is None else left
    return left + right


def expected_sum(values: list[np.ndarray], present: set[int]) -> np.ndarray:
    levels = 0
    while 2**levels < len(values):
        levels += 1
    padded = values + values[:1] * (2**levels - len(values))
    return by_definition(padded, present, levels, 0)


def sum_by_workers(values: list[np.ndarray], present: set[int], parts: list[list[int]]):
    """What workers with these shards get together."""
    partials = {}
    for part in parts:
        tree_sum = TreeSum(len(values), SIZE)
        tree_sum.start(present)
        for shard in part:
            if shard in present:
                buffer = tree_sum.buffer()
                buffer[:] = values[shard]
                tree_sum.push(shard, buffer)
        held = tree_sum.partials()
        assert not held.keys() & partials.keys()
        partials.update(held)
    out = np.full(SIZE, np.nan, np.float32)
    ShardTree(len(values), present).combine(partials, out)
    return out


def contiguous_partitions(virtual_shards: int):
    for workers in range(1, virtual_shards + 1):
        for cuts in combinations(range(1, virtual_shards), workers - 1):
            yield [list(range(a, b)) for a, b in pairwise((0, *cuts, virtual_shards))]


@pytest.mark.parametrize("virtual_shards", range(1, 7))
def test_same_bits_for_every_partition_and_every_set_of_missing_shards(virtual_shards: int) -> None:
    values = shard_values(virtual_shards)
    for members in range(1, 2**virtual_shards):
        present = {s for s in range(virtual_shards) if members >> s & 1}
        expected = expected_sum(values, present).tobytes()
        for parts in contiguous_partitions(virtual_shards):
            assert sum_by_workers(values, present, parts).tobytes() == expected, (present, parts)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(data=st.data(), virtual_shards=st.integers(7, 40))
def test_same_bits_for_any_shards_in_any_hands_in_any_order(data, virtual_shards: int) -> None:
    values = shard_values(virtual_shards)
    present = data.draw(st.sets(st.integers(0, virtual_shards - 1), min_size=1))
    workers = data.draw(st.integers(1, virtual_shards))
    owners = data.draw(
        st.lists(st.integers(0, workers - 1), min_size=virtual_shards, max_size=virtual_shards)
    )
    order = data.draw(st.permutations(range(virtual_shards)))
    parts = [[s for s in order if owners[s] == worker] for worker in range(workers)]
    found = sum_by_workers(values, present, parts)
    assert found.tobytes() == expected_sum(values, present).tobytes()


@pytest.mark.parametrize("virtual_shards", [8, 12, 33])
def test_the_data_tells_orders_apart(virtual_shards: int) -> None:
    """Without this the tests above would pass for any order of addition."""
    values = shard_values(virtual_shards)
    in_a_row = np.add.reduce(values)
    everyone = set(range(virtual_shards))
    assert in_a_row.tobytes() != expected_sum(values, everyone).tobytes()


@pytest.mark.parametrize("virtual_shards", [1, 2, 5, 8, 13])
@pytest.mark.parametrize("missing", [set(), {1}, {1, 2}, {4, 7, 12}])
def test_every_rank_can_compute_what_the_others_hold(virtual_shards: int, missing: set) -> None:
    present = set(range(virtual_shards)) - missing
    for workers in range(1, virtual_shards + 1):
        for rank in range(workers):
            shards = worker_shards(virtual_shards, rank, workers)
            tree_sum = TreeSum(virtual_shards, SIZE)
            tree_sum.start(present)
            for shard in present.intersection(shards):
                tree_sum.push(shard, tree_sum.buffer())
            assert set(tree_sum.partials()) == set(tree_sum.tree.maximal(shards))


def test_power_of_two_shards_per_worker_make_one_partial_each() -> None:
    tree = ShardTree(16, range(16))
    assert [tree.maximal(worker_shards(16, rank, 4)) for rank in range(4)] == [
        ((2, 0),),
        ((2, 1),),
        ((2, 2),),
        ((2, 3),),
    ]


def test_a_lone_shard_is_the_root() -> None:
    tree = ShardTree(8, [5])
    assert tree.maximal(range(4, 8)) == (tree.root,)
    assert tree.maximal(range(0, 4)) == ()


def test_memory_is_logarithmic_and_recycled() -> None:
    tree_sum = TreeSum(64, SIZE)
    out = np.empty(SIZE, np.float32)
    for _ in range(3):
        tree_sum.start(range(64))
        for shard in range(64):
            buffer = tree_sum.buffer()
            buffer[:] = shard
            tree_sum.push(shard, buffer)
        tree_sum.tree.combine(tree_sum.partials(), out)
        assert (out == 64 * 63 / 2).all()
    assert tree_sum.allocated <= 7


@pytest.mark.parametrize("virtual_shards", [1, 2, 3, 8, 13])
def test_worker_shards_are_contiguous_balanced_and_complete(virtual_shards: int) -> None:
    for workers in range(1, virtual_shards + 1):
        ranges = [worker_shards(virtual_shards, rank, workers) for rank in range(workers)]
        assert [s for shards in ranges for s in shards] == list(range(virtual_shards))
        lengths = {len(shards) for shards in ranges}
        assert max(lengths) - min(lengths) <= 1


def test_more_workers_than_shards_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="4 workers cannot share 3 virtual shards"):
        worker_shards(3, 0, 4)


def test_misuse_is_named() -> None:
    tree_sum = TreeSum(4, SIZE)
    with pytest.raises(InvalidArgumentError, match="no virtual shard"):
        tree_sum.start([])
    with pytest.raises(InvalidArgumentError, match=r"\[0, 4\)"):
        tree_sum.start([1, 4])
    tree_sum.start([0, 1])
    with pytest.raises(InvalidArgumentError, match="shard 2 is not among"):
        tree_sum.push(2, tree_sum.buffer())
    with pytest.raises(InvalidArgumentError, match="shard 9 is not among"):
        tree_sum.push(9, tree_sum.buffer())
    with pytest.raises(InvalidArgumentError, match="float64"):
        tree_sum.push(0, np.zeros(SIZE))
    tree_sum.push(0, tree_sum.buffer())
    with pytest.raises(InvalidArgumentError, match="twice"):
        tree_sum.push(0, tree_sum.buffer())
    with pytest.raises(InvalidArgumentError, match="no partial sum holds virtual shard 1"):
        tree_sum.tree.combine(tree_sum.partials(), np.empty(SIZE, np.float32))


def test_fingerprint_tells_trees_apart() -> None:
    prints = {ShardTree(8, p).fingerprint() for p in ([0], [1], [0, 1], range(8), range(7))}
    assert len(prints | {ShardTree(9, range(8)).fingerprint()}) == 6


@pytest.mark.parametrize("present", [range(8), [0, 1, 2, 5], [3], [1, 6, 7]])
def test_whole_subtrees_can_be_pushed_at_once(present):
    values, present = shard_values(8), set(present)
    wanted = expected_sum(values, present)
    whole = ShardTree(8, present)
    for cut in range(9):
        tree_sum = TreeSum(8, SIZE)
        tree_sum.start(present)
        for own in (range(cut), range(cut, 8)):
            for level, index in whole.maximal(own):
                total = by_definition(values, present, level, index)
                tree_sum.push_tree((level, index), total)
                with pytest.raises(InvalidArgumentError, match="pushed twice"):
                    tree_sum.push_tree((level, index), total)
        assert tree_sum.take().tobytes() == wanted.tobytes()
    with pytest.raises(InvalidArgumentError, match="not among the present"):
        tree_sum.push_tree((0, 8), np.zeros(SIZE, np.float32))
