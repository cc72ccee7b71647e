"""Optimizer updates in machine code: one loop over flat arrays, which are read once.

They round where the NumPy kernels do, and so give the same bits: it does not matter which of the
two runs, or from when on.
"""

from __future__ import annotations

import functools

import numpy as np

from distgrad.compile import llvm_engine
from distgrad.compile.llvm_ir import TYPES, Emitter, Scalar
from distgrad.compile.llvm_loops import Access, Native, address_of, load, module, store
from distgrad.ops import optim


@functools.cache
def install() -> None:
    """From now on the updates of this process go through machine code, where they can."""
    optim.adam_update.native = _adam


_SMALLEST = 1 << 14  # elements: below that, passing pointers costs more than NumPy's many calls
_DTYPES = {np.dtype(np.float32): "float32", np.dtype(np.float64): "float64"}


def _adam(out: tuple, args: tuple, params: dict) -> bool:
    """Runs ``adam_update`` over ``out``; False where the arrays are not of the usual form."""
    p, m, s, g, alpha = args
    dtype = p.dtype
    name = _DTYPES.get(dtype)
    if name is None or not (out[0] is p and out[1] is m and out[2] is s):
        return False
    size = p.size
    if size < _SMALLEST:
        return False
    for array in (p, m, s, g):
        if type(array) is not np.ndarray or array.dtype != dtype or array.size != size:
            return False
        if not array.flags.c_contiguous:
            return False
    rate = np.asarray(alpha)
    if rate.ndim or rate.dtype != dtype:
        return False
    addresses = [address_of(array) for array in (p, m, s, g, rate)]
    if any(abs(addresses[3] - written) < p.nbytes for written in addresses[:3]):
        return False
    _adam_loop(name, params["beta_1"], params["beta_2"], params["epsilon"]).at(*addresses, size)
    return True


@functools.lru_cache(maxsize=64)
def _adam_loop(dtype: str, beta_1: float, beta_2: float, epsilon: float) -> Native:
    e, type_ = Emitter(), TYPES[dtype]
    accesses = [Access(0, 1)] * 4 + [Access(0, 0)]
    p, m, s, g, alpha = (load(e, i, type_, a) for i, a in enumerate(accesses))

    def moved(old: Scalar, new: Scalar, beta: float) -> Scalar:
        part = e.binary("fmul", e.binary("fsub", new, old), e.number(1 - beta, type_))
        return e.binary("fadd", old, part)

    m = moved(m, g, beta_1)
    s = moved(s, e.binary("fmul", g, g), beta_2)
    root = e.binary("fadd", e.intrinsic("sqrt", s), e.number(epsilon, type_))
    step = e.binary("fmul", e.binary("fdiv", m, root), alpha)
    for position, value in enumerate((e.binary("fsub", p, step), m, s)):
        store(e, position, value)
    return Native(llvm_engine.address(module(e, [type_] * 5, accesses, 1, 0), "entry"))
