"""The elementary functions of ``math`` in float32, as polynomials. erf: N. Juffa."""

from __future__ import annotations

from distgrad.compile.llvm.ir import Scalar
from distgrad.compile.llvm.math import Math

_EXP = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
_LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_TANH = (
    -5.70498872745e-3,
    2.06390887954e-2,
    -5.37397155531e-2,
    1.33314422036e-1,
    -3.33332819422e-1,
)
_EXPM1 = (1 / 40320, 1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5)


class Math32(Math):
    """Functions of one float32."""

    type, whole = "float", "i32"
    mantissa, bias, scale = 23, 127, 23
    root_bits = 0x3F3504F3
    smallest = 1.17549435e-38
    round, round_bits = 12582912.0, 0x4B400000  # 1.5 * 2**23
    least, most = -104.0, 89.0
    exp_ln2 = 0.693359375, -2.12194440e-4

    def _exp_near_zero(self, r: Scalar) -> Scalar:
        p = self._polynomial(r, _EXP)
        p = self._fma(p, self.e.binary("fmul", r, r), r)
        return self.e.binary("fadd", p, self._n(1.0))

    def _expm1_near_zero(self, x: Scalar) -> Scalar:
        p = self._polynomial(x, _EXPM1)
        return self._fma(p, self.e.binary("fmul", x, x), x)

    def _log_rest(self, f: Scalar, z: Scalar) -> Scalar:
        p = self._polynomial(f, _LOG)
        return self.e.binary("fmul", self.e.binary("fmul", p, f), z)

    def _tanh_near_zero(self, x: Scalar) -> Scalar:
        z = self.e.binary("fmul", x, x)
        p = self._polynomial(z, _TANH)
        return self._fma(self.e.binary("fmul", p, z), x, x)

    def _exp_twice(self, x: Scalar) -> Scalar:
        capped = self._where("ogt", x, 10.0, self._n(10.0), x)
        return self._exp_within(self.e.binary("fadd", capped, capped))

    def _exp_within(self, x: Scalar) -> Scalar:
        """e**x for an x in [-87, 88]."""
        p, n = self._exp_parts(x)
        return self.e.binary("fmul", p, self._power_of_two(n))

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
        return self._or_nan(x, y)
