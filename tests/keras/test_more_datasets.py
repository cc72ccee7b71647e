"""Data sets of numbers and of words, as Keras cuts, shuffles and numbers them."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile

import numpy as np
import pytest

from distgrad.core.errors import DataError
from distgrad.keras import datasets
from distgrad.keras.datasets import boston_housing, california_housing, imdb, reuters


def publish(monkeypatch, module, path):
    """Takes ``path`` for the published file."""
    monkeypatch.setattr(module, "_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())


def lists(*rows):
    made = np.empty(len(rows), object)
    made[:] = [list(row) for row in rows]
    return made


def test_tables(cache, monkeypatch):
    x, y = np.arange(1400.0).reshape(700, 2), np.arange(700.0)
    for module, name in ((boston_housing, "boston"), (california_housing, "california")):
        path = cache / f"{name}_housing.npz"
        np.savez(path, x=x, y=y)
        publish(monkeypatch, module, path)
        (x_train, y_train), (x_test, y_test) = module.load_data()
        assert (len(x_train), len(x_test)) == (560, 140)
        order = np.arange(700)
        np.random.RandomState(113).shuffle(order)
        np.testing.assert_array_equal(np.concatenate([y_train, y_test]), y[order])
        np.testing.assert_array_equal(x_train[:, 0], 2 * y_train)
        with pytest.raises(ValueError, match="test_split"):
            module.load_data(test_split=1.0)
    (small, _), _ = california_housing.load_data("small", test_split=0)
    assert len(small) == 600
    with pytest.raises(ValueError, match="version"):
        california_housing.load_data("huge")


def test_words(cache, monkeypatch):
    """Shifted by three, after a 1, rare words and common ones as 2."""
    path = cache / "imdb.npz"
    train, test = lists([1, 5, 9], [2], [3, 4], [7] * 8), lists([6], [1, 1, 8])
    np.savez(path, x_train=train, y_train=np.array([0, 1, 0, 1]), x_test=test, y_test=[1, 0])
    publish(monkeypatch, imdb, path)
    (x, y), _ = imdb.load_data()
    rows = [(1, 4, 8, 2), (1, 5), (1, 6, 7), (1, *[10] * 8)]  # 12 is the largest: it is left out
    assert sorted(map(tuple, x)) == sorted(rows)
    assert dict(zip(map(len, x), y, strict=True)) == {4: 0, 2: 1, 3: 0, 9: 1}
    (x, y), (x_test, _) = imdb.load_data(num_words=9, skip_top=5, maxlen=5)
    assert {len(row) for row in x} == {4, 2, 3} and len(y) == 3
    assert sorted(map(tuple, x_test)) == [(2, 2), (2, 2, 2, 2)]
    plain, _ = imdb.load_data(start_char=None, index_from=None, oov_char=None, num_words=100)
    assert sorted(map(tuple, plain[0])) == sorted(map(tuple, train))
    with pytest.raises(ValueError, match="maxlen"):
        imdb.load_data(maxlen=1)


def test_newswires(cache, monkeypatch):
    path = cache / "reuters.npz"
    np.savez(path, x=lists(*([i + 1] for i in range(10))), y=np.arange(10))
    publish(monkeypatch, reuters, path)
    (x, y), (x_test, _) = reuters.load_data(num_words=1000)
    assert (len(x), len(x_test)) == (8, 2)
    assert all(row == [1, label + 4] for row, label in zip(x, y, strict=True))
    assert len(reuters.get_label_names()) == 46 and reuters.get_label_names()[3] == "earn"


def test_word_numbers(cache):
    (cache / "imdb_word_index.json").write_text(json.dumps({"the": 1}))
    with pytest.warns(UserWarning, match="MD5"):
        assert datasets.imdb.get_word_index() == {"the": 1}
    (cache / "reuters_word_index.json").write_text("{")
    with pytest.warns(UserWarning), pytest.raises(DataError, match="not JSON"):
        datasets.reuters.get_word_index()


class Runs:
    def __reduce__(self):
        return os.system, ("touch /tmp/should-never-be-there",)


def test_no_file_runs_code(cache, monkeypatch):
    path, bad = cache / "imdb.npz", np.empty(1, object)
    bad[0] = Runs()
    np.savez(path, x_train=bad, y_train=[0], x_test=bad, y_test=[0])
    publish(monkeypatch, imdb, path)
    called = []
    monkeypatch.setattr(os, "system", called.append)
    with pytest.raises(DataError, match="which is no array"):
        imdb.load_data()
    assert not called
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", pickle.dumps([1]))
    publish(monkeypatch, imdb, path)
    with pytest.raises(DataError, match="imdb.npz"):
        imdb.load_data()
