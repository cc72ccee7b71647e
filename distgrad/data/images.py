"""The jobs' sources of images, by name or from files in the formats of MNIST and CIFAR."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core.errors import DataError
from distgrad.data import cifar, idx
from distgrad.data.fashion_mnist import load_fashion_mnist, read_fashion_mnist
from distgrad.data.mnist import load_mnist, read_mnist
from distgrad.data.npz import check_pairs
from distgrad.data.packaged import read_packaged
from distgrad.data.source import Splits
from distgrad.data.splits import TEST_FRACTION, as_inputs, as_targets, hold_out, own_parts

# Of the sets whose classes are no digits, from the papers that describe them.
CLASSES = {
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
}


def load(
    spec: Mapping[str, Any], seed: int, allow_download: bool, announce: Callable[[str], None]
) -> Splits:
    """The images that a job's data section names; see `source.load`."""
    path = spec.get("path")
    match spec["source"]:
        case "digits":
            return _digits(spec["test_fraction"], seed)
        case "mnist" if path:
            is_folder = Path(path).expanduser().is_dir()
            arrays = read_fashion_mnist(path) if is_folder else read_mnist(path)
        case "mnist":
            arrays = load_mnist(announce=announce, allow_download=allow_download)
        case "fashion_mnist" if path:
            arrays = read_fashion_mnist(path)
        case "fashion_mnist":
            arrays = load_fashion_mnist(announce, allow_download)
        case "cifar10" if path:
            arrays = cifar.read_cifar(path)
        case "cifar10":
            arrays = cifar.load_cifar(
                cifar.CIFAR10, announce=announce, allow_download=allow_download
            )
        case "idx":
            return _idx(spec, seed)
    classes = CLASSES.get(spec["source"], ())
    return own_parts(path or spec["source"], arrays, scale=255, classes=classes)


def _digits(test_fraction: float, seed: int) -> Splits:
    def parse(path: Path) -> np.ndarray:
        with gzip.open(path, "rt") as text:  # given a name, loadtxt wants a folder to be in
            return np.loadtxt(text, delimiter=",", dtype=np.int32)

    rows = read_packaged("digits.csv.gz", parse)
    images = (rows[:, :-1].astype(np.float32) / 16).reshape(-1, 8, 8)
    how = {"scale": 16.0, "raw_dtype": "int32"}
    return hold_out("digits", images, rows[:, -1], test_fraction, seed, **how)


def _idx(spec: Mapping[str, Any], seed: int) -> Splits:
    """The files of a job; images of bytes become 0 to 1, others are left as they are."""
    name = spec["images"]
    x, y = idx.read_idx(name), idx.read_idx(spec["labels"])
    check_pairs(name, {"x": x, "y": y})
    scale = 255 if x.dtype == np.uint8 else 1
    if spec.get("test_images") is None:
        inputs = as_inputs(f"{name}: images", x)
        return hold_out(
            name,
            inputs if scale == 1 else inputs / np.float32(scale),
            as_targets(f"{name}: labels", y),
            spec.get("test_fraction", TEST_FRACTION),
            seed,
            scale=float(scale),
            raw_dtype=x.dtype.name,
        )
    x_test, y_test = idx.read_idx(spec["test_images"]), idx.read_idx(spec["test_labels"])
    if x_test.dtype != x.dtype:
        raise DataError(f"{name} holds {x.dtype}, but {spec['test_images']} {x_test.dtype}")
    arrays = {"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test}
    check_pairs(spec["test_images"], {"x_test": x_test, "y_test": y_test})
    return own_parts(name, arrays, scale=scale)
