"""Optimizer updates as primitives over flat arrays: one call updates a whole bucket.

The kernels write over the parameter and state arrays they are given in ``out`` (donation), or
over fresh copies without it. Formulas are those of Keras 3.
"""

from __future__ import annotations

from distgrad.core.primitive import primitive, sample


def _donated(out, *arrays):
    return out if out is not None else tuple(a.copy() for a in arrays)


@primitive(vjp=None, multiple=True, effect=True, kinds="f")
def adam_update(xp, p, m, s, g, alpha, *, beta_1, beta_2, epsilon, out=None):
    """One step of Adam; ``alpha`` is the bias-corrected learning rate (Kingma and Ba, 2015).

    Returns the parameter and both moments. As in Keras, epsilon is added to the root of the
    uncorrected second moment.
    """
    p, m, s = _donated(out, p, m, s)
    work = g - m
    work *= 1 - beta_1
    m += work
    xp.multiply(g, g, out=work)
    work -= s
    work *= 1 - beta_2
    s += work
    xp.sqrt(s, out=work)
    work += epsilon
    xp.divide(m, work, out=work)
    work *= alpha
    p -= work
    return p, m, s


@adam_update.samples
def _(rng):
    p, m, g = rng.normal(size=(3, 5))
    yield sample(p, m, m * m, g, 0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-7)


@primitive(vjp=None, multiple=True, effect=True, kinds="f")
def sgd_update(xp, p, g, rate, *, out=None):
    """One step down the gradient."""
    (p,) = _donated(out, p)
    p -= g * rate
    return (p,)


@sgd_update.samples
def _(rng):
    yield sample(rng.normal(size=5), rng.normal(size=5), 0.1)


@primitive(vjp=None, multiple=True, effect=True, kinds="f")
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
