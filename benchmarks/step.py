"""A training step captured and eager: what capture saves, on this machine, in one run.

    python benchmarks/step.py [--rounds N] [--workload NAME ...]

Each workload runs eagerly, captured with the NumPy executor, and captured with generated kernels
(where llvmlite is installed), in one process on one core with one BLAS thread. Losses of the first
steps are compared before anything is timed. Rounds go through all of them in turn, in rotating
order; times are the process's CPU time, medians over rounds; ratios are medians of the ratios of
each round, with their quartiles.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})

import numpy as np

import distgrad as tf
from distgrad.compile import llvm_engine
from distgrad.compile.captured import Captured
from distgrad.compile.cpu_exec import cpu_executor
from distgrad.compile.numpy_exec import numpy_executor


def mlp(*sizes: int, batch: int):
    """A step of Adam on a classifier with relu layers; gives its loss."""
    rng = np.random.default_rng(0)
    pairs = list(itertools.pairwise(sizes))
    weights = [rng.normal(size=p) * (2 / p[0]) ** 0.5 for p in pairs]
    variables = [tf.Variable(w.astype(np.float32)) for w in weights]
    variables += [tf.Variable(np.zeros(n, np.float32)) for n in sizes[1:]]
    depth, optimizer = len(pairs), tf.keras.optimizers.Adam()

    def step(x, y):
        with tf.GradientTape() as tape:
            h = x
            for i in range(depth):
                h = tf.matmul(h, variables[i]) + variables[depth + i]
                h = tf.nn.relu(h) if i < depth - 1 else h
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, h))
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    x = tf.constant(rng.normal(size=(batch, sizes[0])).astype(np.float32))
    return step, (x, tf.constant(rng.integers(0, sizes[-1], batch)))


def chain(size: int, length: int = 50):
    """The gradient of a chain of small operations; gives the sum of its squares."""

    def step(x, w):
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = x
            for _ in range(length):
                y = tf.tanh(y * w + x) * 1.01
        dx, dw = tape.gradient(y, [x, w])
        return tf.reduce_sum(dx * dx + dw * dw)

    x = tf.constant(np.linspace(-1, 1, size, dtype=np.float32))
    return step, (x, tf.constant(np.linspace(0.5, 1, size, dtype=np.float32)))


WORKLOADS = {
    "MNIST MLP, batch 128": lambda: mlp(784, 128, 64, 10, batch=128),
    "MNIST MLP, batch 1": lambda: mlp(784, 128, 64, 10, batch=1),
    "deep narrow MLP": lambda: mlp(*[32] * 21, 10, batch=32),
    "chain of 200 operations, 16 elements": lambda: chain(16),
    "chain of 200 operations, 4096 elements": lambda: chain(4096),
}


def forms(make):
    """The same step eager and captured, each with variables of its own."""
    made = {}
    step, args = make()
    made["eager"] = (step, args)
    executors = {"numpy": numpy_executor}
    if llvm_engine.available():
        executors["generated"] = cpu_executor
    for name, make_executor in executors.items():
        step, args = make()
        made[name] = (Captured(step, strict=True, make_executor=make_executor), args)
    return made


def check(made) -> None:
    """20 steps: the NumPy executor gives eager's bits, generated kernels 4 digits of them."""
    losses = {name: [float(run(*args)) for _ in range(20)] for name, (run, args) in made.items()}
    if losses["numpy"] != losses["eager"]:
        raise SystemExit("the NumPy executor and eager disagree: nothing is timed")
    if "generated" in losses:
        np.testing.assert_allclose(losses["generated"], losses["eager"], rtol=1e-4)


def seconds(run, args, count: int) -> float:
    start = time.process_time()
    for _ in range(count):
        run(*args)
    return (time.process_time() - start) / count


def measure(made, rounds: int) -> dict[str, list[float]]:
    names = list(made)
    slowest = max(seconds(*made[name], 3) for name in names)
    count = max(3, int(0.05 / max(slowest, 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(seconds(*made[name], count))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--workload", nargs="*", choices=list(WORKLOADS), default=list(WORKLOADS))
    options = parser.parse_args()
    print("| workload | form | microseconds | ratio to eager | quartiles |\n|---|---|---|---|---|")
    for workload in options.workload:
        made = forms(WORKLOADS[workload])
        check(made)
        times = measure(made, options.rounds)
        for name, taken in times.items():
            ratios = [a / b for a, b in zip(taken, times["eager"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(
                f"| {workload} | {name} | {1e6 * statistics.median(taken):.1f} | {middle:.3f} | "
                f"{low:.3f} - {high:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
