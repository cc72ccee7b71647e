"""Texts and whole numbers as the numbers of bins by their hash, as TensorFlow has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras.layers.core import one_of, whole_number
from distgrad.keras.layers.encoding import MODES, default_dtype, encoded, only_vectors
from distgrad.keras.layers.fingerprint import farmhash, siphash
from distgrad.keras.layers.on_texts import OnTexts
from distgrad.ops.host import on_host


class Hashing(OnTexts):
    """Texts and whole numbers as numbers below ``num_bins``, by their hash: as in TensorFlow.

    ``salt`` (one or two ints) takes another hash, SipHash; ``mask_value`` has bin 0 for itself.
    ``output_mode`` is "int", "one_hot", "multi_hot" or "count", whose vectors may be ``sparse``.
    Raises ValueError for bins that are not a positive int, and for another salt or mode.
    """

    def __init__(
        self,
        num_bins: int,
        mask_value: Any = None,
        salt: int | Sequence[int] | None = None,
        output_mode: str = "int",
        sparse: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": default_dtype(output_mode), **kwargs})
        self.num_bins = whole_number("num_bins", num_bins)
        self.mask_value = mask_value
        self.salt = key_of(salt)
        self.output_mode = one_of("output_mode", output_mode, *MODES)
        self.sparse = only_vectors(sparse, output_mode)
        if output_mode == "int" and "int" not in self.compute_dtype:
            raise ValueError(f"output_mode 'int' needs a dtype of integers, not {self.dtype!r}")

    def call(self, inputs: Tensor) -> Tensor:
        return self.encoded(on_host(lambda x: self._numbers(np.asarray(x)), inputs))

    def of_texts(self, texts: np.ndarray) -> Tensor:
        return self.encoded(as_tensor(self._numbers(texts)))

    def encoded(self, numbers: Any) -> Any:
        dtype = self.compute_dtype
        return encoded(numbers, self.output_mode, self.num_bins, dtype, sparse=self.sparse)

    def _numbers(self, values: np.ndarray) -> np.ndarray:
        masks = self.mask_value is not None and self.num_bins > 1
        count = self.num_bins - masks
        values = values.astype(np.int64) if values.dtype.kind == "f" else values
        found = []
        for value in values.ravel().tolist():
            number = hashed(value, self.salt) % count + masks
            found.append(0 if masks and value == self.mask_value else number)
        return np.array(found, np.int64).reshape(values.shape)


def key_of(salt: int | Sequence[int] | None) -> list[int] | None:
    """The two numbers of a salt. Raises ValueError."""
    pair = [salt, salt] if isinstance(salt, int) else salt
    if pair is not None and (len(pair) != 2 or not all(isinstance(n, int) for n in pair)):
        raise ValueError(f"salt must be one int or two, not {salt!r}")
    return None if pair is None else list(pair)


def hashed(value: Any, key: list[int] | None) -> int:
    text = str(value).encode()
    return farmhash(text) if key is None else siphash(text, key)
