import threading

import numpy as np
import pytest

from distgrad.core.errors import DataError
from distgrad.data.loader import Loader
from distgrad.data.nest import leaves
from distgrad.data.source import NestSource, load


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array)
        return {"source": "npy", **{name: str(tmp_path / f"{name}.npy") for name in arrays}}

    return write


X = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
Y = np.repeat([0, 1, 2], 20)


def mapped(array):
    """The file that an array is a view of, if it is one."""
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return array


def test_arrays_stay_on_the_disk(save):
    splits = load(save(x=X, y=Y, test_x=X[:6], test_y=Y[:6]), seed=0)
    assert mapped(splits.train.arrays[0]) is not None and splits.train.slow
    x, y = splits.train.take(slice(10, 20))
    assert mapped(x) is not None and not x.flags.writeable
    np.testing.assert_array_equal(x, X[10:20])
    assert y.dtype == np.int32
    x, _ = splits.train.take(np.array([5, 3]))
    np.testing.assert_array_equal(x, X[[5, 3]])
    assert mapped(x) is None


def test_a_part_is_held_out(save):
    spec = {**save(x=X, y=Y), "test_fraction": 0.25}
    splits = load(spec, seed=0)
    assert (len(splits.train), len(splits.test)) == (45, 15)
    x, y = splits.test.take(slice(0, 15))
    assert np.bincount(y).tolist() == [5, 5, 5]
    rest, _ = splits.train.take(np.arange(45))
    rows = sorted([*x.tolist(), *rest.tolist()])
    assert rows == sorted(X.tolist())
    assert splits.description.endswith("45 training and 15 test samples, 5")
    np.testing.assert_array_equal(load(spec, seed=0).test.take(slice(0, 15))[0], x)
    assert (load(spec, seed=1).test.take(slice(0, 15))[0] != x).any()


def test_values_are_cast_and_scaled_as_they_are_taken(save):
    images = np.arange(60 * 4, dtype=np.uint8).reshape(60, 2, 2)
    splits = load({**save(x=images, y=np.linspace(0, 1, 60)), "scale": 255}, seed=0)
    x, y = splits.train.take(slice(0, 60))
    assert x.dtype == y.dtype == np.float32 and 0.8 < x.max() <= 1


def test_a_loader_reads_the_same_from_disk_and_memory(save):
    spec = save(x=X, y=Y, test_x=X[:6], test_y=Y[:6])
    disk = load(spec, seed=0).train
    from distgrad.data.source import ArraySource

    memory = ArraySource(X, Y.astype(np.int32))
    for shuffle in (True, False):
        loaders = [Loader(source, 16, 4, range(1, 3), 3, shuffle) for source in (disk, memory)]
        assert [loader.prefetch for loader in loaders] == [2, 0]
        for ours, theirs in zip(*(loader.epoch(1, 1) for loader in loaders), strict=True):
            np.testing.assert_equal(vars(ours), vars(theirs))


NAN = X.copy()
NAN[3, 2] = np.nan
BAD = {
    "lengths": (dict(x=X, y=Y[:5]), r"x has shape \(60, 5\) and y \(5,\)"),
    "text": (dict(x=np.array(["a"] * 60), y=Y), "has dtype <U1"),
    "objects": (dict(x=X, y=np.array([None] * 60)), "cannot be read as a .npy file"),
    "shapes": (dict(x=X, y=Y, test_x=X[:, :2], test_y=Y), r"shape \(5,\) .* \(2,\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_it_says_what_is_wrong(save, case):
    arrays, message = BAD[case]
    with pytest.raises(DataError, match=message):
        load(save(**arrays), seed=0)


def test_a_value_that_is_not_finite_is_found_when_it_is_taken(save):
    spec = save(x=NAN, y=Y, test_x=X[:6], test_y=Y[:6])
    source = load(spec, seed=0).train
    source.take(slice(10, 20))
    with pytest.raises(DataError, match=r"x\.npy: x, in a batch has 1 values") as caught:
        source.take(slice(0, 10))
    assert "[3, 2]" in str(caught.value)


def test_files_that_are_something_else(save, tmp_path):
    spec = save(x=X, y=Y)
    with pytest.raises(DataError, match=r"no\.npy does not exist"):
        load({**spec, "x": str(tmp_path / "no.npy")}, seed=0)
    np.savez(tmp_path / "several.npz", x=X)
    with pytest.raises(DataError, match="use `source: npz`"):
        load({**spec, "x": str(tmp_path / "several.npz")}, seed=0)
    (tmp_path / "x.npy").write_bytes(b"text")
    with pytest.raises(DataError, match="cannot be read as a .npy file"):
        load(spec, seed=0)
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-40])
    with pytest.raises(DataError, match="cannot be read as a .npy file"):
        load(spec, seed=0)


def test_batches_in_order_are_views_of_the_file(save, tmp_path):
    """Of a job, and of arrays that fit is given: nothing is copied before a shard is computed."""
    spec = save(x=X, y=Y.astype(np.int32), test_x=X[:6], test_y=Y[:6])
    x, y = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("x", "y"))
    for source in (load(spec, seed=0).train, NestSource((x, y)), NestSource(({"a": x}, (y,)))):
        loader = Loader(source, 20, 4, range(4), 0, shuffle=False)
        assert loader.prefetch == 2  # pages are read by another thread
        for batch in loader.epoch(0):
            for _, arrays in batch.shards:
                assert all(mapped(array) is not None for array in leaves(arrays))


def test_the_next_batch_is_read_while_one_is_used(save):
    taken = [threading.Event() for _ in range(6)]

    class Watched(NestSource):
        def take(self, rows):
            next(event for event in taken if not event.is_set()).set()
            return super().take(rows)

    source = Watched((np.load(save(x=X)["x"], mmap_mode="r"),))
    for batch in Loader(source, 10, 1, range(1), 0).epoch(0):
        following = taken[min(batch.step_in_epoch + 1, 5)]
        assert following.wait(10), "nobody reads ahead"
