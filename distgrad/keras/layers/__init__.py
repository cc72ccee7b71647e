"""Layers: what models are made of."""

from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import Dense, Dropout, Flatten, InputLayer

Input = InputLayer

__all__ = ["Dense", "Dropout", "Flatten", "InputLayer", "Layer"]
