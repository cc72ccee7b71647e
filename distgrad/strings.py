"""``tf.strings``, on NumPy arrays of str: no tensor holds texts, and datasets give these.

Every function takes strings, bytes (UTF-8 where no other encoding is named), lists and arrays of
them. What it makes of rows of unequal lengths, a RaggedTensor in TensorFlow, is a list of arrays
that ``to_tensor`` fills up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.texts import Texts, all_texts, as_bytes, as_strings, as_texts
from distgrad.ops.printing import show

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
    "unicode_split",
    "unicode_transcode",
    "upper",
]


class Rows(list):
    """Rows of unequal lengths: arrays of texts, tensors, or such lists again."""

    def to_tensor(
        self, default_value: Any = None, name: str | None = None, shape: Any = None
    ) -> Any:
        """All rows as one array of texts, or tensor, the shorter ones filled up at their ends.

        With ``default_value``, "" or 0 unless it is given; ``shape`` states lengths, None for that
        of the longest row.
        """
        inner = [r.to_tensor(default_value) if isinstance(r, Rows) else r for r in self]
        parts = list(map(np.asarray, inner))
        lengths = np.max([part.shape for part in parts], axis=0) if parts else [0]
        given = [None] * len(lengths) if shape is None else list(shape)[1:]
        sizes = [int(n) if own is None else own for own, n in zip(given, lengths, strict=True)]
        texts = not parts or parts[0].dtype.kind == "U"
        fill = np.asarray(("" if texts else 0) if default_value is None else default_value)
        dtype = np.result_type(fill, *parts) if texts else parts[0].dtype
        whole = np.full((len(parts), *sizes), fill, dtype)
        for row, part in zip(whole, parts, strict=True):
            kept = part[tuple(map(slice, sizes))]
            row[tuple(map(slice, kept.shape))] = kept
        return whole.view(Texts) if texts else as_tensor(whole)


def _each(function: Callable[[str], Any], value: Any, dtype: Any = str) -> np.ndarray:
    """``function`` of every text, in an array of the same shape."""
    array = as_texts(value)
    made = np.array([function(str(text)) for text in array.flat], dtype=dtype)
    return made.reshape(array.shape)


def _mapped(function: Callable[[str], str], value: Any) -> Texts:
    return _each(function, value).view(Texts)


def _pieces(cut: Callable[[str], list[str]], value: Any) -> Any:
    """The pieces of one text as an array; of an axis of texts as rows of them."""
    return _rows(lambda text: np.array(cut(text), dtype=str).view(Texts), as_texts(value))


def _rows(made: Callable[[str], Any], texts: np.ndarray) -> Any:
    return Rows(_rows(made, row) for row in texts) if texts.ndim else made(str(texts))


def lower(input: Any, encoding: str = "", name: str | None = None) -> Texts:
    """Small letters: of ASCII alone unless ``encoding`` is "utf-8"."""
    return _mapped(str.lower if encoding else lambda text: _ascii(text, str.lower), input)


def upper(input: Any, encoding: str = "", name: str | None = None) -> Texts:
    """Capitals: of ASCII alone unless ``encoding`` is "utf-8"."""
    return _mapped(str.upper if encoding else lambda text: _ascii(text, str.upper), input)


def _ascii(text: str, change: Callable[[str], str]) -> str:
    return "".join(change(c) if c.isascii() else c for c in text)


def strip(input: Any, name: str | None = None) -> Texts:
    """Without white space at the ends."""
    return _mapped(str.strip, input)


def regex_replace(
    input: Any, pattern: str, rewrite: str, replace_global: bool = True, name: str | None = None
) -> Texts:
    """Matches of ``pattern`` replaced by ``rewrite``, in which ``\\1`` is the first group.

    Raises re.error for a pattern that is none.
    """
    found = re.compile(str(as_texts(pattern)))
    made = re.sub(r"(\\\\)|\\0", lambda m: m[1] or r"\g<0>", str(as_texts(rewrite)))
    return _mapped(lambda text: found.sub(made, text, count=0 if replace_global else 1), input)


def regex_full_match(input: Any, pattern: str, name: str | None = None) -> Tensor:
    """Whether the pattern matches the whole of each text: bools."""
    found = re.compile(str(as_texts(pattern)))
    return as_tensor(_each(lambda text: found.fullmatch(text) is not None, input, bool))


def length(input: Any, unit: str = "BYTE", name: str | None = None) -> Tensor:
    """How many bytes each text has, or characters (``unit="UTF8_CHAR"``): int32."""
    if unit == "BYTE":  # of any bytes
        array = as_bytes(input)
        sizes = np.fromiter(map(len, np.asarray(array).flat), np.int32, array.size)
        return as_tensor(sizes.reshape(array.shape))
    return as_tensor(_each(lambda text: len(_units(text, unit)), input, np.int32))


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


def split(input: Any, sep: str | None = None, maxsplit: int = -1, name: str | None = None) -> Any:
    """The words of a text, an array; of an axis of texts a list of such arrays.

    Cut at white space, or at ``sep``, at most ``maxsplit`` times.
    """
    return _pieces(lambda text: text.split(sep or None, maxsplit), input)


def unicode_split(
    input: Any,
    input_encoding: str = "UTF-8",
    errors: str = "replace",
    replacement_char: int = 65533,
    name: str | None = None,
) -> Any:
    """The characters of a text, an array; of an axis of texts a list of such arrays."""
    return _pieces(list, _characters(input, input_encoding, errors, replacement_char))


def unicode_decode(
    input: Any,
    input_encoding: str = "UTF-8",
    errors: str = "replace",
    replacement_char: int = 65533,
    replace_control_characters: bool = False,
    name: str | None = None,
) -> Any:
    """The numbers of the characters of a text; of an axis of texts a list of such tensors."""
    texts = _characters(input, input_encoding, errors, replacement_char)
    return _rows(lambda text: Tensor(np.array(list(map(ord, text)), np.int32)), texts)


def unicode_decode_with_offsets(
    input: Any,
    input_encoding: str = "UTF-8",
    errors: str = "replace",
    replacement_char: int = 65533,
    replace_control_characters: bool = False,
    name: str | None = None,
) -> tuple[Any, Any]:
    """As ``unicode_decode``, and the byte, int64, at which each character begins."""
    texts = _characters(input, input_encoding, errors, replacement_char)

    def offsets(text: str) -> Tensor:
        sizes = [len(character.encode(input_encoding)) for character in text]
        return Tensor(np.cumsum([0, *sizes], dtype=np.int64)[:-1])

    return unicode_decode(texts), _rows(offsets, texts)


def unicode_encode(
    input: Any,
    output_encoding: str = "UTF-8",
    errors: str = "replace",
    replacement_char: int = 65533,
    name: str | None = None,
) -> Any:
    """The text of the numbers of its characters, which are the last axis, or a list.

    Numbers of no character become ``replacement_char``, are left out where ``errors`` is "ignore",
    and raise InvalidArgumentError where it is "strict".
    """

    def text(numbers: Any) -> Any:
        if np.ndim(numbers[0] if _size(numbers) else 0):
            return [text(row) for row in numbers]
        return "".join(map(character, numbers)).encode(output_encoding)

    def character(number: Any) -> str:
        if 0 <= number < 0xD800 or 0xDFFF < number <= 0x10FFFF:
            return chr(number)
        if errors == "strict":
            raise InvalidArgumentError(f"unicode_encode: {number} is no character")
        return chr(replacement_char) if errors == "replace" else ""

    whole = as_tensor(input).numpy() if isinstance(input, Operand) else input
    return as_strings(np.array(text(whole), object))


def unicode_transcode(
    input: Any,
    input_encoding: str,
    output_encoding: str,
    errors: str = "replace",
    replacement_char: int = 65533,
    replace_control_characters: bool = False,
    name: str | None = None,
) -> Any:
    """The texts in another encoding: bytes, but texts where they are UTF-8."""
    texts = _characters(input, input_encoding, errors, replacement_char)
    made = [str(text).encode(output_encoding) for text in texts.flat]
    return as_strings(np.array(made, object).reshape(texts.shape))


def _characters(input: Any, encoding: str, errors: str, replacement_char: int) -> np.ndarray:
    """Bytes of an encoding as an array of str. Raises InvalidArgumentError where they are no
    text and ``errors`` is "strict"."""
    array = np.asarray(as_bytes(input))
    try:
        found = [value.decode(encoding, errors) for value in array.flat]
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"no text in {encoding}: {error}") from None
    if replacement_char != 65533:
        found = [text.replace("\ufffd", chr(replacement_char)) for text in found]
    return np.array(found, str).reshape(array.shape)


def bytes_split(input: Any, name: str | None = None) -> Any:
    """As ``unicode_split``. Raises ValueError for texts whose characters are of several bytes."""
    if any(not str(text).isascii() for text in as_texts(input).flat):
        raise ValueError("bytes_split takes ASCII here, whose bytes are texts: use unicode_split")
    return _pieces(list, input)


def join(inputs: Sequence[Any], separator: str = "", name: str | None = None) -> Texts:
    """The texts in the same place of every array, joined."""
    arrays = np.broadcast_arrays(*map(as_texts, inputs))
    made = [separator.join(map(str, row)) for row in zip(*(a.flat for a in arrays), strict=True)]
    return np.array(made, dtype=str).reshape(arrays[0].shape).view(Texts)


def reduce_join(
    inputs: Any, axis: Any = None, keepdims: bool = False, separator: str = "", name: Any = None
) -> Texts:
    """The texts along ``axis``, or along several in this order (all by default), joined to one."""
    array = as_texts(inputs)
    given = reversed(range(array.ndim)) if axis is None else np.atleast_1d(axis)
    axes = tuple(int(a) % max(array.ndim, 1) for a in given)
    for one in axes:
        rows = np.moveaxis(array, one, -1)
        table = rows.reshape(math.prod(rows.shape[:-1]), rows.shape[-1])  # no -1: it may be empty
        joined = [separator.join(row) for row in table.tolist()]
        array = np.expand_dims(np.array(joined, dtype=str).reshape(rows.shape[:-1]), one)
    return (array if keepdims else np.squeeze(array, axes)).view(Texts)


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
    values = [as_strings(each) if all_texts(each) else as_tensor(each) for each in given]
    made = [show(value, summarize) + piece for value, piece in zip(values, pieces[1:], strict=True)]
    return np.array("".join([pieces[0], *made])).view(Texts)


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


def ngrams(
    data: Any,
    ngram_width: int | Sequence[int],
    separator: str = " ",
    pad_values: Any = None,
    padding_width: int | None = None,
    preserve_short_sequences: bool = False,
    name: str | None = None,
) -> Any:
    """Every ``ngram_width`` neighbours along the last axis, joined; for several widths one by one.

    ``pad_values`` (left, right), or one for both, stand before and after, ``padding_width`` times
    at most, by default as often as the width less one. Where the row is shorter than every width,
    it is one n-gram as a whole with ``preserve_short_sequences``. Raises ValueError for a width
    below 1, and for a scalar.
    """
    widths = [ngram_width] if isinstance(ngram_width, int) else list(ngram_width)
    if not widths or min(widths) < 1:
        raise ValueError(f"every ngram_width must be 1 or more, got {ngram_width!r}")
    if isinstance(data, Rows):
        how = (ngram_width, separator, pad_values, padding_width, preserve_short_sequences)
        return Rows(ngrams(row, *how) for row in data)
    array = as_texts(data)
    if not array.ndim:
        raise ValueError("ngrams needs rows of texts, not one of them")
    both = [pad_values] * 2 if isinstance(pad_values, (str, bytes)) else pad_values or ("", "")
    left, right = as_texts(list(both)).tolist()

    def padded(row: list[str], width: int) -> list[str]:
        if pad_values is None or not row:
            return row
        count = width - 1 if padding_width is None else min(padding_width, width - 1)
        return [left] * count + row + [right] * count

    def made(row: list[str]) -> np.ndarray:
        found = []
        for width in widths:
            whole = padded(row, width)
            found += [separator.join(whole[i : i + width]) for i in range(len(whole) - width + 1)]
        if not found and row and preserve_short_sequences:
            found = [separator.join(padded(row, min(widths)))]
        return np.array(found, dtype=str)

    rows = array.reshape(math.prod(array.shape[:-1]), array.shape[-1]).tolist()
    count = len(made([""] * array.shape[-1]))  # also where there is no row
    grams = np.array([made(row) for row in rows], dtype=str)
    return grams.reshape(*array.shape[:-1], count).view(Texts)


def to_number(input: Any, out_type: Any = "float32", name: str | None = None) -> Any:
    """The numbers that the texts spell, those of rows in rows. Raises ValueError for no number."""
    if isinstance(input, Rows):
        return Rows(to_number(row, out_type) for row in input)
    dtype = as_dtype(out_type).numpy_dtype
    return as_tensor(_each(float if dtype.kind == "f" else int, input, dtype))


def to_hash_bucket(input: Any, num_buckets: int, name: str | None = None) -> Tensor:
    """A number below ``num_buckets`` for each text, always the same one: int64.

    Raises InvalidArgumentError for less than one bucket.
    """
    from distgrad.keras.layers.fingerprint import murmur

    return _bucket(murmur, input, num_buckets)


def to_hash_bucket_fast(input: Any, num_buckets: int, name: str | None = None) -> Tensor:
    """As ``to_hash_bucket``, by a better hash: FarmHash."""
    from distgrad.keras.layers.fingerprint import farmhash

    return _bucket(farmhash, input, num_buckets)


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


def _bucket(hash: Callable[[bytes], int], input: Any, num_buckets: int) -> Tensor:
    if num_buckets < 1:
        raise InvalidArgumentError(f"num_buckets must be 1 or more, not {num_buckets}")
    array = as_bytes(input)
    found = [hash(text) % num_buckets for text in np.asarray(array).flat]
    return as_tensor(np.array(found, np.int64).reshape(array.shape))
