"""Models: layers that can be compiled, fitted, evaluated and asked to predict."""

from typing import TYPE_CHECKING

from distgrad.core.later import later
from distgrad.keras.models.functional import Functional
from distgrad.keras.models.model import Model
from distgrad.keras.models.sequential import Sequential

if TYPE_CHECKING:
    from distgrad.keras.models.cloning import clone_model, model_from_json
    from distgrad.keras.models.saving import load_model, save_model

# Loaded at their first use.
_LATER = {
    "clone_model": ".cloning",
    "load_model": ".saving",
    "model_from_json": ".cloning",
    "save_model": ".saving",
}

__all__ = [*_LATER, "Functional", "Model", "Sequential"]

__getattr__, __dir__ = later(__name__, globals(), _LATER)
