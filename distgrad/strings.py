"""``tf.strings``, on NumPy arrays of str: no tensor holds texts, and datasets give these.

Every function takes strings, bytes (UTF-8 where no other encoding is named), lists, arrays and
ragged tensors of them.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core.composite import of_composites, takes_composites
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Tensor
from distgrad.core.texts import Texts, as_bytes, as_strings, as_texts
from distgrad.data.packaged import read_packaged
from distgrad.ops.host import on_host
from distgrad.ops.printing import show
from distgrad.ragged.elementwise import elementwise
from distgrad.ragged.reducing import reduced
from distgrad.ragged.tensor import RaggedTensor, as_tensor_or_ragged
from distgrad.ragged.texts import (
    bytes_split,
    ngrams,
    split,
    unicode_decode,
    unicode_decode_with_offsets,
    unicode_encode,
    unicode_split,
    unicode_transcode,
)

__all__ = [
    "as_string",
    "bytes_split",
    "format",
    "join",
    "length",
    "lower",
    "ngrams",
    "reduce_join",
    "regex_full_match",
    "regex_replace",
    "split",
    "strip",
    "substr",
    "to_hash_bucket",
    "to_hash_bucket_fast",
    "to_hash_bucket_strong",
    "to_number",
    "unicode_decode",
    "unicode_decode_with_offsets",
    "unicode_encode",
    "unicode_script",
    "unicode_split",
    "unicode_transcode",
    "upper",
]


def _each(function: Callable[[str], Any], value: Any, dtype: Any = str) -> np.ndarray:
    """``function`` of every text, in an array of the same shape."""
    array = as_texts(value)
    made = np.array([function(str(text)) for text in array.flat], dtype=dtype)
    return made.reshape(array.shape)


def _mapped(function: Callable[[str], str], value: Any) -> Texts:
    return _each(function, value).view(Texts)


@takes_composites
def lower(input: Any, encoding: str = "", name: str | None = None) -> Texts:
    """Small letters: of ASCII alone unless ``encoding`` is "utf-8"."""
    return _mapped(str.lower if encoding else lambda text: _ascii(text, str.lower), input)


@takes_composites
def upper(input: Any, encoding: str = "", name: str | None = None) -> Texts:
    """Capitals: of ASCII alone unless ``encoding`` is "utf-8"."""
    return _mapped(str.upper if encoding else lambda text: _ascii(text, str.upper), input)


def _ascii(text: str, change: Callable[[str], str]) -> str:
    return "".join(change(c) if c.isascii() else c for c in text)


@takes_composites
def strip(input: Any, name: str | None = None) -> Texts:
    """Without white space at the ends."""
    return _mapped(str.strip, input)


@takes_composites
def regex_replace(
    input: Any, pattern: str, rewrite: str, replace_global: bool = True, name: str | None = None
) -> Texts:
    """Matches of ``pattern`` replaced by ``rewrite``, in which ``\\1`` is the first group.

    Raises re.error for a pattern that is none.
    """
    found = re.compile(str(as_texts(pattern)))
    made = re.sub(r"(\\\\)|\\0", lambda m: m[1] or r"\g<0>", str(as_texts(rewrite)))
    return _mapped(lambda text: found.sub(made, text, count=0 if replace_global else 1), input)


@takes_composites
def regex_full_match(input: Any, pattern: str, name: str | None = None) -> Tensor:
    """Whether the pattern matches the whole of each text: bools."""
    found = re.compile(str(as_texts(pattern)))
    return as_tensor(_each(lambda text: found.fullmatch(text) is not None, input, bool))


@takes_composites
def length(input: Any, unit: str = "BYTE", name: str | None = None) -> Tensor:
    """How many bytes each text has, or characters (``unit="UTF8_CHAR"``): int32."""
    if unit == "BYTE":  # of any bytes
        array = as_bytes(input)
        sizes = np.fromiter(map(len, np.asarray(array).flat), np.int32, array.size)
        return as_tensor(sizes.reshape(array.shape))
    return as_tensor(_each(lambda text: len(_units(text, unit)), input, np.int32))


@takes_composites
def substr(input: Any, pos: Any, len: Any, unit: str = "BYTE", name: str | None = None) -> Any:
    """``len`` bytes of each text from ``pos`` on, or characters (``unit="UTF8_CHAR"``).

    Raises InvalidArgumentError for a position outside a text.
    """
    array = np.asarray(as_bytes(input) if unit == "BYTE" else as_texts(input))
    array, starts, sizes = np.broadcast_arrays(array, np.asarray(pos), np.asarray(len))
    made = np.empty(array.shape, object)
    for place, (text, start, size) in enumerate(
        zip(array.flat, starts.flat, sizes.flat, strict=True)
    ):
        units = text if unit == "BYTE" else _units(str(text), unit)
        if abs(start) > _size(units):
            raise InvalidArgumentError(f"pos {start} out of range for string {units!r}")
        first = int(start) if start >= 0 else int(start) + _size(units)
        made.flat[place] = units[first : first + int(size)]
    return as_strings(made)


def _size(units: Any) -> int:  # (`len` is an argument's name in TensorFlow)
    return len(units)


def _units(text: str, unit: str) -> Any:
    if unit not in ("BYTE", "UTF8_CHAR"):
        raise ValueError(f"unit must be 'BYTE' or 'UTF8_CHAR', not {unit!r}")
    return text.encode("utf-8") if unit == "BYTE" else text


def join(inputs: Sequence[Any], separator: str = "", name: str | None = None) -> Texts:
    """The texts in the same place of every array, joined."""
    if any(isinstance(each, RaggedTensor) for each in inputs):
        return elementwise(lambda *texts: join(texts, separator), *inputs)
    arrays = np.broadcast_arrays(*map(as_texts, inputs))
    made = [separator.join(map(str, row)) for row in zip(*(a.flat for a in arrays), strict=True)]
    return np.array(made, dtype=str).reshape(arrays[0].shape).view(Texts)


def reduce_join(
    inputs: Any, axis: Any = None, keepdims: bool = False, separator: str = "", name: Any = None
) -> Texts:
    """The texts along ``axis``, or along several in this order (all by default), joined to one."""
    if isinstance(inputs, RaggedTensor):
        dense = functools.partial(reduce_join, separator=separator)
        return reduced(dense, functools.partial(_joined, separator), inputs, axis, keepdims)
    array = as_texts(inputs)
    given = reversed(range(array.ndim)) if axis is None else np.atleast_1d(axis)
    axes = tuple(int(a) % max(array.ndim, 1) for a in given)
    for one in axes:
        rows = np.moveaxis(array, one, -1)
        table = rows.reshape(math.prod(rows.shape[:-1]), rows.shape[-1])  # no -1: it may be empty
        joined = [separator.join(row) for row in table.tolist()]
        array = np.expand_dims(np.array(joined, dtype=str).reshape(rows.shape[:-1]), one)
    return (array if keepdims else np.squeeze(array, axes)).view(Texts)


def _joined(separator: str, texts: Any, rows: np.ndarray, count: int) -> Any:
    """The texts of each row as one."""
    made: list[list[str]] = [[] for _ in range(count)]
    for text, row in zip(as_texts(texts).tolist(), rows.tolist(), strict=True):
        made[row].append(text)
    return as_strings(np.array(list(map(separator.join, made)), dtype=str))


def format(
    template: str, inputs: Any, placeholder: str = "{}", summarize: int = 3, name: str | None = None
) -> Texts:
    """The template with each placeholder replaced by one of the inputs, as ``tf.print`` writes it.

    ``summarize`` is the number of elements shown at each end of an axis, -1 for all. Raises
    ValueError unless there are as many placeholders as inputs.
    """
    given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    pieces = template.split(placeholder)
    if len(pieces) - 1 != len(given):
        raise ValueError(
            f"the template has {len(pieces) - 1} placeholders {placeholder!r} for {len(given)} "
            f"inputs: {template!r}"
        )
    values = [as_tensor_or_ragged(each) for each in given]
    made = [show(value, summarize) + piece for value, piece in zip(values, pieces[1:], strict=True)]
    return np.array("".join([pieces[0], *made])).view(Texts)


@takes_composites
def as_string(
    input: Any,
    precision: int = -1,
    scientific: bool = False,
    shortest: bool = False,
    width: int = -1,
    fill: str = "",
    name: str | None = None,
) -> Texts:
    """Numbers as texts: integers whole, floats with six digits or ``precision`` of them."""
    array = as_tensor(input).numpy()
    kind = "e" if scientific else "g" if shortest else "f"
    digits = "" if precision < 0 else f".{precision}"

    def text(number: Any) -> str:
        if array.dtype.kind == "b":
            made = str(bool(number)).lower()
        else:
            made = f"%{digits}{kind}" % number if array.dtype.kind == "f" else str(int(number))
        return made.rjust(width, fill or " ") if fill != "0" else made.zfill(width)

    made = np.array([text(number) for number in np.asarray(array).flat], dtype=str)
    return made.reshape(np.shape(array)).view(Texts)


@takes_composites
def to_number(input: Any, out_type: Any = "float32", name: str | None = None) -> Any:
    """The numbers that the texts spell. Raises ValueError for no number."""
    dtype = as_dtype(out_type).numpy_dtype
    return as_tensor(_each(float if dtype.kind == "f" else int, input, dtype))


@takes_composites
def to_hash_bucket(input: Any, num_buckets: int, name: str | None = None) -> Tensor:
    """A number below ``num_buckets`` for each text, always the same one: int64.

    Raises InvalidArgumentError for less than one bucket.
    """
    from distgrad.keras.layers.fingerprint import murmur

    return _bucket(murmur, input, num_buckets)


@takes_composites
def to_hash_bucket_fast(input: Any, num_buckets: int, name: str | None = None) -> Tensor:
    """As ``to_hash_bucket``, by a better hash: FarmHash."""
    from distgrad.keras.layers.fingerprint import farmhash

    return _bucket(farmhash, input, num_buckets)


@takes_composites
def to_hash_bucket_strong(
    input: Any, num_buckets: int, key: Sequence[int], name: str | None = None
) -> Tensor:
    """As ``to_hash_bucket``, by a secret ``key`` of two numbers.

    Raises InvalidArgumentError for another key, too.
    """
    from distgrad.keras.layers.fingerprint import siphash

    if _size(key) != 2:
        raise InvalidArgumentError(f"a key is two numbers, not {key!r}")
    return _bucket(lambda text: siphash(text, key), input, num_buckets)


@takes_composites
def unicode_script(input: Any, name: str | None = None) -> Tensor:
    """The scripts of characters: int32 numbers of ICU (25 is Latin) for their int32 numbers.

    What is no character has the script -1. Raises InvalidArgumentError for another dtype.
    """
    characters = as_tensor(input)
    if characters.dtype != "int32":
        raise InvalidArgumentError(
            f"unicode_script takes int32 numbers of characters, not {characters.dtype.name}"
        )
    firsts, scripts = _scripts()

    def found(numbers: Any) -> np.ndarray:
        return scripts[np.searchsorted(firsts, np.asarray(numbers), side="right")]

    return on_host(found, characters)


@functools.cache
def _scripts() -> tuple[np.ndarray, np.ndarray]:
    """The first characters of ranges, and the script of each, after that of what lies before."""
    table = read_packaged(
        "unicode_scripts.csv.gz",
        lambda path: np.loadtxt(path, np.int32, delimiter=",", skiprows=1),
    )
    firsts, scripts = np.append(table, [[0x110000, -1]], 0).astype(np.int32).T
    return firsts, np.append(np.int32(-1), scripts)


def _bucket(hash: Callable[[bytes], int], input: Any, num_buckets: int) -> Tensor:
    if num_buckets < 1:
        raise InvalidArgumentError(f"num_buckets must be 1 or more, not {num_buckets}")
    array = as_bytes(input)
    found = [hash(text) % num_buckets for text in np.asarray(array).flat]
    return as_tensor(np.array(found, np.int64).reshape(array.shape))


@of_composites(to_hash_bucket_strong)
def _hashed_rows(input: RaggedTensor, *how: Any, **more: Any) -> RaggedTensor:
    # (Its key is a list, but no operand.)
    return input.with_flat_values(to_hash_bucket_strong(input.flat_values, *how, **more))
