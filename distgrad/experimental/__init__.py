"""``tf.experimental``: ``numpy``, NumPy's functions on tensors, ``dlpack``, ``ExtensionType``."""

import importlib as _importlib

from distgrad.core.later import absent as _absent


def __getattr__(name: str) -> object:
    if name in ("dlpack", "numpy"):
        return _importlib.import_module(f"distgrad.experimental.{name}")
    if name == "ExtensionType":
        from distgrad.experimental.extension_type import ExtensionType

        return ExtensionType
    if name == "Optional":
        from distgrad.data.iterating import Optional

        return Optional
    return _absent(__name__)(name)
