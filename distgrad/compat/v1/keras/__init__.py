"""``tf.compat.v1.keras``: Keras as it is, whose backend may be given a session."""

from __future__ import annotations

from distgrad.compat.v1.keras import backend

__all__ = ["backend"]


def __getattr__(name: str) -> object:
    from distgrad import keras

    return getattr(keras, name)
