"""The data sets that Keras users load by name."""

from __future__ import annotations

from distgrad.core.later import later
from distgrad.keras.datasets import cifar10 as cifar10
from distgrad.keras.datasets import cifar100 as cifar100
from distgrad.keras.datasets import fashion_mnist as fashion_mnist
from distgrad.keras.datasets import mnist as mnist

_LATER = ("boston_housing", "california_housing", "imdb", "reuters")
__getattr__, __dir__ = later(__name__, globals(), {name: f".{name}" for name in _LATER})
