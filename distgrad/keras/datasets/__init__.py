"""The data sets that Keras users load by name, each loaded at its first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distgrad.core.later import later

if TYPE_CHECKING:
    from distgrad.keras.datasets import (
        boston_housing,
        california_housing,
        cifar10,
        cifar100,
        fashion_mnist,
        imdb,
        mnist,
        reuters,
    )

__all__ = [
    *("boston_housing", "california_housing", "cifar10", "cifar100", "fashion_mnist", "imdb"),
    *("mnist", "reuters"),
]
__getattr__, __dir__ = later(__name__, globals(), {name: f".{name}" for name in __all__})
