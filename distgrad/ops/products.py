"""Matrix products within kernels."""

from __future__ import annotations

from typing import Any

from distgrad.core.dispatch import launches


def product(xp: Any, a: Any, b: Any, out: Any = None) -> Any:
    """``xp.matmul``, in C order; halves on a CPU are added up as float32, and rounded once.

    NumPy, which has no BLAS for them, takes a hundred times as long for the same. It would lay out
    batches as those of the factors: generated kernels are for arrays in C order.
    """
    if launches(xp):
        return xp.matmul(a, b, out=out)
    if a.dtype.char != "e":
        return xp.matmul(a, b, out=out) if out is not None else xp.matmul(a, b, order="C")
    made = xp.matmul(a.astype("float32"), b.astype("float32"))
    if out is None:
        return made.astype("float16")
    out[...] = made
    return out
