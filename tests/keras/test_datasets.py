import dataclasses
import hashlib
import http.server
import socket
import threading

import numpy as np
import pytest

from distgrad.core.errors import DataError
from distgrad.data import cifar
from distgrad.data import fashion_mnist as fashion_file
from distgrad.data import mnist as mnist_file
from distgrad.data.source import load
from distgrad.keras.datasets import cifar10, cifar100, fashion_mnist, mnist
from distgrad.testing import archives


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


# Fashion-MNIST and CIFAR: several files, an archive, and a server to download them from


@pytest.fixture
def server(tmp_path):
    """A local server of the files in ``folder``, whose requests are counted."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path / "served")

        def log_message(self, *args):
            server.requests.append(self.path)

    (tmp_path / "served").mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.folder = [], tmp_path / "served"
        server.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def publish_fashion(monkeypatch, folder, url="http://127.0.0.1:9/"):
    hashes = {name: sha256(folder / name) for name in fashion_file.SHA256}
    monkeypatch.setattr(fashion_file, "SHA256", hashes)
    monkeypatch.setattr(fashion_file, "URL", url)


def publish_cifar(monkeypatch, room, name, path, url="http://127.0.0.1:9/none"):
    archive = dataclasses.replace(getattr(cifar, name), sha256=sha256(path), url=url)
    monkeypatch.setattr(room, name, archive)


def test_fashion_mnist_as_keras_has_it(cache, monkeypatch):
    expected = archives.mnist_like()
    archives.write_mnist_like(cache / "fashion-mnist", expected)
    publish_fashion(monkeypatch, cache / "fashion-mnist")
    (x_train, y_train), (x_test, y_test) = fashion_mnist.load_data()
    for key, array in zip(
        ("x_train", "y_train", "x_test", "y_test"), (x_train, y_train, x_test, y_test), strict=True
    ):
        np.testing.assert_array_equal(array, expected[key])
        assert array.dtype == np.uint8


def test_fashion_mnist_is_downloaded_once(cache, monkeypatch, server, capsys):
    archives.write_mnist_like(server.folder, archives.mnist_like())
    publish_fashion(monkeypatch, server.folder, server.url)
    for _ in range(2):
        (x_train, _), _ = fashion_mnist.load_data()
        assert x_train.shape == (20, 28, 28)
    said = capsys.readouterr().out.splitlines()
    folder = cache / "fashion-mnist"
    assert said == [
        f"Downloading {server.url}{name} to {folder / name}" for name in fashion_file.SHA256
    ]
    assert len(server.requests) == 4
    assert sorted(path.name for path in folder.iterdir()) == sorted(fashion_file.SHA256)


def test_a_damaged_download_is_not_kept(cache, monkeypatch, server):
    archives.write_mnist_like(server.folder, archives.mnist_like())
    publish_fashion(monkeypatch, server.folder, server.url)
    (server.folder / "t10k-images-idx3-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz .*arrived with SHA-256"):
        fashion_mnist.load_data()
    assert not (cache / "fashion-mnist" / "t10k-images-idx3-ubyte.gz").exists()


def test_cifar10_as_keras_has_it(cache, monkeypatch):
    path = archives.write_tar(cache / cifar.CIFAR10.cached_as, archives.cifar10_files())
    publish_cifar(monkeypatch, cifar10, "CIFAR10", path)
    (x_train, y_train), (x_test, y_test) = cifar10.load_data()
    assert x_train.shape == (20, 32, 32, 3) and y_train.shape == (20, 1)
    assert x_test.shape == (4, 32, 32, 3) and y_test.shape == (4, 1)
    assert {a.dtype for a in (x_train, y_train, x_test, y_test)} == {np.dtype("uint8")}
    pixels, classes = archives.cifar_batch(5)
    np.testing.assert_array_equal(x_test[1, :, :, 2], pixels[1].reshape(3, 32, 32)[2])
    assert y_test[:, 0].tolist() == classes


def test_cifar100_as_keras_has_it(cache, monkeypatch):
    path = archives.write_tar(cache / cifar.CIFAR100.cached_as, archives.cifar100_files())
    publish_cifar(monkeypatch, cifar100, "CIFAR100", path)
    (x_train, y_train), (_, y_test) = cifar100.load_data()
    assert x_train.shape == (8, 32, 32, 3) and x_train.dtype == np.uint8
    assert y_train.shape == y_test.shape == (8, 1) and y_train.dtype == np.int64
    (_, coarse), _ = cifar100.load_data(label_mode="coarse")
    np.testing.assert_array_equal(coarse, y_train // 5)
    with pytest.raises(ValueError, match="'medium'"):
        cifar100.load_data("medium")


def test_cifar10_is_downloaded_once(cache, monkeypatch, server, capsys):
    path = archives.write_tar(server.folder / "cifar.tar.gz", archives.cifar10_files())
    publish_cifar(monkeypatch, cifar10, "CIFAR10", path, f"{server.url}cifar.tar.gz")
    for _ in range(2):
        (x_train, _), _ = cifar10.load_data()
        assert len(x_train) == 20
    assert len(server.requests) == 1
    assert capsys.readouterr().out.count("Downloading") == 1
    assert [path.name for path in cache.iterdir()] == ["cifar-10-batches-py-target_archive"]


def test_another_archive_in_the_cache_is_used_with_a_warning(cache):
    archives.write_tar(cache / cifar.CIFAR10.cached_as, archives.cifar10_files())
    with pytest.warns(UserWarning, match="cifar-10-batches-py-target_archive has SHA-256"):
        (x_train, _), _ = cifar10.load_data()
    assert len(x_train) == 20


@pytest.mark.parametrize("room", [fashion_mnist, cifar10])
def test_offline_names_file_address_and_folder(cache, monkeypatch, room):
    with socket.socket() as unused:  # bound but not listening: a connection is refused
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        monkeypatch.setattr(fashion_file, "URL", url)
        archive = dataclasses.replace(cifar.CIFAR10, url=url + "cifar")
        monkeypatch.setattr(cifar10, "CIFAR10", archive)
        with pytest.raises(DataError, match="could not be downloaded") as caught:
            room.load_data()
    assert url in str(caught.value) and str(cache) in str(caught.value)


def test_another_rank_does_not_download_cifar(cache, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    path = archives.write_tar(tmp_path / "arriving", archives.cifar10_files())
    arrival = threading.Timer(0.3, path.rename, [cache / cifar.CIFAR10.cached_as])
    arrival.start()
    (x_train, _), _ = cifar10.load_data()
    arrival.join()
    assert len(x_train) == 20 and capsys.readouterr().out == ""


def test_jobs_read_the_same_cache(cache, monkeypatch):
    archives.write_mnist_like(cache / "fashion-mnist", archives.mnist_like())
    publish_fashion(monkeypatch, cache / "fashion-mnist")
    splits = load({"source": "fashion_mnist"}, seed=0)
    assert splits.description == "fashion_mnist: 20 training and 6 test samples, 28 x 28"
    archives.write_tar(cache / cifar.CIFAR10.cached_as, archives.cifar10_files())
    with pytest.warns(UserWarning, match="SHA-256"):
        splits = load({"source": "cifar10"}, seed=0)
    assert splits.description == "cifar10: 20 training and 4 test samples, 32 x 32 x 3"
