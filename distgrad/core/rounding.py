"""Arithmetic in bfloat16: kernels compute in float32, and their results are rounded once.

That is what XLA and TensorFlow do on CPUs. bfloat16 is ml_dtypes' element type, which NumPy and
CuPy store and convert; they are asked for no more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np


def _narrow(item: Any) -> bool:
    """Whether an array or a scalar of NumPy's kind is one of bfloat16."""
    return getattr(getattr(item, "dtype", None), "kind", None) == "V"


def wide(item: Any) -> Any:
    """An argument as a kernel that computes in float32 is given it."""
    if type(item) is float:  # a number takes the dtype of the tensor beside it
        return float(_bfloat16().type(item))
    return item.astype(np.float32) if _narrow(item) else item


def in_float32(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """``kernel`` for arrays of bfloat16 as well.

    A float32 result is rounded where a parameter ``dtype`` says so, or, without one, where an
    argument is of bfloat16. Arrays given as ``out`` have their own dtype, whatever it is.
    """

    @functools.wraps(kernel)
    def run(*args: Any, **params: Any) -> Any:
        for item in args:  # without a call for each: small arrays of float32 come by here, too
            if getattr(getattr(item, "dtype", None), "kind", None) == "V":
                return rounded(tuple(map(wide, args)), params, True)
        return rounded(args, params, False) if params else kernel(*args)

    def rounded(args: tuple, params: dict[str, Any], narrow: bool) -> Any:
        out = params.get("out")
        if out is not None and any(map(_narrow, out if type(out) is tuple else (out,))):
            del params["out"]
            made = rounded(args, params, True)
            pairs = zip(out, made, strict=True) if type(out) is tuple else [(out, made)]
            for place, array in pairs:
                place[...] = array
            return out
        if params.get("dtype") is not None:
            narrow = np.dtype(params["dtype"]).kind == "V"
            if narrow:
                params["dtype"] = np.dtype(np.float32)
        result = kernel(*args, **params)
        if not narrow or out is not None:
            return result
        return tuple(map(_rounded, result)) if type(result) is tuple else _rounded(result)

    return run


def _rounded(result: Any) -> Any:
    return result.astype(_bfloat16()) if result.dtype == np.float32 else result


@functools.cache
def _bfloat16() -> np.dtype:
    return np.dtype("bfloat16")  # which NumPy knows by now
