"""``keras.preprocessing.sequence``."""

from distgrad.keras.utils import pad_sequences

__all__ = ["pad_sequences"]
