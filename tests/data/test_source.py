import time

import numpy as np
import pytest

from distgrad.core.errors import DataError
from distgrad.data.source import ArraySource, load


def test_array_source_takes_rows_of_every_array():
    x, y = np.arange(12.0).reshape(4, 3), np.arange(4)
    source = ArraySource(x, y)
    assert len(source) == 4
    rows, labels = source.take(np.array([2, 0]))
    np.testing.assert_array_equal(rows, x[[2, 0]])
    assert labels.tolist() == [2, 0]
    rows[:] = -1
    assert x.min() == 0, "a batch must be a copy"


def test_array_source_names_the_lengths():
    with pytest.raises(ValueError, match="arrays have 4, 5 samples"):
        ArraySource(np.zeros(4), np.zeros(5))
    with pytest.raises(ValueError, match="first dimension"):
        ArraySource(np.float32(3))


def test_digits_are_scikit_learns_digits():
    splits = load({"source": "digits", "test_fraction": 0.2}, seed=0)
    (x_train, y_train), (x_test, y_test) = splits.train.arrays, splits.test.arrays
    assert x_train.shape == (1437, 8, 8) and x_test.shape == (360, 8, 8)
    assert {x_train.dtype, x_test.dtype} == {np.dtype("float32")}
    assert {y_train.dtype, y_test.dtype} == {np.dtype("int32")}
    assert splits.description == "digits: 1437 training and 360 test samples, 8 x 8"

    from sklearn.datasets import load_digits  # slowly

    digits = load_digits()
    ours = np.concatenate([x_train, x_test]).reshape(1797, 64)
    labels = np.concatenate([y_train, y_test])
    theirs = (digits.data / 16).astype(np.float32)
    np.testing.assert_array_equal(
        sorted((row.tobytes(), label) for row, label in zip(ours, labels, strict=True)),
        sorted((row.tobytes(), label) for row, label in zip(theirs, digits.target, strict=True)),
    )


def test_digits_split_follows_the_seed():
    spec = {"source": "digits", "test_fraction": 0.2}
    first, again, other = (load(spec, seed).test.arrays[0] for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_digits_load_quickly():
    spec = {"source": "digits", "test_fraction": 0.2}

    def seconds():
        start = time.thread_time()  # other processes do not count
        load(spec, seed=0)
        return time.thread_time() - start

    assert min(seconds() for _ in range(5)) < 0.05


def test_a_broken_installation_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.resources.files", lambda _package: tmp_path)
    spec = {"source": "digits", "test_fraction": 0.2}
    with pytest.raises(DataError, match=r"digits\.csv\.gz .*install distgrad again"):
        load(spec, seed=0)
    (tmp_path / "digits.csv.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match=r"digits\.csv\.gz .*install distgrad again"):
        load(spec, seed=0)


def test_digits_refuse_a_fraction_that_leaves_nothing():
    with pytest.raises(DataError, match=r"digits: test_fraction 1\.0 .* leaves 1797 to test"):
        load({"source": "digits", "test_fraction": 1.0}, seed=0)


def test_unknown_source():
    with pytest.raises(ValueError, match="'cifar' is not one of digits, mnist, fashion_mnist"):
        load({"source": "cifar"}, seed=0)


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_npz_with_a_test_part_of_its_own(tmp_path):
    x = np.arange(24, dtype=np.uint8).reshape(6, 4)
    path = save(
        tmp_path / "own.npz", x_train=x, y_train=np.arange(6), x_test=x[:2], y_test=np.arange(2)
    )
    splits = load({"source": "npz", "path": path, "test_fraction": 0.5}, seed=0)
    x_train, y_train = splits.train.arrays
    np.testing.assert_array_equal(x_train, x)  # as they are, not scaled
    assert x_train.dtype == np.float32 and y_train.dtype == np.int32
    assert len(splits.test) == 2


def test_npz_split_keeps_the_classes(tmp_path):
    y = np.repeat([0, 1], [30, 10])
    path = save(tmp_path / "xy.npz", x=np.arange(40.0), y=y)
    splits = load({"source": "npz", "path": path, "test_fraction": 0.2}, seed=0)
    assert np.bincount(splits.test.arrays[1]).tolist() == [6, 2]
    assert sorted([*splits.train.arrays[0], *splits.test.arrays[0]]) == list(range(40))


@pytest.mark.parametrize("shape", [(40,), (40, 2)])
def test_npz_regression_targets_are_float32(tmp_path, shape):
    y = np.linspace(0, 1, np.prod(shape)).reshape(shape)
    path = save(tmp_path / "xy.npz", x=np.arange(40.0), y=y)
    splits = load({"source": "npz", "path": path, "test_fraction": 0.25}, seed=0)
    assert len(splits.test) == 10
    assert splits.test.arrays[1].dtype == np.float32
    assert splits.test.arrays[1].shape[1:] == shape[1:]


X, Y = np.zeros((6, 2)), np.arange(6)
NAN, INFINITE = X.copy(), X.copy()
NAN[2, 1] = np.nan
INFINITE[0, 0] = 1e300  # finite in the file, infinite as float32
BAD_ARRAYS = {
    "lengths": (dict(x=X, y=Y[:5]), r"x has shape \(6, 2\) and y \(5,\)"),
    "empty": (dict(x=X[:0], y=Y[:0]), "at least one sample"),
    "scalar": (dict(x=X, y=np.int32(3)), "first dimension"),
    "missing": (dict(x=X, labels=Y), r"holds the keys x, labels, but needs x_train.*, or x, y"),
    "nan": (dict(x=NAN, y=Y), r"x has 1 values .* first at \[2, 1\] \(nan\)"),
    "overflow": (dict(x=INFINITE, y=Y), r"first at \[0, 0\] \(1e\+300\)"),
    "nan target": (dict(x=X, y=np.full(6, np.nan)), "y has 6 values"),
    "text": (dict(x=X, y=np.array(list("abcdef"))), "y has dtype <U1"),
    "objects": (dict(x=X, y=np.array([None] * 6)), "plain arrays"),
    "large label": (
        dict(x=X, y=np.where(np.arange(len(Y)) == 3, 2**40, Y)),
        "the label of sample 3 is 1099511627776, which is no int32",
    ),
    "shapes": (dict(x_train=X, y_train=Y, x_test=X[:, :1], y_test=Y), r"shape \(2,\) .* \(1,\)"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_npz_says_what_is_wrong(tmp_path, case):
    arrays, message = BAD_ARRAYS[case]
    path = save(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load({"source": "npz", "path": path, "test_fraction": 0.5}, seed=0)
    assert path in str(caught.value)
    assert caught.value.exit_code == 4


def test_what_is_no_npz_at_all(tmp_path):
    (tmp_path / "a.npz").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"plain arrays \(it is something else\); write it again"):
        load({"source": "npz", "path": str(tmp_path / "a.npz"), "test_fraction": 0.5}, seed=0)


def test_npz_without_a_test_part_needs_a_fraction(tmp_path):
    path = save(tmp_path / "xy.npz", x=X, y=Y)
    with pytest.raises(DataError, match=r"give data\.test_fraction"):
        load({"source": "npz", "path": path}, seed=0)


def damaged(tmp_path, how):
    path = tmp_path / "damaged.npz"
    save(path, x=np.random.default_rng(0).normal(size=(200, 20)), y=np.arange(200))
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "flipped":
        content[len(content) // 3] ^= 0xFF
    elif how == "empty":
        content.clear()
    elif how == "text":
        content[:] = b"not a zip file"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty", "text"])
def test_npz_damaged(tmp_path, how):
    path = damaged(tmp_path, how)
    with pytest.raises(DataError, match="cannot be read as an .npz file") as caught:
        load({"source": "npz", "path": str(path), "test_fraction": 0.5}, seed=0)
    assert str(path) in str(caught.value)


def test_npz_that_is_something_else(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load({"source": "npz", "path": str(tmp_path / "no.npz")}, seed=0)
    with pytest.raises(DataError, match="cannot be read"):
        load({"source": "npz", "path": str(tmp_path)}, seed=0)
    np.save(tmp_path / "bare.npy", np.zeros(3))
    with pytest.raises(DataError, match="one bare array"):
        load({"source": "npz", "path": str(tmp_path / "bare.npy")}, seed=0)


def test_mnist_from_a_given_file(tmp_path):
    x = np.full((6, 28, 28), 255, dtype=np.uint8)
    path = save(
        tmp_path / "small.npz", x_train=x, y_train=np.uint8(Y), x_test=x[:2] // 5, y_test=Y[:2]
    )
    splits = load({"source": "mnist", "path": path}, seed=0)
    assert splits.train.arrays[0].dtype == np.float32
    assert splits.train.arrays[0].max() == 1
    np.testing.assert_array_equal(splits.test.arrays[0], np.float32(51) / np.float32(255))
    assert splits.train.arrays[1].dtype == np.int32
    with pytest.raises(DataError, match="does not exist"):
        load({"source": "mnist", "path": str(tmp_path / "no.npz")}, seed=0)


def test_mnist_from_the_keras_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".keras" / "datasets"
    folder.mkdir(parents=True)
    x = np.zeros((3, 28, 28), dtype=np.uint8)
    save(folder / "mnist.npz", x_train=x, y_train=Y[:3], x_test=x, y_test=Y[:3])
    with pytest.warns(UserWarning, match="it is used as it is"):
        splits = load({"source": "mnist"}, seed=0)
    assert splits.description == "mnist: 3 training and 3 test samples, 28 x 28"
