"""Models: layers that can be compiled, fitted, evaluated and asked to predict."""

from distgrad.keras.models.cloning import clone_model, model_from_json
from distgrad.keras.models.functional import Functional
from distgrad.keras.models.model import Model
from distgrad.keras.models.saving import load_model, save_model
from distgrad.keras.models.sequential import Sequential

__all__ = [
    "Functional",
    "Model",
    "Sequential",
    "clone_model",
    "load_model",
    "model_from_json",
    "save_model",
]
