"""``tf.lookup``: tables from keys to values, either of them texts or numbers.

Texts are NumPy arrays of str, lists or single ones, as in ``tf.strings``; numbers are tensors,
which a captured function looks up anew at each replay.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import DType, int64, of_input, string
from distgrad.core.errors import InvalidArgumentError, NotFoundError, SignatureError
from distgrad.core.op_errors import FailedPreconditionError
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.texts import Texts, as_texts, dtype_of, holds_texts
from distgrad.ops.host import on_host

__all__ = [
    "KeyValueTensorInitializer",
    "StaticHashTable",
    "StaticVocabularyTable",
    "TextFileIndex",
    "TextFileInitializer",
    "experimental",
]


def _array(role: str, values: Any, dtype: DType | None) -> np.ndarray:
    """Keys or values on the host. Raises SignatureError for a tensor or texts of another dtype."""
    if isinstance(values, Operand):
        if dtype is not None and values.dtype != dtype:
            raise SignatureError(f"{role} must be {dtype.name}, not {values.dtype.name}")
        return np.asarray(values)
    array = np.asarray(values)
    texts = holds_texts(array) and (array.size > 0 or dtype is string)
    if dtype is not None and texts != (dtype is string):
        raise SignatureError(f"{role} must be {dtype.name}, not {values!r}")
    if texts:
        return as_texts(array)
    return np.asarray(as_tensor(values, dtype=dtype and dtype.numpy_dtype))


class KeyValueTensorInitializer:
    """The keys of a table and their values, one for each; dtypes are theirs unless given.

    Raises InvalidArgumentError where there are not as many of both.
    """

    def __init__(
        self,
        keys: Any,
        values: Any,
        key_dtype: Any = None,
        value_dtype: Any = None,
        name: str | None = None,
    ) -> None:
        self._keys = _array("keys", keys, None if key_dtype is None else of_input(key_dtype))
        self._values = _array(
            "values", values, None if value_dtype is None else of_input(value_dtype)
        )
        self.key_dtype, self.value_dtype = dtype_of(self._keys), dtype_of(self._values)
        if self._keys.shape != self._values.shape:
            shapes = f"{self._keys.shape} and {self._values.shape}"
            raise InvalidArgumentError(f"keys and values differ in shape: {shapes}")

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """Each key with its value."""
        return zip(self._keys.ravel().tolist(), self._values.ravel(), strict=True)


class TextFileIndex:
    """What of a line is a key or a value, beside the numbers of columns."""

    WHOLE_LINE = -2
    LINE_NUMBER = -1


class TextFileInitializer:
    """A key and a value in each line of a file: columns, the whole line, or its number.

    Numbers of lines count from ``value_index_offset``; ``vocab_size`` lines are read, all for None.
    Raises NotFoundError without the file, InvalidArgumentError for dtypes that do not fit what is
    read, for fewer lines or columns, and for a field that is no number where one is to be.
    """

    def __init__(
        self,
        filename: Any,
        key_dtype: Any,
        key_index: int,
        value_dtype: Any,
        value_index: int,
        vocab_size: int | None = None,
        delimiter: str = "\t",
        name: str | None = None,
        value_index_offset: int = 0,
    ) -> None:
        self.key_dtype, self.value_dtype = of_input(key_dtype), of_input(value_dtype)
        for dtype, index in ((self.key_dtype, key_index), (self.value_dtype, value_index)):
            if index == TextFileIndex.LINE_NUMBER and not dtype.is_integer:
                raise InvalidArgumentError(f"the number of a line is int64, not {dtype.name}")
            if index == TextFileIndex.WHOLE_LINE and dtype is not string:
                raise InvalidArgumentError(f"a whole line is text, not {dtype.name}")
        self._path, self._delimiter = str(filename), delimiter
        self._columns = (
            (key_index, self.key_dtype, 0),
            (value_index, self.value_dtype, value_index_offset),
        )
        self._many = vocab_size

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """Each key with its value."""
        try:
            with open(self._path, encoding="utf-8") as file:
                lines = [line.rstrip("\r\n") for line in file]
        except FileNotFoundError:
            raise NotFoundError(f"{self._path}; No such file or directory") from None
        if self._many is not None and len(lines) < self._many:
            raise InvalidArgumentError(
                f"{self._path} has {len(lines)} lines, and vocab_size is {self._many}"
            )
        for number, line in enumerate(lines[: self._many]):
            key, value = (self._field(number, line, *column) for column in self._columns)
            yield key, value

    def _field(self, number: int, line: str, index: int, dtype: DType, offset: int) -> Any:
        if index == TextFileIndex.LINE_NUMBER:
            return number + offset
        if index == TextFileIndex.WHOLE_LINE:
            return line
        fields = line.split(self._delimiter)
        place = f"{self._path}, line {number} ({line!r})"
        if index >= len(fields):
            raise InvalidArgumentError(f"{place}: no column {index}, there are {len(fields)}")
        if dtype is string:
            return fields[index]
        try:
            return (int if dtype.is_integer else float)(fields[index])
        except ValueError:
            message = f"{place}: {fields[index]!r} is no {dtype.name}"
            raise InvalidArgumentError(message) from None


class _Table:
    """Values by their keys, and one for all other keys."""

    def __init__(self, key_dtype: DType, value_dtype: DType, default_value: Any, name: str) -> None:
        self.key_dtype, self.value_dtype, self.name = key_dtype, value_dtype, name
        self._default = _array("default_value", default_value, value_dtype)
        self._rows: dict[Any, Any] = {}

    @property
    def default_value(self) -> Any:
        """What keys have that are not in the table."""
        return self._given(self._default)

    def _given(self, array: np.ndarray) -> Any:
        return array.view(Texts) if array.dtype.kind == "U" else Tensor(array)

    def lookup(self, keys: Any, name: str | None = None) -> Any:
        """The values of keys: a tensor, or an array of texts.

        Raises TypeError for keys of another dtype, and ValueError where texts would be looked up
        by the numbers of a captured function, which holds no texts.
        """
        return self._look(keys, self._found)

    def __getitem__(self, keys: Any) -> Any:
        return self.lookup(keys)

    def _look(self, keys: Any, find: Any) -> Any:
        if self.key_dtype is string:
            return self._given(find(_array("keys", keys, string)))
        if recording.per_thread.capture is None:
            return self._given(find(_array("keys", keys, self.key_dtype)))
        if self.value_dtype is string:
            raise ValueError(f"{self.name!r} gives texts, which a captured function cannot hold")
        tensor = keys if isinstance(keys, Operand) else as_tensor(keys, dtype=self.key_dtype)
        if tensor.dtype != self.key_dtype:
            raise SignatureError(f"keys must be {self.key_dtype.name}, not {tensor.dtype.name}")
        return on_host(lambda given: find(np.asarray(given)), tensor)

    def _found(self, keys: np.ndarray) -> np.ndarray:
        return self._as_values(
            [self._rows.get(k, self._default) for k in keys.ravel().tolist()], keys
        )

    def _as_values(self, rows: list[Any], keys: np.ndarray) -> np.ndarray:
        dtype = str if self.value_dtype is string else self.value_dtype.numpy_dtype
        return np.array(rows, dtype).reshape(keys.shape + self._default.shape)

    def size(self, name: str | None = None) -> Tensor:
        """How many keys there are: int64."""
        if recording.per_thread.capture is None:
            return as_tensor(len(self._rows), dtype=np.int64)
        return on_host(lambda: np.int64(len(self._rows)))

    def export(self, name: str | None = None) -> tuple[Any, Any]:
        """All keys, and their values."""
        keys = np.array(
            list(self._rows), str if self.key_dtype is string else self.key_dtype.numpy_dtype
        )
        return self._given(keys), self._given(self._as_values(list(self._rows.values()), keys))


class StaticHashTable(_Table):
    """A table of an initializer's keys and values, ``default_value`` for all other keys.

    Raises FailedPreconditionError for a key with two values.
    """

    def __init__(
        self,
        initializer: Any,
        default_value: Any,
        name: str | None = None,
        experimental_is_anonymous: bool = False,
    ) -> None:
        super().__init__(
            initializer.key_dtype, initializer.value_dtype, default_value, name or "hash_table"
        )
        for key, value in initializer.pairs():
            if self._rows.setdefault(key, value) != value:
                raise FailedPreconditionError(
                    f"key {key!r} has two values: {self._rows[key]} and {value}"
                )


class StaticVocabularyTable(_Table):
    """Numbers of keys from an initializer; all other keys are shared out among further numbers.

    There are ``num_oov_buckets`` of these, and a key's follows from its hash, as in TensorFlow.
    Without an initializer all keys are. Raises ValueError for buckets below 1, TypeError for dtypes
    other than int64 and, of keys, string.
    """

    def __init__(
        self,
        initializer: Any,
        num_oov_buckets: int,
        lookup_key_dtype: Any = None,
        name: str | None = None,
        experimental_is_anonymous: bool = False,
    ) -> None:
        if num_oov_buckets <= 0:
            raise ValueError("num_oov_buckets must be above 0; use StaticHashTable")
        given = None if lookup_key_dtype is None else of_input(lookup_key_dtype)
        key_dtype = given or (string if initializer is None else initializer.key_dtype)
        super().__init__(key_dtype, int64, -1, name or "hash_table")
        self._buckets = int(num_oov_buckets)
        if initializer is None:
            return
        if initializer.value_dtype != int64:
            raise TypeError(f"values must be int64, not {initializer.value_dtype.name}")
        if initializer.key_dtype not in (int64, string):
            raise TypeError(f"keys must be int64 or string, not {initializer.key_dtype.name}")
        if (key_dtype is string) != (initializer.key_dtype is string):
            raise TypeError(f"keys are {initializer.key_dtype.name}, looked up {key_dtype.name}")
        self._rows = StaticHashTable(initializer, -1)._rows

    def _found(self, keys: np.ndarray) -> np.ndarray:
        from distgrad.keras.layers.fingerprint import farmhash

        known = len(self._rows)
        found = [
            self._rows[key]
            if key in self._rows
            else known + farmhash(str(key).encode()) % self._buckets
            for key in keys.ravel().tolist()
        ]
        return self._as_values(found, keys)

    def size(self, name: str | None = None) -> Tensor:
        """How many numbers there are, those of the buckets as well: int64."""
        return as_tensor(len(self._rows) + self._buckets, dtype=np.int64)


class MutableHashTable(_Table):
    """A table that keys are inserted into and removed from; values may be arrays of one shape."""

    def __init__(
        self,
        key_dtype: Any,
        value_dtype: Any,
        default_value: Any,
        name: str = "MutableHashTable",
        checkpoint: bool = True,
        experimental_is_anonymous: bool = False,
    ) -> None:
        super().__init__(of_input(key_dtype), of_input(value_dtype), default_value, name)

    def insert(self, keys: Any, values: Any, name: str | None = None) -> None:
        """Gives keys these values, in place of those that they had.

        Raises TypeError for other dtypes, InvalidArgumentError for values of another shape.
        """
        recording.call(self._insert, keys, values)

    def _insert(self, keys: Any, values: Any) -> None:
        found = _array("keys", keys, self.key_dtype)
        rows = _array("values", values, self.value_dtype)
        if rows.shape != found.shape + self._default.shape:
            raise InvalidArgumentError(
                f"values of shape {rows.shape} do not fit keys of shape {found.shape} and a "
                f"default_value of shape {self._default.shape}"
            )
        flat = rows.reshape(found.size, *self._default.shape)
        self._rows.update(zip(found.ravel().tolist(), flat.copy(), strict=True))

    def remove(self, keys: Any, name: str | None = None) -> None:
        """Takes keys out; those that are not there are passed over."""
        recording.call(self._remove, keys)

    def _remove(self, keys: Any) -> None:
        for key in _array("keys", keys, self.key_dtype).ravel().tolist():
            self._rows.pop(key, None)

    def lookup(  # type: ignore[override]
        self, keys: Any, dynamic_default_values: Any = None, name: str | None = None
    ) -> Any:
        """The values of keys; ``dynamic_default_values`` holds one for each key that has none."""
        if dynamic_default_values is None:
            return self._look(keys, self._found)
        others = _array("dynamic_default_values", dynamic_default_values, self.value_dtype)

        def find(given: np.ndarray) -> np.ndarray:
            wide = np.broadcast_to(others, given.shape + self._default.shape)
            each = zip(
                given.ravel().tolist(), wide.reshape(given.size, *self._default.shape), strict=True
            )
            return self._as_values([self._rows.get(key, other) for key, other in each], given)

        return self._look(keys, find)


class DenseHashTable(MutableHashTable):
    """As `MutableHashTable`; two keys, ``empty_key`` and ``deleted_key``, may not be used."""

    def __init__(
        self,
        key_dtype: Any,
        value_dtype: Any,
        default_value: Any,
        empty_key: Any,
        deleted_key: Any,
        initial_num_buckets: int | None = None,
        name: str = "MutableDenseHashTable",
        checkpoint: bool = True,
        experimental_is_anonymous: bool = False,
    ) -> None:
        super().__init__(key_dtype, value_dtype, default_value, name)
        kept = {"empty_key": empty_key, "deleted_key": deleted_key}
        self._kept = {_array(n, key, self.key_dtype).item(): n for n, key in kept.items()}
        if len(self._kept) < 2:
            raise InvalidArgumentError("empty_key and deleted_key must differ")

    def _allowed(self, keys: Any) -> np.ndarray:
        array = _array("keys", keys, self.key_dtype)
        for key, name in self._kept.items():
            if key in array.ravel().tolist():
                raise InvalidArgumentError(f"the {name} {key!r} cannot be a key")
        return array

    def _insert(self, keys: Any, values: Any) -> None:
        super()._insert(self._allowed(keys), values)

    def _remove(self, keys: Any) -> None:
        super()._remove(self._allowed(keys))

    def _look(self, keys: Any, find: Any) -> Any:
        return super()._look(keys, lambda given: find(self._allowed(given)))

    insert_or_assign, erase = MutableHashTable.insert, MutableHashTable.remove


experimental = SimpleNamespace(DenseHashTable=DenseHashTable, MutableHashTable=MutableHashTable)
