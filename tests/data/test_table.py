import gzip
import sys
import time

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from distgrad.core.errors import DataError, MissingExtraError
from distgrad.data.csvfile import read_column, read_csv
from distgrad.data.source import load

IRIS_LIKE = """\
length, width ,kind
1.5,2,red
2.5,2,blue

3.5,2,red
4.5,2,"green"
5.5,2,blue
6.5,2,red
"""


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_columns_and_labels(tmp_path):
    _, values, labels = read_csv(write(tmp_path / "a.csv", IRIS_LIKE), "kind")
    assert values.tolist() == [[n + 0.5, 2] for n in range(1, 7)]
    assert labels.tolist() == ["red", "blue", "red", "green", "blue", "red"]


def test_other_spellings(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a;b\n1;2\n3;4\n"))
    _, values, labels = read_csv(tmp_path / "a.csv.gz", "a", delimiter=";")
    assert values.tolist() == [[2], [4]] and labels.tolist() == ["1", "3"]
    path = write(tmp_path / "no_header.csv", "1,2,3\n4,5,6")
    _, values, labels = read_csv(path, "1", header=False)
    assert values.tolist() == [[1, 3], [4, 6]] and labels.tolist() == ["2", "5"]
    path = write(tmp_path / "excel.csv", "\ufeffa,b\r\n1,2\r\n")
    assert read_csv(path, "a")[1].tolist() == [[2]]
    (tmp_path / "excel.csv.gz").write_bytes(gzip.compress("\ufeffa,b\n1,2\n".encode()))
    assert read_csv(tmp_path / "excel.csv.gz", "a")[1].tolist() == [[2]]
    path = write(tmp_path / "texts.csv", "a,b\n1,NA\n2,yes\n3,no\n")
    assert read_csv(path, "b")[2].tolist() == ["NA", "yes", "no"]  # a class like any other
    path = write(tmp_path / "excel.csv", "\ufeffa,b\r\n1,2\r\n")
    assert read_column(path, "b").tolist() == read_column(path).tolist() == [2]


BAD = {
    "label": ("a,b\n1,2\n", r"has no column 'kind'; its columns are a, b"),
    "no header": ("1.5,2\n1.6,3\n", "a file without a header needs data.header: false"),
    "delimiter": ("a;kind\n1;2\n", "its columns are a;kind; is data.delimiter ';'"),
    "alone": ("kind\n1\n", "has no column but the label"),
    "twice": ("a,a,kind\n1,2,3\n", "two columns called a"),
    "empty file": ("", "is empty"),
    "no rows": ("a,kind\n", "has no rows"),
    "text": ("a,kind\n1,2\nx,3\n", r"bad\.csv:3: column 'a' holds 'x', no finite number"),
    "nan": ("a,kind\n1,2\nnan,3\n", r"bad\.csv:3: column 'a' holds 'nan'"),
    "hole": ("a,b,kind\n1,2,3\n\n,2,3\n", r"bad\.csv:4: column 'a' is empty"),
    "hole in labels": ("a,kind\n1,\n", r"bad\.csv:2: column 'kind' is empty"),
    "no label": ("a,kind\n1,2\n2,NA\n", r"bad\.csv:3: column 'kind' holds 'NA', no number"),
    "nan as label": ("a,kind\n1,nan\n2,.5\n", r"bad\.csv:2: column 'kind' holds 'nan'"),
    "no header, zeros": ("0,0,1\n1,2,3\n", "called 0; names must differ; a file without a header"),
    "short": ("a,b,kind\n1,2\n", r"bad\.csv:2 has 2 values, but there are 3 columns"),
    "long": ("a,kind\n1,2,3\n", r"bad\.csv:2 has 3 values, but there are 2 columns"),
    "large": ("a,b,kind\n1e308,1e308,0\n1e308,1,0\n", r"no finite float32 numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_csv_says_what_is_wrong(tmp_path, case):
    text, message = BAD[case]
    path = write(tmp_path / "bad.csv", text)
    spec = {"source": "csv", "path": path, "label": "kind", "standardize": False}
    with pytest.raises(DataError, match=message) as caught:
        load({**spec, "test_fraction": 0.5}, seed=0)
    assert path in str(caught.value)


def test_csv_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_csv(tmp_path / "no.csv", "a")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_csv(tmp_path / "a.csv", "a")
    (tmp_path / "a.csv.gz").write_bytes(b"text")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_csv(tmp_path / "a.csv.gz", "a")


def test_labels_of_text_are_numbered_in_sorted_order(tmp_path):
    path = write(tmp_path / "a.csv", IRIS_LIKE)
    spec = {"source": "csv", "path": path, "label": "kind", "test_fraction": 0.5}
    splits = load(spec, seed=0)
    y = np.concatenate([splits.train.arrays[1], splits.test.arrays[1]])
    assert sorted(y) == [0, 0, 1, 2, 2, 2] and y.dtype == np.int32
    assert splits.description == (
        f"{path}: 3 training and 3 test samples, 2 features, classes blue, green, red"
    )


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [(["3", "4", "-5"], np.int32), (["1", "2.5", "3"], np.float32), (["1", "2", "x"], np.int32)],
)
def test_labels_that_are_numbers_stay_as_they_are(tmp_path, labels, dtype):
    path = write(tmp_path / "a.csv", "a,y\n" + "".join(f"0,{label}\n" for label in labels * 2))
    splits = load({"source": "csv", "path": path, "label": "y", "test_fraction": 0.5}, seed=0)
    y = np.concatenate([splits.train.arrays[1], splits.test.arrays[1]])
    assert y.dtype == dtype
    if "x" not in labels:
        assert sorted(y) == sorted(np.array(labels * 2, dtype=dtype))


def test_columns_are_standardised_by_the_training_part_alone(tmp_path):
    rows = np.random.default_rng(0).normal(5, 3, size=(40, 2))
    lines = [f"{a},{b},7,{i % 2}" for i, (a, b) in enumerate(rows)]
    path = write(tmp_path / "a.csv", "\n".join(["a,b,constant,y", *lines]))
    spec = {"source": "csv", "path": path, "label": "y", "test_fraction": 0.25}
    splits, plain = load(spec, seed=0), load({**spec, "standardize": False}, seed=0)
    train, test = plain.train.arrays[0], plain.test.arrays[0]
    assert train[:, 2].tolist() == [7] * 30
    np.testing.assert_allclose(splits.train.arrays[0].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(splits.train.arrays[0].std(axis=0), [1, 1, 0], atol=1e-6)
    exact = train[:, :2].astype(np.float64)
    expected = (test[:, :2] - exact.mean(axis=0)) / exact.std(axis=0)
    np.testing.assert_allclose(splits.test.arrays[0][:, :2], expected, atol=1e-6)
    assert (splits.test.arrays[0][:, 2] == 0).all()


def test_breast_cancer_is_scikit_learns():
    spec = {"source": "breast_cancer", "test_fraction": 0.2, "standardize": False}
    splits = load(spec, seed=0)
    theirs = load_breast_cancer()
    assert splits.description == "breast_cancer: 455 training and 114 test samples, 30 features"
    ours = [np.concatenate(parts) for parts in zip(splits.train.arrays, splits.test.arrays)]  # noqa: B905
    pairs = [(x.tobytes(), int(y)) for x, y in zip(*ours, strict=True)]
    expected = zip(theirs.data.astype(np.float32), theirs.target, strict=True)
    assert sorted(pairs) == sorted((x.tobytes(), int(y)) for x, y in expected)
    assert np.bincount(splits.test.arrays[1]).tolist() == [42, 72]


def test_a_large_table_is_read_in_reasonable_time(tmp_path):
    values = np.random.default_rng(0).normal(size=(20_000, 10))
    np.savetxt(
        tmp_path / "a.csv", values, delimiter=",", header=",".join("abcdefghij"), comments=""
    )
    start = time.thread_time()  # other processes do not count
    _, read, _ = read_csv(tmp_path / "a.csv", "j")
    assert time.thread_time() - start < 3
    np.testing.assert_allclose(read, values[:, :-1], rtol=1e-15)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"distgrad\[data\]"):
        load({"source": "parquet", "path": str(tmp_path / "a"), "label": "y"}, seed=0)


class TestParquet:
    @pytest.fixture
    def save(self, tmp_path):
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        def write(**columns):
            parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
            return {"source": "parquet", "path": str(tmp_path / "a.parquet"), "label": "y"}

        return write

    def test_columns_and_labels(self, save):
        spec = save(a=np.arange(6.0), y=list("bababa"), b=np.arange(6, dtype=np.int8))
        splits = load({**spec, "standardize": False, "test_fraction": 0.5}, seed=0)
        x, y = (np.concatenate(p) for p in zip(splits.train.arrays, splits.test.arrays))  # noqa: B905
        assert sorted(x.tolist()) == [[n, n] for n in range(6)] and x.dtype == np.float32
        assert all(label == 1 - row[0] % 2 for row, label in zip(x, y, strict=True))
        assert y.dtype == np.int32

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            (dict(a=[1.0, 2.0], z=[1, 2]), "has no column 'y'; its columns are a, z"),
            (dict(a=[1.0, None], y=[1, 2]), "column 'a' has 1 missing values"),
            (dict(a=["p", "q"], y=[1, 2]), "these columns are not numeric: a"),
            (dict(y=[1, 2]), "has no column but the label 'y'"),
            (
                dict(a=[np.nan, 1.0, 1.0, 1.0], y=[1, 1, 2, 2]),
                "'a' holds nan, .* in row 1; data.mis",
            ),
            (dict(a=[1.0, 1.0, -np.inf, 1.0], y=[1, 1, 2, 2]), "'a' holds -inf, .* in row 3$"),
        ],
    )
    def test_it_says_what_is_wrong(self, save, columns, message):
        with pytest.raises(DataError, match=message):
            load({**save(**columns), "test_fraction": 0.5}, seed=0)

    def test_a_file_that_is_something_else(self, save, tmp_path):
        spec = save(a=[1.0], y=[1])
        (tmp_path / "a.parquet").write_bytes(b"text")
        with pytest.raises(DataError, match="cannot be read as Parquet"):
            load(spec, seed=0)
        with pytest.raises(DataError, match="does not exist"):
            load({**spec, "path": str(tmp_path / "no")}, seed=0)
