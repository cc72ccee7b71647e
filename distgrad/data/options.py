"""What TensorFlow has on datasets and this does not need: settings, and names to do without."""

from __future__ import annotations

from typing import Any

# Settings that hold several.
_SEVERAL = {
    "autotune",
    "experimental_distribute",
    "experimental_optimization",
    "experimental_service",
    "experimental_threading",
    "threading",
}


class Options:
    """TensorFlow's settings of datasets, which scripts may set: here none of them is asked for.

    Steps run in order, and every rank reads the same.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in _SEVERAL:
            return None  # which nobody has set
        made = self.__dict__[name] = Options()  # options.autotune.enabled = True
        return made

    def merge(self, options: Options) -> Options:
        """These settings with those of another, which count where both are set."""
        made = Options()
        made.__dict__.update(self.__dict__)
        for name, value in options.__dict__.items():
            own = self.__dict__.get(name)
            made.__dict__[name] = own.merge(value) if isinstance(own, Options) else value
        return made


class Elsewhere:
    """Stands for a method of TensorFlow's: says what to do in its place."""

    def __init__(self, instead: str) -> None:
        self._instead = instead

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        raise AttributeError(f"Dataset.{self._name} does not exist here: {self._instead}")
