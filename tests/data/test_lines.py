"""Datasets of the lines of text files and of the records of CSV files, as TensorFlow has them."""

import gzip
import zlib

import numpy as np
import pytest

import distgrad as tf

TABLE = 'age,fare,sex,city\n22,7.25,male,"New, York"\n38,71,fe""male,Paris\n26,,female,\n'
experimental = tf.data.experimental


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return str(path)


def texts(dataset):
    return [str(line) for line in dataset]


def test_lines_of_files_one_after_the_other(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_bytes("öne\r\ntwo\n\nthree".encode())
    second.write_text("four\n")
    names = [str(first), str(second)]
    expected = ["öne", "two", "", "three", "four"]
    assert texts(tf.data.TextLineDataset(names)) == expected
    assert texts(tf.data.TextLineDataset(tf.data.Dataset.from_tensor_slices(names))) == expected
    assert next(iter(tf.data.TextLineDataset(first).batch(4))).tolist() == expected[:4]
    with pytest.raises(tf.errors.NotFoundError):
        list(tf.data.TextLineDataset(str(tmp_path / "none")))


@pytest.mark.parametrize("kind, pack", [("GZIP", gzip.compress), ("ZLIB", zlib.compress)])
def test_files_may_be_packed(tmp_path, kind, pack):
    path = tmp_path / "packed"
    path.write_bytes(pack(TABLE.encode()))
    assert texts(tf.data.TextLineDataset(path, kind))[0] == "age,fare,sex,city"
    ages = experimental.CsvDataset(path, [0], kind, header=True, select_cols=[0])
    assert [int(age) for (age,) in ages] == [22, 38, 26]


def test_records_have_the_dtypes_of_the_defaults(table):
    rows = list(experimental.CsvDataset(table, [tf.int64, [0.5], "", "none"], header=True))
    assert [row[0].dtype for row in rows] == [tf.int64] * 3
    assert [float(row[1]) for row in rows] == [7.25, 71.0, 0.5]
    assert [str(row[3]) for row in rows] == ["New, York", "Paris", "none"]
    (fares,) = experimental.CsvDataset(table, [[0.0]], header=True, select_cols=[1]).batch(3)
    assert fares[0].dtype == tf.float32 and fares[0].numpy().tolist() == [7.25, 71, 0]


@pytest.mark.parametrize(
    "defaults, options, words",
    [
        ([tf.float32], {"select_cols": [1]}, "required but missing"),
        ([tf.int32], {"select_cols": [1]}, "not a valid int: 7.25"),
        ([tf.int32], {}, "Expect 1 fields but have 4"),
        ([tf.int32], {"select_cols": [0], "exclude_cols": [1]}, "not both"),
        ([tf.int32], {"compression_type": "ZIP"}, "compression_type"),
    ],
)
def test_what_is_wrong_with_a_record(table, defaults, options, words):
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        list(experimental.CsvDataset(table, defaults, header=True, **options))


def test_a_table_by_the_names_of_its_columns(table):
    data = experimental.make_csv_dataset(
        table, 2, label_name="age", shuffle=False, num_epochs=1, na_value="none"
    )
    (features, ages), (rest, last) = data
    assert list(features) == ["fare", "sex", "city"] and ages.dtype == tf.int32
    np.testing.assert_array_equal(features["fare"], np.float32([7.25, 71]))
    assert features["city"].tolist() == ["New, York", "Paris"]
    assert last.numpy().tolist() == [26] and rest["fare"].numpy().tolist() == [0]


def test_rows_come_without_end_in_another_order(table):
    data = experimental.make_csv_dataset(table, 2, select_columns=["fare", 0], shuffle_seed=1)
    ages = [age for batch in data.take(6) for age in batch["age"].numpy().tolist()]
    assert len(ages) == 12 and sorted(ages) == sorted([22, 38, 26] * 4)


def test_kinds_follow_from_the_first_rows(tmp_path):
    path = tmp_path / "kinds.csv"
    path.write_text("a,b,c,d,e\n1,1,1.5,x,\n2,9999999999,1e39,3,\n")
    (batch,) = experimental.make_csv_dataset(str(path), 2, num_epochs=1, shuffle=False)
    kinds = [tf.int32, tf.int64, tf.float64]
    assert [batch[name].dtype for name in "abc"] == kinds and batch["e"].tolist() == ["", ""]
    assert batch["d"].tolist() == ["x", "3"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="9999999999"):
        next(iter(experimental.make_csv_dataset(str(path), 2, num_rows_for_inference=1)))
    kept = experimental.make_csv_dataset(
        str(path), 2, num_rows_for_inference=1, ignore_errors=True, num_epochs=1
    )
    assert [len(batch["a"]) for batch in kept] == [1]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"label_name": "name"}, "label_name"),
        ({"select_columns": ["name"]}, "select_columns"),
        ({"select_columns": ["age", 0]}, "duplicate"),
        ({"column_names": ["a", "a", "b", "c"]}, "duplicate"),
        ({"header": False}, "Neither"),
    ],
)
def test_wrong_names(table, options, words):
    with pytest.raises(ValueError, match=words):
        experimental.make_csv_dataset(table, 2, **options)


def test_files_that_do_not_go_together(table, tmp_path):
    (tmp_path / "z.csv").write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match="same column names"):
        experimental.make_csv_dataset(str(tmp_path / "*.csv"), 2)
    with pytest.raises(ValueError, match="No files match"):
        experimental.make_csv_dataset(str(tmp_path / "*.tsv"), 2)


def test_lines_are_decoded(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,y\n1,2.5,3\n4,,6\n")
    defaults = [0.0, 7.0, tf.constant([], tf.float32)]

    def decoded(line):
        fields = tf.io.decode_csv(line, defaults)
        return tf.stack(fields[:-1]), tf.stack(fields[-1:])

    data = tf.data.TextLineDataset(tmp_path / "a.csv").skip(1).map(decoded)
    assert [(x.numpy().tolist(), y.numpy().tolist()) for x, y in data] == [
        ([1.0, 2.5], [3.0]),
        ([4.0, 7.0], [6.0]),
    ]
    assert data.element_spec[0] == tf.TensorSpec([2], tf.float32)


@pytest.mark.parametrize(
    ("record", "defaults", "options", "fields"),
    [
        (["1,x", "2,y"], [0, ""], {}, [[1, 2], ["x", "y"]]),
        ('"a;b";NA', ["", 7], {"field_delim": ";", "na_value": "NA"}, ["a;b", 7]),
        ("1,2,3", [0, 0], {"select_cols": [0, 2]}, [1, 3]),
    ],
)
def test_fields_of_records(record, defaults, options, fields):
    found = tf.io.decode_csv(record, defaults, **options)
    assert [np.asarray(field).tolist() for field in found] == fields


@pytest.mark.parametrize(
    ("record", "defaults", "words"),
    [
        ("1,2", [0], "Expect 1 fields but have 2"),
        ("x", [0], "Field 0 is not a valid int"),
        ("", [tf.float32], "Expect 1 fields but have 0"),
        ("1,", [0, tf.float32], "Field 1 is required"),
        ("1\n2", [0], "no CSV"),
        ("1", [], "a default for each"),
    ],
)
def test_records_that_are_wrong(record, defaults, words):
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        tf.io.decode_csv(record, defaults)
