"""Optimizer updates in machine code: one loop over flat arrays, which are read once.

They round where the NumPy kernels do, and so give the same bits: it does not matter which of the
two runs, or from when on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.compile import llvm_engine
from distgrad.compile.llvm_ir import FLOATS, TYPES, Emitter, Scalar
from distgrad.compile.llvm_loops import Native, address_of
from distgrad.ops import optim

_SMALLEST = 1 << 9  # elements: below that, passing pointers costs more than NumPy's many calls
_DTYPES = {np.dtype(np.float32): "float32", np.dtype(np.float64): "float64"}
_LANES = 16
_AHEAD = 64  # elements: memory is asked for that much before it is needed; 2048 costs a fifth more


@functools.cache
def install() -> None:
    """From now on the updates of this process go through machine code, where they can."""
    for formula in _FORMULAS:
        primitive = getattr(optim, f"{formula.__name__[1:]}_update")
        primitive.native = functools.partial(_update, formula)


def _update(formula: Formula, out: tuple, args: tuple, params: dict) -> bool:
    """Runs an update over ``out``; False where the arrays are not of the usual form."""
    written = out[0]
    if type(written) is not np.ndarray or written.size < _SMALLEST:
        return False
    size, dtype = written.size, written.dtype
    name = _DTYPES.get(dtype)
    addresses: list[int] = []
    rates: list[np.ndarray] = []
    for a in args:
        if type(a) is np.ndarray and a.ndim:
            if rates or a.size != size or a.dtype != dtype or not a.flags.c_contiguous:
                return False
            addresses.append(address_of(a))
            continue
        rate = _rate(a, dtype)
        if rate is None:
            return False
        rates.append(rate)
    count = len(addresses)
    if name is None or len(out) > count or _overlap(addresses, written.nbytes):
        return False
    for a, b in zip(out, args, strict=False):
        if a is not b:
            return False
    native = _loop(formula, name, len(out), count, len(rates), tuple(sorted(params.items())))
    if native is None:
        return False
    native.at(*addresses, *map(address_of, rates), size)
    return True


def _rate(number: Any, dtype: np.dtype) -> np.ndarray | None:
    """A number that may change from step to step, as NumPy would round it."""
    if type(number) in (int, float):
        return np.asarray(number, dtype)
    rate = np.asarray(number)
    return rate if rate.ndim == 0 and rate.dtype == dtype else None


def _overlap(addresses: Sequence[int], nbytes: int) -> bool:
    last = -nbytes
    for address in sorted(addresses):
        if address - last < nbytes:
            return True
        last = address
    return False


# Formulas: over a writer, the arrays, the rates and the constants of the primitive of that name


class _Writer:
    """Operations on values and constants of one type, each of which is rounded."""

    def __init__(self, emitter: Emitter, type_: str) -> None:
        self.e = emitter
        self._type = type_

    def _value(self, x: Any) -> Scalar:
        return x if isinstance(x, Scalar) else self.e.number(x, self._type)

    def add(self, a: Any, b: Any) -> Scalar:
        return self.e.binary("fadd", self._value(a), self._value(b))

    def sub(self, a: Any, b: Any) -> Scalar:
        return self.e.binary("fsub", self._value(a), self._value(b))

    def mul(self, a: Any, b: Any) -> Scalar:
        return self.e.binary("fmul", self._value(a), self._value(b))

    def div(self, a: Any, b: Any) -> Scalar:
        return self.e.binary("fdiv", self._value(a), self._value(b))

    def sqrt(self, a: Scalar) -> Scalar:
        return self.e.intrinsic("sqrt", a)

    def larger(self, a: Scalar, b: Scalar) -> Scalar:
        """The larger one; nan if there is one."""
        return self._better("oge", a, b)

    def smaller(self, a: Scalar, b: Scalar) -> Scalar:
        return self._better("ole", a, b)

    def _better(self, condition: str, a: Scalar, b: Scalar) -> Scalar:
        better = self.e.select(self.e.compare(condition, a, b), a, b)
        return self.e.select(self.e.compare("uno", a, a), a, better)

    def moved(self, old: Scalar, new: Scalar, beta: float) -> Scalar:
        """``old + (1 - beta) * (new - old)``."""
        return self.add(old, self.mul(self.sub(new, old), 1 - beta))

    def blend(self, old: Scalar, new: Scalar, rho: float) -> Scalar:
        """``rho * old + (1 - rho) * new``."""
        return self.add(self.mul(old, rho), self.mul(new, 1 - rho))


Formula = Callable[..., tuple[Scalar, ...]]


def _sgd(w: _Writer, p, g, rate):
    return (w.sub(p, w.mul(g, rate)),)


def _momentum(w: _Writer, p, m, g, rate, *, momentum, nesterov):
    scaled = w.mul(g, rate)
    m = w.sub(w.mul(m, momentum), scaled)
    step = w.sub(w.mul(m, momentum), scaled) if nesterov else m
    return w.add(p, step), m


def _adam_step(w: _Writer, p, m, s, alpha, epsilon):
    return w.sub(p, w.mul(w.div(m, w.add(w.sqrt(s), epsilon)), alpha))


def _adam(w: _Writer, p, m, s, g, alpha, *, beta_1, beta_2, epsilon):
    m, s = w.moved(m, g, beta_1), w.moved(s, w.mul(g, g), beta_2)
    return _adam_step(w, p, m, s, alpha, epsilon), m, s


def _amsgrad(w: _Writer, p, m, s, h, g, alpha, *, beta_1, beta_2, epsilon):
    m, s = w.moved(m, g, beta_1), w.moved(s, w.mul(g, g), beta_2)
    h = w.larger(h, s)
    return _adam_step(w, p, m, h, alpha, epsilon), m, s, h


def _adagrad(w: _Writer, p, a, g, rate, *, epsilon):
    a = w.add(a, w.mul(g, g))
    root = w.sqrt(w.add(a, epsilon))
    return w.sub(p, w.div(w.mul(g, rate), root)), a


def _decay(w: _Writer, p, rate):
    return (w.sub(p, w.mul(p, rate)),)


def _scale(w: _Writer, g, factor):
    return (w.mul(g, factor),)


def _clip(w: _Writer, g, bound):
    return (w.smaller(w.larger(g, w.e.negative(bound)), bound),)


def _average(w: _Writer, a, p, *, momentum):
    return (w.blend(a, p, momentum),)


_FORMULAS: tuple[Formula, ...] = (
    _sgd,
    _momentum,
    _adam,
    _amsgrad,
    _adagrad,
    _decay,
    _scale,
    _clip,
    _average,
)


# The loop


@functools.lru_cache(maxsize=128)
def _loop(
    formula: Formula, dtype: str, written: int, arrays: int, rates: int, params: tuple
) -> Native | None:
    """A function of the arrays, the rates and the number of elements; None for other arguments."""
    e, type_ = Emitter(_LANES), TYPES[dtype]
    vector, mask = e.shown(type_), e.shown("i1")
    short = f"v{_LANES}f{FLOATS[type_]}.p0"
    size = FLOATS[type_] // 8
    numbers = [Scalar(f"%rate{i}", type_) for i in range(rates)]
    bodies = []
    for masked in (False, True):
        e.lines = []
        ahead = e.emit(f"add i64 %i, {_AHEAD}", "i64").text
        values, places = [], []
        for i in range(arrays):
            place = e.emit(f"getelementptr {type_}, ptr %p{i}, i64 %i", "ptr").text
            places.append(place)
            if masked:
                load = f"call {vector} @llvm.masked.load.{short}(ptr {place}, i32 {size}, "
                values.append(e.emit(f"{load}{mask} %mask, {vector} zeroinitializer)", type_))
                continue
            later = e.emit(f"getelementptr {type_}, ptr %p{i}, i64 {ahead}", "ptr").text
            kind = int(i < written)
            e.lines.append(f"  call void @llvm.prefetch.p0(ptr {later}, i32 {kind}, i32 3, i32 1)")
            values.append(e.emit(f"load {vector}, ptr {place}, align {size}", type_))
        try:
            results = formula(_Writer(e, type_), *values, *numbers, **dict(params))
        except TypeError:  # arguments that this formula does not have
            return None
        for place, result in zip(places, results, strict=False):
            if masked:
                store = f"call void @llvm.masked.store.{short}({vector} {result.text}, ptr {place}"
                e.lines.append(f"  {store}, i32 {size}, {mask} %mask)")
            else:
                e.lines.append(f"  store {vector} {result.text}, ptr {place}, align {size}")
        bodies.append(e.lines)
    text = _text(e, bodies, type_, arrays, rates, short)
    return Native(llvm_engine.address(text, "entry"))


def _text(
    e: Emitter, bodies: Sequence[list[str]], type_: str, arrays: int, rates: int, short: str
) -> str:
    vector, mask, lanes = e.shown(type_), e.shown("i1"), _LANES
    pointers = ", ".join(f"ptr noalias %p{i}" for i in range(arrays + rates))
    given = ", ".join(f"ptr %p{i}" for i in range(arrays + rates))
    start = []
    for i in range(rates):
        start += [
            f"  %one{i} = load {type_}, ptr %p{arrays + i}",
            f"  %in{i} = insertelement {vector} poison, {type_} %one{i}, i64 0",
            f"  %rate{i} = shufflevector {vector} %in{i}, {vector} poison, "
            f"<{lanes} x i32> zeroinitializer",
        ]
    table = []
    for i in range(arrays + rates):
        table.append(f"  %s{i} = getelementptr ptr, ptr %table, i64 {i}")
        table.append(f"  %p{i} = load ptr, ptr %s{i}")
    steps = ", ".join(f"i64 {i}" for i in range(lanes))
    whole, rest = bodies
    lines = [
        *sorted(e.declared),
        "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
        f"declare {vector} @llvm.masked.load.{short}(ptr, i32, {mask}, {vector})",
        f"declare void @llvm.masked.store.{short}({vector}, ptr, i32, {mask})",
        f"define internal void @kernel({pointers}, i64 %count) alwaysinline #0 {{",
        "start:",
        *start,
        f"  %left = urem i64 %count, {lanes}",
        "  %whole = sub i64 %count, %left",
        "  br label %head",
        "head:",
        "  %i = phi i64 [ 0, %start ], [ %next, %body ]",
        "  %more = icmp ult i64 %i, %whole",
        "  br i1 %more, label %body, label %rest",
        "body:",
        *whole,
        f"  %next = add nuw nsw i64 %i, {lanes}",
        "  br label %head",
        "rest:",
        f"  %left.in = insertelement <{lanes} x i64> poison, i64 %left, i64 0",
        f"  %lefts = shufflevector <{lanes} x i64> %left.in, <{lanes} x i64> poison, "
        f"<{lanes} x i32> zeroinitializer",
        f"  %mask = icmp ult <{lanes} x i64> <{steps}>, %lefts",
        *rest,
        "  ret void",
        "}",
        "define void @entry(ptr %table) #0 {",
        *table,
        f"  %s = getelementptr ptr, ptr %table, i64 {arrays + rates}",
        "  %count = load i64, ptr %s",
        f"  call void @kernel({given}, i64 %count)",
        "  ret void",
        "}",
        'attributes #0 = { "prefer-vector-width"="512" }',
    ]
    return "\n".join(lines) + "\n"
