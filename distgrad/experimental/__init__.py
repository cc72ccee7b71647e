"""``tf.experimental``: ``numpy``, NumPy's functions on tensors, ``dlpack`` and ``Optional``."""

import importlib as _importlib


def __getattr__(name: str) -> object:
    if name in ("dlpack", "numpy"):
        return _importlib.import_module(f"distgrad.experimental.{name}")
    if name == "Optional":
        from distgrad.data.iterating import Optional

        return Optional
    from distgrad.absent import message

    raise AttributeError(message(f"experimental.{name}"))
