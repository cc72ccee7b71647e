"""Elements of a dataset in a file: what ``save``, ``snapshot`` and ``cache(filename)`` write.

A file begins with a line of JSON: the form of an element, the number of elements, and the shapes of
their arrays, None for sizes in which elements differ. After that it has the arrays of each element,
as ``numpy.save`` writes them; for one of bytes that of their lengths, and one of all of them. It is
there as soon as it is whole, and not before.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core import files
from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import DataError, NotFoundError
from distgrad.core.texts import as_bytes, holds_texts
from distgrad.data import nest, specs
from distgrad.data.cardinality import UNKNOWN_CARDINALITY

_FORMAT = "distgrad elements 1"


def path_in(folder: Any) -> Path:
    """The file of a folder that ``Dataset.save`` names."""
    return Path(os.fspath(folder)) / "elements"


def keep(elements: Iterator[Any], path: Path) -> Iterator[Any]:
    """The same elements, which lie in the file once the last one was taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path, sync=False) as work, open(work, "wb") as file:
        form, count, room = None, 0, 0
        shapes: list[Any] = []
        for element in elements:
            arrays = list(nest.leaves(element))
            if not count:
                form, shapes = _form(element), [list(np.shape(array)) for array in arrays]
                room = len(_header(form, 0, shapes)) + 8 * sum(map(len, shapes)) + 32
                file.write(b" " * room + b"\n")
            if _form(element) != form:
                raise ValueError(f"elements differ: {_form(element)} comes after {form}")
            shapes = [*map(_common, shapes, map(np.shape, arrays))]
            count += 1
            for array in itertools.chain.from_iterable(map(_plain, arrays)):
                np.lib.format.write_array(file, array, allow_pickle=False)
            yield element
        file.seek(0)
        file.write(_header(form, count, shapes).ljust(room) + b"\n")


def announced(path: Path) -> tuple[int, Any]:
    """The number of elements in a file, and their spec where it is known; raises as ``read``."""
    with _opened(path) as file:
        form, *rest = _first_line(path, file)
    if not rest:
        return UNKNOWN_CARDINALITY, None
    count, shapes = rest
    each = iter(shapes)

    def spec_of(kind: str) -> Any:
        return specs.of_types("string" if kind == "text" else kind, next(each))

    return count, None if not count else _element(form, spec_of)


def read(path: Path) -> Iterator[Any]:
    """The elements that lie in a file. Raises NotFoundError without it, DataError for another."""
    with _opened(path) as file:
        form, *_ = _first_line(path, file)
        size = os.fstat(file.fileno()).st_size
        while file.tell() < size:
            yield _element(form, lambda kind: _array(kind, file))


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist: Dataset.save writes it") from None


def _header(form: Any, count: int, shapes: Any) -> bytes:
    return json.dumps([_FORMAT, form, count, shapes]).encode()


def _first_line(path: Path, file: Any) -> list[Any]:
    try:
        name, *rest = json.loads(file.readline())
    except ValueError:
        name = None
    if name != _FORMAT:
        raise DataError(f"{path} is no file of a dataset's elements: delete it, and save again")
    return rest


def _common(one: Any, other: Any) -> list[int | None] | None:
    """The sizes in which two shapes are alike, None for others; None for different ranks."""
    if one is None or len(one) != len(other):
        return None
    return [a if a == b else None for a, b in zip(one, other, strict=True)]


def _form(element: Any) -> Any:
    """What JSON keeps of an element: ["tuple", ...], ["dict", keys, ...], None, a dtype's name."""
    if isinstance(element, dict):
        return ["dict", list(element), *map(_form, element.values())]
    if isinstance(element, tuple):
        return ["tuple", *map(_form, element)]
    if element is None:
        return None
    array = np.asarray(element)
    if array.dtype.kind == "O" and not holds_texts(array):
        raise ValueError("an element holds a dataset or an object, which cannot be saved")
    return array.dtype.name if array.dtype.kind not in "OSU" else "text"


def _element(form: Any, leaf: Callable[[str], Any]) -> Any:
    if form is None:
        return None
    if form[0] == "dict":
        return {key: _element(part, leaf) for key, part in zip(form[1], form[2:], strict=True)}
    if form[0] == "tuple":
        return tuple(_element(part, leaf) for part in form[1:])
    return leaf(form)


def _array(kind: str, file: Any) -> np.ndarray:
    array = np.lib.format.read_array(file, allow_pickle=False)
    if kind != "text":
        return array.view(as_dtype(kind).numpy_dtype)
    if array.dtype.kind not in "SU":  # the lengths of bytes
        whole = np.lib.format.read_array(file, allow_pickle=False).tobytes()
        ends = np.cumsum(array).tolist()
        parts = [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return as_bytes(parts).reshape(array.shape)
    return array


def _plain(array: Any) -> list[np.ndarray]:
    """The array in dtypes of NumPy's own: bfloat16 as its bits, bytes as their lengths and all."""
    array = np.ascontiguousarray(array).reshape(np.shape(array))
    if array.dtype.kind == "O":
        flat = np.asarray(as_bytes(array)).ravel().tolist()
        sizes = np.array(list(map(len, flat)), np.int64).reshape(array.shape)
        return [sizes, np.frombuffer(b"".join(flat), np.uint8)]
    return [array.view(np.uint16) if array.dtype.name == "bfloat16" else array]
