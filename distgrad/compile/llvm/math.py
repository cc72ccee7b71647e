"""Elementary functions without a branch or a call, so that loops of them vectorise.

What is the same in both precisions; ``math32`` and ``math64`` have the rest. Error
bounds, in units in the last place of the correctly rounded result, are those that
``tests/compile/llvm/test_kernels.py`` measures over all magnitudes. Infinities, nans and
subnormals come out as from NumPy. The forms are those of Cephes (Moshier).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from distgrad.compile.llvm.ir import Emitter, Scalar

_INFINITY = float("inf")
_NAN = float("nan")
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.121944400546905827679e-4


class Math(ABC):
    """Functions of one scalar of a float type, written through an emitter."""

    type: str
    whole: str  # the integer with as many bits
    mantissa: int  # its bits
    bias: int  # of the exponent
    root_bits: int  # of sqrt(1/2)
    smallest: float  # that is not subnormal
    round: float  # adding it rounds to the nearest integer,
    round_bits: int  # which its bits, less these, then are
    least: float  # e**x is 0 for anything below
    most: float  # and infinite above
    exp_ln2: tuple[float, float]  # ln 2 in two terms
    scale: int  # a power of two that makes subnormals normal

    def __init__(self, emitter: Emitter) -> None:
        self.e = emitter

    @abstractmethod
    def _exp_near_zero(self, r: Scalar) -> Scalar:
        """e**r for abs(r) < 0.35."""

    @abstractmethod
    def _expm1_near_zero(self, x: Scalar) -> Scalar:
        """e**x - 1 for abs(x) < 0.5."""

    @abstractmethod
    def _log_rest(self, f: Scalar, z: Scalar) -> Scalar:
        """log(1 + f) - f + z / 2 for small f, the square of which is z."""

    @abstractmethod
    def _tanh_near_zero(self, x: Scalar) -> Scalar:
        """tanh x for abs(x) < 0.625."""

    @abstractmethod
    def _exp_twice(self, x: Scalar) -> Scalar:
        """e**(2 x) for x >= 0, as far as tanh can tell."""

    @abstractmethod
    def erf(self, x: Scalar) -> Scalar:
        """The error function, within 2 ulp."""

    def exp(self, x: Scalar) -> Scalar:
        """e**x, within 1.1 ulp in float32 and 1.5 in float64."""
        e = self.e
        # What ends up as 0 must not get there through subnormals, which take 100 times as long.
        nothing = e.compare("olt", x, self._n(self.least))
        x = self._where("ogt", x, self.most, self._n(self.most), x)
        p, n = self._exp_parts(e.select(nothing, self._n(0.0), x))
        # 2**n in two factors: one alone would not reach subnormal results.
        half = e.binary("ashr", n, e.number(1, self.whole))
        rest = e.binary("sub", n, half)
        p = e.binary("fmul", p, self._power_of_two(half))
        p = e.binary("fmul", p, self._power_of_two(rest))
        return e.select(nothing, self._n(0.0), p)

    def expm1(self, x: Scalar) -> Scalar:
        """e**x - 1, within 2 ulp in float32 and 3 in float64."""
        e = self.e
        small = self._expm1_near_zero(x)
        large = e.binary("fsub", self.exp(x), self._n(1.0))
        return self._where("olt", e.intrinsic("fabs", x), 0.5, small, large)

    def log(self, x: Scalar) -> Scalar:
        """The natural logarithm, within 1.5 ulp."""
        e = self.e
        tiny = e.compare("olt", x, self._n(self.smallest))
        scaled = e.select(tiny, e.binary("fmul", x, self._n(2.0**self.scale)), x)
        bits = e.cast("bitcast", scaled, self.whole)
        # The mantissa in [sqrt(1/2), sqrt(2)).
        above = e.binary("sub", bits, e.number(self.root_bits, self.whole))
        exponent = e.binary("ashr", above, e.number(self.mantissa, self.whole))
        taken = e.binary("shl", exponent, e.number(self.mantissa, self.whole))
        m = e.cast("bitcast", e.binary("sub", bits, taken), self.type)
        n = e.cast("sitofp", exponent, self.type)
        n = e.select(tiny, e.binary("fsub", n, self._n(self.scale)), n)
        f = e.binary("fsub", m, self._n(1.0))
        z = e.binary("fmul", f, f)
        y = self._log_rest(f, z)
        y = self._fma(n, self._n(_LN2_LOW), y)
        y = self._fma(z, self._n(-0.5), y)
        y = e.binary("fadd", f, y)
        y = self._fma(n, self._n(_LN2_HIGH), y)
        y = self._where("oeq", x, _INFINITY, x, y)
        y = self._where("oeq", x, 0.0, self._n(-_INFINITY), y)
        y = self._where("olt", x, 0.0, self._n(_NAN), y)
        return self._or_nan(x, y)

    def log1p(self, x: Scalar) -> Scalar:
        """log(1 + x), within 2.5 ulp."""
        e = self.e
        u = e.binary("fadd", x, self._n(1.0))
        lost = e.binary("fsub", e.binary("fsub", u, self._n(1.0)), x)
        y = e.binary("fsub", self.log(u), e.binary("fdiv", lost, u))
        y = self._where("oeq", u, _INFINITY, u, y)
        y = self._where("oeq", u, 0.0, self._n(-_INFINITY), y)
        return self._where("oeq", u, 1.0, x, y)

    def tanh(self, x: Scalar) -> Scalar:
        """The hyperbolic tangent, within 2 ulp."""
        e = self.e
        small = self._tanh_near_zero(x)
        size = e.intrinsic("fabs", x)
        grown = e.binary("fadd", self._exp_twice(size), self._n(1.0))
        large = e.binary("fsub", self._n(1.0), e.binary("fdiv", self._n(2.0), grown))
        large = e.intrinsic("copysign", large, x)
        return self._or_nan(x, self._where("olt", size, 0.625, small, large))

    def _n(self, value: float) -> Scalar:
        return self.e.number(value, self.type)

    def _fma(self, a: Scalar, b: Scalar, c: Scalar) -> Scalar:
        return self.e.intrinsic("fma", a, b, c)

    def _polynomial(self, x: Scalar, coefficients: Sequence[float]) -> Scalar:
        """Horner's rule, highest power first."""
        total = self._n(coefficients[0])
        for c in coefficients[1:]:
            total = self._fma(total, x, self._n(c))
        return total

    def _where(self, op: str, x: Scalar, limit: float, a: Scalar, b: Scalar) -> Scalar:
        return self.e.select(self.e.compare(op, x, self._n(limit)), a, b)

    def _or_nan(self, x: Scalar, y: Scalar) -> Scalar:
        """y, or x where that is nan."""
        return self.e.select(self.e.compare("uno", x, x), x, y)

    def _power_of_two(self, exponent: Scalar) -> Scalar:
        e = self.e
        biased = e.binary("add", exponent, e.number(self.bias, self.whole))
        shifted = e.binary("shl", biased, e.number(self.mantissa, self.whole))
        return e.cast("bitcast", shifted, self.type)

    def _exp_parts(self, x: Scalar) -> tuple[Scalar, Scalar]:
        """e**x as a factor near 1 and, as an integer, the exponent of a power of two."""
        e = self.e
        shifted = self._fma(x, self._n(1.4426950408889634074), self._n(self.round))
        n = e.binary("fsub", shifted, self._n(self.round))
        r = x
        for part in self.exp_ln2:
            r = self._fma(n, self._n(-part), r)
        p = self._exp_near_zero(r)
        bits = e.cast("bitcast", shifted, self.whole)
        return p, e.binary("sub", bits, e.number(self.round_bits, self.whole))
