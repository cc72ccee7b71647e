"""Small made-up files in the formats of MNIST and CIFAR."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

IDX_CODES = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}


def idx_bytes(array: np.ndarray) -> bytes:
    code, dimensions = IDX_CODES[array.dtype.name], array.ndim
    header = struct.pack(f">HBB{dimensions}I", 0, code, dimensions, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx(path: Path, array: np.ndarray) -> str:
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def images(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def labels(n: int, classes: int = 10) -> np.ndarray:
    return (np.arange(n) * 7 % classes).astype(np.uint8)


def mnist_like(train: int = 20, test: int = 6) -> dict[str, np.ndarray]:
    return {
        "x_train": images(1, train, 28, 28),
        "y_train": labels(train),
        "x_test": images(2, test, 28, 28),
        "y_test": labels(test),
    }


def write_mnist_like(folder: Path, arrays: Mapping[str, np.ndarray], ending: str = ".gz") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, prefix in (("train", "train"), ("test", "t10k")):
        write_idx(folder / f"{prefix}-images-idx3-ubyte{ending}", arrays[f"x_{part}"])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{ending}", arrays[f"y_{part}"])


def cifar_batch(seed: int, n: int = 4, classes: int = 10) -> tuple[np.ndarray, list[int]]:
    return images(seed, n, 3072), labels(n, classes).tolist()


def cifar10_files(version: str = "python", protocol: int = 2) -> dict[str, bytes]:
    """``{name: bytes}`` of an archive with four images in each of its six files."""
    files = {}
    for seed, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        pixels, classes = cifar_batch(seed)
        if version == "python":
            entries = {b"data": pixels, b"labels": classes, b"batch_label": b"made up"}
            files[f"cifar-10-batches-py/{name}"] = pickle.dumps(entries, protocol)
        else:
            rows = np.hstack([np.array(classes, np.uint8)[:, None], pixels])
            files[f"cifar-10-batches-bin/{name}.bin"] = rows.tobytes()
    return files


def cifar100_files(version: str = "python") -> dict[str, bytes]:
    files = {}
    for seed, name in enumerate(["train", "test"]):
        pixels, fine = cifar_batch(seed, 8, 100)
        coarse = [label // 5 for label in fine]
        if version == "python":
            entries = {b"data": pixels, b"fine_labels": fine, b"coarse_labels": coarse}
            files[f"cifar-100-python/{name}"] = pickle.dumps(entries, 2)
        else:
            both = np.array([coarse, fine], np.uint8).T
            files[f"cifar-100-binary/{name}.bin"] = np.hstack([both, pixels]).tobytes()
    return files


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
