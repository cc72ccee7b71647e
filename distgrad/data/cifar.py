"""The CIFAR archives, where Keras keeps them, read without trusting them.

The Python version of the archives holds pickles, which may name any function for the reader to
call. This reader knows the few names that arrays need, and refuses the others before any call.
"""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distgrad.core.errors import DataError
from distgrad.data.download import fetch
from distgrad.launcher.environ import keras_home

_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Archive:
    """One of the two data sets: its file in the cache, and what its files are called."""

    name: str
    cached_as: str
    url: str
    sha256: str
    train: Sequence[str]
    test: Sequence[str]
    labels: Sequence[str]  # of a sample in the binary version, one byte each, before the pixels


CIFAR10 = Archive(
    "CIFAR-10",
    "cifar-10-batches-py-target_archive",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    [f"data_batch_{number}" for number in range(1, 6)],
    ["test_batch"],
    ["labels"],
)
CIFAR100 = Archive(
    "CIFAR-100",
    "cifar-100-python-target_archive",
    "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    ["train"],
    ["test"],
    ["coarse_labels", "fine_labels"],
)


def load_cifar(
    archive: Archive,
    label: str = "labels",
    announce: Callable[[str], None] = print,
    allow_download: bool = True,
) -> dict[str, np.ndarray]:
    """``x_train, y_train, x_test, y_test`` of the file in ``~/.keras/datasets``.

    Shapes and dtypes are those of `read_cifar`. A missing file is downloaded, as `fetch` does it;
    raises DataError for one that cannot be had, or not be read.
    """
    folder = keras_home() / "datasets"
    path = fetch(archive.cached_as, archive.url, archive.sha256, folder, announce, allow_download)
    return read_cifar(path, archive, label)


def read_cifar(
    path: str | os.PathLike, archive: Archive = CIFAR10, label: str = "labels"
) -> dict[str, np.ndarray]:
    """uint8 images (n, 32, 32, 3) and uint8 labels (n,) of an archive, or of a folder of its files.

    Both may be the Python or the binary version. ``label`` is ``labels``, and for CIFAR-100
    ``fine_labels`` or ``coarse_labels``. Raises DataError. Source: A. Krizhevsky, Learning Multiple
    Layers of Features from Tiny Images, 2009.
    """
    path = Path(path).expanduser()
    names = [*archive.train, *archive.test]
    wanted = {name + ending: name for name in names for ending in ("", ".bin")}
    found = {}
    try:
        for file, content in _members(path, set(wanted)):
            read = _binary_batch if file.endswith(".bin") else _pickled_batch
            found[wanted[file]] = read(f"{path}: {file}", content, archive, label)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read as a {archive.name} archive ({error}); get it again"
        ) from error
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(
            f"{path} lacks {', '.join(missing)} (or {missing[0]}.bin); give the "
            f"{archive.name} archive, or the folder with its files"
        )
    arrays = {}
    for part, files in (("train", archive.train), ("test", archive.test)):
        pixels, labels = zip(*(found[name] for name in files), strict=True)
        images = np.concatenate(pixels).reshape(-1, 3, 32, 32)
        arrays[f"x_{part}"] = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        arrays[f"y_{part}"] = np.concatenate(labels)
    return arrays


def _members(path: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the wanted files, whatever folder they are in."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.name in wanted and file.is_file():
                yield file.name, file.read_bytes()
        return
    with tarfile.open(path) as tar:
        for member in tar:  # in order: going back would decompress the archive again
            name = member.name.rpartition("/")[2]
            opened = tar.extractfile(member) if member.isfile() and name in wanted else None
            if opened is not None:
                yield name, opened.read()


def _binary_batch(
    where: str, content: bytes, archive: Archive, label: str
) -> tuple[np.ndarray, np.ndarray]:
    size = len(archive.labels) + _PIXELS
    if not content or len(content) % size:
        raise DataError(f"{where} has {len(content)} bytes, no multiple of {size}; get it again")
    rows = np.frombuffer(content, np.uint8).reshape(-1, size)
    return rows[:, -_PIXELS:], rows[:, archive.labels.index(label)]


def _pickled_batch(
    where: str, content: bytes, archive: Archive, label: str
) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # what bytes that are no pickle raise is anyone's guess
        raise DataError(f"{where} is not a batch of {archive.name} ({error})") from error
    pixels, labels = getattr(_entry(batch, "data"), "value", None), _entry(batch, label)
    if pixels is None or pixels.ndim != 2 or pixels.shape[1] != _PIXELS:
        raise DataError(f"{where} needs a uint8 array (n, {_PIXELS}) under 'data'")
    if (
        not isinstance(labels, list)
        or len(labels) != len(pixels)
        or not all(isinstance(value, int) and 0 <= value < 256 for value in labels)
    ):
        raise DataError(f"{where} needs a list of {len(pixels)} labels, 0 to 255, under '{label}'")
    return pixels, np.array(labels, dtype=np.uint8)


def _entry(batch: Any, key: str) -> Any:
    """The value under a key, which Python 2 has written as bytes."""
    return batch.get(key.encode(), batch.get(key)) if isinstance(batch, Mapping) else None


class _ArraysOnly(pickle.Unpickler):
    """Knows what an array of bytes, numbers, lists and dicts are made of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which no array needs, and was not loaded"
            ) from None


class _Array:
    """Stands for an array while it is read, so that none of NumPy's own readers runs."""

    value: np.ndarray | None = None

    def __init__(self, *_start: Any) -> None:
        """Takes what every pickled array begins with, an empty shape and a dtype of no meaning."""

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Uint8, bool, bytes]) -> None:
        _version, shape, dtype, fortran_order, content = state
        if not isinstance(dtype, _Uint8):
            raise pickle.UnpicklingError("its array is not of dtype uint8")
        order: Literal["C", "F"] = "F" if fortran_order else "C"
        self.value = np.frombuffer(content, np.uint8).reshape(shape, order=order)


class _Uint8:
    """Stands for the one dtype that is read."""

    def __init__(self, code: str | bytes, *_flags: Any) -> None:
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"its array has dtype {code!r}, not uint8")

    def __setstate__(self, _state: tuple) -> None:
        """Ignores the byte order, which single bytes do not have."""


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds bytes in the encoding {encoding!r}")
    return text.encode("latin-1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): None,  # what to reconstruct: there is but one kind
    ("numpy", "dtype"): _Uint8,
    ("_codecs", "encode"): _encode,
}
