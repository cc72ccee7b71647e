import hashlib
import http.server
import socket
import threading
import time
import warnings
from types import SimpleNamespace

import pytest

from distgrad.core.errors import DataError
from distgrad.data.download import fetch

CONTENT = b"0123456789" * 50_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path == "/gone":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        half = len(CONTENT) // 2
        self.wfile.write(CONTENT[:half])
        if self.path == "/cut":
            return
        if self.path == "/slow":
            self.server.half_sent.set()
            self.server.go_on.wait(10)
        self.wfile.write(CONTENT[half:])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.half_sent, server.go_on = [], threading.Event(), threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


def listing(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_downloads_once(server, tmp_path):
    folder, said = tmp_path / "a" / "b", []
    url = f"{server.url}/file"
    path = fetch("data.bin", url, SHA256, folder, announce=said.append)
    assert path == folder / "data.bin" and path.read_bytes() == CONTENT
    assert said == [f"Downloading {url} to {path}"]
    assert path.stat().st_mode & 0o777 == 0o644
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fetch("data.bin", url, SHA256, folder, announce=said.append) == path
    assert server.requests == ["/file"] and len(said) == 1
    assert listing(folder) == ["data.bin"]


def test_other_hash_is_warned_of_once_and_used(server, tmp_path):
    (tmp_path / "data.bin").write_bytes(b"mine")
    with pytest.warns(UserWarning) as caught:
        path = fetch("data.bin", f"{server.url}/file", SHA256, tmp_path)
    assert path.read_bytes() == b"mine" and server.requests == []
    (warning,) = caught
    for part in (str(path), SHA256, hashlib.sha256(b"mine").hexdigest()):
        assert part in str(warning.message)


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/file", "arrived with SHA-256"), ("/cut", "arrived with SHA-256"), ("/gone", "Not Found")],
)
def test_a_bad_download_leaves_nothing(server, tmp_path, path, reason):
    wanted = "0" * 64 if path == "/file" else SHA256
    with pytest.raises(DataError, match=reason) as caught:
        fetch("data.bin", server.url + path, wanted, tmp_path, announce=lambda _: None)
    for part in ("data.bin", server.url + path, str(tmp_path)):
        assert part in str(caught.value)
    assert listing(tmp_path) == []


def test_offline(tmp_path):
    with socket.socket() as unused:  # bound but not listening: a connection is refused
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/data.bin"
        with pytest.raises(DataError, match="could not be downloaded") as caught:
            fetch("data.bin", url, SHA256, tmp_path / "new", announce=lambda _: None)
    for part in ("data.bin", url, str(tmp_path / "new")):
        assert part in str(caught.value)
    assert listing(tmp_path / "new") == []


def test_a_server_that_falls_silent_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr("distgrad.data.download._SOCKET_TIMEOUT", 0.2)
    with pytest.raises(DataError, match="timed out"):
        fetch("data.bin", f"{server.url}/slow", SHA256, tmp_path, announce=lambda _: None)
    assert listing(tmp_path) == []


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="could not be downloaded"):
        fetch("data.bin", f"{server.url}/file", SHA256, tmp_path / "file", announce=lambda _: None)


def test_others_wait_for_the_whole_file(server, tmp_path):
    url, sizes = f"{server.url}/slow", []

    def wait():
        path = fetch("data.bin", url, SHA256, tmp_path, allow_download=False, patience=10)
        sizes.append(path.stat().st_size)

    others = [threading.Thread(target=wait) for _ in range(3)]
    first = threading.Thread(target=fetch, args=("data.bin", url, SHA256, tmp_path, [].append))
    for thread in [*others, first]:
        thread.start()
    assert server.half_sent.wait(10)
    assert sizes == [], "half a file must not be taken for a whole one"
    server.go_on.set()
    for thread in [*others, first]:
        thread.join(10)
    assert sizes == [len(CONTENT)] * 3
    assert server.requests == ["/slow"]


def test_others_stop_where_nothing_comes(tmp_path):
    (tmp_path / ".tmp-data.bin-0000left").write_bytes(b"of a process that was killed")
    start = time.monotonic()
    with pytest.raises(DataError, match=r"no progress for 0\.2 s") as caught:
        fetch("data.bin", "http://x/y", SHA256, tmp_path, allow_download=False, patience=0.2)
    assert time.monotonic() - start < 20  # not the minute that is usual
    for part in (str(tmp_path / "data.bin"), "http://x/y", "rank 0"):
        assert part in str(caught.value)


def test_others_stay_as_long_as_there_is_progress(tmp_path, monkeypatch):
    partial, final = tmp_path / ".tmp-data.bin-00000001", tmp_path / "data.bin"
    now, sizes = [0.0], iter(range(1, 8))

    def sleep(_seconds):
        now[0] += 0.4
        if size := next(sizes, None):
            partial.write_bytes(b"." * size)
        else:
            partial.rename(final)

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr("distgrad.data.download.time", clock)
    assert fetch("data.bin", "http://x", SHA256, tmp_path, allow_download=False, patience=0.6)
    assert now[0] > 2 * 0.6
