"""Text and time series: windows in order, the end held out."""

import numpy as np
import pytest

from distgrad.core.errors import DataError
from distgrad.data.source import load
from distgrad.data.text import alphabet_of, encode


def text_file(tmp_path, text):
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    return {"source": "text", "path": str(tmp_path / "text.txt")}


def test_windows_of_characters_and_of_those_that_follow(tmp_path):
    text = "".join(chr(ord("a") + n % 26) for n in range(100))
    splits = load({**text_file(tmp_path, text), "sequence_length": 7, "test_fraction": 0.3}, 0)
    for source, start, stop in ((splits.train, 0, 70), (splits.test, 70, 100)):
        x, y = source.arrays
        assert x.dtype == y.dtype == np.int32 and x.shape == y.shape == ((stop - start - 1) // 7, 7)
        flat = [n % 26 for n in range(start, start + x.size + 1)]
        assert x.ravel().tolist() == flat[:-1] and y.ravel().tolist() == flat[1:]
    assert splits.description.endswith(
        "text.txt: 9 training and 4 test windows of 7 characters, vocabulary of 26"
    )


def test_alphabets():
    text = "abracadabra, δδ𝔸!"
    assert alphabet_of(text) == sorted(set(text))
    codes = encode(text, alphabet_of(text))
    assert "".join(alphabet_of(text)[code] for code in codes) == text
    assert alphabet_of(text, 4) == ["", "a", "b", "r"]
    assert encode("bar d", alphabet_of(text, 4)).tolist() == [2, 1, 3, 0, 0]
    assert len(alphabet_of(text, 100)) == len(set(text)) + 1


def test_the_texts_of_help():
    spec = {"source": "text", "builtin": "python-help", "sequence_length": 64, "vocabulary": 96}
    splits = load(spec, seed=0)
    assert len(splits.train) > 4000 and len(splits.test) > 400
    codes = np.concatenate([splits.train.arrays[0].ravel(), splits.test.arrays[0].ravel()])
    assert codes.min() >= 0 and codes.max() < 96
    assert (codes == 0).mean() < 0.001, "rare characters are rare"
    again = load(spec, seed=5)
    np.testing.assert_array_equal(again.train.arrays[0], splits.train.arrays[0])


def test_text_that_is_too_short_or_none(tmp_path):
    spec = text_file(tmp_path, "ab" * 20)
    with pytest.raises(DataError, match=r"text\.txt has 36 characters to train on and 4 to test"):
        load({**spec, "sequence_length": 4}, seed=0)
    (tmp_path / "text.txt").write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match="cannot be read as UTF-8"):
        load({**spec, "sequence_length": 4}, seed=0)
    (tmp_path / "text.txt").write_bytes(b"")
    with pytest.raises(DataError, match="leaves a part empty"):
        load({**spec, "sequence_length": 4}, seed=0)
    with pytest.raises(DataError, match="does not exist"):
        load({**spec, "path": str(tmp_path / "no"), "sequence_length": 4}, seed=0)


def series_file(tmp_path, values):
    lines = [f"day {i},{value},{-value}" for i, value in enumerate(values)]
    (tmp_path / "series.csv").write_text("\n".join(["day,up,down", *lines]))
    return {"source": "series", "path": str(tmp_path / "series.csv"), "column": "up"}


def test_windows_of_a_series(tmp_path):
    values = np.arange(20.0) ** 2
    spec = {**series_file(tmp_path, values), "window": 4, "horizon": 2, "test_fraction": 0.25}
    splits = load(spec, seed=0)
    scaled = ((values - values[:15].mean()) / values[:15].std()).astype(np.float32)
    x, y = splits.train.arrays
    assert x.shape == (10, 4, 1) and y.shape == (10, 2) and x.dtype == y.dtype == np.float32
    np.testing.assert_array_equal(x[3, :, 0], scaled[3:7])
    np.testing.assert_array_equal(y[3], scaled[7:9])
    x, y = splits.test.arrays
    assert len(x) == 4
    # Every value to forecast is held out; what a forecast sees may be older.
    np.testing.assert_array_equal(y, [scaled[i : i + 2] for i in range(15, 19)])
    np.testing.assert_array_equal(x[0, :, 0], scaled[11:15])
    mean, deviation = values[:15].mean(), values[:15].std()
    assert f"mean {mean:.4g}, standard deviation {deviation:.4g}" in splits.description


def test_the_last_column_is_taken_where_none_is_named(tmp_path):
    spec = {**series_file(tmp_path, np.arange(20.0)), "window": 2, "test_fraction": 0.5}
    up, down = load(spec, 0), load({**spec, "column": None}, 0)
    np.testing.assert_allclose(up.train.arrays[0], -down.train.arrays[0], atol=1e-6)


def test_el_nino():
    spec = {"source": "series", "builtin": "el-nino", "window": 24, "test_fraction": 0.25}
    splits = load(spec, seed=0)
    assert splits.description.startswith("el-nino: 525 training and 183 test windows of 24 values")
    every = np.concatenate([splits.train.arrays[0][:, 0, 0], splits.test.arrays[0][:, 0, 0]])
    assert 0.7 < np.corrcoef(every[:-12], every[12:])[0, 1] < 1, "it has a year's rhythm"


def test_series_that_are_too_short_or_wrong(tmp_path):
    spec = {**series_file(tmp_path, np.arange(20.0)), "window": 16, "test_fraction": 0.25}
    with pytest.raises(DataError, match="too little for a window of 16 and a horizon of 1"):
        load(spec, seed=0)
    with pytest.raises(DataError, match="its columns are day, up, down"):
        load({**spec, "column": "left"}, seed=0)
    with pytest.raises(DataError, match=r":2: column 'day' holds 'day 0'"):
        load({**spec, "column": "day"}, seed=0)
