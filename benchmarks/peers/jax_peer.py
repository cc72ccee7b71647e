"""JAX: the whole step under jit, weights, moments and moving averages donated.

In bfloat16 weights are cast at their use; statistics, softmax and loss are computed in float32.
On a GPU products of float32 keep all digits, but for the form that ends in TF32, JAX's default.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import networks
from jax import lax
from workloads import EPSILON, MOMENTUM, NORM_EPSILON, Parameter, Trainer, Workload, moving_sizes

FORMS = ("jit",)


class Op:
    relu, tanh, mean = staticmethod(jax.nn.relu), staticmethod(jnp.tanh), staticmethod(jnp.mean)

    def gelu(x):
        return jax.nn.gelu(x, approximate=False)

    def take(table, rows):
        return table[rows]

    def linear(x, w, b):
        return x @ w + b

    def conv(x, w, b, stride, padding):
        names = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(
            x, w, (stride, stride), padding.upper(), dimension_numbers=names
        )
        return y if b is None else y + b

    def max_pool(x):
        window = (1, 2, 2, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")

    def flatten(x):
        return x.reshape(len(x), -1)

    def layer_norm(x, scale, offset):
        wide = x.astype(jnp.float32)
        mean, variance = wide.mean(-1, keepdims=True), wide.var(-1, keepdims=True)
        y = (wide - mean) * lax.rsqrt(variance + NORM_EPSILON) * scale + offset
        return y.astype(x.dtype)

    def batch_norm(x, scale, offset, moving):
        new = mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        y = (x - mean) * (lax.rsqrt(variance + NORM_EPSILON) * scale) + offset
        pairs = zip(moving, new, strict=True)
        return y, tuple(old * MOMENTUM + now * (1 - MOMENTUM) for old, now in pairs)

    def attention(x, heads):
        n, length, width = x.shape
        deep = width // 3 // heads
        q, k, v = x.reshape(n, length, 3, heads, deep).transpose(2, 0, 3, 1, 4)
        scores = q @ k.swapaxes(-1, -2) * deep**-0.5
        scores = jnp.where(jnp.tri(length, dtype=bool), scores, -1e9)
        mixed = jax.nn.softmax(scores.astype(jnp.float32)).astype(x.dtype) @ v
        return mixed.transpose(0, 2, 1, 3).reshape(n, length, width // 3)

    def lstm(x, w, u, b):
        def cell(carry, given):
            h, c = carry
            i, f, g, o = jnp.split(given + h @ u, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        start = jnp.zeros((len(x), len(u)))
        given = Op.linear(x, w, b).swapaxes(0, 1)
        return lax.scan(cell, (start, start), given)[0][0]


def adam(weights: Any, moments: Any, gradients: Any, count: Any, rate: float) -> Any:
    """Adam as in the paper's section 2, on lists of arrays; new weights and moments."""
    alpha = rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
    after, kept = [], []
    for w, (m, v), g in zip(weights, moments, gradients, strict=True):
        m, v = m + (g - m) * (1 - 0.9), v + (g * g - v) * (1 - 0.999)
        after.append(w - alpha * m / (jnp.sqrt(v) + EPSILON))
        kept.append((m, v))
    return after, kept


def make(workload: Workload, parameters: Sequence[Parameter], form: str) -> Trainer:
    trainer = _made(workload, parameters)
    precision = "highest" if workload.dtype == "float32" and not form.endswith("TF32") else None

    def run(batch: Any, steps: int) -> float:
        with jax.default_matmul_precision(precision):
            return trainer.run(batch, steps)

    return Trainer(trainer.ready, run)


def _made(workload: Workload, parameters: Sequence[Parameter]) -> Trainer:
    arrays = [jnp.array(p.value) for p in parameters]
    if workload.kind == "adam":
        return _adam(workload, arrays)
    if workload.kind == "chain":
        return _chain(workload, arrays)

    def value(weights, moving, x, y):
        weights = [w.astype(workload.dtype) for w in weights]
        logits, after = networks.logits(workload, Op, weights, moving, x)
        logits = logits.astype(jnp.float32)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), y[..., None], -1)
        return -chosen.mean(), after

    @partial(jax.jit, donate_argnums=0)
    def step(state, x, y):
        weights, moments, moving, count = state
        (loss, after), gradients = jax.value_and_grad(value, has_aux=True)(weights, moving, x, y)
        weights, moments = adam(weights, moments, gradients, count + 1, workload.rate)
        return (weights, moments, after, count + 1), loss

    moving = [(jnp.zeros(n), jnp.ones(n)) for n in moving_sizes(workload)]
    state = (arrays, _moments(arrays), moving, jnp.zeros(()))

    def run(batch: Any, steps: int) -> float:
        nonlocal state
        for _ in range(steps):
            state, loss = step(state, *batch)
        return float(loss)

    return Trainer(lambda x, y: (jnp.array(x), jnp.array(y)), run)


def _moments(weights: list) -> list:
    return [(jnp.zeros_like(w), jnp.zeros_like(w)) for w in weights]


def _adam(workload: Workload, arrays: list) -> Trainer:
    half = len(arrays) // 2
    gradients = arrays[half:]

    @partial(jax.jit, donate_argnums=0)
    def step(state, gradients):
        weights, moments, count = state
        return (*adam(weights, moments, gradients, count + 1, workload.rate), count + 1)

    state = (arrays[:half], _moments(arrays[:half]), jnp.zeros(()))

    def run(batch: Any, steps: int) -> float:
        nonlocal state
        for _ in range(steps):
            state = step(state, gradients)
        return float(state[0][0][0].mean())

    return Trainer(lambda x, y: None, run)


def _chain(workload: Workload, arrays: list) -> Trainer:
    forward = lambda x, w: networks.chain(Op, x, w, workload.sizes["length"]).sum()  # noqa: E731

    @jax.jit
    def step(x, w):
        dx, dw = jax.grad(forward, (0, 1))(x, w)
        return (dx * dx + dw * dw).sum()

    def run(batch: Any, steps: int) -> float:
        for _ in range(steps):
            result = step(*arrays)
        return float(result)

    return Trainer(lambda x, y: None, run)


def version() -> str:
    return f"JAX {jax.__version__}"
