"""Texts as numbers of words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import string
from distgrad.core.tensor import Tensor
from distgrad.core.texts import as_texts
from distgrad.core.variable import Variable
from distgrad.keras.layers import symbolic
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import one_of
from distgrad.keras.layers.encoding import MODES, batches, older_mode, only_vectors
from distgrad.keras.layers.lookup import StringLookup
from distgrad.ragged.tensor import RaggedTensor
from distgrad.sparse import mixed

_PUNCTUATION = re.compile(r"[!\"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~']")
# Those that TensorFlow makes small, and no others.
_CAPITALS = {ord(c): ord(c) + 32 for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


class TextVectorization(Layer):
    """Texts as rows of numbers of words, or as one vector of words each: as in Keras.

    A text is made small and freed of punctuation (``standardize``), cut at white space (``split``),
    its words put together in ``ngrams``; 0 fills rows up, unless they are to be ``ragged``, 1
    stands for words outside the vocabulary, which is given or found by ``adapt``. Called on a list
    or an array of texts, before a model (``Dataset.map``), since no tensor holds them, or without
    ``split`` on ragged rows of words. Raises ValueError for arguments that it does not know or that
    do not go together.
    """

    _fixed: ClassVar = {"encoding": "utf-8"}

    def __init__(
        self,
        max_tokens: int | None = None,
        standardize: str | Callable[..., Any] | None = "lower_and_strip_punctuation",
        split: str | Callable[..., Any] | None = "whitespace",
        ngrams: int | Sequence[int] | None = None,
        output_mode: str = "int",
        output_sequence_length: int | None = None,
        pad_to_max_tokens: bool = False,
        vocabulary: Any = None,
        idf_weights: Any = None,
        sparse: bool = False,
        ragged: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        ways = ("lower_and_strip_punctuation", "lower", "strip_punctuation")
        if standardize is not None and not callable(standardize):
            one_of("standardize", standardize, *ways)
        if split is not None and not callable(split):
            one_of("split", split, "whitespace", "character")
        mode = older_mode(output_mode)
        one_of("output_mode", mode, *MODES, "tf_idf")
        if output_sequence_length is not None and mode != "int":
            raise ValueError(
                f"output_sequence_length {output_sequence_length} is for output_mode 'int', not "
                f"{mode!r}"
            )
        if ragged and mode != "int":
            raise ValueError(
                "`ragged` must not be true unless `output_mode` is `'int'`. Received: "
                f"ragged={ragged} and output_mode={output_mode}"
            )
        self.sparse, self.ragged = only_vectors(sparse, mode), bool(ragged)
        self.standardize, self.split, self.output_mode = standardize, split, mode
        self.ngrams = ngrams if ngrams is None or isinstance(ngrams, int) else tuple(ngrams)
        self.max_tokens = max_tokens
        self.output_sequence_length = output_sequence_length
        self.pad_to_max_tokens = pad_to_max_tokens
        self._lookup = StringLookup(
            max_tokens,
            mask_token="",
            vocabulary=vocabulary,
            idf_weights=idf_weights,
            output_mode=mode,
            pad_to_max_tokens=pad_to_max_tokens,
            sparse=sparse,
        )

    @property
    def vocabulary(self) -> list[str] | None:
        return self._lookup.vocabulary

    @property
    def idf_weights(self) -> list[float] | None:
        return self._lookup.idf_weights

    def get_vocabulary(self, include_special_tokens: bool = True) -> list[str]:
        """All words in the order of their numbers; without "" and "[UNK]" if wanted."""
        return self._lookup.get_vocabulary(include_special_tokens)

    def set_vocabulary(self, vocabulary: Any, idf_weights: Any = None) -> None:
        """Takes these words, or the lines of that file. Raises ValueError for words said twice."""
        self._lookup.set_vocabulary(vocabulary, idf_weights)

    def vocabulary_size(self) -> int:
        """How many numbers there are."""
        return self._lookup.vocabulary_size()

    def adapt(self, data: Any, batch_size: int | None = None, steps: int | None = None) -> None:
        """Takes the commonest words of texts, a Dataset of texts or batches as the vocabulary.

        Raises ValueError where a vocabulary was given, or for no data.
        """
        self.reset_state()
        for batch in batches(data, steps):
            self.update_state(batch)
        if not self._lookup._finalize():
            raise ValueError(f"{self.name!r}: adapt was given no data")

    def reset_state(self) -> None:
        """Forgets what ``update_state`` has counted; the vocabulary stays."""
        self._lookup.reset_state()

    def update_state(self, data: Any) -> None:
        """Counts the words of one batch. Raises ValueError where a vocabulary was given."""
        for batch in batches(data):
            self._lookup.count(self.words_of(np.atleast_1d(batch)))

    def finalize_state(self) -> None:
        """Takes the commonest of the words that were counted as the vocabulary, if any were."""
        self._lookup.finalize_state()

    def words_of(self, texts: Any) -> list[list[str]]:
        """The words of each text. Raises ValueError for texts of more than one axis."""
        array = as_texts(texts)
        if array.ndim > 1 and self.split is not None:
            if array.shape[-1] != 1 or array.ndim > 2:
                raise ValueError(
                    f"{self.name!r} splits texts: it takes an array of one axis, or of a last axis "
                    f"of 1, not of shape {array.shape}"
                )
            array = array[:, 0]
        if callable(self.standardize):
            array = as_texts(self.standardize(array))
        elif self.standardize is not None:
            array = np.array([self._standard(text) for text in array.ravel()]).reshape(array.shape)
        if callable(self.split):
            rows = [list(row) for row in self.split(array)]
        elif self.split is None:
            rows = array.reshape(len(array), -1).tolist()
        else:
            cut = list if self.split == "character" else str.split
            rows = [cut(text) for text in array.tolist()]
        return [self._joined(row) for row in rows]

    def _words_of_rows(self, rows: Any) -> list[list[str]]:
        """The words of each row of a ragged tensor of them. Raises ValueError where it splits."""
        if rows.kind == "sparse":
            raise ValueError(f"{self.name!r} takes no SparseTensor: give it {rows.made_dense_by}")
        if self.split is not None or len(rows.shape) > 2:
            raise ValueError(
                f"{self.name!r} splits texts: it takes an array of one axis, not a RaggedTensor of "
                f"the shape {rows.shape}: give it split=None"
            )
        return [self.words_of(np.asarray(row)[None])[0] for row in rows]

    def _standard(self, text: str) -> str:
        assert isinstance(self.standardize, str)
        text = text.translate(_CAPITALS) if "lower" in self.standardize else text
        return _PUNCTUATION.sub("", text) if "strip" in self.standardize else text

    def _joined(self, words: list[str]) -> list[str]:
        if self.ngrams is None:
            return words
        sizes = range(1, self.ngrams + 1) if isinstance(self.ngrams, int) else self.ngrams
        return [
            " ".join(words[i : i + size]) for size in sizes for i in range(len(words) - size + 1)
        ]

    def __call__(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        (inputs,) = args or kwargs.values()
        symbols, given = symbolic.symbols(inputs), (str, bytes, list, tuple)
        if len(symbols) == 1 and symbols[0].dtype is string:
            return super().__call__(inputs)
        number = bool(symbols) or isinstance(inputs, (Tensor, Variable))
        if number or not (isinstance(inputs, given) or hasattr(inputs, "__array__")):
            raise ValueError(
                f"{self.name!r} takes texts, an Input of dtype 'string' or an array of them, for "
                f"instance in Dataset.map: it was called on {inputs!r}"
            )
        if isinstance(inputs, Composite):
            axes, rows = 2, self._words_of_rows(inputs)
        else:
            array = as_texts(inputs)
            axes, rows = array.ndim, self.words_of(np.atleast_1d(array))
        found = [self._lookup.numbers_of(np.array(row, dtype=str)) for row in rows]
        if self.ragged and axes:
            kept = [numbers[: self.output_sequence_length] for numbers in found]
            return RaggedTensor.from_row_lengths(np.concatenate(kept), list(map(len, kept)))
        if self.output_mode == "int":
            longest = max(map(len, found), default=0)
            length = longest if self.output_sequence_length is None else self.output_sequence_length
            filled = np.zeros((len(found), length), np.int64)
            for row, numbers in zip(filled, found, strict=True):
                row[: len(numbers)] = numbers[:length]
            whole = self.split is None and axes < 2 and self.output_sequence_length is None
            return as_tensor(filled[:, 0] if whole else filled if axes else filled[0])
        # Of unequal lengths: filled up with a number that is none, and counts for nothing.
        longest = max(map(len, found), default=0)
        together = np.full((len(found), longest), -1, np.int64)
        for row, numbers in zip(together, found, strict=True):
            row[: len(numbers)] = numbers
        encoded = self._lookup.encoded(as_tensor(together))
        if axes:
            return encoded
        return mixed.reshape(encoded, mixed.shape_of(encoded)[1:])
