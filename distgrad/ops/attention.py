"""Attention as one operation, for programs that have found it among their products and sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.primitive import primitive, sample


def _exponents(xp: Any, q: Any, k: Any, bias: Any, scale: float, causal: bool) -> Any:
    """How keys match queries; in float32 at least, as the sums that follow."""
    wide = "float32" if q.dtype.itemsize == 2 else q.dtype
    scores = xp.matmul(q.astype(wide) * scale, xp.swapaxes(k, -1, -2).astype(wide))
    if not isinstance(bias, (int, float)):
        scores = scores + bias.astype(wide)
    if causal:
        scores = xp.where(xp.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    return scores


@primitive(vjp=None, multiple=True, match=("q", "k", "v"), kinds="f", rounds=True)
def attention(xp, q, k, v, bias, *, scale, causal):
    """``softmax(scale * q @ transpose(k) + bias) @ v``, and the logarithms of the sums in it.

    ``q [..., s, d]``, ``k [..., t, d]`` and ``v [..., t, e]`` give ``[..., s, e]`` and, in float32
    at least, ``[..., s, 1]``. Where ``causal`` no key after a query counts.
    """
    scores = _exponents(xp, q, k, bias, scale, causal)
    most = xp.max(scores, axis=-1, keepdims=True)
    weights = xp.exp(scores - most)
    total = xp.sum(weights, axis=-1, keepdims=True)
    o = xp.matmul(weights / total, v.astype(scores.dtype))
    return o.astype(q.dtype), most + xp.log(total)


@primitive(vjp=None, multiple=True, match=("dy", "q", "k", "v", "o"), kinds="f", rounds=True)
def attention_grad(xp, dy, q, k, v, o, stats, bias, *, scale, causal):
    """The gradients of q, k and v, from the gradient of ``o`` and what ``attention`` gave."""
    weights = xp.exp(_exponents(xp, q, k, bias, scale, causal) - stats)
    wide = weights.dtype
    dy, v, o = dy.astype(wide), v.astype(wide), o.astype(wide)
    less = xp.matmul(dy, xp.swapaxes(v, -1, -2)) - xp.sum(dy * o, axis=-1, keepdims=True)
    d = weights * less * scale
    dq, dk = xp.matmul(d, k.astype(wide)), xp.matmul(xp.swapaxes(d, -1, -2), q.astype(wide))
    dv = xp.matmul(xp.swapaxes(weights, -1, -2), dy)
    return dq.astype(q.dtype), dk.astype(q.dtype), dv.astype(q.dtype)


def _sampled(rng: Any) -> Any:
    for batch, causal, biased in [
        ((2,), False, False),
        ((2, 2), True, False),
        ((1, 2), True, True),
    ]:
        q, k = rng.normal(size=(*batch, 3, 2)), rng.normal(size=(*batch, 4, 2))
        bias = rng.normal(size=(3, 4)) if biased else 0.0
        yield (q, k, rng.normal(size=(*batch, 4, 3)), bias), {"scale": 0.7, "causal": causal}


@attention.samples
def _(rng):
    for arrays, params in _sampled(rng):
        yield sample(*arrays, **params)


@attention_grad.samples
def _(rng):
    for (q, k, v, bias), params in _sampled(rng):
        o, stats = attention.kernel(np, q, k, v, bias, **params)
        dy = rng.normal(size=o.shape)
        yield sample(dy, q, k, v, o, stats, bias, **params)
