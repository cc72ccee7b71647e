import numpy as np
import pytest

from distgrad.data.shard import (
    batch_bounds,
    epoch_order,
    shard_bounds,
    steps_per_epoch,
    stratified_split,
)


@pytest.mark.parametrize("n", [0, 1, 2, 1437, 60_000])
def test_epoch_order_is_a_permutation(n):
    order = epoch_order(n, seed=3, epoch=5)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_epoch_order_depends_on_seed_and_epoch_alone():
    first = epoch_order(100, seed=0, epoch=0)
    np.random.seed(1)  # somebody else's randomness
    np.testing.assert_array_equal(first, epoch_order(100, seed=0, epoch=0))
    others = [epoch_order(100, seed, epoch) for seed, epoch in [(1, 0), (0, 1), (1, 1), (-1, 0)]]
    assert len({order.tobytes() for order in [first, *others]}) == 5


def test_epoch_order_is_the_same_in_every_release():
    # Written down once: resumed runs rely on it, whatever the NumPy version.
    assert epoch_order(10, seed=0, epoch=0).tolist() == [2, 6, 1, 5, 3, 7, 4, 8, 0, 9]


def test_epoch_order_visits_every_position_evenly():
    n, epochs = 10, 4000
    orders = np.stack([epoch_order(n, seed=7, epoch=epoch) for epoch in range(epochs)])
    counts = np.stack([np.bincount(orders[:, position], minlength=n) for position in range(n)])
    expected = epochs / n
    # 81 degrees of freedom: chi-square above 160 has a chance of under one in a million.
    assert ((counts - expected) ** 2 / expected).sum() < 160


def test_epoch_order_unshuffled():
    assert epoch_order(4, seed=0, epoch=2, shuffle=False).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("n", "size", "steps"), [(0, 4, 0), (1, 4, 1), (8, 4, 2), (9, 4, 3)])
def test_batches_cover_the_epoch(n, size, steps):
    assert steps_per_epoch(n, size) == steps
    positions = [i for step in range(steps) for i in range(*batch_bounds(n, size, step))]
    assert positions == list(range(n))


@pytest.mark.parametrize("step", [-1, 3])
def test_batch_outside_of_the_epoch(step):
    with pytest.raises(IndexError, match=rf"step {step} .* 3 steps"):
        batch_bounds(9, 4, step)


def test_sizes_below_one():
    with pytest.raises(ValueError, match="global_batch_size is 0"):
        steps_per_epoch(9, 0)
    with pytest.raises(ValueError, match="virtual_shards is -1"):
        shard_bounds(9, -1)


@pytest.mark.parametrize("batch_size", [0, 1, 5, 8, 29, 64])
@pytest.mark.parametrize("virtual_shards", [1, 2, 3, 8])
def test_shards_are_contiguous_and_even(batch_size, virtual_shards):
    bounds = shard_bounds(batch_size, virtual_shards)
    assert len(bounds) == virtual_shards
    assert [i for start, stop in bounds for i in range(start, stop)] == list(range(batch_size))
    sizes = [stop - start for start, stop in bounds]
    assert max(sizes) - min(sizes) <= 1


def test_split_of_the_digits_size_matches_scikit_learn():
    labels = np.random.default_rng(0).integers(0, 10, 1797)
    train, test = stratified_split(labels, 0.2, seed=0)
    from sklearn.model_selection import train_test_split  # takes long to load

    _, theirs = train_test_split(np.arange(1797), test_size=0.2, stratify=labels, random_state=0)
    assert len(test) == len(theirs) == 360
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(1797))
    assert (np.diff(train) > 0).all() and (np.diff(test) > 0).all()
    ours = np.bincount(labels[test], minlength=10)
    assert np.abs(ours - np.bincount(labels[theirs], minlength=10)).max() <= 1
    assert np.abs(ours - np.bincount(labels) * 360 / 1797).max() < 1


def test_split_is_drawn_by_the_seed():
    labels = np.arange(200) % 4
    first = stratified_split(labels, 0.25, seed=0)[1]
    np.testing.assert_array_equal(first, stratified_split(labels, 0.25, seed=0)[1])
    assert first.tolist() != stratified_split(labels, 0.25, seed=1)[1].tolist()


def test_split_is_fair_where_every_class_is_rare():
    # 20 classes of one sample: nothing but chance may decide which of them are held out.
    hits = np.zeros(20)
    for seed in range(2000):
        hits[stratified_split(np.arange(20), 0.25, seed)[1]] += 1
    assert hits.sum() == 2000 * 5
    assert np.abs(hits - 500).max() < 100  # five standard deviations


@pytest.mark.parametrize(("n", "fraction", "held_out"), [(70, 0.1, 7), (10, 0.25, 3), (3, 0.5, 2)])
def test_split_rounds_up_what_is_no_whole_number(n, fraction, held_out):
    assert len(stratified_split(np.zeros(n, dtype=int), fraction, seed=0)[1]) == held_out


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.95, -0.1])
def test_split_with_an_empty_part(fraction):
    with pytest.raises(ValueError, match=f"test_fraction {fraction} of 10 samples"):
        stratified_split(np.zeros(10, dtype=int), fraction, seed=0)
