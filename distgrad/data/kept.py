"""Elements of a dataset in a file: what ``save``, ``snapshot`` and ``cache(filename)`` write.

A file begins with a line of JSON, the form of an element, and has the arrays of each element after
that, as ``numpy.save`` writes them. It is there as soon as it is whole, and not before.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import DataError, NotFoundError
from distgrad.data import nest

_FORMAT = "distgrad elements 1"


def path_in(folder: Any) -> Path:
    """The file of a folder that ``Dataset.save`` names."""
    return Path(os.fspath(folder)) / "elements"


def keep(elements: Iterator[Any], path: Path) -> Iterator[Any]:
    """The same elements, which lie in the file once the last one was taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            form = None
            for element in elements:
                if form is None:
                    form = _form(element)
                    file.write(json.dumps([_FORMAT, form]).encode() + b"\n")
                if _form(element) != form:
                    raise ValueError(f"elements differ: {_form(element)} comes after {form}")
                for array in nest.leaves(element):
                    np.lib.format.write_array(file, _plain(array), allow_pickle=False)
                yield element
            if form is None:
                file.write(json.dumps([_FORMAT, None]).encode() + b"\n")
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read(path: Path) -> Iterator[Any]:
    """The elements that lie in a file. Raises NotFoundError without it, DataError for another."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist: Dataset.save writes it") from None
    with file:
        try:
            name, form = json.loads(file.readline())
        except ValueError:
            name = None
        if name != _FORMAT:
            raise DataError(f"{path} is no file of a dataset's elements: delete it, and save again")
        size = os.fstat(file.fileno()).st_size
        while file.tell() < size:
            yield _element(form, lambda: np.lib.format.read_array(file, allow_pickle=False))


def _form(element: Any) -> Any:
    """What JSON keeps of an element: ["tuple", ...], ["dict", keys, ...], None, a dtype's name."""
    if isinstance(element, dict):
        return ["dict", list(element), *map(_form, element.values())]
    if isinstance(element, tuple):
        return ["tuple", *map(_form, element)]
    if element is None:
        return None
    array = np.asarray(element)
    if array.dtype.kind == "O":
        raise ValueError("an element holds a dataset or an object, which cannot be saved")
    return array.dtype.name if array.dtype.kind != "U" else "text"


def _element(form: Any, array: Callable[[], np.ndarray]) -> Any:
    if form is None:
        return None
    if form[0] == "dict":
        return {key: _element(part, array) for key, part in zip(form[1], form[2:], strict=True)}
    if form[0] == "tuple":
        return tuple(_element(part, array) for part in form[1:])
    return array() if form == "text" else array().view(as_dtype(form).numpy_dtype)


def _plain(array: Any) -> np.ndarray:
    """The array in a dtype of NumPy's own: bfloat16 as its bits."""
    array = np.ascontiguousarray(array).reshape(np.shape(array))
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array
