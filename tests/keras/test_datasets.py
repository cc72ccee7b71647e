import hashlib
import socket
import threading

import numpy as np
import pytest

from distgrad.core.errors import DataError
from distgrad.data import mnist as mnist_file
from distgrad.keras.datasets import mnist


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder where Keras keeps its data sets, in a home folder of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".keras" / "datasets"
    folder.mkdir(parents=True)
    return folder


def arrays():
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        "y_train": rng.integers(0, 10, 20, dtype=np.uint8),
        "x_test": rng.integers(0, 256, (5, 28, 28), dtype=np.uint8),
        "y_test": rng.integers(0, 10, 5, dtype=np.uint8),
    }


def publish(monkeypatch, path):
    """Take ``path`` for the published file."""
    monkeypatch.setattr(mnist_file, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())


def test_load_data_as_keras_has_it(cache, monkeypatch):
    expected = arrays()
    np.savez(cache / "mnist.npz", **expected)
    publish(monkeypatch, cache / "mnist.npz")
    (x_train, y_train), (x_test, y_test) = mnist.load_data()
    for key, array in [("x_train", x_train), ("y_train", y_train), ("x_test", x_test)]:
        np.testing.assert_array_equal(array, expected[key])
    np.testing.assert_array_equal(y_test, expected["y_test"])
    assert {a.dtype for a in (x_train, y_train, x_test, y_test)} == {np.dtype("uint8")}


def test_another_file_in_the_cache_is_used_with_a_warning(cache):
    np.savez(cache / "mine.npz", **arrays())
    with pytest.warns(UserWarning, match="mine.npz has SHA-256") as caught:
        (x_train, _), _ = mnist.load_data("mine.npz")
    assert len(caught) == 1 and len(x_train) == 20


def test_offline(cache, monkeypatch, capsys):
    with socket.socket() as unused:  # bound but not listening: a connection is refused
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/mnist.npz"
        monkeypatch.setattr(mnist_file, "URL", url)
        with pytest.raises(DataError) as caught:
            mnist.load_data()
    for part in ("mnist.npz", url, str(cache)):
        assert part in str(caught.value)
    assert url in capsys.readouterr().out
    assert list(cache.iterdir()) == []


def test_another_rank_waits_and_does_not_download(cache, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    np.savez(tmp_path / "arriving.npz", **arrays())
    arrival = threading.Timer(0.3, (tmp_path / "arriving.npz").rename, [cache / "mnist.npz"])
    arrival.start()
    (x_train, _), _ = mnist.load_data()
    arrival.join()
    assert len(x_train) == 20
    assert capsys.readouterr().out == ""


def test_a_damaged_file_is_named(cache, monkeypatch):
    path = cache / "mnist.npz"
    path.write_bytes(b"<html>not the file</html>")
    publish(monkeypatch, path)
    with pytest.raises(DataError, match="cannot be read") as caught:
        mnist.load_data()
    assert str(path) in str(caught.value)


def test_missing_keys_are_listed_with_those_present(cache, monkeypatch):
    np.savez(cache / "mnist.npz", images=np.zeros(3), labels=np.zeros(3))
    publish(monkeypatch, cache / "mnist.npz")
    with pytest.raises(DataError, match="holds the keys images, labels, but needs x_train"):
        mnist.load_data()


def test_objects_are_not_unpickled(cache, monkeypatch):
    np.savez(cache / "mnist.npz", **{**arrays(), "y_test": np.array([print] * 5)})
    publish(monkeypatch, cache / "mnist.npz")
    with pytest.raises(DataError, match="plain arrays"):
        mnist.load_data()
