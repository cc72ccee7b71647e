"""TFRecord files, and files of records of one length: TensorFlow's bytes, orders and errors."""

import gzip
import itertools
import os
import sys
import zlib

import numpy as np
import pytest

import distgrad as tf
from distgrad.data import Dataset, TFRecordDataset, checksum

RECORDS = [b"one", b"two2", b"three33\0"]
# What TensorFlow writes of the first two.
WRITTEN = bytes.fromhex(
    "0300000000000000b099490e6f6e6501405508" + "04000000000000004245520474776f32b1506f8c"
)


def write(path, records, options=None):
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def read(dataset):
    return [record.numpy() for record in dataset]


def until_error(dataset, error):
    found = []
    with pytest.raises(error) as caught:
        for record in dataset:
            found.append(record.numpy())
    return found, str(caught.value)


def test_files_are_tensorflows_to_the_byte(tmp_path):
    path = tmp_path / "a"
    write(path, RECORDS[:2])
    assert path.read_bytes() == WRITTEN
    assert read(TFRecordDataset(path)) == RECORDS[:2]


@pytest.mark.parametrize(
    ("options", "kind", "unpack"),
    [
        ("GZIP", "GZIP", gzip.decompress),
        ("ZLIB", "ZLIB", zlib.decompress),
        (tf.io.TFRecordOptions("GZIP", compression_level=1), "GZIP", gzip.decompress),
        (tf.io.TFRecordOptions(tf.io.TFRecordOptions("")), None, bytes),
    ],
)
def test_files_may_be_packed(tmp_path, options, kind, unpack):
    path = tmp_path / "packed"
    with tf.io.TFRecordWriter(path, options) as writer:
        for record in RECORDS[:2]:
            writer.write(record)
            writer.flush()
    assert unpack(path.read_bytes()) == WRITTEN
    assert read(TFRecordDataset([path], compression_type=kind)) == RECORDS[:2]


def test_a_writer_takes_bytes_until_it_is_closed(tmp_path):
    writer = tf.io.TFRecordWriter(tmp_path / "a")
    writer.write("ä")
    for wrong in (3, np.array(b"x"), tf.constant(1)):
        with pytest.raises(TypeError, match="a record is bytes"):
            writer.write(wrong)
    writer.flush()
    assert read(TFRecordDataset(tmp_path / "a")) == ["ä".encode()]
    writer.close()
    writer.close()
    for late in (lambda: writer.write(b""), writer.flush):
        with pytest.raises(tf.errors.FailedPreconditionError, match="Writer is closed"):
            late()
    with pytest.raises(ValueError, match='Not a valid compression_type: "ZIP"'):
        tf.io.TFRecordWriter(tmp_path / "a", "ZIP")
    with pytest.raises(tf.errors.NotFoundError, match="No such file"):
        tf.io.TFRecordWriter(tmp_path / "none" / "a")


def test_several_processes_may_write_the_same_file(tmp_path):
    path = tmp_path / "a"
    write(path, RECORDS)
    reader, second = iter(TFRecordDataset(path)), tf.io.TFRecordWriter(path, "GZIP")
    second.write(b"x")
    assert read(reader) == read(TFRecordDataset(path)) == RECORDS
    link = tmp_path / "link"
    link.symlink_to(path)
    third = tf.io.TFRecordWriter(link)
    del third  # without close
    assert path.read_bytes() == b"" and link.is_symlink()
    second.close()
    assert read(TFRecordDataset(path, "GZIP")) == [b"x"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "link"]
    write("/dev/null", RECORDS)
    assert not os.path.isfile("/dev/null")


def test_elements_are_bytes_as_they_are(tmp_path):
    data = TFRecordDataset(write(tmp_path / "a", RECORDS))
    assert data.element_spec == tf.TensorSpec((), tf.string)
    assert data.batch(2).element_spec == tf.TensorSpec([None], tf.string)
    record = list(data)[2]
    assert (record.numpy(), record.shape) == (RECORDS[2], ())
    assert record == RECORDS[2] and record != b"three33" and tf.equal(record, RECORDS[2])
    (batch,) = data.shuffle(9, seed=1).batch(3)
    assert sorted(batch.numpy()) == sorted(RECORDS) and {r.numpy() for r in batch} == {*RECORDS}
    assert next(data.batch(2).unbatch().batch(3).as_numpy_iterator()).tolist() == RECORDS
    assert list(data.as_numpy_iterator()) == RECORDS
    kept = data.cache(str(tmp_path / "cache"))
    assert read(kept) == read(kept) == RECORDS
    data.batch(2).save(tmp_path / "saved")
    assert [b.numpy().tolist() for b in Dataset.load(tmp_path / "saved")] == [
        RECORDS[:2],
        RECORDS[2:],
    ]


@pytest.mark.parametrize("cut", [1, 11, 12, 18, 20, 31, 32, 37])
def test_a_cut_file(tmp_path, cut):
    path = tmp_path / "cut"
    path.write_bytes(WRITTEN[:cut])
    whole = cut // 19
    found, message = until_error(TFRecordDataset(path), tf.errors.DataLossError)
    assert found == RECORDS[:whole]
    assert message == f"{path}: truncated record at {19 * whole}"


@pytest.mark.parametrize(
    ("place", "told"), [(0, 0), (8, 0), (12, 12), (17, 12), (19, 19), (36, 31)]
)
def test_a_damaged_file(tmp_path, place, told):
    path = tmp_path / "damaged"
    content = bytearray(WRITTEN)
    content[place] ^= 65
    path.write_bytes(content)
    found, message = until_error(TFRecordDataset(path), tf.errors.DataLossError)
    assert found == RECORDS[: place // 19]
    assert message.startswith(f"{path}: corrupted record at {told}")


@pytest.mark.parametrize("kind", ["GZIP", "ZLIB"])
def test_damaged_packed_files(tmp_path, kind):
    path = tmp_path / "packed"
    write(path, RECORDS, kind)
    content = path.read_bytes()
    for wrong in (content[:-9], content[:-9] + b"\xff" + content[-8:], WRITTEN):
        path.write_bytes(wrong)
        _, message = until_error(TFRecordDataset(path, kind), tf.errors.DataLossError)
        assert message.startswith(f"{path}: ")
    path.write_bytes(content)
    _, message = until_error(TFRecordDataset(path), tf.errors.DataLossError)
    assert "is it a TFRecord file?" in message


def test_other_files_can_be_read_after_a_damaged_one(tmp_path):
    good, bad = write(tmp_path / "good", RECORDS), tmp_path / "bad"
    bad.write_bytes(WRITTEN[:-1])
    names = [str(bad), str(tmp_path / "none"), good]
    assert read(TFRecordDataset(names).ignore_errors()) == [RECORDS[0], *RECORDS]
    found, message = until_error(TFRecordDataset(names[1:]), tf.errors.NotFoundError)
    assert (found, message) == ([], f"{tmp_path / 'none'}; No such file or directory")


def test_files_are_read_in_turns_as_in_tensorflow(tmp_path):
    for name, count in zip("abecg", (5, 2, 0, 4, 1), strict=True):
        write(tmp_path / name, [f"{name}{i}" for i in range(count)])
    names = [str(tmp_path / name) for name in "abecg"]
    orders = {
        None: "a0 a1 a2 a3 a4 b0 b1 c0 c1 c2 c3 g0",
        2: "a0 b0 a1 b1 a2 a3 a4 c0 c1 g0 c2 c3",
        3: "a0 b0 a1 b1 c0 a2 c1 a3 g0 c2 a4 c3",
        4: "a0 b0 c0 a1 b1 g0 c1 a2 c2 a3 c3 a4",
    }
    orders[tf.data.AUTOTUNE] = orders[1] = orders[None]
    for cycle, order in orders.items():
        wanted = order.encode().split()
        assert read(TFRecordDataset(names, num_parallel_reads=cycle)) == wanted
        files = Dataset.from_tensor_slices(names)
        assert read(files.interleave(tf.data.TFRecordDataset, cycle)) == wanted
    lines = tmp_path / "lines"
    lines.write_text("a\nb\n")
    texts = tf.data.TextLineDataset([lines, str(lines)], num_parallel_reads=2)
    assert [str(line) for line in texts] == ["a", "a", "b", "b"]


def test_names_of_files(tmp_path):
    name = write(tmp_path / "ä", [b"x"])
    for names in (name, name.encode(), [tmp_path / "ä"], np.array([[name]]), [name.encode()]):
        assert read(TFRecordDataset(names)) == [b"x"]
    assert read(TFRecordDataset([])) == []
    for wrong in ([1], 1):
        with pytest.raises(TypeError, match="not int"):
            TFRecordDataset(wrong)


def test_a_dataset_of_names_is_gone_through_in_each_pass(tmp_path):
    for number in range(6):
        write(tmp_path / f"{number}", [str(number)])
    names = Dataset.list_files(str(tmp_path / "*"))
    for made in (TFRecordDataset(names), names.flat_map(TFRecordDataset)):
        passes = {tuple(read(made)) for _ in range(4)}
        assert len(passes) > 1 and {tuple(sorted(each)) for each in passes} == {
            tuple(b"%d" % number for number in range(6))
        }


def test_an_iterator_goes_on_where_it_stood(tmp_path):
    name = write(tmp_path / "a", [str(number) for number in range(20)])
    made = lambda: iter(TFRecordDataset(name).shuffle(5, seed=1).batch(3))  # noqa: E731
    first, second = made(), made()
    next(first), next(first)
    path = tf.train.Checkpoint(it=first).save(str(tmp_path / "kept"))
    tf.train.Checkpoint(it=second).restore(path)
    for one, other in itertools.zip_longest(first, second):
        assert one.numpy().tolist() == other.numpy().tolist()


def test_a_dataset_is_written(tmp_path):
    path = str(tmp_path / "a")
    writer = tf.data.experimental.TFRecordWriter(path, "GZIP")
    writer.write(Dataset.from_tensor_slices(RECORDS))
    assert read(TFRecordDataset(path, "GZIP")) == RECORDS
    writer.write(Dataset.from_tensor_slices(["ä"]))
    assert read(TFRecordDataset(path, "GZIP")) == ["ä".encode()]
    for wrong in (Dataset.range(3), Dataset.from_tensor_slices(["a", "b"]).batch(2)):
        with pytest.raises(TypeError, match="an element is one text"):
            writer.write(wrong)


def test_records_of_one_length(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"hdXaaabbbcccfoot")
    made = tf.data.FixedLengthRecordDataset
    assert read(made(path, 3, 3, 4)) == [b"aaa", b"bbb", b"ccc"]
    turns = [b"hdXa", b"hdXa", b"aabb", b"aabb", b"bccc", b"bccc", b"foot", b"foot"]
    assert read(made([path, path], 4, num_parallel_reads=2)) == turns
    for sizes in ((5,), (3, 30)):
        _, message = until_error(made(path, *sizes), tf.errors.InvalidArgumentError)
        assert "no whole number of records" in message
    with pytest.raises(tf.errors.InvalidArgumentError, match="1 byte or more"):
        made(path, 0)
    path.write_bytes(gzip.compress(b"hdXaaabbb"))
    assert read(made(path, 3, 3, compression_type="GZIP")) == [b"aaa", b"bbb"]


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1023, 1024, 1025, 1027, 1028, 5000])
def test_checksums_without_the_package(size):
    data = np.random.default_rng(size).bytes(size)
    crc32c = pytest.importorskip("crc32c").crc32c
    assert checksum.by_tables(data) == crc32c(data)


def test_records_are_checked_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "crc32c", None)
    checksum._crc32c.cache_clear()
    try:
        assert checksum._crc32c() is checksum.by_tables
        path = tmp_path / "a"
        write(path, RECORDS[:2])
        assert path.read_bytes() == WRITTEN
        path.write_bytes(WRITTEN.replace(b"two2", b"two3"))
        until_error(TFRecordDataset(path), tf.errors.DataLossError)
    finally:
        checksum._crc32c.cache_clear()
