"""Files that a model was not trained on: prepared by its own numbers, and refused where unlike."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import numpy as np
import pytest

from distgrad.core.errors import DataError
from distgrad.data import source
from distgrad.data.fresh import Fresh
from distgrad.data.preparation import Preparation

TABLE = Preparation(
    *("table", (2,), "float32", (), "int32"),
    features=("0", "2"),
    label="1",
    mean=(10.0, 100.0),
    deviation=(2.0, 50.0),
)


def inputs(fresh: Fresh, path: Path, size: int = 2) -> list:
    return [batch.tolist() for batch in fresh.inputs(str(path), size)]


def test_a_table_without_a_header_with_and_without_its_label(tmp_path: Path) -> None:
    fresh = Fresh(TABLE, {"header": False, "delimiter": ";"})
    path, expected = tmp_path / "a.csv", [[[1, -1], [0, 0]], [[-1, 1]]]
    path.write_text("12;0;50\n10;1;100\n8;0;150\n")
    assert inputs(fresh, path) == expected
    found = fresh.labelled(str(path))
    assert found.arrays[0].tolist() == [[1, -1], [0, 0], [-1, 1]]
    assert found.arrays[1].tolist() == [0, 1, 0]
    path.write_text("12;50\n10;100\n8;150\n")  # the label left out
    assert inputs(fresh, path) == expected


@pytest.mark.parametrize(
    ("target", "labels", "says"),
    [
        ("int32", "0.5", "holds fractions, but in training whole numbers"),
        ("int32", "yes", "holds text, but in training whole numbers"),
        ("float32", "yes", "holds text, but in training numbers"),
    ],
)
def test_labels_of_another_kind(tmp_path: Path, target: str, labels: str, says: str) -> None:
    how = dataclasses.replace(TABLE, target_dtype=target)
    path = tmp_path / "a.csv"
    path.write_text(f"0,1,2\n1,{labels},3\n")
    with pytest.raises(DataError) as caught:
        Fresh(how).labelled(str(path))
    assert says in str(caught.value)
    path.write_text("0,1,2\n1,7,3\n")
    assert Fresh(how).labelled(str(path)).arrays[1].dtype == target


def test_idx_and_every_npz_key(tmp_path: Path) -> None:
    how = Preparation("arrays", (2, 2), "float32", (), "int32", scale=255.0, raw_dtype="uint8")
    x = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    idx = tmp_path / "t10k-images-idx3-ubyte"
    idx.write_bytes(b"\0\0\x08\x03" + struct.pack(">3I", *x.shape) + x.tobytes())
    np.savez(tmp_path / "own.npz", x)
    np.savez(tmp_path / "parts.npz", x_train=x[:1], y_train=[0], x_test=x, y_test=[1, 0, 2])
    expected = (x / np.float32(255)).tolist()
    for name in (idx.name, "own.npz", "parts.npz"):
        assert inputs(Fresh(how), tmp_path / name, size=3) == [expected]
    found = Fresh(how).labelled(str(tmp_path / "parts.npz"))
    x_found, y_found = found.take(slice(0, 3))
    assert x_found.tolist() == expected and y_found.tolist() == [1, 0, 2]


def test_a_text_in_the_alphabet_of_training(tmp_path: Path) -> None:
    how = Preparation("text", (3,), "int32", (3,), "int32", alphabet=("a", "b", "c"))
    path = tmp_path / "a.txt"
    path.write_text("bcabcab")
    x, y = Fresh(how).labelled(str(path)).arrays
    assert (x.tolist(), y.tolist()) == ([[1, 2, 0], [1, 2, 0]], [[2, 0, 1], [2, 0, 1]])
    path.write_text("abcdé")
    with pytest.raises(DataError, match="not trained on: 'd', 'é'"):
        Fresh(how).labelled(str(path))
    rare = dataclasses.replace(how, alphabet=("", "b", "c"))
    assert Fresh(rare).labelled(str(path)).arrays[0].tolist() == [[0, 1, 2]]
    path.write_text("abc")
    with pytest.raises(DataError, match="3 characters, which is too little for a window of 3"):
        Fresh(how).labelled(str(path))


def test_the_bits_of_training_for_its_own_files(tmp_path: Path) -> None:
    """A file read anew gives what the job's own reading of it has given."""
    values = np.random.default_rng(0).normal(5, 3, 60).cumsum()
    path = tmp_path / "a.csv"
    path.write_text("v\n" + "\n".join(map(repr, values.tolist())))
    spec = {"source": "series", "path": str(path), "window": 4, "horizon": 2, "test_fraction": 0.2}
    splits = source.load(spec, 0)
    assert splits.preparation is not None
    again = Fresh(splits.preparation, spec).labelled(str(path))
    for ours, theirs in zip(again.arrays, splits.train.arrays, strict=True):
        assert np.array_equal(ours[: len(theirs)], theirs)
    for ours, theirs in zip(again.arrays, splits.test.arrays, strict=True):
        assert np.array_equal(ours[-len(theirs) :], theirs)
    short = tmp_path / "b.csv"
    short.write_text("v\n1\n2\n3\n4\n5\n")
    with pytest.raises(DataError, match="5 values, which is too little for a window of 4 and a"):
        Fresh(splits.preparation, spec).labelled(str(short))


def test_a_table_for_a_model_of_arrays_is_not_asked_for_its_labels() -> None:
    how = dataclasses.replace(TABLE, kind="arrays")
    with pytest.raises(DataError, match="this model takes arrays"):
        Fresh(how).labelled("a.csv")
