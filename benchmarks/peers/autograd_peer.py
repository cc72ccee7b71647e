"""HIPS autograd: NumPy under a tape, with Adam written in NumPy, in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import autograd
import autograd.numpy as anp
import networks
import numpy as np
from autograd.scipy.special import erf
from autograd.tracer import getval
from workloads import EPSILON, MOMENTUM, NORM_EPSILON, Parameter, Trainer, Workload, moving_sizes

FORMS = ("tape",)


def _sigmoid(x):
    return 0.5 * anp.tanh(0.5 * x) + 0.5


class Op:
    tanh = staticmethod(anp.tanh)

    def relu(x):
        return anp.maximum(x, np.float32(0))

    def gelu(x):
        return 0.5 * x * (1 + erf(x * 0.5**0.5))

    def take(table, rows):
        return table[rows]

    def linear(x, w, b):
        if x.ndim == 2:
            return anp.dot(x, w) + b
        y = anp.dot(anp.reshape(x, (-1, x.shape[-1])), w) + b
        return anp.reshape(y, (*x.shape[:-1], w.shape[-1]))

    def mean(x, axes):
        return anp.mean(x, axes)

    def conv(x, w, b, stride, padding):
        """A sum of products over the taps: its own convolution is far slower."""
        size, _, inputs, channels = w.shape
        if padding == "same" and size > 1:
            side = size // 2
            x = anp.pad(x, ((0, 0), (side, side), (side, side), (0, 0)), "constant")
        n, height, width, _ = x.shape
        rows, columns = (height - size) // stride + 1, (width - size) // stride + 1
        y = 0 if b is None else b
        for i in range(size):
            for j in range(size):
                part = x[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
                part = part[:, :rows, :columns]
                flat = anp.dot(anp.reshape(part, (-1, inputs)), w[i, j])
                y = y + anp.reshape(flat, (n, rows, columns, channels))
        return y

    def max_pool(x):
        n, height, width, channels = x.shape
        x = x[:, : height // 2 * 2, : width // 2 * 2]
        return anp.max(anp.reshape(x, (n, height // 2, 2, width // 2, 2, channels)), axis=(2, 4))

    def flatten(x):
        return anp.reshape(x, (len(x), -1))

    def _normed(x, axes, scale, offset):
        mean = anp.mean(x, axes, keepdims=True)
        off = x - mean
        variance = anp.mean(off * off, axes, keepdims=True)
        return off / anp.sqrt(variance + NORM_EPSILON) * scale + offset, mean, variance

    def layer_norm(x, scale, offset):
        return Op._normed(x, -1, scale, offset)[0]

    def batch_norm(x, scale, offset, moving):
        y, *new = Op._normed(x, (0, 1, 2), scale, offset)
        for old, now in zip(moving, new, strict=True):
            old += (getval(now).ravel() - old) * (1 - MOMENTUM)
        return y, moving

    def attention(x, heads):
        n, length, width = x.shape
        deep = width // 3 // heads

        def split(part):
            return anp.transpose(anp.reshape(part, (n, length, heads, deep)), (0, 2, 1, 3))

        q, k, v = map(split, anp.split(x, 3, axis=-1))
        scores = anp.matmul(q, anp.swapaxes(k, -1, -2)) * deep**-0.5
        scores = anp.where(np.tri(length, dtype=bool), scores, np.float32(-1e9))
        weights = anp.exp(scores - anp.max(scores, axis=-1, keepdims=True))
        weights = weights / anp.sum(weights, axis=-1, keepdims=True)
        mixed = anp.transpose(anp.matmul(weights, v), (0, 2, 1, 3))
        return anp.reshape(mixed, (n, length, width // 3))

    def lstm(x, w, u, b):
        n, length, _ = x.shape
        given = Op.linear(x, w, b)
        h = c = np.zeros((n, u.shape[0]), np.float32)
        for part in anp.split(given, length, axis=1):
            i, f, g, o = anp.split(anp.reshape(part, (n, -1)) + anp.dot(h, u), 4, axis=1)
            c = _sigmoid(f) * c + _sigmoid(i) * anp.tanh(g)
            h = _sigmoid(o) * anp.tanh(c)
        return h


class Adam:
    def __init__(self, weights: Sequence[np.ndarray], rate: float) -> None:
        self.weights, self.rate, self.count = weights, rate, 0
        self.slots = [(np.zeros_like(w), np.zeros_like(w), np.empty_like(w)) for w in weights]

    def apply(self, gradients: Sequence[np.ndarray]) -> None:
        self.count += 1
        alpha = self.rate * (1 - 0.999**self.count) ** 0.5 / (1 - 0.9**self.count)
        for w, g, (m, v, t) in zip(self.weights, gradients, self.slots, strict=True):
            m *= 0.9
            m += np.multiply(g, 0.1, out=t)
            v *= 0.999
            np.multiply(g, g, out=t)
            t *= 0.001
            v += t
            np.sqrt(v, out=t)
            t += EPSILON
            np.divide(m, t, out=t)
            t *= alpha
            w -= t


def make(workload: Workload, parameters: Sequence[Parameter], form: str) -> Trainer:
    arrays = [p.value.copy() for p in parameters]
    if workload.kind == "adam":
        return _adam(workload, arrays)
    if workload.kind == "chain":
        return _chain(workload, arrays)
    moving = [(np.zeros(n, np.float32), np.ones(n, np.float32)) for n in moving_sizes(workload)]
    optimizer = Adam(arrays, workload.rate)

    def value(weights, x, y):
        logits, _ = networks.logits(workload, Op, weights, moving, x)
        logits = anp.reshape(logits, (-1, logits.shape[-1]))
        top = anp.max(logits, axis=1, keepdims=True)
        total = anp.log(anp.sum(anp.exp(logits - top), axis=1)) + top[:, 0]
        return anp.mean(total - logits[np.arange(len(y)), y])

    both = autograd.value_and_grad(value)

    def run(batch: Any, steps: int) -> float:
        for _ in range(steps):
            loss, gradients = both(arrays, *batch)
            optimizer.apply(gradients)
        return float(loss)

    return Trainer(lambda x, y: (x, y.ravel()), run)


def _adam(workload: Workload, arrays: list[np.ndarray]) -> Trainer:
    half = len(arrays) // 2
    optimizer = Adam(arrays[:half], workload.rate)

    def run(batch: Any, steps: int) -> float:
        for _ in range(steps):
            optimizer.apply(arrays[half:])
        return float(arrays[0][0].mean())

    return Trainer(lambda x, y: None, run)


def _chain(workload: Workload, arrays: list[np.ndarray]) -> Trainer:
    both = autograd.grad(
        lambda x, w: anp.sum(networks.chain(Op, x, w, workload.sizes["length"])), (0, 1)
    )

    def run(batch: Any, steps: int) -> float:
        for _ in range(steps):
            dx, dw = both(*arrays)
            result = (dx * dx + dw * dw).sum()
        return float(result)

    return Trainer(lambda x, y: None, run)


def version() -> str:
    return f"autograd on NumPy {np.__version__}"
