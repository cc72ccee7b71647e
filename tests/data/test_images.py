import gzip
import os
import pickle
import struct

import numpy as np
import pytest

from distgrad.core.errors import DataError
from distgrad.data import cifar
from distgrad.data.idx import read_idx
from distgrad.data.source import load
from distgrad.testing import archives


@pytest.mark.parametrize("dtype", list(archives.IDX_CODES))
def test_idx_of_every_type(tmp_path, dtype):
    array = np.arange(-3, 21).astype(dtype).reshape(4, 3, 2)
    found = read_idx(archives.write_idx(tmp_path / "a", array))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype and found.dtype.isnative and found.flags.writeable


def test_idx_may_be_compressed_under_any_name(tmp_path):
    array = archives.images(0, 5, 2, 2)
    archives.write_idx(tmp_path / "a.gz", array)
    np.testing.assert_array_equal(read_idx(tmp_path / "a"), array)
    (tmp_path / "b").write_bytes((tmp_path / "a.gz").read_bytes())
    np.testing.assert_array_equal(read_idx(tmp_path / "b"), array)


GOOD = archives.idx_bytes(np.arange(6, dtype=np.int32))
BAD_IDX = {
    "empty": (b"", "begins with nothing"),
    "other": (b"\x89PNG....", "not an IDX file: it begins with 89 50 4e 47"),
    "type": (b"\0\0\x07\x01" + GOOD[4:], "not an IDX file"),
    "header": (GOOD[:6], "ends within its header"),
    "short": (GOOD[:-1], "has 31 bytes, but an array of shape (6,) and dtype int32 needs 32"),
    "long": (GOOD + b"\0", "has 33 bytes"),
    "huge": (b"\0\0\x08\x03" + struct.pack(">3I", *[2**32 - 1] * 3), "has 16 bytes"),
    "gzip": (gzip.compress(GOOD)[:-9], "cannot be read"),
}


@pytest.mark.parametrize("case", BAD_IDX)
def test_idx_says_what_is_wrong(tmp_path, case):
    content, message = BAD_IDX[case]
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(tmp_path / "bad")
    assert message in str(caught.value) and str(tmp_path / "bad") in str(caught.value)


def test_idx_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="no does not exist"):
        read_idx(tmp_path / "no")


def test_jobs_take_idx_files(tmp_path):
    arrays = archives.mnist_like()
    paths = {
        name: archives.write_idx(tmp_path / name, arrays[key])
        for name, key in [("images", "x_train"), ("labels", "y_train")]
    }
    splits = load({"source": "idx", **paths, "test_fraction": 0.25}, seed=0)
    (x, y), (x_test, _) = splits.train.arrays, splits.test.arrays
    assert x.shape == (15, 28, 28) and len(x_test) == 5
    assert x.dtype == np.float32 and y.dtype == np.int32 and 0.9 < x.max() <= 1
    tests = {
        f"test_{name}": archives.write_idx(tmp_path / f"test_{name}", arrays[key])
        for name, key in [("images", "x_test"), ("labels", "y_test")]
    }
    splits = load({"source": "idx", **paths, **tests}, seed=0)
    np.testing.assert_array_equal(splits.train.arrays[0], arrays["x_train"] / np.float32(255))
    np.testing.assert_array_equal(splits.test.arrays[1], arrays["y_test"])


def test_idx_files_that_do_not_fit_together(tmp_path):
    images = archives.write_idx(tmp_path / "images", archives.images(0, 5, 4, 4))
    labels = archives.write_idx(tmp_path / "labels", archives.labels(4))
    with pytest.raises(DataError, match=r"x has shape \(5, 4, 4\) and y \(4,\)"):
        load({"source": "idx", "images": images, "labels": labels}, seed=0)
    labels = archives.write_idx(tmp_path / "labels", archives.labels(5))
    other = archives.write_idx(tmp_path / "other", archives.images(0, 5, 4, 4).astype(np.float32))
    spec = {"source": "idx", "images": images, "labels": labels}
    with pytest.raises(DataError, match="holds uint8, but .*other float32"):
        load({**spec, "test_images": other, "test_labels": labels}, seed=0)


@pytest.mark.parametrize("source", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_folder_of_idx_files(tmp_path, source, ending):
    arrays = archives.mnist_like()
    archives.write_mnist_like(tmp_path / "folder", arrays, ending)
    splits = load({"source": source, "path": str(tmp_path / "folder")}, seed=0)
    np.testing.assert_array_equal(splits.train.arrays[0], arrays["x_train"] / np.float32(255))
    np.testing.assert_array_equal(splits.test.arrays[1], arrays["y_test"])
    os.remove(tmp_path / "folder" / f"t10k-labels-idx1-ubyte{ending}")
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte does not exist"):
        load({"source": source, "path": str(tmp_path / "folder")}, seed=0)


# CIFAR


def expected_cifar10():
    batches = [archives.cifar_batch(seed) for seed in range(6)]
    x = [pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for pixels, _ in batches]
    y = [np.array(classes, dtype=np.uint8) for _, classes in batches]
    return np.concatenate(x[:5]), np.concatenate(y[:5]), x[5], y[5]


@pytest.mark.parametrize("version", ["python", "binary"])
@pytest.mark.parametrize("packed", [True, False])
def test_cifar10(tmp_path, version, packed):
    files = archives.cifar10_files(version)
    write = archives.write_tar if packed else archives.write_folder
    found = cifar.read_cifar(write(tmp_path / "cifar", files))
    for key, array in zip(cifar_keys(), expected_cifar10(), strict=True):
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == np.uint8 and found[key].flags.c_contiguous


def cifar_keys():
    return "x_train", "y_train", "x_test", "y_test"


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_pickles_of_every_age(tmp_path, protocol):
    path = archives.write_tar(tmp_path / "a", archives.cifar10_files(protocol=protocol))
    np.testing.assert_array_equal(cifar.read_cifar(path)["x_train"], expected_cifar10()[0])


PYTHON_2_PICKLE = (
    # What Python 2 and the NumPy of 2009 wrote for {'data': zeros (2, 3072), 'labels': [3, 1]}.
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
    b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01"
    b"\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x00\x18\x00\x00"
    + bytes(6144)
    + b"tbU\x06labelsq\x08]q\t(K\x03K\x01eu."
)


def test_a_pickle_of_python_2(tmp_path):
    files = {name: PYTHON_2_PICKLE for name in archives.cifar10_files()}
    found = cifar.read_cifar(archives.write_folder(tmp_path, files))
    assert found["x_train"].shape == (10, 32, 32, 3) and found["y_test"].tolist() == [3, 1]


def test_cifar100_has_two_kinds_of_labels(tmp_path):
    for version in ("python", "binary"):
        path = archives.write_tar(tmp_path / version, archives.cifar100_files(version))
        for label, divisor in (("fine_labels", 1), ("coarse_labels", 5)):
            found = cifar.read_cifar(path, cifar.CIFAR100, label)
            assert found["x_test"].shape == (8, 32, 32, 3)
            assert found["y_train"].tolist() == [n * 7 % 100 // divisor for n in range(8)]


class Hostile:
    """Pickled, it makes the reader call a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


HOSTILE = {
    "system": lambda mark: pickle.dumps(Hostile(os.system, f"touch {mark}")),
    "eval": lambda mark: pickle.dumps(Hostile(eval, f"open({mark!r}, 'w')")),
    "nested": lambda mark: pickle.dumps({b"data": [Hostile(open, mark, "w")], b"labels": []}),
    "getattr": lambda _: b"cbuiltins\ngetattr\n(cos\n__name__\nVx\ntR.",
    "codecs": lambda _: b"c_codecs\nencode\n(Vabc\nVrot13\ntR.",  # imports a module of that name
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_pickle_is_refused(tmp_path, case):
    mark = str(tmp_path / "mark")
    content = HOSTILE[case](mark)
    files = {**archives.cifar10_files(), "cifar-10-batches-py/data_batch_3": content}
    path = archives.write_tar(tmp_path / "cifar", files)
    with pytest.raises(DataError, match=r"data_batch_3 is not a batch of CIFAR-10 \(it ") as caught:
        cifar.read_cifar(path)
    assert str(path) in str(caught.value)
    assert not os.path.exists(mark)


def test_the_hostile_pickles_would_have_worked(tmp_path):
    mark = str(tmp_path / "mark")
    pickle.loads(pickle.dumps(Hostile(open, mark, "w"))).close()
    assert os.path.exists(mark)


PIXELS, CLASSES = archives.cifar_batch(0)
BAD_BATCHES = {
    "text": (b"not a pickle", r"is not a batch of CIFAR-10"),
    "empty": (b"", r"is not a batch of CIFAR-10"),
    "truncated": (pickle.dumps({b"data": PIXELS, b"labels": CLASSES}, 2)[:-100], "not a batch"),
    "list": (pickle.dumps([1]), r"needs a uint8 array \(n, 3072\)"),
    "number": (pickle.dumps({b"data": 3, b"labels": CLASSES}), "needs a uint8 array"),
    "floats": (pickle.dumps({b"data": PIXELS / 2, b"labels": CLASSES}, 2), "dtype 'f8', not uint8"),
    "objects": (pickle.dumps({b"data": np.array([[1, []]], dtype=object)}, 2), "not uint8"),
    "shape": (pickle.dumps({b"data": PIXELS[:, :9], b"labels": CLASSES}, 2), "needs a uint8 array"),
    "labels": (pickle.dumps({b"data": PIXELS, b"labels": [1]}, 2), "needs a list of 4 labels"),
    "label": (pickle.dumps({b"data": PIXELS, b"labels": [1, 2, 3, 999]}, 2), "0 to 255"),
    "subclass": (b"cnumpy\nndarray\n(I99999999\ntR.", "is not a batch"),
}


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_a_bad_batch_is_named(tmp_path, case):
    content, message = BAD_BATCHES[case]
    files = {**archives.cifar10_files(), "cifar-10-batches-py/test_batch": content}
    folder = archives.write_folder(tmp_path / "cifar", files)
    with pytest.raises(DataError, match=f"test_batch .*{message}|test_batch {message}"):
        cifar.read_cifar(folder)


def test_a_bad_archive_is_named(tmp_path):
    path = tmp_path / "cifar.tar.gz"
    with pytest.raises(DataError, match=r"cifar\.tar\.gz does not exist"):
        cifar.read_cifar(path)
    for content in (b"", b"text", gzip.compress(b"text" * 500)[:-9]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"cifar\.tar\.gz cannot be read as a CIFAR-10 archive"):
            cifar.read_cifar(path)
    files = archives.cifar10_files()
    del files["cifar-10-batches-py/data_batch_2"], files["cifar-10-batches-py/test_batch"]
    archives.write_tar(path, files)
    with pytest.raises(DataError, match="lacks data_batch_2, test_batch"):
        cifar.read_cifar(path)
    archives.write_tar(path, archives.cifar10_files())
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"cannot be read|lacks|is not a batch"):
        cifar.read_cifar(path)
    binary = archives.cifar10_files("binary")
    binary["cifar-10-batches-bin/test_batch.bin"] += b"\0"
    archives.write_tar(path, binary)
    with pytest.raises(DataError, match="has 12293 bytes, no multiple of 3073"):
        cifar.read_cifar(path)


def test_jobs_take_cifar10(tmp_path):
    path = archives.write_tar(tmp_path / "cifar", archives.cifar10_files())
    splits = load({"source": "cifar10", "path": str(path)}, seed=0)
    x, y = splits.train.arrays
    assert x.shape == (20, 32, 32, 3) and x.dtype == np.float32 and 0.9 < x.max() <= 1
    assert y.shape == (20,) and y.dtype == np.int32
    assert splits.description == f"{path}: 20 training and 4 test samples, 32 x 32 x 3"
