"""keras.callbacks.BackupAndRestore and keras.utils.get_file on several workers, one of them killed.

The data of the scripts come from a slow server of this process, which counts how often.
"""

from __future__ import annotations

import collections
import hashlib
import http.server
import importlib.util
import io
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout_s(300)]

MPI = pytest.mark.mpi
RAY = [
    pytest.mark.ray,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None,
        reason="Ray is not installed: pip install 'distgrad[ray]'",
    ),
]

FIT = """\
import hashlib, os, pathlib, signal, sys
import numpy as np
import distgrad as tf
from distgrad import distribute

folder, (origin, often, die_at) = pathlib.Path(sys.argv[1]), sys.argv[2:]
data = np.load(tf.keras.utils.get_file(origin=origin, cache_dir=folder))
died = folder / "died"


class Die(tf.keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if distribute.rank() == distribute.world_size() - 1 and not died.exists():
            if int(self.model.optimizer.iterations) == int(die_at):
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)


tf.keras.utils.set_random_seed(7)
model = tf.keras.Sequential([
    tf.keras.layers.Dense(16, activation="relu"), tf.keras.layers.Dropout(0.3),
    tf.keras.layers.Dense(3, activation="softmax"),
])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
often = often if often == "epoch" else int(often)
backup = tf.keras.callbacks.BackupAndRestore(folder / "backup", save_freq=often)
history = model.fit(data["x"], data["y"], epochs=6, verbose=0, callbacks=[backup, Die()])
if distribute.is_chief():
    digest = hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights()))
    print(digest.hexdigest(), history.history["loss"][-1], len(history.history["loss"]), flush=True)
"""

FILES = """\
import hashlib, pathlib, sys, time
import distgrad as tf
from distgrad import distribute
from distgrad.launcher import environ

folder, address, digest = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
late = environ.detect().rank == int(sys.argv[4])
for name, options in [
    ("new.zip", {"extract": True}),
    ("other.npz", {"file_hash": digest}),  # of which there is an old one
    ("other.zip", {"file_hash": sys.argv[5], "extract": True}),
    ("forced.npz", {"force_download": True}),
    ("forced.zip", {"force_download": True, "extract": True}),
]:
    if late:
        time.sleep(0.5)
    path = pathlib.Path(tf.keras.utils.get_file(origin=address + name, cache_dir=folder, **options))
    file = path if path.is_file() else path / "data.npz"
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    assert found == digest, (name, environ.detect().rank)
assert set(distribute.allgather_object("done")) == {"done"}
"""


class Server:
    """Serves a data set as any file.npz, and in any file.zip."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(500, 8)).astype("float32")
        npz, packed = io.BytesIO(), io.BytesIO()
        np.savez(npz, x=x, y=(x[:, 0] > 0).astype("int32") + (x[:, 1] > 0))
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("data.npz", npz.getvalue())
        self.files = {".npz": npz.getvalue(), ".zip": packed.getvalue()}
        self.count: collections.Counter[str] = collections.Counter()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.lstrip("/")
                server.count[name] += 1
                data = server.files[Path(name).suffix]
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                for start in range(0, len(data), 4096):
                    self.wfile.write(data[start : start + 4096])
                    time.sleep(0.05)

            def log_message(self, *args: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def digest(self, kind: str) -> str:
        return hashlib.sha256(self.files[kind]).hexdigest()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    served = Server()
    yield served
    served.close()


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fit") / "fit.py"
    path.write_text(FIT)
    return path


@pytest.fixture(scope="module")
def undisturbed(dg, fit: Path, server: Server, tmp_path_factory) -> list[str]:
    """Hash and last loss of a fit that nobody disturbs, alone."""
    folder = tmp_path_factory.mktemp("undisturbed")
    words = ("launch", "--virtual-shards", 4, fit, folder, f"{server.address}alone.npz", "epoch", 0)
    result = dg.run(*words)
    assert result.returncode == 0, result.stderr
    *found, epochs = result.stdout.splitlines()[-1].split()
    assert epochs == "6"
    return found


@pytest.mark.parametrize(
    ("launcher", "often"),
    [
        ("local", "epoch"),
        ("local", "7"),
        pytest.param("mpi", "7", marks=MPI),
        pytest.param("ray", "7", marks=RAY),
    ],
)
def test_a_fit_that_loses_a_worker_goes_on_from_its_backup(
    dg, fit: Path, server: Server, undisturbed, tmp_path: Path, launcher: str, often: str
) -> None:
    name = f"{launcher}{often}.npz"
    options = ("-n", 2, "--launcher", launcher, "--virtual-shards", 4, "--max-restarts", 1)
    words = ("launch", *options, fit, tmp_path, server.address + name, often, 45)
    result = dg.run(*words)
    assert result.returncode == 0, result.stderr
    assert "(restart 1 of 1)" in result.stderr
    *found, epochs = result.stdout.splitlines()[-1].split()
    assert found == undisturbed
    assert epochs == "4"  # the first two were not done again
    assert not (tmp_path / "backup").exists()
    assert server.count[name] == 1


@pytest.mark.parametrize(
    ("launcher", "late"),
    [
        ("local", 0),
        ("local", 1),
        pytest.param("mpi", 0, marks=MPI),  # on Ray it comes once above, too
    ],
)
def test_a_file_comes_once_and_all_workers_see_the_same(
    dg, server: Server, tmp_path: Path, launcher: str, late: int
) -> None:
    script, cache = tmp_path / "files.py", tmp_path / "datasets"
    script.write_text(FILES)
    cache.mkdir()
    for name in ("other.npz", "forced.npz", "other.zip_archive", "forced.zip_archive"):
        (cache / name).write_text("old")
    for name in ("other.zip", "forced.zip"):
        (cache / name).mkdir()
        (cache / name / "data.npz").write_text("old")
    server.count.clear()
    digests = server.digest(".npz"), server.digest(".zip")
    words = (script, tmp_path, server.address, digests[0], late, digests[1])
    result = dg.run("launch", "-n", 3, "--launcher", launcher, *words)
    assert result.returncode == 0, result.stderr
    assert set(server.count.values()) == {1} and len(server.count) == 5, server.count
    assert not list(cache.glob(".tmp-*"))
