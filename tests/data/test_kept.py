"""Elements of a dataset that lie in files."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import distgrad as tf
from distgrad.core.errors import DataError

Dataset = tf.data.Dataset


def nested(n):
    return {"x": tf.fill([n, 2], 0.5), "y": (n, tf.cast(n, tf.bfloat16), True)}


def test_save_and_load(tmp_path):
    data = Dataset.range(3).map(nested)
    data.save(tmp_path / "d")
    found = list(Dataset.load(tmp_path / "d"))
    assert len(found) == 3
    for element, before in zip(found, data, strict=True):
        assert list(element) == ["x", "y"] and element["x"].shape == before["x"].shape
        kinds = [leaf.dtype.name for leaf in element["y"]]
        assert kinds == ["int64", "bfloat16", "bool"]
        assert [float(leaf) for leaf in element["y"]] == [float(leaf) for leaf in before["y"]]
    spec = tf.TensorSpec([None], tf.int64)
    assert Dataset.load(tmp_path / "d", element_spec=spec).element_spec == spec
    Dataset.from_tensor_slices(["a", "bc"]).save(tmp_path / "d")  # in place of the numbers
    assert [str(text) for text in Dataset.load(tmp_path / "d")] == ["a", "bc"]
    Dataset.from_tensor_slices([b"a", b"bc"]).save(tmp_path / "d")
    assert [text.numpy() for text in Dataset.load(tmp_path / "d")] == [b"a", b"bc"]
    Dataset.from_tensor_slices(["a", "bc"]).batch(2).save(tmp_path / "d")
    assert Dataset.load(tmp_path / "d").element_spec == tf.TensorSpec([2], tf.string)
    Dataset.range(0).save(tmp_path / "e")
    assert list(Dataset.load(tmp_path / "e")) == []


def test_what_a_file_says_of_its_elements(tmp_path):
    data = Dataset.range(5).map(lambda n: {"n": n, "rows": (tf.fill([n, 2], 0.5), None)})
    data.save(tmp_path)
    loaded = Dataset.load(tmp_path)
    assert len(loaded) == 5 and loaded.element_spec == {
        "n": tf.TensorSpec([], tf.int64),
        "rows": (tf.TensorSpec([None, 2], tf.float32), None),
    }
    last = list(loaded)[4]
    assert int(last["n"]) == 4 and last["rows"][0].shape == (4, 2) and last["rows"][1] is None
    Dataset.range(5).batch(2).save(tmp_path)
    twice = Dataset.load(tmp_path, reader_func=lambda files: files.repeat(2).flat_map(lambda d: d))
    assert [each.shape[0] for each in twice] == [2, 2, 1] * 2
    assert Dataset.load(tmp_path).element_spec == tf.TensorSpec([None], tf.int64)


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(tf.errors.NotFoundError, match="Dataset.save writes it"):
        Dataset.load(tmp_path / "none")
    (tmp_path / "elements").write_bytes(b"x")
    with pytest.raises(DataError, match="no file of a dataset's elements"):
        list(Dataset.load(tmp_path))
    with pytest.raises(ValueError, match="holds a dataset"):
        Dataset.range(3).window(2).save(tmp_path)


@pytest.mark.parametrize("step", ["cache", "snapshot"])
def test_later_runs_read_what_the_first_whole_one_wrote(tmp_path, step):
    calls = []
    data = Dataset.range(3).map(lambda n: calls.append(0) or n)
    kept = getattr(data, step)(str(tmp_path / "k"))
    next(iter(kept))
    gc.collect()  # the iterator, and with it what it had begun to write
    assert not any(path.is_file() and path.stat().st_size for path in tmp_path.glob("k"))
    for _ in range(2):
        assert np.array_equal([int(n) for n in kept], range(3))
    again = getattr(data, step)(str(tmp_path / "k"))
    assert [int(n) for n in again] == [0, 1, 2] and len(again) == 3
    assert len(calls) <= 4  # one, and all three
    assert len(list(tmp_path.rglob("*elements*" if step == "snapshot" else "*k*"))) == 1
