"""``reuters`` as Keras has it: newswires, and which of 46 topics each is about."""

from __future__ import annotations

from distgrad.data.ragged import read_ragged
from distgrad.keras.datasets.tables import Pair, cached, shuffled
from distgrad.keras.datasets.words import numbered, ragged, word_index

_SHA256 = "d6586e694ee56d7a4e65172e12b3e987c03096cb01eab99753921ef915959916"

_TOPICS = """
cocoa grain veg-oil earn acq wheat copper housing money-supply coffee sugar trade reserves ship
cotton carcass crude nat-gas cpi money-fx interest gnp meal-feed alum oilseed gold tin
strategic-metal livestock retail ipi iron-steel rubber heat jobs lei bop zinc orange pet-chem dlr
gas silver wpi hog lead
"""


def load_data(
    path: str = "reuters.npz",
    num_words: int | None = None,
    skip_top: int = 0,
    maxlen: int | None = None,
    test_split: float = 0.2,
    seed: int = 113,
    start_char: int | None = 1,
    oov_char: int | None = 2,
    index_from: int | None = 3,
) -> tuple[Pair, Pair]:
    """``(x_train, y_train), (x_test, y_test)``: 11228 lists of word numbers, and topics 0 to 45.

    The arguments are those of ``imdb.load_data``. Raises DataError where the file cannot be had.
    Source: Reuters-21578.
    """
    arrays = read_ragged(cached(path, "reuters.npz", _SHA256), ("x", "y"))
    order = shuffled(len(arrays["x"]), seed)
    kept = (num_words, skip_top, maxlen, start_char, oov_char, index_from)
    rows, labels = numbered(list(arrays["x"][order]), arrays["y"][order], *kept)
    first = int(len(rows) * (1 - test_split))
    return (ragged(rows[:first]), labels[:first]), (ragged(rows[first:]), labels[first:])


def get_word_index(path: str = "reuters_word_index.json") -> dict[str, int]:
    """The number of each word, from 1 on. Raises DataError where the file cannot be had."""
    return word_index(path, "reuters_word_index.json", "4d44cc38712099c9e383dc6e5f11a921")


def get_label_names() -> tuple[str, ...]:
    """The topics, in the order of their numbers."""
    return tuple(_TOPICS.split())
