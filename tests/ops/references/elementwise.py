"""What every elementwise primitive should give, element by element, from Python's ``math``.

None of these functions is the one that the primitive calls: where ``math`` has no such function, it
is inverted by bisection, integrated or summed.
"""

from __future__ import annotations

import cmath
import math
import operator

import numpy as np


def each(f, otypes=None):
    """``f`` of Python numbers, applied to arrays with broadcasting."""
    return np.vectorize(f, otypes=otypes)


def real(f):
    return each(f, [float])


def truth(f):
    return each(f, [bool])


def constant_like(x, *, value):
    return np.array([value] * np.size(x), dtype=np.asarray(x).dtype).reshape(np.shape(x))


def converted(x, *, dtype):
    kind = {"f": float, "i": int, "c": complex}[np.dtype(dtype).kind]
    return np.array([kind(v) for v in np.ravel(x)], dtype=dtype).reshape(np.shape(x))


def positions(x):
    return np.array([i for i in np.ndindex(np.shape(x)) if x[i]], np.int64).reshape(-1, np.ndim(x))


def integer_power(x, y):
    return np.prod([x] * int(y), dtype=np.int64)


def bisect(f, target, low, high):
    """Where the monotonic ``f`` takes the value ``target`` in [low, high]."""
    rising = f(high) > f(low)
    for _ in range(200):
        middle = (low + high) / 2
        if (f(middle) < target) == rising:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def hurwitz_zeta(s, q):
    """The sum of ``(n + q) ** -s``: many terms, and the rest by the Euler-Maclaurin formula."""
    count = 200
    total = math.fsum(math.copysign(1, q + n) ** (s % 2) * abs(q + n) ** -s for n in range(count))
    a = q + count
    tail = a ** (1 - s) / (s - 1) + 0.5 * a**-s + s / 12 * a ** (-s - 1)
    return total + tail - s * (s + 1) * (s + 2) / 720 * a ** (-s - 3)


def digamma(x):
    """By recurrence up to a large argument, and the asymptotic series there."""
    total = 0.0
    while x < 30:
        total -= 1 / x
        x += 1
    return total + math.log(x) - 1 / (2 * x) - x**-2 / 12 + x**-4 / 120 - x**-6 / 252


def polygamma(a, x):
    order = int(a)
    if order == 0:
        return digamma(x)
    return (-1) ** (order + 1) * math.factorial(order) * hurwitz_zeta(order + 1, x)


def normal_cdf(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


def mish_slope(g, x):
    t, s = math.tanh(math.log1p(math.exp(x))), 1 / (1 + math.exp(-x))
    return g * (t + x * (1 - t * t) * s)


def gelu_slope(g, x):
    return g * (normal_cdf(x) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi))


def gelu_tanh(x):
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def clipped(x, low, high):
    return max(min(x, high), low)


REFERENCES = {
    # casting
    "identity": np.copy,
    "stop_gradient": np.copy,
    "fill_like": constant_like,
    "cast_float": converted,
    "cast_discrete": converted,
    # complex
    "conjugate": each(lambda z: complex(z.real, -z.imag), [complex]),
    "real_part": each(lambda z: z.real, [float]),
    "imag_part": each(lambda z: z.imag, [float]),
    "complex": each(lambda a, b: a + 1j * b, [complex]),
    # arithmetic
    "add": each(operator.add),
    "subtract": each(operator.sub),
    "multiply": each(operator.mul),
    "divide_exact": each(operator.truediv),
    "negative": each(operator.neg),
    "reciprocal": real(lambda x: 1 / x),
    "quotient_or_zero": real(lambda x, y: x / y if y else 0.0),
    "multiply_no_nan": real(lambda x, y: x * y if y else 0.0),
    "divide_cotangent": real(lambda g, y: g / y if g else 0.0),
    "square": each(lambda x: x**2),
    "squared_difference": each(lambda x, y: (x - y) ** 2),
    "abs": real(math.fabs),
    "sign": real(lambda x: (x > 0) - (x < 0)),
    "nextafter": real(math.nextafter),
    # logic
    "equal": truth(operator.eq),
    "not_equal": truth(operator.ne),
    "less": truth(operator.lt),
    "less_equal": truth(operator.le),
    "greater": truth(operator.gt),
    "greater_equal": truth(operator.ge),
    "is_nan": truth(math.isnan),
    "is_inf": truth(math.isinf),
    "is_finite": truth(math.isfinite),
    "logical_and": truth(lambda x, y: x and y),
    "logical_or": truth(lambda x, y: x or y),
    "logical_xor": truth(lambda x, y: bool(x) != bool(y)),
    "logical_not": truth(lambda x: not x),
    "bitwise_and": each(lambda x, y: int(x) & int(y), [np.int64]),
    "bitwise_or": each(lambda x, y: int(x) | int(y), [np.int64]),
    "bitwise_xor": each(lambda x, y: int(x) ^ int(y), [np.int64]),
    "invert": each(lambda x: -int(x) - 1, [np.int64]),
    "select": each(lambda condition, x, y: x if condition else y, [float]),
    "nonzero": positions,
    # clipping
    "maximum": real(max),
    "minimum": real(min),
    "clip": real(clipped),
    # rounding
    "floor": real(math.floor),
    "ceil": real(math.ceil),
    "rint": real(lambda x: math.copysign(round(x), x)),
    "floordiv": each(lambda x, y: np.asarray(math.floor(x / y)).astype(np.asarray(x).dtype)[()]),
    "truncatediv": each(lambda x, y: np.asarray(math.trunc(x / y)).astype(np.asarray(x).dtype)[()]),
    "floormod": real(operator.mod),
    "truncatemod": real(math.fmod),
    # exponential
    "exp": real(math.exp),
    "expm1": real(math.expm1),
    "log": real(math.log),
    "log1p": real(math.log1p),
    "sigmoid": real(lambda x: 1 / (1 + math.exp(-x))),
    "softplus": real(lambda x: math.log1p(math.exp(x))),
    "xlogy": real(lambda x, y: x * math.log(y) if x else 0.0),
    "xlog1py": real(lambda x, y: x * math.log1p(y) if x else 0.0),
    "xdivy": real(lambda x, y: x / y if x else 0.0),
    # powers
    "sqrt": real(math.sqrt),
    "rsqrt": real(lambda x: 1 / math.sqrt(x)),
    "power": real(math.pow),
    "integer_power": each(integer_power, [np.int64]),
    # trigonometric
    **{n: real(getattr(math, n)) for n in ("sin", "cos", "tan", "asin", "acos", "atan")},
    **{n: real(getattr(math, n)) for n in ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh")},
    "atan2": real(lambda y, x: cmath.phase(complex(x, y))),
    # special
    "erf": real(math.erf),
    "erfc": real(math.erfc),
    "erfinv": real(lambda y: bisect(math.erf, y, -6, 6)),
    "erfcinv": real(lambda y: bisect(math.erfc, y, -6, 6)),
    "ndtri": real(lambda p: bisect(normal_cdf, p, -9, 9)),
    "lgamma": real(math.lgamma),
    "digamma": real(digamma),
    "polygamma": real(polygamma),
    "zeta": real(hurwitz_zeta),
    # activations
    "relu": real(lambda x: max(x, 0.0)),
    "tanh_grad": real(lambda g, y: g * (1 - y**2)),
    "sigmoid_grad": real(lambda g, y: g * y * (1 - y)),
    "relu_grad": real(lambda g, y: g if y > 0 else 0.0),
    "relu6": real(lambda x: clipped(x, 0.0, 6.0)),
    "leaky_rectifier": lambda x, *, alpha: real(lambda v: v if v > 0 else alpha * v)(x),
    "exponential_unit": lambda x, *, alpha: real(
        lambda v: v if v > 0 else alpha * (math.exp(v) - 1)
    )(x),
    "sigmoid_unit": real(lambda x: x / (1 + math.exp(-x))),
    "mish": real(lambda x: x * math.tanh(math.log1p(math.exp(x)))),
    "mish_grad": real(mish_slope),
    "softsign": real(lambda x: x / (1 + abs(x))),
    "gelu_exact": real(lambda x: x * normal_cdf(x)),
    "gelu_exact_grad": real(gelu_slope),
    "gelu_tanh": real(gelu_tanh),
}
