"""TensorFlow: the whole step in one tf.function, plain or compiled by XLA, with its fused Adam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import networks
import numpy as np
import tensorflow as tf
from workloads import (
    EPSILON,
    MOMENTUM,
    NORM_EPSILON,
    THREADS,
    Parameter,
    Trainer,
    Workload,
    moving_sizes,
)

FORMS = ("function", "xla")
tf.config.threading.set_intra_op_parallelism_threads(THREADS)
tf.config.threading.set_inter_op_parallelism_threads(THREADS)


class Op:
    relu, tanh, take = staticmethod(tf.nn.relu), staticmethod(tf.tanh), staticmethod(tf.gather)
    mean = staticmethod(tf.reduce_mean)

    def gelu(x):
        return tf.nn.gelu(x, approximate=False)

    def linear(x, w, b):
        if x.shape.rank == 2:
            return tf.nn.bias_add(tf.matmul(x, w), b)
        rows = tf.reshape(x, (-1, x.shape[-1]))  # one product in place of one for each sample
        y = tf.nn.bias_add(tf.matmul(rows, w), b)
        return tf.reshape(y, (-1, *x.shape[1:-1], w.shape[-1]))

    def conv(x, w, b, stride, padding):
        y = tf.nn.conv2d(x, w, stride, padding.upper())
        return y if b is None else tf.nn.bias_add(y, b)

    def max_pool(x):
        return tf.nn.max_pool2d(x, 2, 2, "VALID")

    def flatten(x):
        return tf.reshape(x, (-1, int(np.prod(x.shape[1:]))))

    def layer_norm(x, scale, offset):
        mean, variance = tf.nn.moments(x, [-1], keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, offset, scale, NORM_EPSILON)

    def batch_norm(x, scale, offset, moving):
        none = tf.zeros(0)
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=scale, offset=offset, mean=none, variance=none, epsilon=NORM_EPSILON
        )
        new = (mean, variance)
        pairs = zip(moving, new, strict=True)
        return y, [old * MOMENTUM + now * (1 - MOMENTUM) for old, now in pairs]

    def attention(x, heads):
        _, length, width = x.shape
        deep = width // 3 // heads
        parts = tf.transpose(tf.reshape(x, (-1, length, 3, heads, deep)), (2, 0, 3, 1, 4))
        q, k, v = tf.unstack(parts)
        scores = tf.matmul(q, k, transpose_b=True) * deep**-0.5
        scores = tf.where(np.tri(length, dtype=bool), scores, np.float32(-1e9))
        mixed = tf.transpose(tf.matmul(tf.nn.softmax(scores), v), (0, 2, 1, 3))
        return tf.reshape(mixed, (-1, length, width // 3))

    def lstm(x, w, u, b):
        given = tf.unstack(Op.linear(x, w, b), axis=1)
        h = c = tf.zeros((tf.shape(x)[0], u.shape[0]))
        for part in given:
            i, f, g, o = tf.split(part + tf.matmul(h, u), 4, axis=1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
        return h


class Adam:
    """The kernel that Keras 2 used: one operation for each variable, in place."""

    def __init__(self, weights: Sequence[tf.Variable], rate: float) -> None:
        self.weights, self.rate = weights, rate
        self.slots = [
            (tf.Variable(tf.zeros_like(w)), tf.Variable(tf.zeros_like(w))) for w in weights
        ]
        self.count = tf.Variable(0.0)

    def apply(self, gradients: Sequence[Any]) -> None:
        count = self.count.assign_add(1.0)
        powers = {"beta1_power": tf.pow(0.9, count), "beta2_power": tf.pow(0.999, count)}
        rates = {"lr": self.rate, "beta1": 0.9, "beta2": 0.999, "epsilon": EPSILON}
        for weight, (m, v), gradient in zip(self.weights, self.slots, gradients, strict=True):
            tf.raw_ops.ResourceApplyAdam(
                var=weight.handle,
                m=m.handle,
                v=v.handle,
                grad=tf.convert_to_tensor(gradient),
                **powers,
                **rates,
            )


def make(workload: Workload, parameters: Sequence[Parameter], form: str) -> Trainer:
    arrays = [p.value for p in parameters]
    function = tf.function(jit_compile=form == "xla")
    if workload.kind == "adam":
        return _adam(workload, arrays, function)
    if workload.kind == "chain":
        return _chain(workload, arrays, function)
    weights = [tf.Variable(a) for a in arrays]
    moving = [(tf.Variable(tf.zeros(n)), tf.Variable(tf.ones(n))) for n in moving_sizes(workload)]
    optimizer = Adam(weights, workload.rate)

    @function
    def step(x, y):
        with tf.GradientTape() as tape:
            logits, after = networks.logits(workload, Op, weights, moving, x)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, weights))
        for pair, new in zip(moving, after, strict=True):
            for variable, value in zip(pair, new, strict=True):
                variable.assign(value)
        return loss

    def run(batch: Any, steps: int) -> float:
        for _ in range(steps):
            loss = step(*batch)
        return float(loss)

    return Trainer(lambda x, y: (tf.constant(x), tf.constant(y)), run)


def _adam(workload: Workload, arrays: list[np.ndarray], function: Any) -> Trainer:
    half = len(arrays) // 2
    weights = [tf.Variable(a) for a in arrays[:half]]
    gradients = [tf.constant(a) for a in arrays[half:]]
    optimizer = Adam(weights, workload.rate)

    @function
    def step(gradients):
        optimizer.apply(gradients)

    def run(batch: Any, steps: int) -> float:
        for _ in range(steps):
            step(gradients)
        return float(tf.reduce_mean(weights[0][0]))

    return Trainer(lambda x, y: None, run)


def _chain(workload: Workload, arrays: list[np.ndarray], function: Any) -> Trainer:
    x, w = map(tf.constant, arrays)

    @function
    def step(x, w):
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = networks.chain(Op, x, w, workload.sizes["length"])
        dx, dw = tape.gradient(y, [x, w])
        return tf.reduce_sum(dx * dx + dw * dw)

    def run(batch: Any, steps: int) -> float:
        for _ in range(steps):
            result = step(x, w)
        return float(result)

    return Trainer(lambda x, y: None, run)


def version() -> str:
    return f"TensorFlow {tf.__version__}"
