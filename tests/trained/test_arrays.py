"""Predictions as arrays in files: what NumPy reads back, and how little of them is in memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from distgrad.trained import writing
from distgrad.trained.outputs import Outputs

CLASSES = Outputs(("cat", "doggy", "eel"))


class Batches:
    """Batches of outputs, of which only the last one may be alive when the next is asked for."""

    def __init__(self, values: np.ndarray, size: int) -> None:
        self.values, self.size = values, size

    def __iter__(self) -> Iterator[np.ndarray]:
        before: list[weakref.ref] = []
        for start in range(0, len(self.values), self.size):
            batch = self.values[start : start + self.size].copy()
            before.append(weakref.ref(batch))
            yield batch
            del batch
            assert sum(ref() is not None for ref in before) <= 1


@pytest.mark.parametrize("shape", [(257, 3), (10, 4, 3)])
def test_classes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).random(shape, np.float32)
    for ending in ("npy", "npz"):
        target = str(tmp_path / f"out.{ending}")
        assert writing.write(target, CLASSES, iter(Batches(values, 7))) == len(values)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), values)
    with np.load(tmp_path / "out.npz") as found:
        assert sorted(found) == ["classes", "prediction", "probabilities"]
        np.testing.assert_array_equal(found["probabilities"], values)
        assert found["classes"].tolist() == ["cat", "doggy", "eel"]
        np.testing.assert_array_equal(found["prediction"], found["classes"][values.argmax(axis=-1)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npy", "out.npz"]


def test_values(tmp_path: Path) -> None:
    values = np.arange(30, dtype=np.float64).reshape(10, 3)
    for ending in ("npy", "npz"):
        assert (
            writing.write(str(tmp_path / f"v.{ending}"), Outputs(), iter(Batches(values, 4))) == 10
        )
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy", mmap_mode="r"), values)
    with np.load(tmp_path / "v.npz") as found:
        np.testing.assert_array_equal(found["prediction"], values)
