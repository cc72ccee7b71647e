"""Matrix products within kernels."""

from __future__ import annotations

from typing import Any

from distgrad.core.dispatch import launches


def product(xp: Any, a: Any, b: Any, out: Any = None) -> Any:
    """``xp.matmul``; halves on a CPU are added up as float32, and rounded once.

    NumPy, which has no BLAS for them, takes a hundred times as long for the same.
    """
    if a.dtype.char != "e" or launches(xp):
        return xp.matmul(a, b, out=out)
    made = xp.matmul(a.astype("float32"), b.astype("float32"))
    if out is None:
        return made.astype("float16")
    out[...] = made
    return out
