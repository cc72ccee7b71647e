"""What travels with a model: how its samples were made, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from distgrad.core.errors import DataError
from distgrad.data import source
from distgrad.data.preparation import Preparation
from distgrad.data.splits import Standard

UGLY = (0.1 + 0.2, 1e-308, 2**-1074, 1 / 3, 12345678.9, np.nextafter(1.0, 2.0).item())


def test_every_number_and_character_is_read_back_exactly() -> None:
    alphabet = ("", "\n", '"', "\\", "é", "\U0001f600", "\x7f")
    written = Preparation(
        *("table", (6,), "float32", (), "int32"),
        features=("a", "b"),
        label="kind",
        classes=("no", "yes"),
        mean=UGLY,
        deviation=UGLY[::-1],
        alphabet=alphabet,
    )
    assert Preparation.from_json(written.to_json(), "a.json") == written


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "another version"),
        ({"kind": ...}, "'kind'"),
        ({"more": 1}, "unknown key more"),
    ],
)
def test_what_is_no_description(change: dict, says: str) -> None:
    written = Preparation("arrays", (2,), "float32", (), "int32").to_json()
    values = {k: v for k, v in (json.loads(written) | change).items() if v is not ...}
    with pytest.raises(DataError, match="a.json does not describe") as caught:
        Preparation.from_json(json.dumps(values), "a.json")
    assert says in str(caught.value)
    with pytest.raises(DataError, match="a.json does not describe"):
        Preparation.from_json("[1", "a.json")


def described(spec: dict) -> Preparation:
    found = source.load(spec, 0).preparation
    assert found is not None
    return found


def test_a_table_knows_its_columns_classes_and_statistics(tmp_path: Path) -> None:
    rows = [f"{i / 7},{'ab'[i % 2]},{i * i}" for i in range(20)]
    (tmp_path / "a.csv").write_text("x,kind,y\n" + "\n".join(rows))
    spec = {"source": "csv", "path": str(tmp_path / "a.csv"), "label": "kind"}
    found = described(spec)
    assert (found.features, found.label, found.classes) == (("x", "y"), "kind", ("a", "b"))
    raw = source.load({**spec, "standardize": False}, 0)
    assert raw.preparation.mean == () and raw.preparation.features == ("x", "y")
    again = Standard(np.array(found.mean), np.array(found.deviation))
    values = np.array([[i / 7, i * i] for i in range(20)])
    seen = {row.tobytes() for row in source.load(spec, 0).train.arrays[0]}
    assert seen < {row.tobytes() for row in again(values)}  # the same bits


def test_arrays_know_what_they_were_divided_by(tmp_path: Path) -> None:
    assert described({"source": "digits", "test_fraction": 0.2}).scale == 16
    x, y = np.arange(40, dtype=np.uint8).reshape(10, 4), np.arange(10) % 2
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y / 2)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    files = {"x": str(tmp_path / "x.npy"), "y": str(tmp_path / "y.npy")}
    mapped = described({"source": "npy", **files, "scale": 255.0})
    assert (mapped.scale, mapped.raw_dtype, mapped.shape) == (255.0, "uint8", (4,))
    assert (mapped.dtype, mapped.target_dtype) == ("float32", "float32")
    held = described({"source": "npz", "path": str(tmp_path / "a.npz"), "test_fraction": 0.5})
    assert (held.scale, held.target_dtype) == (1.0, "int32")


def test_text_and_series_know_their_units() -> None:
    text = {"source": "text", "builtin": "python-help", "sequence_length": 8, "vocabulary": 20}
    found = described({**text, "validation_fraction": 0.1})
    assert len(found.alphabet) == 20 and found.alphabet[0] == "" and found.shape == (8,)
    series = described({"source": "series", "builtin": "el-nino", "window": 6, "horizon": 2})
    assert series.shape == (6, 1) and series.target_shape == (2,) and series.label == "temperature"
    assert 20 < series.mean[0] < 30 and len(series.deviation) == 1


@pytest.mark.filterwarnings("error")
def test_columns_of_huge_numbers_are_standardised_like_others() -> None:
    rows = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    own = Standard.of(rows)
    huge = Standard.of(rows * [1, 1e200, 1.7e308])
    np.testing.assert_array_equal(huge(rows * [1, 1e200, 1.7e308])[:, 0], own(rows)[:, 0])
    np.testing.assert_allclose(huge(rows * [1, 1e200, 1.7e308]), own(rows), rtol=1e-6)
    assert Standard.of(np.full((3, 1), 1e308))(np.full((2, 1), 1e308)).tolist() == [[0], [0]]
