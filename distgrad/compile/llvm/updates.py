"""Optimizer updates in machine code: one loop over flat arrays, which are read once.

They round where the NumPy kernels do, and so give the same bits: it does not matter which of the
two runs, or from when on.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.compile.llvm import engine, pool
from distgrad.compile.llvm.ir import FLOATS, TYPES, Emitter, Scalar, module
from distgrad.compile.llvm.listed import repeated
from distgrad.compile.llvm.loops import Native, address_of
from distgrad.compile.llvm.parts import ranges
from distgrad.ops import optim

_MOST = 256  # prepared updates, before all are forgotten
_DTYPES = {np.dtype(np.float32): "float32", np.dtype(np.float64): "float64"}
_LANES = 16
_PART = 1 << 15  # elements of a part, at least
_AHEAD = 2048  # elements: how much earlier memory is asked for, where that pays


@functools.cache
def install() -> None:
    """From now on the updates of this process go through machine code, where they can."""
    for formula in _FORMULAS:
        primitive = getattr(optim, f"{formula.__name__[1:]}_update")
        primitive.native = functools.partial(_update, formula)
        primitive.native_each = functools.partial(_update_each, formula)
        primitive.native_bound = functools.partial(_bind, formula)


Call = tuple[tuple, tuple]  # what is written over, and the arguments of the kernel


class _Bound:
    """The arrays of one call: those that it writes, kept by none here; others may change."""

    __slots__ = ("like", "moves", "others", "places", "read", "rows", "written")

    def __init__(
        self,
        arrays: tuple,
        written: int,
        rows: np.ndarray,
        moves: np.ndarray,
        others: _Written | None,
    ) -> None:
        addresses = list(map(address_of, arrays))
        self.written = list(map(weakref.ref, arrays[:written]))
        self.places, self.read = addresses[:written], addresses[written:]
        self.like = arrays[0].dtype, arrays[0].size, arrays[0].nbytes
        self.rows = rows  # of the table that the kernel is given, one for each part
        self.moves = moves  # bytes from the start of an array to each part
        self.others = others  # what is written at the same time, if anything
        rows[:, : len(addresses)] = moves[:, None] + addresses

    def takes(self, out: tuple, args: tuple) -> bool:
        """Whether it is for these arrays; others to read are taken over."""
        for ref, array, same in zip(self.written, out, args, strict=False):
            if ref() is not array or same is not array:
                return False
        (dtype, size, nbytes), first = self.like, len(self.written)
        for i, known in enumerate(self.read, first):
            array = args[i]
            if not (
                type(array) is np.ndarray
                and (array.dtype is dtype or array.dtype == dtype)
                and array.size == size
                and array.flags.c_contiguous
            ):
                return False
            address = address_of(array)
            if known != address:
                for place in self.places:
                    if abs(place - address) < nbytes:
                        return False
                if self.others is not None and self.others.overlaps(address, nbytes):
                    return False
                self.read[i - first] = address
                self.rows[:, i] = self.moves + address
        return True


class _Written:
    """The memory of arrays that are written in no order: none of it may be read meanwhile."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        places = sorted((address_of(a), a.nbytes) for a in arrays)
        self._starts = [start for start, _ in places]
        self._stops = [start + nbytes for start, nbytes in places]

    def overlaps(self, address: int, nbytes: int) -> bool:
        """Whether some of these bytes are written."""
        before = bisect.bisect_left(self._starts, address + nbytes)
        return before > 0 and self._stops[before - 1] > address


def _parts(size: int) -> list[tuple[int, int]]:
    """Where the parts of an array of so many elements start and stop, which threads share."""
    return ranges(size, _LANES, min(max(size // _PART, 1), 4 * pool.threads()))


class _Prepared:
    """Updates of arrays of one dtype by the same numbers, one after the other in one call."""

    def __init__(
        self, native: Native, calls: Sequence[tuple], written: int, rates: tuple, params: dict
    ) -> None:
        self.rates, self.params = rates, dict(params)
        self._count = len(calls[0])
        self._types = [(int, float, rate.dtype.type) for rate in rates]
        total = sum(arrays[0].size for arrays in calls)
        # Products of float64 are BLAS's, whose threads are on the cores when they end.
        many = total >= 2 * _PART and calls[0][0].dtype == np.float32 and pool.threads() > 1
        together = _Written([a for arrays in calls for a in arrays[:written]])
        many = many and not any(
            together.overlaps(address_of(a), a.nbytes) for arrays in calls for a in arrays[written:]
        )
        cuts = [_parts(arrays[0].size) if many else [(0, arrays[0].size)] for arrays in calls]
        ends = list(itertools.accumulate(map(len, cuts), initial=0))
        table = np.empty((ends[-1], self._count + len(rates) + 1), np.int64)
        table[:, self._count : -1] = list(map(address_of, rates))
        table[:, -1] = [stop - start for cut in cuts for start, stop in cut]
        self._bound = []
        for arrays, cut, (first, last) in zip(calls, cuts, itertools.pairwise(ends), strict=True):
            moves = np.array([start for start, _ in cut], np.int64) * arrays[0].itemsize
            others = together if many else None
            self._bound.append(_Bound(arrays, written, table[first:last], moves, others))
        self.run = pool.shared(native, table) if many else repeated(native, table)

    def takes(self, calls: Sequence[Call], params: dict[str, Any]) -> bool:
        """Whether it is for these arrays and numbers."""
        numbers = calls[0][1][self._count :]
        if self.params != params or len(numbers) != len(self.rates):
            return False
        for bound, (out, args) in zip(self._bound, calls, strict=True):
            if not bound.takes(out, args):
                return False
        for rate, types, number in zip(self.rates, self._types, numbers, strict=True):
            if type(number) not in types and not _is_scalar(number, rate.dtype):
                return False
            rate[()] = number  # as NumPy would round it
        return True

    def again(self, numbers: Sequence[Any]) -> None:
        """Runs it by other numbers, over the arrays that it was made for."""
        for rate, number in zip(self.rates, numbers, strict=True):
            rate[()] = number  # as NumPy would round it
        self.run()


_prepared: dict[tuple[Any, ...], _Prepared] = {}


def _update(formula: Formula, out: tuple, args: tuple, params: dict[str, Any]) -> bool:
    """Runs an update over ``out``; False where the arrays are not of the usual form."""
    return _update_each(formula, [(out, args)], params)


def _update_each(formula: Formula, calls: Sequence[Call], params: dict[str, Any]) -> bool:
    """The same for several at once, all by the same numbers."""
    key = (formula, *[id(array) for out, _ in calls for array in out])
    known = _prepared.get(key)
    if known is None or not known.takes(calls, params):
        known = _prepare(formula, calls, params)
        if known is None:
            return False
        if len(_prepared) >= _MOST:
            _prepared.clear()
        _prepared[key] = known
    known.run()
    return True


def _bind(
    formula: Formula, calls: Sequence[Call], params: dict[str, Any]
) -> Callable[[Sequence[Any]], None] | None:
    """The same for arrays that stay where they are: a function of the numbers; None without one."""
    made = _prepare(formula, calls, params)
    return None if made is None else made.again


def _prepare(formula: Formula, calls: Sequence[Call], params: dict) -> _Prepared | None:
    out, args = calls[0]
    count = len(out)
    while count < len(args) and type(args[count]) is np.ndarray and args[count].ndim:
        count += 1
    first, numbers = args[0], args[count:]
    if type(first) is not np.ndarray or first.dtype not in _DTYPES:
        return None
    each = [args[:count] for _, args in calls]
    for arrays in each:
        own = arrays[0]
        if type(own) is not np.ndarray or own.dtype != first.dtype or not own.size:
            return None
        if not all(_alike(array, own) for array in arrays):
            return None
        if _overlap(list(map(address_of, arrays)), own.nbytes):
            return None
    name, constants = _DTYPES[first.dtype], tuple(sorted(params.items()))
    native = _loop(formula, name, len(out), count, len(numbers), constants)
    if native is None:
        return None
    rates = tuple(np.zeros((), first.dtype) for _ in numbers)
    made = _Prepared(native, each, len(out), rates, params)
    return made if made.takes(calls, params) else None


def _is_scalar(number: Any, dtype: np.dtype) -> bool:
    return getattr(number, "shape", None) == () and number.dtype == dtype


def _alike(array: Any, other: np.ndarray) -> bool:
    """Whether one loop can run over both."""
    return (
        type(array) is np.ndarray
        and array.dtype == other.dtype
        and array.size == other.size
        and array.flags.c_contiguous
    )


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
    early = not engine.cpu().startswith("znver")  # Intel's gain a tenth, AMD's lose a fifth
    for masked in (False, True):
        e.lines = []
        ahead = e.emit(f"add i64 %i, {_AHEAD}", "i64").text if early else ""
        values, places = [], []
        for i in range(arrays):
            place = e.emit(f"getelementptr {type_}, ptr %p{i}, i64 %i", "ptr").text
            places.append(place)
            if masked:
                load = f"call {vector} @llvm.masked.load.{short}(ptr {place}, i32 {size}, "
                values.append(e.emit(f"{load}{mask} %mask, {vector} zeroinitializer)", type_))
                continue
            if early:
                later = e.emit(f"getelementptr {type_}, ptr %p{i}, i64 {ahead}", "ptr").text
                hint = f"i32 {int(i < written)}, i32 3, i32 1"
                e.lines.append(f"  call void @llvm.prefetch.p0(ptr {later}, {hint})")
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
    return Native(engine.address(text, "entry"))


def _text(
    e: Emitter, bodies: Sequence[list[str]], type_: str, arrays: int, rates: int, short: str
) -> str:
    vector, mask, lanes = e.shown(type_), e.shown("i1"), _LANES
    start = []
    for i in range(rates):
        start += [
            f"  %one{i} = load {type_}, ptr %p{arrays + i}",
            f"  %in{i} = insertelement {vector} poison, {type_} %one{i}, i64 0",
            f"  %rate{i} = shufflevector {vector} %in{i}, {vector} poison, "
            f"<{lanes} x i32> zeroinitializer",
        ]
    steps = ", ".join(f"i64 {i}" for i in range(lanes))
    whole, rest = bodies
    declared = [
        *sorted(e.declared),
        "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
        f"declare {vector} @llvm.masked.load.{short}(ptr, i32, {mask}, {vector})",
        f"declare void @llvm.masked.store.{short}({vector}, ptr, i32, {mask})",
    ]
    body = [
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
    ]
    return module(declared, [f"p{i}" for i in range(arrays + rates)], ["count"], body)
