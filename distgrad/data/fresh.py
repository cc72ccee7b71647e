"""Files that a model was not trained on, prepared as its training samples were.

No statistic is taken of them: mean, deviation, scale, alphabet and classes are those of training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core.errors import DataError, UsageError
from distgrad.data import idx, series, text
from distgrad.data.arrays import MappedSource, map_npy
from distgrad.data.csvfile import listing, read_column, read_csv, read_rows
from distgrad.data.filling import filled
from distgrad.data.npz import check_pairs, read_npz
from distgrad.data.preparation import Preparation
from distgrad.data.source import ArraySource
from distgrad.data.splits import Standard, as_inputs, as_targets
from distgrad.data.table import encode_labels, read_parquet, read_parquet_rows

_COMPRESSED = ".gz"


class Fresh:
    """Reads files for a model.

    Args:
        how: its preparation.
        spec: the ``data`` section of its job: how its files were written (delimiter, header).
    """

    def __init__(self, how: Preparation, spec: Mapping[str, Any] | None = None) -> None:
        self.how = how
        spec = spec or {}
        self._csv = {"delimiter": spec.get("delimiter", ","), "header": spec.get("header", True)}
        self._gaps = bool(how.fill)

    def labelled(self, path: str, labels: str | None = None) -> ArraySource:
        """The samples ``(x, y)`` of a file; ``labels`` is the one of y, where that is another.

        Raises DataError where it cannot be read, or is not like what the model was trained on.
        """
        if self.how.kind == "text":
            codes, length = self.codes(path, text.read(path)), self.how.shape[0]
            if len(codes) <= length:
                raise DataError(
                    f"{path} has {len(codes)} characters, which is too little for a window of "
                    f"{length} and the one after it"
                )
            return text.windows(codes, length)
        if self.how.kind == "series":
            window, horizon = self.how.shape[0], self.how.target_shape[0]
            values = self.standard(self.values(path))
            if len(values) < window + horizon:
                raise DataError(
                    f"{path} has {len(values)} values, which is too little for a window of "
                    f"{window} and a horizon of {horizon}"
                )
            return series.windows(values, window, horizon)
        if self.how.kind == "table" and _ending(path) not in (".npy", ".npz"):
            return self._table(path)
        x, y = self._pair(path, labels)
        check_pairs(path, {"x": x, "y": y})
        self._check(path, x)
        if self.how.kind == "table":
            return ArraySource(self._standardized(path, x), self._targets(path, y))
        return MappedSource(path, x, y, scale=self.how.scale)

    def inputs(self, path: str, size: int) -> Iterator[np.ndarray]:
        """The inputs of a file in its order, ``size`` samples at a time; raises as `labelled`.

        A .npy file is read as it is used, so that it may be larger than memory.
        """
        if self.how.kind == "table" and _ending(path) not in (".npy", ".npz"):
            if _is_parquet(path):
                found = read_parquet_rows(path, self.how.features, size, self._gaps)
            else:
                found = read_rows(path, self.how.features, size, gaps=self._gaps, **self._csv)
            for rows in found:
                yield self._standardized(path, rows)
            return
        x = self._array(path)
        self._check(path, x)
        for start in range(0, len(x), size):
            rows = x[start : start + size]
            yield (
                self._standardized(path, rows)
                if self.how.kind == "table"
                else self._scaled(path, rows)
            )

    # Text and series

    def codes(self, name: str, characters: str) -> np.ndarray:
        """A text in the alphabet of the model. Raises DataError for characters it has no code for.

        Where the alphabet has an entry for all others, there are none.
        """
        alphabet = self.how.alphabet
        unknown = [] if "" in alphabet else sorted(set(characters) - set(alphabet))
        if unknown:
            raise DataError(
                f"{name} has characters that the model was not trained on: "
                f"{listing(list(map(repr, unknown)), 10)}"
            )
        return text.encode(characters, list(alphabet))

    def values(self, path: str) -> np.ndarray:
        """The values of a series (n,) as float64, in their own units."""
        if _ending(path) == ".npy":
            values = np.asarray(map_npy(path), np.float64)
            if values.ndim != 1 or not np.isfinite(values).all():
                raise DataError(f"{path} has shape {values.shape}; one finite value each is needed")
            return values
        return read_column(path, self.how.label, self._csv["delimiter"])

    @property
    def standard(self) -> Standard:
        """What brings values to the mean and deviation of training."""
        return Standard(np.array(self.how.mean), np.array(self.how.deviation))

    # Tables

    def _table(self, path: str) -> ArraySource:
        assert self.how.label is not None
        label, columns, gaps = self.how.label, self.how.features, self._gaps
        if _is_parquet(path):
            _, rows, labels = read_parquet(path, label, columns, gaps=gaps)
        else:
            _, rows, labels = read_csv(path, label, columns=columns, gaps=gaps, **self._csv)
        return ArraySource(self._standardized(path, rows), self._targets(path, labels))

    def _standardized(self, path: str, rows: np.ndarray) -> np.ndarray:
        if self.how.fill and rows.dtype.kind == "f":
            rows = filled(rows, self.how.fill)
        return as_inputs(path, self.standard(rows) if self.how.mean else rows)

    def _targets(self, path: str, labels: np.ndarray) -> np.ndarray:
        where, classes = f"{path}: {self.how.label or 'y'}", self.how.classes
        if classes:
            index = {name: number for number, name in enumerate(classes)}
            names = labels.astype(str).tolist() if labels.dtype.kind in "UO" else None
            if names is None:
                return as_targets(where, labels)  # numbers of classes, from a file of arrays
            for number, name in enumerate(names):
                if name not in index:
                    raise DataError(
                        f"{where} is {name!r} in row {number + 1}, which is none of the classes "
                        f"that the model knows: {listing(classes)}"
                    )
            return np.array([index[name] for name in names], np.int32)
        y, unknown = encode_labels(where, labels)
        if unknown or (y.dtype.kind == "f" and self.how.target_dtype == "int32"):
            raise DataError(
                f"{where} holds {'text' if unknown else 'fractions'}, but in training whole numbers"
                if self.how.target_dtype == "int32"
                else f"{where} holds text, but in training numbers"
            )
        return y.astype(self.how.target_dtype, copy=False)

    # Arrays

    def _pair(self, path: str, labels: str | None) -> tuple[np.ndarray, np.ndarray]:
        if _ending(path) == ".npz":
            found = read_npz(path, ("x", "y"), ("x_test", "y_test"))
            return tuple(found.values())  # type: ignore[return-value]
        x = self._array(path)
        if labels is None:
            raise UsageError(f"{path} holds inputs alone: name the file of their targets, --labels")
        return x, self._array(labels)

    def _array(self, path: str) -> np.ndarray:
        if _ending(path) == ".npy":
            return map_npy(path)
        if _ending(path) == ".npz":
            return next(iter(read_npz(path, ("x",), ("x_test",), ("arr_0",)).values()))
        if _ending(path) in (".csv", ".parquet", ".txt", ".png", ".jpg"):
            raise DataError(f"{path}: this model takes arrays: a .npy, .npz or IDX file")
        return idx.read_idx(path)

    def _check(self, path: str, x: np.ndarray) -> None:
        if not x.ndim or not len(x):
            raise DataError(f"{path} has no samples")
        if (
            len(x.shape[1:]) != len(self.how.shape)
            or any(
                wanted not in (None, size)  # a model of a .keras file may take any size
                for wanted, size in zip(self.how.shape, x.shape[1:], strict=True)
            )
        ):
            one = "; one sample needs a first dimension of 1" if x.shape == self.how.shape else ""
            raise DataError(
                f"{path}: a sample has shape {x.shape[1:]}, but the model was trained on "
                f"{self.how.shape}{one}"
            )
        # Whoever has scaled images by himself has them scaled a second time.
        whole = self.how.scale != 1 and np.dtype(self.how.raw_dtype or "f4").kind in "iu"
        if whole and x.dtype.kind == "f" and 0 < x[:64].max() <= 1:
            raise DataError(
                f"{path} holds fractions up to {x[:64].max():g}, but in training whole numbers "
                f"({self.how.raw_dtype}) that were divided by {self.how.scale:g}: save them "
                "before that"
            )

    def _scaled(self, path: str, rows: np.ndarray) -> np.ndarray:
        x = as_inputs(path, rows)
        x = x if self.how.scale == 1 else x / np.float32(self.how.scale)
        return x.astype(self.how.dtype, copy=False)


def _ending(path: str) -> str:
    """The suffix of a file, compressed or not."""
    name = Path(path)
    return (name.with_suffix("") if name.suffix == _COMPRESSED else name).suffix.lower()


def _is_parquet(path: str) -> bool:
    return _ending(path) in (".parquet", ".pq") or Path(path).expanduser().is_dir()
