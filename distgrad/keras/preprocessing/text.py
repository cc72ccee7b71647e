"""``keras.preprocessing.text``: the old `Tokenizer`, of words or characters as numbers.

New code has ``keras.layers.TextVectorization``, which a model can hold.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

__all__ = ["Tokenizer", "hashing_trick", "one_hot", "text_to_word_sequence", "tokenizer_from_json"]

_FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'


def text_to_word_sequence(
    input_text: str, filters: str = _FILTERS, lower: bool = True, split: str = " "
) -> list[str]:
    """The words of a text, between characters of ``filters`` and the text ``split``."""
    text = input_text.lower() if lower else input_text
    text = text.translate({ord(each): split for each in filters})
    return [word for word in text.split(split) if word]


def hashing_trick(
    text: str,
    n: int,
    hash_function: Any = None,
    filters: str = _FILTERS,
    lower: bool = True,
    split: str = " ",
    analyzer: Callable[[str], Iterable[str]] | None = None,
) -> list[int]:
    """Each word as a number from 1 to ``n - 1``, which several words may share.

    ``hash_function`` is "md5", a function, or Python's ``hash``, which differs from run to run.
    """
    if hash_function == "md5":

        def hash_function(word: str) -> int:
            return int(hashlib.md5(word.encode(), usedforsecurity=False).hexdigest(), 16)

    number = hash_function or hash
    words = analyzer(text) if analyzer else text_to_word_sequence(text, filters, lower, split)
    return [number(word) % (n - 1) + 1 for word in words]


def one_hot(
    input_text: str,
    n: int,
    filters: str = _FILTERS,
    lower: bool = True,
    split: str = " ",
    analyzer: Callable[[str], Iterable[str]] | None = None,
) -> list[int]:
    """``hashing_trick`` by Python's ``hash``."""
    return hashing_trick(input_text, n, None, filters, lower, split, analyzer)


class Tokenizer:
    """Words as their ranks among all words of the texts that it was fitted on, 1 for the commonest.

    ``num_words`` keeps the ranks below it. ``oov_token``, of rank 1 then, stands for all others,
    which are left out without it. ``char_level`` takes characters for words; a text that is a list
    has its words already. ``analyzer`` makes words of a text.
    """

    def __init__(
        self,
        num_words: int | None = None,
        filters: str = _FILTERS,
        lower: bool = True,
        split: str = " ",
        char_level: bool = False,
        oov_token: str | None = None,
        analyzer: Callable[[str], Iterable[str]] | None = None,
        document_count: int = 0,
    ) -> None:
        self.num_words, self.oov_token, self.char_level = num_words, oov_token, char_level
        self.filters, self.lower, self.split, self.analyzer = filters, lower, split, analyzer
        self.document_count = document_count
        self.word_counts: dict[str, int] = OrderedDict()
        self.word_docs: dict[str, int] = defaultdict(int)
        self.index_docs: dict[int, int] = defaultdict(int)
        self.word_index: dict[str, int] = {}
        self.index_word: dict[int, str] = {}

    def _words(self, text: Any) -> Sequence[str]:
        if isinstance(text, list):
            return [word.lower() for word in text] if self.lower else text
        if self.char_level:
            return text.lower() if self.lower else text
        if self.analyzer is not None:
            return list(self.analyzer(text))
        return text_to_word_sequence(text, self.filters, self.lower, self.split)

    def fit_on_texts(self, texts: Iterable[Any]) -> None:
        """Counts the words of these texts, too, and ranks all of them anew."""
        for text in texts:
            self.document_count += 1
            words = self._words(text)
            for word in words:
                self.word_counts[word] = self.word_counts.get(word, 0) + 1
            for word in set(words):
                self.word_docs[word] += 1
        ranked = sorted(self.word_counts, key=lambda word: -self.word_counts[word])
        if self.oov_token is not None:
            ranked.insert(0, self.oov_token)
        self.word_index = {word: rank for rank, word in enumerate(ranked, 1)}
        self.index_word = {rank: word for word, rank in self.word_index.items()}
        for word, count in self.word_docs.items():
            self.index_docs[self.word_index[word]] = count

    def fit_on_sequences(self, sequences: Sequence[Sequence[int]]) -> None:
        """Counts in how many of these sequences each number is, for "tfidf"."""
        self.document_count += len(sequences)
        for sequence in sequences:
            for number in set(sequence):
                self.index_docs[number] += 1

    def _known(self, number: int | None) -> bool:
        return number is not None and not (self.num_words and number >= self.num_words)

    def texts_to_sequences(self, texts: Iterable[Any]) -> list[list[int]]:
        """The ranks of the words of each text."""
        return list(self.texts_to_sequences_generator(texts))

    def texts_to_sequences_generator(self, texts: Iterable[Any]) -> Iterator[list[int]]:
        """`texts_to_sequences` one by one."""
        other = self.word_index.get(self.oov_token) if self.oov_token is not None else None
        for text in texts:
            numbers = (self.word_index.get(word) for word in self._words(text))
            taken = (number if self._known(number) else other for number in numbers)
            yield [number for number in taken if number is not None]

    def sequences_to_texts(self, sequences: Iterable[Iterable[int]]) -> list[str]:
        """The words of these ranks, with spaces between them."""
        return list(self.sequences_to_texts_generator(sequences))

    def sequences_to_texts_generator(self, sequences: Iterable[Iterable[int]]) -> Iterator[str]:
        """`sequences_to_texts` one by one."""
        for sequence in sequences:
            words = (
                self.index_word.get(number) if self._known(number) else None for number in sequence
            )
            taken = (self.oov_token if word is None else word for word in words)
            yield " ".join(word for word in taken if word is not None)

    def texts_to_matrix(self, texts: Iterable[Any], mode: str = "binary") -> np.ndarray:
        """`sequences_to_matrix` of the ranks of the words."""
        return self.sequences_to_matrix(self.texts_to_sequences(texts), mode)

    def sequences_to_matrix(
        self, sequences: Sequence[Sequence[int]], mode: str = "binary"
    ) -> np.ndarray:
        """A row for each sequence, a column for each rank: whether it is there ("binary"), its
        "count", its share ("freq"), or "tfidf".

        Raises ValueError for another mode, and before the numbers of columns or texts are known.
        """
        if not self.num_words and not self.word_index:
            raise ValueError(
                "Specify a dimension (`num_words` argument), or fit on some text data first."
            )
        if mode not in ("binary", "count", "freq", "tfidf"):
            raise ValueError(f"Unknown vectorization mode: {mode}")
        if mode == "tfidf" and not self.document_count:
            raise ValueError("Fit the Tokenizer on some data before using tfidf mode.")
        columns = self.num_words or len(self.word_index) + 1
        matrix = np.zeros((len(sequences), columns))
        for row, sequence in zip(matrix, sequences, strict=True):
            for number, count in Counter(n for n in sequence if n < columns).items():
                row[number] = {
                    "binary": 1,
                    "count": count,
                    "freq": count / len(sequence),
                    "tfidf": (1 + np.log(count)) * self._rarity(number),
                }[mode]
        return matrix

    def _rarity(self, number: int) -> float:
        return float(np.log(1 + self.document_count / (1 + self.index_docs.get(number, 0))))

    def get_config(self) -> dict[str, Any]:
        """The settings, and what was counted as JSON."""
        settings = ("num_words", "filters", "lower", "split", "char_level", "oov_token")
        counted = ("word_counts", "word_docs", "index_docs", "index_word", "word_index")
        return {
            **{name: getattr(self, name) for name in (*settings, "document_count")},
            **{name: json.dumps(getattr(self, name)) for name in counted},
        }

    def to_json(self, **kwargs: Any) -> str:
        """JSON for `tokenizer_from_json`; keywords are those of ``json.dumps``."""
        config = {"class_name": type(self).__name__, "config": self.get_config()}
        return json.dumps(config, **kwargs)


def tokenizer_from_json(json_string: str) -> Tokenizer:
    """The tokenizer of ``to_json``."""
    config = json.loads(json_string)["config"]
    counted = {
        name: json.loads(config.pop(name))
        for name in ("word_counts", "word_docs", "index_docs", "index_word", "word_index")
    }
    tokenizer = Tokenizer(**config)
    tokenizer.word_counts = OrderedDict(counted["word_counts"])
    tokenizer.word_docs.update(counted["word_docs"])
    tokenizer.index_docs.update({int(n): count for n, count in counted["index_docs"].items()})
    tokenizer.index_word = {int(n): word for n, word in counted["index_word"].items()}
    tokenizer.word_index = counted["word_index"]
    return tokenizer
