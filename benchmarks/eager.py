"""Eager overhead per recorded operation, forward and backward, beside the peers.

    python benchmarks/eager.py [--peers FOLDER] [--rounds N]

Each framework runs in a process of its own, on one core with one thread. Rounds go through all of
them in turn, in rotating order, so that a noisy machine meets all alike; what counts is the median
of the ratios of each round. Time is the process's CPU time. The gradients are compared first.
Peers are installed into FOLDER (default: in the user's cache) by the first run.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

from served import Child, main

FRAMEWORKS = ["distgrad", "torch", "autograd", "tensorflow"]
STEPS = 50
# Operations per step of each chain, for the figure per operation.
CHAINS = {"add": 1, "multiply": 1, "tanh": 1, "mixed": 4}


def chain(name: str, tanh, x, w, y):
    """One step of a chain: the same text for every framework."""
    if name == "add":
        return y + x
    if name == "multiply":
        return y * w
    if name == "tanh":
        return tanh(y)
    return tanh(y * w + x) * 1.01


def on_tape(tf, name, x, w):
    x, w = tf.constant(x), tf.constant(w)

    def gradient():
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = x
            for _ in range(STEPS):
                y = chain(name, tf.tanh, x, w, y)
        return tape.gradient(y, [x, w], unconnected_gradients="zero")

    return gradient


def distgrad_gradient(name, x, w):
    import distgrad

    return on_tape(distgrad, name, x, w)


def tensorflow_gradient(name, x, w):
    import tensorflow

    return on_tape(tensorflow, name, x, w)


def torch_gradient(name, x, w):
    import torch

    torch.set_num_threads(1)
    x, w = (torch.tensor(a, requires_grad=True) for a in (x, w))
    ones = torch.ones(len(x))

    def gradient():
        x.grad = w.grad = None
        y = x
        for _ in range(STEPS):
            y = chain(name, torch.tanh, x, w, y)
        y.backward(ones)
        return [(torch.zeros_like(a) if a.grad is None else a.grad) for a in (x, w)]

    return gradient


def autograd_gradient(name, x, w):
    import autograd.numpy as anp
    from autograd import grad

    def value(x, w):
        y = x
        for _ in range(STEPS):
            y = chain(name, anp.tanh, x, w, y)
        return anp.sum(y)

    both = grad(value, (0, 1))
    return lambda: both(x, w)


def serve(framework: str) -> None:
    """The child: answers each chain's name on stdin with microseconds per op, or gradients."""
    import numpy as np

    x = np.linspace(-1, 1, 16, dtype=np.float32)
    w = np.linspace(0.5, 1, 16, dtype=np.float32)
    make = globals()[f"{framework}_gradient"]
    ready = {name: make(name, x, w) for name in CHAINS}
    for line in sys.stdin:
        kind, name = line.split()
        gradient = ready[name]
        if kind == "check":
            values = [np.asarray(g).tolist() for g in gradient()]
            print(json.dumps(values), flush=True)
            continue
        best = float("inf")
        for _ in range(10):
            start = time.process_time()
            for _ in range(4):
                gradient()
            best = min(best, time.process_time() - start)
        print(json.dumps(best / 4 / STEPS / CHAINS[name] * 1e6), flush=True)


def report(children: dict[str, Child], rounds: int) -> None:
    import numpy as np

    for name in CHAINS:
        expected, *others = (child.ask("check", name) for child in children.values())
        for other in others:
            np.testing.assert_allclose(other, expected, rtol=1e-4, atol=1e-5)
    print("microseconds per operation, forward and backward, 16 float32 elements (median)")
    print("in brackets: median over the rounds of the ratio distgrad / peer, and its range")
    for name in CHAINS:
        times: dict[str, list[float]] = {framework: [] for framework in children}
        for i in range(rounds):
            order = FRAMEWORKS[i % len(FRAMEWORKS) :] + FRAMEWORKS[: i % len(FRAMEWORKS)]
            for framework in order:
                times[framework].append(children[framework].ask("time", name))
        cells = [f"distgrad {statistics.median(times['distgrad']):6.2f}"]
        for framework in FRAMEWORKS[1:]:
            ratios = [a / b for a, b in zip(times["distgrad"], times[framework], strict=True)]
            middle = statistics.median(ratios)
            cells.append(
                f"{framework} {statistics.median(times[framework]):6.2f} "
                f"({middle:.2f}, {min(ratios):.2f} to {max(ratios):.2f})"
            )
        print(f"{name:<9}" + " | ".join(cells), flush=True)


if __name__ == "__main__":
    main(__file__, __doc__, FRAMEWORKS, serve, report, rounds=7)
