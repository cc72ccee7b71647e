"""Models: layers that can be compiled, fitted, evaluated and asked to predict."""

from distgrad.keras.models.model import Model
from distgrad.keras.models.sequential import Sequential

__all__ = ["Model", "Sequential"]
