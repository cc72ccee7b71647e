"""Texts cut into pieces, which are rows of unequal lengths, and put together again."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core.composite import takes_composites
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Operand
from distgrad.core.texts import Texts, as_bytes, as_strings, as_texts
from distgrad.ragged import partition
from distgrad.ragged.converting import in_rows
from distgrad.ragged.tensor import RaggedTensor

Row = list[Any]


def _of_texts(pieces: Row) -> Any:
    return as_strings(np.array(pieces, object)) if pieces else np.array([], str).view(Texts)


def _cut(texts: np.ndarray, cut: Callable[[Any], Row], whole: Callable[[Row], Any]) -> Any:
    """The pieces of one text as ``whole`` makes them of a list; of an array of texts rows of them.

    Its axes but the last are of one length.
    """
    if not texts.ndim:
        return whole(cut(texts.item()))
    return in_rows(_in_rows([cut(text) for text in texts.flat], whole), texts.shape)


def _in_each_row(cut: Callable[..., Any]) -> Callable[..., Any]:
    """``cut``, of a ragged tensor row by row."""

    @functools.wraps(cut)
    def pieces(input: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(input, RaggedTensor):
            return input.with_values(pieces(input.values, *args, **kwargs))
        return cut(input, *args, **kwargs)

    return pieces


@_in_each_row
def split(input: Any, sep: str | None = None, maxsplit: int = -1, name: str | None = None) -> Any:
    """The words of a text, an array; of an axis of texts a RaggedTensor of them.

    Cut at white space, or at ``sep``, at most ``maxsplit`` times.
    """
    return _cut(as_texts(input), lambda text: str(text).split(sep or None, maxsplit), _of_texts)


@_in_each_row
def bytes_split(input: Any, name: str | None = None) -> Any:
    """The bytes of a text, each by itself; of an axis of texts a RaggedTensor of them."""
    array = np.asarray(as_bytes(input))
    return _cut(array, lambda text: [text[i : i + 1] for i in range(len(text))], _of_texts)


@_in_each_row
def unicode_split(
    input: Any,
    input_encoding: str = "UTF-8",
    errors: str = "replace",
    replacement_char: int = 65533,
    name: str | None = None,
) -> Any:
    """The characters of a text, an array; of an axis of texts a RaggedTensor of them."""
    return _cut(_characters(input, input_encoding, errors, replacement_char), list, _of_texts)


@_in_each_row
def unicode_decode(
    input: Any,
    input_encoding: str = "UTF-8",
    errors: str = "replace",
    replacement_char: int = 65533,
    replace_control_characters: bool = False,
    name: str | None = None,
) -> Any:
    """The numbers of the characters of a text; of an axis of texts a RaggedTensor of int32."""
    texts = _characters(input, input_encoding, errors, replacement_char)
    return _cut(texts, lambda text: list(map(ord, text)), _of_ints)


def _of_ints(pieces: Row, dtype: Any = np.int32) -> Any:
    return as_tensor(np.array(pieces, dtype))


def unicode_decode_with_offsets(
    input: Any,
    input_encoding: str = "UTF-8",
    errors: str = "replace",
    replacement_char: int = 65533,
    replace_control_characters: bool = False,
    name: str | None = None,
) -> tuple[Any, Any]:
    """As ``unicode_decode``, and the byte, int64, at which each character begins."""
    how = input_encoding, errors, replacement_char
    if isinstance(input, RaggedTensor):
        both = unicode_decode_with_offsets(input.values, *how)
        return input.with_values(both[0]), input.with_values(both[1])
    texts = _characters(input, *how)

    def offsets(text: str) -> Row:
        sizes = [len(character.encode(input_encoding)) for character in text]
        return list(itertools.accumulate([0, *sizes]))[:-1]

    return unicode_decode(texts), _cut(texts, offsets, lambda row: _of_ints(row, np.int64))


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
    if isinstance(input, RaggedTensor) and len(input.shape) > 2:
        how = output_encoding, errors, replacement_char
        return input.with_values(unicode_encode(input.values, *how))

    def text(numbers: Any) -> Any:
        if np.ndim(numbers[0] if len(numbers) else 0):
            return [text(row) for row in numbers]
        return "".join(map(character, numbers)).encode(output_encoding)

    def character(number: Any) -> str:
        if 0 <= number < 0xD800 or 0xDFFF < number <= 0x10FFFF:
            return chr(number)
        if errors == "strict":
            raise InvalidArgumentError(f"unicode_encode: {number} is no character")
        return chr(replacement_char) if errors == "replace" else ""

    if isinstance(input, RaggedTensor):
        return _of_texts([text(row) for row in input.to_list()])
    whole = as_tensor(input).numpy() if isinstance(input, Operand) else input
    return as_strings(np.array(text(whole), object))


@takes_composites
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
    it is one n-gram as a whole with ``preserve_short_sequences``. Of rows of unequal lengths a
    RaggedTensor, of others an array. Raises ValueError for a width below 1, and for a scalar.
    """
    widths = [ngram_width] if isinstance(ngram_width, int) else list(ngram_width)
    if not widths or min(widths) < 1:
        raise ValueError(f"every ngram_width must be 1 or more, got {ngram_width!r}")
    if isinstance(data, RaggedTensor) and len(data.shape) > 2:
        how = (ngram_width, separator, pad_values, padding_width, preserve_short_sequences)
        return data.with_values(ngrams(data.values, *how))
    both = [pad_values] * 2 if isinstance(pad_values, (str, bytes)) else pad_values or ("", "")
    left, right = as_texts(list(both)).tolist()

    def padded(row: Row, width: int) -> Row:
        if pad_values is None or not row:
            return row
        count = width - 1 if padding_width is None else min(padding_width, width - 1)
        return [left] * count + row + [right] * count

    def made(row: Row) -> Row:
        found = []
        for width in widths:
            whole = padded(row, width)
            found += [separator.join(whole[i : i + width]) for i in range(len(whole) - width + 1)]
        if not found and row and preserve_short_sequences:
            found = [separator.join(padded(row, min(widths)))]
        return found

    if isinstance(data, RaggedTensor):
        texts, ends = as_texts(data.values).tolist(), data.row_splits.numpy().tolist()
        return _in_rows([made(texts[first:last]) for first, last in itertools.pairwise(ends)])
    array = as_texts(data)
    if not array.ndim:
        raise ValueError("ngrams needs rows of texts, not one of them")
    rows = array.reshape(math.prod(array.shape[:-1]), array.shape[-1]).tolist()
    count = len(made([""] * array.shape[-1]))  # also where there is no row
    grams = np.array([made(row) for row in rows], dtype=str)
    return grams.reshape(*array.shape[:-1], count).view(Texts)


def _in_rows(rows: list[Row], whole: Callable[[Row], Any] = _of_texts) -> RaggedTensor:
    """Lists of any lengths as rows, whose values ``whole`` makes of a list."""
    lengths = np.array([len(row) for row in rows], np.int64)
    flat = whole(list(itertools.chain.from_iterable(rows)))
    return RaggedTensor(flat, partition.of_lengths(lengths))
