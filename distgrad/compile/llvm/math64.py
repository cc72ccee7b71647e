"""The elementary functions of ``math`` in float64, as ratios of polynomials."""

from __future__ import annotations

from collections.abc import Sequence

from distgrad.compile.llvm.ir import Scalar
from distgrad.compile.llvm.math import Math

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


class Math64(Math):
    """Functions of one float64."""

    type, whole = "double", "i64"
    mantissa, bias, scale = 52, 1023, 54
    root_bits = 0x3FE6A09E667F3BCD
    smallest = 2.2250738585072014e-308
    round, round_bits = 6755399441055744.0, 0x4338000000000000  # 1.5 * 2**52
    least, most = -746.0, 710.0
    exp_ln2 = 6.93145751953125e-1, 1.42860682030941723212e-6

    def _ratio(self, x: Scalar, above: Sequence[float], below: Sequence[float]) -> Scalar:
        return self.e.binary("fdiv", self._polynomial(x, above), self._polynomial(x, below))

    def _exp_near_zero(self, r: Scalar) -> Scalar:
        return self._fma(self._odd(r), self._n(2.0), self._n(1.0))

    def _odd(self, r: Scalar) -> Scalar:
        """(e**r - 1) / 2 for small r."""
        e = self.e
        z = e.binary("fmul", r, r)
        above = e.binary("fmul", r, self._polynomial(z, _EXP_P))
        return e.binary("fdiv", above, e.binary("fsub", self._polynomial(z, _EXP_Q), above))

    def _expm1_near_zero(self, x: Scalar) -> Scalar:
        half = self._odd(x)
        return self.e.binary("fadd", half, half)

    def _log_rest(self, f: Scalar, z: Scalar) -> Scalar:
        return self.e.binary("fmul", f, self.e.binary("fmul", z, self._ratio(f, _LOG_P, _LOG_Q)))

    def _tanh_near_zero(self, x: Scalar) -> Scalar:
        z = self.e.binary("fmul", x, x)
        ratio = self._ratio(z, _TANH_P, _TANH_Q)
        return self._fma(self.e.binary("fmul", x, z), ratio, x)

    def _exp_twice(self, x: Scalar) -> Scalar:
        return self.exp(self.e.binary("fadd", x, x))

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
        return self._or_nan(x, y)
