"""Keras's older place for helpers that prepare data."""

from distgrad.keras.preprocessing import sequence

__all__ = ["sequence"]
