"""Words and whole numbers as the numbers of a vocabulary.

Texts are arrays of NumPy or lists, which no tensor holds: layers that take them stand before a
model, in a loop or in ``Dataset.map``, and give tensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype, is_floating, string
from distgrad.core.tensor import Tensor
from distgrad.core.texts import Texts, as_texts
from distgrad.keras.layers import symbolic
from distgrad.keras.layers.calling import trying_out
from distgrad.keras.layers.core import one_of, whole_number
from distgrad.keras.layers.encoding import (
    MODES,
    batches,
    default_dtype,
    encoded,
    older_mode,
    only_vectors,
)
from distgrad.keras.layers.hashing import hashed, key_of
from distgrad.keras.layers.on_texts import OnTexts, rows_of
from distgrad.ops.casting import cast
from distgrad.ops.host import on_host
from distgrad.sparse import mixed
from distgrad.sparse.making import to_dense


class _Vocabulary:
    """Words and their numbers: many, in which nobody is to look for weights of a layer."""

    def __init__(self, words: Sequence[Any], first: int) -> None:
        self.words = list(words)
        self.numbers = {word: number for number, word in enumerate(self.words, first)}


class _Tally:
    """How often words come, and in how many documents."""

    def __init__(self) -> None:
        self.counts: Counter[Any] = Counter()
        self.holding: Counter[Any] = Counter()
        self.documents = 0


class _Lookup(OnTexts):
    """Base of lookups: the vocabulary, what is outside it, and what ``adapt`` finds.

    The numbers are: 0 for the mask (with one, and "int"; in vectors it counts as nothing), then
    ``num_oov_indices`` for what is not in the vocabulary, then its words. Vectors may be
    ``sparse``. Raises ValueError for arguments that do not go together, and at a call for words
    outside the vocabulary where there is no number for them.
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        num_oov_indices: int = 1,
        mask_token: Any = None,
        oov_token: Any = None,
        vocabulary: Any = None,
        idf_weights: Any = None,
        invert: bool = False,
        output_mode: str = "int",
        pad_to_max_tokens: bool = False,
        sparse: bool = False,
        salt: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        output_mode = older_mode(output_mode)
        super().__init__(**{"dtype": default_dtype(output_mode), **kwargs})
        if max_tokens is not None:
            whole_number("max_tokens", max_tokens, 2)
        if pad_to_max_tokens and max_tokens is None:
            raise ValueError("pad_to_max_tokens needs max_tokens")
        self.output_mode = one_of("output_mode", output_mode, *MODES, "tf_idf")
        self.sparse = only_vectors(sparse, output_mode)
        if invert and output_mode != "int":
            raise ValueError(f"invert gives words: output_mode must be 'int', not {output_mode!r}")
        self.max_tokens = max_tokens
        self.num_oov_indices = whole_number("num_oov_indices", num_oov_indices, 0)
        self.mask_token, self.oov_token = mask_token, oov_token
        self.invert = invert
        self.pad_to_max_tokens = pad_to_max_tokens
        self.salt = key_of(salt)
        self._known = _Vocabulary([], 0)  # without words of a special meaning
        self._tally = _Tally()  # what update_state has counted
        self._idf: np.ndarray | None = None
        self._weighs_special = False
        self._was_given = vocabulary is not None
        if vocabulary is not None:
            self.set_vocabulary(vocabulary, idf_weights)

    # What Keras has in configs and files.

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """A layer of such a config; one of Keras may have its vocabulary in a file beside it."""
        known = dict(config)
        size = known.pop("vocabulary_size", None)
        made = super().from_config(known)
        if size and made.vocabulary is None:  # until that is read, it is known how much there is
            count = size - len(made._special)
            made._known = _Vocabulary([None] * count, len(made._special))
        return made

    def load_vocabulary(self, lines: Sequence[str]) -> None:
        """Takes the words of such a file, where none were given."""
        if not self._was_given:
            words = self._as_words(lines)
            self._take(words[len(self._special) :] if self._starts_special(words) else words)

    def save_own_variables(self, store: Any) -> None:
        if self._idf is not None:
            store["idf_weights"] = self._idf

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        if "idf_weights" in store:
            self._idf = np.asarray(store["idf_weights"], np.float32)

    # What the base needs to know of words and numbers.

    def _as_words(self, values: Any) -> list[Any]:
        raise NotImplementedError

    def _outside(self, word: Any) -> int:
        """Which of several numbers for words outside the vocabulary."""
        raise NotImplementedError

    # The vocabulary

    @property
    def _begin(self) -> int:
        return int(self.mask_token is not None and self.output_mode == "int")

    @property
    def _special(self) -> list[Any]:
        return [self.mask_token] * self._begin + [self.oov_token] * self.num_oov_indices

    @property
    def vocabulary(self) -> list[Any] | None:
        return self.get_vocabulary(self._weighs_special) or None

    @property
    def idf_weights(self) -> list[float] | None:
        first = 0 if self._weighs_special else len(self._special)
        return None if self._idf is None else self._idf[first:].tolist()

    def get_vocabulary(self, include_special_tokens: bool = True) -> list[Any]:
        """All words in the order of their numbers; without those of a special meaning if wanted."""
        words = self._known.words
        return [*self._special, *words] if include_special_tokens else list(words)

    def vocabulary_size(self) -> int:
        """How many numbers there are."""
        return len(self._special) + len(self._known.words)

    def set_vocabulary(self, vocabulary: Any, idf_weights: Any = None) -> None:
        """Takes these words, or the lines of that file. Raises ValueError for words said twice."""
        if isinstance(vocabulary, str):
            with open(vocabulary, encoding="utf-8") as file:
                vocabulary = [line.rstrip("\n") for line in file]
        words = self._as_words(vocabulary)
        special = self._special
        has_special = self._starts_special(words)
        words = words[len(special) :] if has_special else words
        if not words:
            raise ValueError(f"{self.name!r}: the vocabulary is empty")
        counts = Counter(words)
        repeated = [word for word, count in counts.items() if count > 1]
        if repeated:
            raise ValueError(f"{self.name!r}: the vocabulary repeats {repeated[:5]}")
        if self.mask_token is not None and self.mask_token in words:
            raise ValueError(f"{self.name!r}: the mask {self.mask_token!r} lies in the vocabulary")
        if self.max_tokens is not None and len(special) + len(words) > self.max_tokens:
            raise ValueError(
                f"{self.name!r}: {len(special) + len(words)} words are more than max_tokens, "
                f"{self.max_tokens}"
            )
        if (self.output_mode == "tf_idf") != (idf_weights is not None):
            raise ValueError("idf_weights are for output_mode 'tf_idf', which needs them")
        if idf_weights is not None:
            weights = np.asarray(idf_weights, np.float32)
            if weights.shape != (len(words) + len(special) * has_special,):
                raise ValueError(f"{len(words)} words, and idf_weights of shape {weights.shape}")
            if has_special:
                self._idf, self._weighs_special = weights, True
            else:
                self._take_idf(weights)
        self._take(words)

    def _starts_special(self, words: list[Any]) -> bool:
        special = self._special
        return bool(special) and words[: len(special)] == special

    def _take_idf(self, weights: np.ndarray) -> None:
        front = np.full(len(self._special), weights.mean())
        self._weighs_special = False  # with weights of their own
        self._idf = np.concatenate([front, weights]).astype(np.float32)

    def _take(self, words: list[Any]) -> None:
        self._known = _Vocabulary(words, len(self._special))
        if self.mask_token is not None:
            # In vectors it counts as nothing: one_hot has no place for it.
            self._known.numbers[self.mask_token] = 0 if self.output_mode == "int" else -1

    def adapt(self, data: Any, steps: int | None = None) -> None:
        """Takes the commonest words of an array, a Dataset or batches as the vocabulary.

        Words as common as each other come in reverse order. Raises ValueError where a vocabulary
        was given, or for no data.
        """
        self.reset_state()
        for batch in batches(data, steps):
            self.update_state(batch)
        if not self._finalize():
            raise ValueError(f"{self.name!r}: adapt was given no data")

    def reset_state(self) -> None:
        """Forgets what ``update_state`` has counted; the vocabulary stays."""
        self._tally = _Tally()

    def update_state(self, data: Any) -> None:
        """Counts the words of one batch. Raises ValueError where a vocabulary was given."""
        for batch in batches(data):
            rows = batch if batch.ndim > 1 else np.reshape(batch, (-1, 1))
            self.count(self._as_words(row) for row in rows)

    def finalize_state(self) -> None:
        """Takes the commonest of the words that were counted as the vocabulary, if any were."""
        self._finalize()

    def count(self, documents: Iterable[Sequence[Any]]) -> None:
        """``update_state`` for the words of documents."""
        if self._was_given:
            raise ValueError(f"{self.name!r} was given its vocabulary: it does not adapt")
        for words in documents:
            self._tally.documents += 1
            self._tally.counts.update(words)
            self._tally.holding.update(set(words))

    def _finalize(self) -> bool:
        tally = self._tally
        self.reset_state()
        for word in (self.mask_token, self.oov_token):
            tally.counts.pop(word, None)
        if not tally.counts:
            return False
        counts = tally.counts
        words = sorted(counts, key=lambda word: (counts[word], _ordered(word)), reverse=True)
        if self.max_tokens is not None:
            words = words[: self.max_tokens - len(self._special)]
        if self.output_mode == "tf_idf":
            seen = np.array([tally.holding[word] for word in words])
            self._take_idf(np.log(1 + tally.documents / (1 + seen)))
        self._take(words)
        return True

    # The call

    def number_of(self, word: Any) -> int:
        """The number of a word. Raises ValueError where it has none."""
        found = self._known.numbers.get(word)
        if found is not None:
            return found
        if not self.num_oov_indices:
            if trying_out():  # on a word that stands for those to come
                return self._begin
            raise ValueError(
                f"{self.name!r}: {word!r} is not in the vocabulary, and num_oov_indices is 0"
            )
        return self._begin + (self._outside(word) if self.num_oov_indices > 1 else 0)

    def numbers_of(self, values: np.ndarray) -> np.ndarray:
        """The numbers of an array of words."""
        unread = self._known.words[:1] == [None] and values.any()  # zeros stand for inputs to come
        if not self._known.words or unread:
            raise ValueError(f"{self.name!r} has no vocabulary yet: call adapt(data) first")
        found = [self.number_of(word) for word in self._as_words(values.ravel())]
        return np.array(found, np.int64).reshape(values.shape)

    _numbers = numbers_of

    def words_of(self, numbers: np.ndarray) -> np.ndarray:
        """The words of an array of numbers: what ``invert`` gives."""
        words = dict(enumerate(self.get_vocabulary()))
        found = [words.get(int(n), self.oov_token) for n in numbers.ravel()]
        return np.array(found).reshape(numbers.shape)

    def encoded(self, numbers: Any) -> Any:
        depth = self.max_tokens if self.pad_to_max_tokens else self.vocabulary_size()
        assert depth is not None
        mode = "count" if self.output_mode == "tf_idf" else self.output_mode
        dtype = self.compute_dtype
        if mode == "int" and is_floating(as_dtype(dtype).numpy_dtype):
            dtype = "int64"  # (Keras's configs name float32, and mean it of vectors alone)
        found = encoded(numbers, mode, depth, dtype, sparse=self.sparse)
        if self._idf is None:
            return found
        weights = np.pad(self._idf, (0, depth - len(self._idf)))
        return found * as_tensor(weights, like=found.dtype.numpy_dtype)


def _ordered(word: Any) -> Any:
    return word.encode() if isinstance(word, str) else word


class StringLookup(_Lookup):
    """Texts as the numbers of a vocabulary; with ``invert``, back to texts (an array of NumPy).

    ``output_mode`` is "int", "one_hot", "multi_hot", "count" or "tf_idf" (with ``idf_weights``).
    Several numbers for words outside the vocabulary go by the words' hash, as in TensorFlow; with
    ``salt``, as in `Hashing`.
    """

    _fixed: ClassVar = {"encoding": "utf-8", "oov_method": "floormod"}

    def __init__(
        self,
        max_tokens: int | None = None,
        num_oov_indices: int = 1,
        mask_token: str | None = None,
        oov_token: str = "[UNK]",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_tokens, num_oov_indices, mask_token, oov_token, *args, **kwargs)

    def __call__(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        (inputs,) = args or kwargs.values()
        symbols = symbolic.symbols(inputs)
        if symbols and self.invert:
            raise ValueError(
                f"{self.name!r} gives texts, and no tensor of a model holds them: call it on what "
                "the model has predicted"
            )
        if symbols and symbols[0].dtype is not string:
            raise ValueError(
                f"{self.name!r} takes texts: an Input of dtype 'string', or an array of them, for "
                "instance in Dataset.map"
            )
        if self.invert and not isinstance(inputs, Composite):
            return self.words_of(rows_of(self.name, inputs)).astype(str).view(Texts)
        return super().__call__(inputs)

    def call(self, inputs: Tensor) -> Tensor:
        raise ValueError(f"{self.name!r} takes texts, not a tensor of {inputs.dtype.name}")

    def of_texts(self, texts: np.ndarray) -> Tensor:
        return self.encoded(as_tensor(self.numbers_of(texts)))

    def some_text(self, words: int) -> str:
        return next((word for word in self._known.words if word), "")

    def _as_words(self, values: Any) -> list[str]:
        return as_texts(values).tolist()

    def _outside(self, word: str) -> int:
        return hashed(word, self.salt) % self.num_oov_indices


class IntegerLookup(_Lookup):
    """Whole numbers as those of a vocabulary, also inside a model; with ``invert``, back again.

    ``output_mode`` is "int", "one_hot", "multi_hot", "count" or "tf_idf" (with ``idf_weights``).
    Several numbers for what is outside the vocabulary go by the remainder, or with ``oov_method``
    "farmhash" by the hash, with ``salt`` as in `Hashing`. Raises ValueError for salt without that.
    """

    _fixed: ClassVar = {"vocabulary_dtype": "int64"}

    def __init__(
        self,
        max_tokens: int | None = None,
        num_oov_indices: int = 1,
        mask_token: int | None = None,
        oov_token: int = -1,
        *args: Any,
        oov_method: str = "floormod",
        **kwargs: Any,
    ) -> None:
        super().__init__(max_tokens, num_oov_indices, mask_token, oov_token, *args, **kwargs)
        self.oov_method = one_of("oov_method", oov_method, "floormod", "farmhash")
        if self.salt is not None and oov_method == "floormod":
            raise ValueError("salt is for oov_method='farmhash'; a remainder takes none")

    def call(self, inputs: Tensor) -> Tensor:
        look = self.words_of if self.invert else self.numbers_of
        found = on_host(lambda x: look(np.asarray(x)).astype(np.int64), inputs)
        return cast(found, np.int64) if self.invert else self.encoded(found)

    def _of_composite(self, given: Any) -> Any:
        # What has no value there is a 0, which may be one of the vocabulary.
        return self(to_dense(given)) if mixed.sparse(given) else super()._of_composite(given)

    def of_texts(self, texts: np.ndarray) -> Tensor:
        raise ValueError(f"{self.name!r} takes whole numbers, not texts: use a StringLookup")

    def _as_words(self, values: Any) -> list[int]:
        return np.asarray(values).astype(np.int64).tolist()

    def _outside(self, word: int) -> int:
        if self.oov_method == "farmhash":
            return hashed(word, self.salt) % self.num_oov_indices
        return word % self.num_oov_indices
