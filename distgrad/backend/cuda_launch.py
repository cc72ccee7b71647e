"""Kernels of a CUDA source of this folder, compiled for the types that they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import numpy as np

OPTIONS = ("-std=c++17", "--fmad=false")
TYPES = {"float32": "float", "float64": "double", "int64": "long long"}
FLAT = 256  # threads of a block that works on flat arrays


def source(file: str, dtype: np.dtype) -> str:
    """The text of the kernels for one type of number."""
    text = resources.files("distgrad.backend").joinpath(file).read_text(encoding="utf-8")
    return f"typedef {TYPES[dtype.name]} T;\n{text}"


def numbers(cupy: Any, indices: Any) -> Any:
    """Indices as kernels read them: int64, contiguous."""
    return cupy.ascontiguousarray(indices.astype(np.int64, copy=False))


class Launcher:
    """Starts the kernels of one source, for one namespace of CuPy."""

    def __init__(self, cupy: Any, file: str) -> None:
        self._cupy, self._file = cupy, file
        self._found: dict[tuple[str, np.dtype], Any] = {}
        self._modules: dict[np.dtype, Any] = {}

    def __call__(self, name: str, dtype: np.dtype, blocks: int, threads: int, *args: Any) -> None:
        self.kernel(name, dtype)((blocks,), (threads,), _given(args))

    def bound(
        self, name: str, dtype: np.dtype, blocks: int, threads: int, *first: Any
    ) -> Callable[..., None]:
        """What starts a kernel with these arguments, and those that it is called with."""
        kernel, given, where = self.kernel(name, dtype), _given(first), ((blocks,), (threads,))

        def start(*more: Any) -> None:
            kernel(*where, given + more)

        return start

    def kernel(self, name: str, dtype: np.dtype) -> Any:
        """A kernel, compiled for a type of number when it is first asked for."""
        kernel = self._found.get((name, dtype))
        if kernel is None:
            if dtype not in self._modules:
                text = source(self._file, dtype)
                self._modules[dtype] = self._cupy.RawModule(code=text, options=OPTIONS)
            kernel = self._found[name, dtype] = self._modules[dtype].get_function(name)
        return kernel


def _given(args: Sequence[Any]) -> tuple:
    """Arguments as CuPy takes them: a Python int would do, but its width is not documented."""
    return tuple([np.int64(a) if type(a) is int else a for a in args])
