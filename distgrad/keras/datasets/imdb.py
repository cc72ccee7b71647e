"""``imdb`` as Keras has it: reviews of films, and whether they are favourable."""

from __future__ import annotations

import numpy as np

from distgrad.data.ragged import read_ragged
from distgrad.keras.datasets.tables import Pair, cached
from distgrad.keras.datasets.words import numbered, ragged, word_index

_SHA256 = "69664113be75683a8fe16e3ed0ab59fda8886cb3cd7ada244f7d9544e4676b9f"
_KEYS = ("x_train", "y_train", "x_test", "y_test")


def load_data(
    path: str = "imdb.npz",
    num_words: int | None = None,
    skip_top: int = 0,
    maxlen: int | None = None,
    seed: int = 113,
    start_char: int | None = 1,
    oov_char: int | None = 2,
    index_from: int | None = 3,
) -> tuple[Pair, Pair]:
    """``(x_train, y_train), (x_test, y_test)``: 25000 lists of word numbers each, labels 0 or 1.

    The commonest word has the number 1 and stands as ``1 + index_from``; words from ``num_words``
    on, and below ``skip_top``, are ``oov_char``. Lists of ``maxlen`` numbers or more are left out.
    Downloaded to ``~/.keras/datasets`` once, with its hash verified; raises DataError where it
    cannot be had. Source: Maas et al., 2011.
    """
    arrays = read_ragged(cached(path, "imdb.npz", _SHA256), _KEYS)
    texts, labels = [], []  # with the part that each text belongs to, 0 or 1
    random = np.random.RandomState(seed)
    for number, part in enumerate(("train", "test")):
        order = np.arange(len(arrays[f"x_{part}"]))
        random.shuffle(order)
        texts += list(arrays[f"x_{part}"][order])
        labels += [(label, number) for label in arrays[f"y_{part}"][order]]
    kept = (num_words, skip_top, maxlen, start_char, oov_char, index_from)
    rows, found = numbered(texts, np.array(labels), *kept)
    first = int((found[:, 1] == 0).sum())
    x, y = ragged(rows), found[:, 0]
    return (x[:first], y[:first]), (x[first:], y[first:])


def get_word_index(path: str = "imdb_word_index.json") -> dict[str, int]:
    """The number of each word, from 1 on. Raises DataError where the file cannot be had."""
    return word_index(path, "imdb_word_index.json", "bfafd718b763782e994055a2d397834f")
