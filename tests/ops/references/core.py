"""Optimizer updates, one number at a time, from the papers and Keras's documentation."""

from __future__ import annotations

import math

import numpy as np


def per_number(step, count):
    """``step`` of Python floats, for each element of the first ``count`` arrays; the rest as is."""

    def reference(*args, **params):
        arrays, rest = args[:count], args[count:]
        rows = [step(*map(float, row), *rest, **params) for row in zip(*arrays, strict=True)]
        return tuple(np.array(column) for column in zip(*rows, strict=True))

    return reference


def sgd(p, g, rate):
    return (p - rate * g,)


def momentum(p, m, g, rate, *, momentum, nesterov):
    m = momentum * m - rate * g
    return p + (momentum * m - rate * g if nesterov else m), m


def lion(p, m, g, rate, *, beta_1, beta_2):
    direction = beta_1 * m + (1 - beta_1) * g
    return p - rate * math.copysign(1.0, direction), beta_2 * m + (1 - beta_2) * g


def moments(m, s, g, beta_1, beta_2):
    return beta_1 * m + (1 - beta_1) * g, beta_2 * s + (1 - beta_2) * g**2


def adam(p, m, s, g, alpha, *, beta_1, beta_2, epsilon):
    m, s = moments(m, s, g, beta_1, beta_2)
    return p - alpha * m / (s**0.5 + epsilon), m, s


def amsgrad(p, m, s, h, g, alpha, *, beta_1, beta_2, epsilon):
    m, s = moments(m, s, g, beta_1, beta_2)
    h = max(h, s)
    return p - alpha * m / (h**0.5 + epsilon), m, s, h


def adamax(p, m, u, g, alpha, *, beta_1, beta_2, epsilon):
    m = beta_1 * m + (1 - beta_1) * g
    u = max(beta_2 * u, math.fabs(g))
    return p - alpha * m / (u + epsilon), m, u


def nadam(p, m, s, g, ahead, now, correction, *, beta_1, beta_2, epsilon):
    m, s = moments(m, s, g, beta_1, beta_2)
    return p - (ahead * m + now * g) / ((correction * s) ** 0.5 + epsilon), m, s


def rmsprop(p, v, *rest, rho, momentum, epsilon, centered):
    *state, g, rate = rest

    def one(p, v, g, m, a):
        v = rho * v + (1 - rho) * g**2
        a = rho * a + (1 - rho) * g if centered else a
        step = rate * g / (v - a**2 * centered + epsilon) ** 0.5
        m = momentum * m + step
        return p - m, v, m, a

    zeros = np.zeros(len(p))
    m = state[0] if momentum else zeros
    a = state[-1] if centered else zeros
    return per_number(one, 5)(p, v, g, m, a)[: 2 + len(state)]


def adagrad(p, a, g, rate, *, epsilon):
    a = a + g**2
    return p - rate * g / (a + epsilon) ** 0.5, a


def adadelta(p, a, d, g, rate, *, rho, epsilon):
    a = rho * a + (1 - rho) * g**2
    step = g * ((d + epsilon) / (a + epsilon)) ** 0.5
    return p - rate * step, a, rho * d + (1 - rho) * step**2


def ftrl(p, a, z, g, rate, l2, *, power, l1, shrinkage):
    before, a = a, a + g**2
    sigma = (a**-power - before**-power) / rate
    z = z + g + 2 * shrinkage * p - sigma * p
    if math.fabs(z) <= l1:
        return 0.0, a, z
    return (math.copysign(l1, z) - z) / (a**-power / rate + 2 * l2), a, z


def average(a, p, *, momentum):
    return (momentum * a + (1 - momentum) * p,)


def square_sum(x, *, dtype):
    return np.array(math.fsum(v * v for v in x.flat), dtype)


def custom_call(*values, count, grad):
    return tuple(np.array(v) for v in values[:count])


REFERENCES = {
    "sgd_update": per_number(sgd, 2),
    "momentum_update": per_number(momentum, 3),
    "lion_update": per_number(lion, 3),
    "adam_update": per_number(adam, 4),
    "amsgrad_update": per_number(amsgrad, 5),
    "adamax_update": per_number(adamax, 4),
    "nadam_update": per_number(nadam, 4),
    "rmsprop_update": rmsprop,
    "adagrad_update": per_number(adagrad, 3),
    "adadelta_update": per_number(adadelta, 4),
    "ftrl_update": per_number(ftrl, 4),
    "decay_update": per_number(lambda p, rate: (p * (1 - rate),), 1),
    "scale_update": per_number(lambda g, factor: (g * factor,), 1),
    "clip_update": per_number(lambda g, bound: (min(max(g, -bound), bound),), 1),
    "average_update": per_number(average, 2),
    "square_sum": square_sum,
    "custom_call": custom_call,
    "host_values": lambda *arrays, fn: fn(*arrays),
}
