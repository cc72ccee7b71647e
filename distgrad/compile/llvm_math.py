"""Elementary functions in float32 as polynomials, without a branch or a call: loops vectorise.

Error bounds, in units in the last place of the correctly rounded result, are those that
``tests/compile/test_llvm.py`` measures over all magnitudes. Infinities, nans and subnormals come
out as from NumPy. Sources: Cephes (Moshier); erf: N. Juffa.
"""

from __future__ import annotations

from collections.abc import Sequence

from distgrad.compile.llvm_ir import Emitter, Scalar

_INFINITY = float("inf")
_NAN = float("nan")
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_ROUND = 12582912.0  # 1.5 * 2**23: adding it rounds to the nearest integer


class Math:
    """Functions of one float32 scalar, written through an emitter."""

    def __init__(self, emitter: Emitter) -> None:
        self.e = emitter

    def _n(self, value: float) -> Scalar:
        return self.e.number(value, "float")

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

    def _power_of_two(self, exponent: Scalar) -> Scalar:
        e = self.e
        biased = e.binary("add", exponent, e.number(127, "i32"))
        return e.cast("bitcast", e.binary("shl", biased, e.number(23, "i32")), "float")

    def _exp_parts(self, x: Scalar) -> tuple[Scalar, Scalar]:
        """e**x as a factor near 1 and, as an integer, the exponent of a power of two."""
        e = self.e
        shifted = self._fma(x, self._n(1.44269504088896341), self._n(_ROUND))
        n = e.binary("fsub", shifted, self._n(_ROUND))
        r = self._fma(n, self._n(-_LN2_HIGH), x)
        r = self._fma(n, self._n(-_LN2_LOW), r)
        p = self._polynomial(
            r,
            (
                1.9875691500e-4,
                1.3981999507e-3,
                8.3334519073e-3,
                4.1665795894e-2,
                1.6666665459e-1,
                5.0000001201e-1,
            ),
        )
        p = self._fma(p, e.binary("fmul", r, r), r)
        p = e.binary("fadd", p, self._n(1.0))
        bits = e.cast("bitcast", shifted, "i32")
        return p, e.binary("sub", bits, e.number(0x4B400000, "i32"))

    def exp(self, x: Scalar) -> Scalar:
        """e**x, within 1.1 ulp."""
        e = self.e
        # What ends up as 0 must not get there through subnormals, which take 100 times as long.
        nothing = e.compare("olt", x, self._n(-104.0))
        x = self._where("ogt", x, 89.0, self._n(89.0), x)
        p, n = self._exp_parts(e.select(nothing, self._n(0.0), x))
        # 2**n in two factors: one alone would not reach subnormal results.
        half = e.binary("ashr", n, e.number(1, "i32"))
        rest = e.binary("sub", n, half)
        p = e.binary("fmul", p, self._power_of_two(half))
        p = e.binary("fmul", p, self._power_of_two(rest))
        return e.select(nothing, self._n(0.0), p)

    def _exp_within(self, x: Scalar) -> Scalar:
        """e**x for an x in [-87, 88]."""
        p, n = self._exp_parts(x)
        return self.e.binary("fmul", p, self._power_of_two(n))

    def expm1(self, x: Scalar) -> Scalar:
        """e**x - 1, within 2 ulp."""
        e = self.e
        taylor = (1 / 40320, 1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5)
        small = self._fma(self._polynomial(x, taylor), e.binary("fmul", x, x), x)
        large = e.binary("fsub", self.exp(x), self._n(1.0))
        size = e.intrinsic("fabs", x)
        return self._where("olt", size, 0.5, small, large)

    def log(self, x: Scalar) -> Scalar:
        """The natural logarithm, within 1.5 ulp."""
        e = self.e
        tiny = e.compare("olt", x, self._n(1.17549435e-38))
        scaled = e.select(tiny, e.binary("fmul", x, self._n(8388608.0)), x)
        bits = e.cast("bitcast", scaled, "i32")
        # The mantissa in [sqrt(1/2), sqrt(2)).
        above = e.binary("sub", bits, e.number(0x3F3504F3, "i32"))
        exponent = e.binary("ashr", above, e.number(23, "i32"))
        taken = e.binary("shl", exponent, e.number(23, "i32"))
        m = e.cast("bitcast", e.binary("sub", bits, taken), "float")
        n = e.cast("sitofp", exponent, "float")
        n = e.select(tiny, e.binary("fsub", n, self._n(23.0)), n)
        f = e.binary("fsub", m, self._n(1.0))
        z = e.binary("fmul", f, f)
        p = self._polynomial(
            f,
            (
                7.0376836292e-2,
                -1.1514610310e-1,
                1.1676998740e-1,
                -1.2420140846e-1,
                1.4249322787e-1,
                -1.6668057665e-1,
                2.0000714765e-1,
                -2.4999993993e-1,
                3.3333331174e-1,
            ),
        )
        y = e.binary("fmul", e.binary("fmul", p, f), z)
        y = self._fma(n, self._n(_LN2_LOW), y)
        y = self._fma(z, self._n(-0.5), y)
        y = e.binary("fadd", f, y)
        y = self._fma(n, self._n(_LN2_HIGH), y)
        y = self._where("oeq", x, _INFINITY, x, y)
        y = self._where("oeq", x, 0.0, self._n(-_INFINITY), y)
        y = self._where("olt", x, 0.0, self._n(_NAN), y)
        return e.select(e.compare("uno", x, x), x, y)

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
        z = e.binary("fmul", x, x)
        p = self._polynomial(
            z,
            (
                -5.70498872745e-3,
                2.06390887954e-2,
                -5.37397155531e-2,
                1.33314422036e-1,
                -3.33332819422e-1,
            ),
        )
        small = self._fma(e.binary("fmul", p, z), x, x)
        size = e.intrinsic("fabs", x)
        capped = self._where("ogt", size, 10.0, self._n(10.0), size)
        grown = self._exp_within(e.binary("fadd", capped, capped))
        grown = e.binary("fadd", grown, self._n(1.0))
        large = e.binary("fsub", self._n(1.0), e.binary("fdiv", self._n(2.0), grown))
        large = e.intrinsic("copysign", large, x)
        y = self._where("olt", size, 0.625, small, large)
        return e.select(e.compare("uno", x, x), x, y)

    def erf(self, x: Scalar) -> Scalar:
        """The error function, within 1.5 ulp."""
        e = self.e
        t = e.intrinsic("fabs", x)
        s = e.binary("fmul", x, x)
        u = self._polynomial(t, (-3.88396438e-3, 2.42546219e-2))
        r = self._fma(self._polynomial(t, (-1.72853470e-5, 3.83197126e-4)), s, u)
        for c in (-1.06777877e-1, -6.34846687e-1, -1.28717512e-1):
            r = self._fma(r, t, self._n(c))
        r = self._fma(r, t, e.binary("fsub", self._n(-0.0), t))
        # Far out the polynomial turns round; the result is 1 there.
        r = self._where("ogt", t, 4.0, self._n(-20.0), r)
        large = e.binary("fsub", self._n(1.0), self._exp_within(r))
        large = e.intrinsic("copysign", large, x)
        p = self._polynomial(
            s,
            (
                -5.96761703e-4,
                4.99119423e-3,
                -2.67681349e-2,
                1.12819925e-1,
                -3.76125336e-1,
                1.28379166e-1,
            ),
        )
        small = self._fma(p, x, x)
        y = self._where("ogt", t, 0.927734375, large, small)
        return e.select(e.compare("uno", x, x), x, y)
