"""Optimizer updates as primitives over flat arrays: one call updates a whole bucket.

The kernels write over the parameter and state arrays they are given in ``out`` (donation), or
over fresh copies without it. Formulas are those of Keras 3.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np

from distgrad.core.dispatch import in_caches
from distgrad.core.primitive import primitive, sample

_BLOCK = 1 << 16  # elements: sums of squares are taken over blocks of this size
_PIECE = 1 << 15  # elements that an update works on at a time: what it needs beside them is small


def _donated(out, *arrays):
    return out if out is not None else tuple(a.copy() for a in arrays)


def _update(kernel: Any) -> Any:
    """A primitive that has no gradient and must run: it changes state.

    Large flat arrays are updated piece by piece, which changes no bit, keeps the pieces in a
    core's cache, and bounds the memory of what the kernel computes on the way.
    """

    @functools.wraps(kernel)
    def pieces(xp: Any, *args: Any, out: Any = None, **params: Any) -> Any:
        if out is None or not in_caches(xp) or out[0].ndim != 1 or out[0].size <= _PIECE:
            return kernel(xp, *args, out=out, **params)
        for start in range(0, out[0].size, _PIECE):
            where = slice(start, start + _PIECE)
            parts = [a[where] if getattr(a, "ndim", 0) else a for a in args]
            kernel(xp, *parts, out=tuple([o[where] for o in out]), **params)
        return out

    return primitive(vjp=None, multiple=True, effect=True, kinds="f")(pieces)


# Momentum


@_update
def sgd_update(xp, p, g, rate, *, out=None):
    """One step down the gradient."""
    (p,) = _donated(out, p)
    p -= g * rate
    return (p,)


@sgd_update.samples
def _(rng):
    yield sample(rng.normal(size=5), rng.normal(size=5), 0.1)


@_update
def momentum_update(xp, p, m, g, rate, *, momentum, nesterov, out=None):
    """One step of gradient descent with (Nesterov) momentum."""
    p, m = _donated(out, p, m)
    scaled = g * rate
    m *= momentum
    m -= scaled
    p += momentum * m - scaled if nesterov else m
    return p, m


@momentum_update.samples
def _(rng):
    p, m, g = rng.normal(size=(3, 5))
    for nesterov in (False, True):
        yield sample(p, m, g, 0.1, momentum=0.9, nesterov=nesterov)


@_update
def lion_update(xp, p, m, g, rate, *, beta_1, beta_2, out=None):
    """One step by the sign of an average of gradients (Chen et al., 2023)."""
    p, m = _donated(out, p, m)
    work = m * beta_1
    work += g * (1 - beta_1)
    p -= xp.sign(work) * rate
    m *= beta_2
    m += g * (1 - beta_2)
    return p, m


@lion_update.samples
def _(rng):
    p, m, g = rng.normal(size=(3, 5))
    yield sample(p, m, g, 0.1, beta_1=0.9, beta_2=0.99)


# Adam and its kin


def _first_moment(m, g, beta_1):
    """Brings the first moment up to date; returns an array to work in."""
    work = g - m
    work *= 1 - beta_1
    m += work
    return work


def _moments(xp, m, s, g, beta_1, beta_2):
    """Brings both moments up to date; returns an array to work in."""
    work = _first_moment(m, g, beta_1)
    xp.multiply(g, g, out=work)
    work -= s
    work *= 1 - beta_2
    s += work
    return work


def _adam_step(xp, p, m, s, alpha, epsilon, work):
    xp.sqrt(s, out=work)
    work += epsilon
    xp.divide(m, work, out=work)
    work *= alpha
    p -= work


@_update
def adam_update(xp, p, m, s, g, alpha, *, beta_1, beta_2, epsilon, out=None):
    """One step of Adam; ``alpha`` is the bias-corrected learning rate (Kingma and Ba, 2015).

    Returns the parameter and both moments. As in Keras, epsilon is added to the root of the
    uncorrected second moment.
    """
    p, m, s = _donated(out, p, m, s)
    work = _moments(xp, m, s, g, beta_1, beta_2)
    _adam_step(xp, p, m, s, alpha, epsilon, work)
    return p, m, s


@_update
def amsgrad_update(xp, p, m, s, h, g, alpha, *, beta_1, beta_2, epsilon, out=None):
    """One step of Adam by ``h``, the largest second moment so far (Reddi et al., 2018)."""
    p, m, s, h = _donated(out, p, m, s, h)
    work = _moments(xp, m, s, g, beta_1, beta_2)
    xp.maximum(h, s, out=h)
    _adam_step(xp, p, m, h, alpha, epsilon, work)
    return p, m, s, h


@_update
def adamax_update(xp, p, m, u, g, alpha, *, beta_1, beta_2, epsilon, out=None):
    """One step of Adam with the infinity norm in place of the second moment."""
    p, m, u = _donated(out, p, m, u)
    work = _first_moment(m, g, beta_1)
    u *= beta_2
    xp.maximum(u, xp.abs(g, out=work), out=u)
    xp.add(u, epsilon, out=work)
    xp.divide(m, work, out=work)
    work *= alpha
    p -= work
    return p, m, u


@_update
def nadam_update(xp, p, m, s, g, ahead, now, correction, *, beta_1, beta_2, epsilon, out=None):
    """One step of Adam with Nesterov momentum (Dozat, 2016).

    ``ahead`` and ``now`` weigh the first moment and the gradient, the learning rate included;
    ``correction`` that of the second moment.
    """
    p, m, s = _donated(out, p, m, s)
    work = _moments(xp, m, s, g, beta_1, beta_2)
    xp.multiply(s, correction, out=work)
    xp.sqrt(work, out=work)
    work += epsilon
    step = m * ahead
    step += g * now
    step /= work
    p -= step
    return p, m, s


for _kernel in (adam_update, adamax_update):

    @_kernel.samples
    def _(rng):
        p, m, g = rng.normal(size=(3, 5))
        yield sample(p, m, m * m, g, 0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-7)


@amsgrad_update.samples
def _(rng):
    p, m, g, h = rng.normal(size=(4, 5))
    yield sample(p, m, m * m, h * h, g, 0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-7)


@nadam_update.samples
def _(rng):
    p, m, g = rng.normal(size=(3, 5))
    yield sample(p, m, m * m, g, 0.01, 0.02, 1.5, beta_1=0.9, beta_2=0.999, epsilon=1e-7)


# A learning rate for each parameter


@_update
def rmsprop_update(xp, p, v, *rest, rho, momentum, epsilon, centered, out=None):
    """One step of RMSprop (Hinton, 2012).

    ``rest`` are its momentum and its average gradient, where it has them, a gradient and a rate.
    """
    *state, g, rate = rest
    p, v, *state = _donated(out, p, v, *state)
    _blend(v, g * g, rho)
    root = v + epsilon
    if centered:
        average = state[-1]
        _blend(average, g.copy(), rho)
        root -= average * average
    xp.sqrt(root, out=root)
    step = g * rate
    step /= root
    if momentum:
        m = state[0]
        m *= momentum
        m += step
        step = m
    p -= step
    return p, v, *state


def _blend(a, fresh, rho):
    """``a = rho * a + (1 - rho) * fresh``; ``fresh`` is used up."""
    fresh *= 1 - rho
    a *= rho
    a += fresh


@rmsprop_update.samples
def _(rng):
    p, m, g, a = rng.normal(size=(4, 5))
    v = m * m + a * a + 1
    common = {"rho": 0.9, "epsilon": 1e-7}
    yield sample(p, v, g, 0.01, **common, momentum=0.0, centered=False)
    yield sample(p, v, m, g, 0.01, **common, momentum=0.8, centered=False)
    yield sample(p, v, m, a, g, 0.01, **common, momentum=0.8, centered=True)


@_update
def adagrad_update(xp, p, a, g, rate, *, epsilon, out=None):
    """One step of Adagrad (Duchi et al., 2011)."""
    p, a = _donated(out, p, a)
    a += g * g
    root = a + epsilon
    xp.sqrt(root, out=root)
    step = g * rate
    step /= root
    p -= step
    return p, a


@adagrad_update.samples
def _(rng):
    p, a, g = rng.normal(size=(3, 5))
    yield sample(p, a * a, g, 0.1, epsilon=1e-7)


@_update
def adadelta_update(xp, p, a, d, g, rate, *, rho, epsilon, out=None):
    """One step of Adadelta (Zeiler, 2012); ``a`` and ``d`` average squared gradients and steps."""
    p, a, d = _donated(out, p, a, d)
    _blend(a, g * g, rho)
    step = xp.sqrt(d + epsilon)
    step *= g
    step /= xp.sqrt(a + epsilon)
    _blend(d, step * step, rho)
    step *= rate
    p -= step
    return p, a, d


@adadelta_update.samples
def _(rng):
    p, a, d, g = rng.normal(size=(4, 5))
    yield sample(p, a * a, d * d, g, 0.1, rho=0.95, epsilon=1e-7)


@_update
def ftrl_update(xp, p, a, z, g, rate, l2, *, power, l1, shrinkage, out=None):
    """One step of Follow The Regularized Leader (McMahan et al., 2013)."""
    p, a, z = _donated(out, p, a, z)

    def rooted(x):
        return xp.sqrt(x) if power == -0.5 else xp.power(x, -power)

    before = rooted(a)
    a += g * g
    after = rooted(a)
    z += g + 2 * shrinkage * p - (after - before) / rate * p
    quadratic = after / rate + 2 * l2
    quadratic += quadratic == 0  # nothing was accumulated: z is 0, too
    p[...] = (xp.clip(z, -l1, l1) - z) / quadratic
    return p, a, z


@ftrl_update.samples
def _(rng):
    p, a, z, g = rng.normal(size=(4, 5))
    yield sample(p, a * a, z, g, 0.1, 0.01, power=-0.5, l1=0.1, shrinkage=0.0)
    yield sample(p, a * a, z, g, 0.1, 0.01, power=-0.7, l1=0.1, shrinkage=0.2)


# Before and after an update


@_update
def decay_update(xp, p, rate, *, out=None):
    """Weight decay apart from the gradient (Loshchilov and Hutter, 2019)."""
    (p,) = _donated(out, p)
    p -= p * rate
    return (p,)


@_update
def scale_update(xp, g, factor, *, out=None):
    """The gradient times a factor."""
    (g,) = _donated(out, g)
    g *= factor
    return (g,)


@_update
def clip_update(xp, g, bound, *, out=None):
    """The gradient with every element clipped to ``[-bound, bound]``."""
    (g,) = _donated(out, g)
    xp.clip(g, -bound, bound, out=g)
    return (g,)


for _kernel in (decay_update, scale_update, clip_update):

    @_kernel.samples
    def _(rng):
        yield sample(rng.normal(size=5), 0.1)


@_update
def average_update(xp, a, p, *, momentum, out=None):
    """A moving average of the parameter: ``a = momentum * a + (1 - momentum) * p``."""
    (a,) = _donated(out, a)
    _blend(a, p.copy(), momentum)
    return (a,)


@average_update.samples
def _(rng):
    yield sample(rng.normal(size=5), rng.normal(size=5), momentum=0.99)


class _Work(threading.local):
    """One block of this thread, used again and again."""

    def __init__(self) -> None:
        self._arrays: dict[Any, np.ndarray] = {}

    def array(self, dtype: Any) -> np.ndarray:
        if dtype not in self._arrays:
            self._arrays[dtype] = np.empty(_BLOCK, dtype)
        return self._arrays[dtype]


_work = _Work()


@primitive(vjp=None, kinds="f")
def square_sum(xp, x, *, dtype):
    """The sum of the squares of all elements, in ``dtype``.

    It is taken over blocks of fixed size from the first element on, one after the other, so that
    its bits depend on nothing but the values.
    """
    flat = x.reshape(-1)
    total = xp.zeros((), dtype=dtype)
    size = min(flat.size, _BLOCK)
    work = _work.array(dtype) if in_caches(xp) else xp.empty(size, dtype=dtype)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        square = work[: block.size]
        square[...] = block
        xp.multiply(square, square, out=square)
        total = total + xp.sum(square)
    return total


@square_sum.samples
def _(rng):
    yield sample(rng.normal(size=(3, 5)), dtype="float64")
