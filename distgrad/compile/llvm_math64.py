"""Elementary functions in float64, without a branch or a call: loops vectorise.

The forms are those of Cephes (Moshier). Error bounds, in units in the last place, are those that
``tests/compile/test_llvm.py`` measures over all magnitudes.
"""

from __future__ import annotations

from collections.abc import Sequence

from distgrad.compile.llvm_ir import Emitter, Scalar

_INFINITY = float("inf")
_NAN = float("nan")
_ROUND = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to the nearest integer
_ROUND_BITS = 0x4338000000000000
_LN2_HIGH, _LN2_LOW = 6.93145751953125e-1, 1.42860682030941723212e-6

_EXP_P = (1.26177193074810590878e-4, 3.02994407707441961300e-2, 9.99999999999999999910e-1)
_EXP_Q = (
    3.00198505138664455042e-6,
    2.52448340349684104192e-3,
    2.27265548208155028766e-1,
    2.00000000000000000005,
)
_LOG_P = (
    1.01875663804580931796e-4,
    4.97494994976747001425e-1,
    4.70579119878881725854,
    1.44989225341610930846e1,
    1.79368678507819816313e1,
    7.70838733755885391666,
)
_LOG_Q = (
    1.0,
    1.12873587189167450590e1,
    4.52279145837532221105e1,
    8.29875266912776603211e1,
    7.11544750618563894466e1,
    2.31251620126765340583e1,
)
_TANH_P = (-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3)
_TANH_Q = (
    1.0,
    1.12811678491632931402e2,
    2.23548839060100448583e3,
    4.84406305325125486048e3,
)
_ERF_T = (
    9.60497373987051638749,
    9.00260197203842689217e1,
    2.23200534594684319226e3,
    7.00332514112805075473e3,
    5.55923013010394962768e4,
)
_ERF_U = (
    1.0,
    3.35617141647503099647e1,
    5.21357949780152679795e2,
    4.59432382970980127987e3,
    2.26290000613890934246e4,
    4.92673942608635921086e4,
)
_ERFC_P = (
    2.46196981473530512524e-10,
    5.64189564831068821977e-1,
    7.46321056442269912687,
    4.86371970985681366614e1,
    1.96520832956077098242e2,
    5.26445194995477358631e2,
    9.34528527171957607540e2,
    1.02755188689515710272e3,
    5.57535335369399327526e2,
)
_ERFC_Q = (
    1.0,
    1.32281951154744992508e1,
    8.67072140885989742329e1,
    3.54937778887819891062e2,
    9.75708501743205489753e2,
    1.82390916687909736289e3,
    2.24633760818710981792e3,
    1.65666309194161350182e3,
    5.57535340817727675546e2,
)


class Math64:
    """Functions of one float64, written through an emitter."""

    def __init__(self, emitter: Emitter) -> None:
        self.e = emitter

    def _n(self, value: float) -> Scalar:
        return self.e.number(value, "double")

    def _fma(self, a: Scalar, b: Scalar, c: Scalar) -> Scalar:
        return self.e.intrinsic("fma", a, b, c)

    def _polynomial(self, x: Scalar, coefficients: Sequence[float]) -> Scalar:
        """Horner's rule, highest power first."""
        total = self._n(coefficients[0])
        for c in coefficients[1:]:
            total = self._fma(total, x, self._n(c))
        return total

    def _ratio(self, x: Scalar, above: Sequence[float], below: Sequence[float]) -> Scalar:
        return self.e.binary("fdiv", self._polynomial(x, above), self._polynomial(x, below))

    def _where(self, op: str, x: Scalar, limit: float, a: Scalar, b: Scalar) -> Scalar:
        return self.e.select(self.e.compare(op, x, self._n(limit)), a, b)

    def _power_of_two(self, exponent: Scalar) -> Scalar:
        e = self.e
        biased = e.binary("add", exponent, e.number(1023, "i64"))
        return e.cast("bitcast", e.binary("shl", biased, e.number(52, "i64")), "double")

    def exp(self, x: Scalar) -> Scalar:
        """e**x, within 1.5 ulp."""
        e = self.e
        # What ends up as 0 must not get there through subnormals, which take 100 times as long.
        nothing = e.compare("olt", x, self._n(-746.0))
        x = self._where("ogt", x, 710.0, self._n(710.0), x)
        x = e.select(nothing, self._n(0.0), x)
        shifted = self._fma(x, self._n(1.4426950408889634074), self._n(_ROUND))
        n = e.binary("fsub", shifted, self._n(_ROUND))
        r = self._fma(n, self._n(-_LN2_HIGH), x)
        r = self._fma(n, self._n(-_LN2_LOW), r)
        p = self._odd(r)
        p = self._fma(p, self._n(2.0), self._n(1.0))
        exponent = e.binary("sub", e.cast("bitcast", shifted, "i64"), e.number(_ROUND_BITS, "i64"))
        # 2**n in two factors: one alone would not reach subnormal results.
        half = e.binary("ashr", exponent, e.number(1, "i64"))
        p = e.binary("fmul", p, self._power_of_two(half))
        p = e.binary("fmul", p, self._power_of_two(e.binary("sub", exponent, half)))
        return e.select(nothing, self._n(0.0), p)

    def _odd(self, r: Scalar) -> Scalar:
        """(e**r - 1) / 2 for small r."""
        e = self.e
        z = e.binary("fmul", r, r)
        above = e.binary("fmul", r, self._polynomial(z, _EXP_P))
        return e.binary("fdiv", above, e.binary("fsub", self._polynomial(z, _EXP_Q), above))

    def expm1(self, x: Scalar) -> Scalar:
        """e**x - 1, within 3 ulp."""
        e = self.e
        half = self._odd(x)
        large = e.binary("fsub", self.exp(x), self._n(1.0))
        size = e.intrinsic("fabs", x)
        return self._where("olt", size, 0.5, e.binary("fadd", half, half), large)

    def log(self, x: Scalar) -> Scalar:
        """The natural logarithm, within 1.5 ulp."""
        e = self.e
        tiny = e.compare("olt", x, self._n(2.2250738585072014e-308))
        scaled = e.select(tiny, e.binary("fmul", x, self._n(2.0**54)), x)
        bits = e.cast("bitcast", scaled, "i64")
        # The mantissa in [sqrt(1/2), sqrt(2)).
        above = e.binary("sub", bits, e.number(0x3FE6A09E667F3BCD, "i64"))
        exponent = e.binary("ashr", above, e.number(52, "i64"))
        taken = e.binary("shl", exponent, e.number(52, "i64"))
        m = e.cast("bitcast", e.binary("sub", bits, taken), "double")
        n = e.cast("sitofp", exponent, "double")
        n = e.select(tiny, e.binary("fsub", n, self._n(54.0)), n)
        f = e.binary("fsub", m, self._n(1.0))
        z = e.binary("fmul", f, f)
        y = e.binary("fmul", f, e.binary("fmul", z, self._ratio(f, _LOG_P, _LOG_Q)))
        y = self._fma(n, self._n(-2.121944400546905827679e-4), y)
        y = self._fma(z, self._n(-0.5), y)
        y = e.binary("fadd", f, y)
        y = self._fma(n, self._n(0.693359375), y)
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
        ratio = self._ratio(z, _TANH_P, _TANH_Q)
        small = self._fma(e.binary("fmul", x, z), ratio, x)
        size = e.intrinsic("fabs", x)
        grown = e.binary("fadd", self.exp(e.binary("fadd", size, size)), self._n(1.0))
        large = e.binary("fsub", self._n(1.0), e.binary("fdiv", self._n(2.0), grown))
        large = e.intrinsic("copysign", large, x)
        y = self._where("olt", size, 0.625, small, large)
        return e.select(e.compare("uno", x, x), x, y)

    def erf(self, x: Scalar) -> Scalar:
        """The error function, within 2 ulp."""
        e = self.e
        t, z = e.intrinsic("fabs", x), e.binary("fmul", x, x)
        small = e.binary("fmul", x, self._ratio(z, _ERF_T, _ERF_U))
        capped = self._where("ogt", t, 6.0, self._n(6.0), t)
        square = e.binary("fmul", capped, capped)
        tail = e.binary("fmul", self.exp(e.negative(square)), self._ratio(capped, _ERFC_P, _ERFC_Q))
        large = e.intrinsic("copysign", e.binary("fsub", self._n(1.0), tail), x)
        y = self._where("olt", t, 1.0, small, large)
        y = e.select(e.compare("oeq", x, self._n(0.0)), x, y)
        return e.select(e.compare("uno", x, x), x, y)
