"""Keras's older place for helpers that prepare data."""

from __future__ import annotations

from distgrad.core.later import later
from distgrad.keras.preprocessing import sequence

_LATER = {
    "image": ".image",
    "image_dataset_from_directory": "distgrad.keras.utils",
    "text": ".text",
    "text_dataset_from_directory": "distgrad.keras.utils",
    "timeseries_dataset_from_array": "distgrad.keras.utils",
}

__all__ = ["sequence", *_LATER]

__getattr__, __dir__ = later(__name__, globals(), _LATER)
