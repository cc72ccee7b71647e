"""``tf.experimental``: ``numpy``, NumPy's functions on tensors, and ``dlpack``."""

import importlib as _importlib


def __getattr__(name: str) -> object:
    if name in ("dlpack", "numpy"):
        return _importlib.import_module(f"distgrad.experimental.{name}")
    from distgrad.absent import message

    raise AttributeError(message(f"experimental.{name}"))
