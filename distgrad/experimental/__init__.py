"""``tf.experimental``: ``numpy``, NumPy's functions on tensors."""

import importlib as _importlib


def __getattr__(name: str) -> object:
    if name == "numpy":
        return _importlib.import_module("distgrad.experimental.numpy")
    from distgrad.absent import message

    raise AttributeError(message(f"experimental.{name}"))
