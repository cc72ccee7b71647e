"""Attention row by row, and its gradients by steps into the imaginary direction."""

from __future__ import annotations

import numpy as np


def rows(q, k, v, bias, scale, causal):
    """The output and the logarithm of the sum of each query; any of the numbers may be complex."""
    bias = np.broadcast_to(bias, (*q.shape[:-1], k.shape[-2]))
    o = np.zeros((*q.shape[:-1], v.shape[-1]), np.result_type(q, k, v))
    total = np.zeros((*q.shape[:-1], 1), o.dtype)
    for *batch, row in np.ndindex(*q.shape[:-1]):
        batch = tuple(batch)
        keys = range(min(row + 1, k.shape[-2]) if causal else k.shape[-2])
        powers = [
            np.exp(scale * (q[*batch, row] * k[*batch, key]).sum() + bias[*batch, row, key])
            for key in keys
        ]
        total[*batch, row] = np.log(sum(powers))
        for key, power in zip(keys, powers, strict=True):
            o[*batch, row] += power / sum(powers) * v[*batch, key]
    return o, total


def attention(q, k, v, bias, *, scale, causal):
    return rows(q, k, v, bias, scale, causal)


def attention_grad(dy, q, k, v, o, stats, bias, *, scale, causal):
    gradients = []
    for number, array in enumerate((q, k, v)):
        gradient = np.zeros(array.shape)
        for at in np.ndindex(*array.shape):
            moved = [q, k, v]
            moved[number] = array.astype(complex)
            moved[number][at] += 1e-30j
            gradient[at] = (rows(*moved, bias, scale, causal)[0] * dy).sum().imag / 1e-30
        gradients.append(gradient)
    return tuple(gradients)


REFERENCES = {"attention": attention, "attention_grad": attention_grad}
