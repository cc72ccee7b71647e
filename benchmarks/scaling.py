"""Samples per second of 1 and 2 single-threaded workers, beside torch DDP with gloo.

    python benchmarks/scaling.py [--peers FOLDER] [--rounds N] [--models digits,wide,char]
                                 [--launcher local|mpi] [--overlap true|false|auto]

The same three models from the same weights in both frameworks, the global batch the same for 1 and
2 workers (one virtual shard a worker). Ours are started by ``distgrad launch``, torch's by its own
``torch.distributed.run``. Rounds go through all of them in turn, in rotating order, so that a noisy
machine meets all alike; what counts is the median of the ratios of each round. Efficiency is
time(1) / (2 * time(2)); a time is wall time of the slowest rank. The losses are compared first.
Peers are installed into FOLDER (default: in the user's cache) by the first run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

from crew import PEERS, ROOT, peers_python

MODELS = ["digits", "wide", "char"]
TARGETS = {"digits": 0.60, "wide": 0.80, "char": 0.90}
SIZES = {"digits": (64, 128, 10), "wide": (784, 4096, 4096, 10)}
BATCH = {"digits": 64, "wide": 512, "char": 16}
LAYERS, WIDTH, HEADS, LENGTH, LETTERS = 4, 128, 4, 64, 64  # of the char transformer
RATE = 1e-5  # small, so that rounding cannot make the losses differ
LIMIT = 300.0  # seconds for one answer
SECONDS = 1.0  # of one measurement, roughly


def parameters(model: str) -> list:
    """The initial weights, in the order in which ``forward`` uses them."""
    import numpy as np

    rng = np.random.default_rng(0)

    def dense(n, m):
        return [rng.normal(0, n**-0.5, (n, m)), np.zeros(m)]

    if model in SIZES:
        sizes = SIZES[model]
        found = [a for n, m in pairwise(sizes) for a in dense(n, m)]
    else:
        norm = [np.ones(WIDTH), np.zeros(WIDTH)]
        found = [rng.normal(0, 0.02, (LETTERS, WIDTH)), rng.normal(0, 0.02, (LENGTH, WIDTH))]
        for _ in range(LAYERS):
            found += [*norm, *dense(WIDTH, 3 * WIDTH), *dense(WIDTH, WIDTH)]
            found += [*norm, *dense(WIDTH, 4 * WIDTH), *dense(4 * WIDTH, WIDTH)]
        found += [*norm, *dense(WIDTH, LETTERS)]
    return [a.astype(np.float32) for a in found]


def samples(model: str) -> tuple:
    """One global batch."""
    import numpy as np

    rng = np.random.default_rng(1)
    batch = BATCH[model]
    if model in SIZES:
        x = rng.normal(size=(batch, SIZES[model][0])).astype(np.float32)
        return x, rng.integers(0, 10, batch)
    text = rng.integers(0, LETTERS, (batch, LENGTH + 1))
    return text[:, :-1], text[:, 1:]


def forward(model: str, weights, x, op):
    """The logits: the same text for both frameworks."""
    take = iter(weights)
    if model in SIZES:
        layers = len(SIZES[model]) - 1
        for number in range(layers):
            x = op.linear(x, next(take), next(take))
            x = op.relu(x) if number < layers - 1 else x
        return x
    h = op.embedding(next(take), x) + next(take)
    for _ in range(LAYERS):
        a = op.layer_norm(h, next(take), next(take))
        a = op.attention(op.linear(a, next(take), next(take)))
        h = h + op.linear(a, next(take), next(take))
        a = op.layer_norm(h, next(take), next(take))
        a = op.gelu(op.linear(a, next(take), next(take)))
        h = h + op.linear(a, next(take), next(take))
    return op.linear(op.layer_norm(h, next(take), next(take)), next(take), next(take))


def distgrad_step(model: str, overlap: str):
    import numpy as np

    import distgrad as tf
    from distgrad.compile import executors
    from distgrad.data.loader import cut
    from distgrad.ops.normalization import layer_norm
    from distgrad.training import world
    from distgrad.training.reduction import ShardResult
    from distgrad.training.step import TrainStep

    class Op:
        relu, gelu = staticmethod(tf.nn.relu), staticmethod(tf.nn.gelu)
        embedding = staticmethod(tf.gather)

        def linear(x, w, b):
            return tf.matmul(x, w) + b

        def layer_norm(x, scale, offset):
            return layer_norm(x, scale, offset, (-1,), 1e-3)

        def attention(x):
            shape = (x.shape[0], LENGTH, 3, HEADS, WIDTH // HEADS)
            q, k, v = tf.unstack(tf.transpose(tf.reshape(x, shape), (2, 0, 3, 1, 4)))
            scores = tf.matmul(q, k, transpose_b=True) * (WIDTH // HEADS) ** -0.5
            scores = tf.where(Op.mask, scores, np.float32(-1e9))
            mixed = tf.transpose(tf.matmul(tf.nn.softmax(scores), v), (0, 2, 1, 3))
            return tf.reshape(mixed, (x.shape[0], LENGTH, WIDTH))

        mask = tf.constant(np.tri(LENGTH, dtype=bool))

    weights = [tf.Variable(a) for a in parameters(model)]
    nothing = np.zeros(0)

    def compute(arrays, training):
        logits = forward(model, weights, tf.constant(arrays[0]), Op)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(arrays[1], logits)
        return ShardResult(tf.reduce_mean(losses), nothing)

    communicator = world.communicator()
    size, rank = communicator.world_size, communicator.rank
    step = TrainStep(
        compute,
        0,
        weights,
        tf.keras.optimizers.Adam(RATE),
        communicator,
        size,
        0,
        overlap={"true": True, "false": False}.get(overlap, overlap),
        executor=executors.best(),
    )
    x, y = samples(model)
    batch = cut(0, len(x), size, range(rank, rank + 1), lambda a, b: (x[a:b], y[a:b]))
    count = iter(range(1 << 60))
    return lambda: step(next(count), batch).loss, communicator.barrier


def torch_step(model: str, overlap: str):
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F

    torch.set_num_threads(1)
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))

    class Op:
        relu, embedding = staticmethod(F.relu), staticmethod(lambda w, x: F.embedding(x, w))

        def gelu(x):
            return F.gelu(x, approximate="none")

        def linear(x, w, b):
            return torch.addmm(b, x.flatten(0, -2), w).unflatten(0, x.shape[:-1])

        def layer_norm(x, scale, offset):
            return F.layer_norm(x, (WIDTH,), scale, offset, 1e-3)

        def attention(x):
            shape = (x.shape[0], LENGTH, 3, HEADS, WIDTH // HEADS)
            q, k, v = x.reshape(shape).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return mixed.transpose(1, 2).reshape(x.shape[0], LENGTH, WIDTH)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            ready = [torch.nn.Parameter(torch.from_numpy(a)) for a in parameters(model)]
            self.weights = torch.nn.ParameterList(ready)

        def forward(self, x):
            return forward(model, list(self.weights), x, Op)

    network = Model()
    optimizer = torch.optim.Adam(network.parameters(), RATE, eps=1e-7, fused=True)
    if size > 1:
        dist.init_process_group("gloo")
        network = torch.nn.parallel.DistributedDataParallel(network, gradient_as_bucket_view=True)
    x, y = (torch.from_numpy(a).chunk(size)[rank] for a in samples(model))
    y = y.flatten()

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x).flatten(0, -2), y)
        loss.backward()
        optimizer.step()
        mean = loss.detach()
        if size > 1 and step.exact:
            dist.all_reduce(mean)
        return float(mean) / (size if step.exact else 1)

    step.exact = True  # the mean over ranks only while losses are compared

    def barrier():
        step.exact = False
        if size > 1:
            dist.barrier()

    return step, barrier


def serve(framework: str, model: str, control: str, overlap: str) -> None:
    """One rank: answers the number of steps by losses (first) or seconds a step (then)."""
    make = {"distgrad": distgrad_step, "torch": torch_step}[framework]
    step, barrier = make(model, overlap)
    host, port = control.split(":")
    lines = socket.create_connection((host, int(port))).makefile("rw")
    print(json.dumps([step() for _ in range(5)]), file=lines, flush=True)
    for line in iter(lines.readline, ""):
        steps = int(line)
        barrier()
        start = time.perf_counter()
        for _ in range(steps):
            step()
        print((time.perf_counter() - start) / steps, file=lines, flush=True)
    os._exit(0)  # both ranks leave without a word: nothing to tear down in order


class World:
    """The ranks of one framework on one model, and the lines to them."""

    def __init__(self, framework: str, model: str, size: int, options: argparse.Namespace) -> None:
        self.name, self.framework, self.size = f"{framework} {size}", framework, size
        listening = socket.create_server(("127.0.0.1", 0))
        listening.settimeout(1.0)
        control = f"127.0.0.1:{listening.getsockname()[1]}"
        words = [str(Path(__file__).resolve()), "--serve", framework, "--models", model]
        words += ["--control", control, "--overlap", options.overlap]
        if framework == "torch":
            start = [peers_python(options.peers)]
            if size > 1:
                start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
        else:
            start = [sys.executable, "-m", "distgrad", "launch", "-n", str(size)]
            start += ["--launcher", options.launcher]
        threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
        env = {**os.environ, **threads, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [*start, *words], env=env, cwd=ROOT, stdin=subprocess.DEVNULL
        )
        try:
            self.lines = []
            for _ in range(size):
                connection = self._next(listening)
                connection.settimeout(LIMIT)
                self.lines.append(connection.makefile("rw"))
            self.losses = [json.loads(line.readline()) for line in self.lines]
        except BaseException:
            self.process.terminate()
            self.process.wait(timeout=60)
            raise
        finally:
            listening.close()

    def _next(self, listening: socket.socket) -> socket.socket:
        end = time.monotonic() + LIMIT
        while self.process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                return listening.accept()[0]
        raise RuntimeError(f"{self.name} did not start")

    def ask(self, steps: int) -> float:
        """Seconds a step, of the slowest rank."""
        for line in self.lines:
            print(steps, file=line, flush=True)
        return max(float(line.readline()) for line in self.lines)

    def close(self) -> None:
        for line in self.lines:
            line.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            self.process.wait(timeout=60)


def check(worlds: list[World]) -> None:
    first = worlds[0].losses[0]
    for world in worlds:
        for losses in world.losses:
            off = max(abs(a / b - 1) for a, b in zip(losses, first, strict=True))
            assert off < 1e-3, f"{world.name} has losses {losses}, {worlds[0].name} {first}"


def spread(found: list[float]) -> str:
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def measure(model: str, options: argparse.Namespace) -> None:
    worlds: list[World] = []
    try:
        for framework in ("distgrad", "torch"):
            for size in (1, 2):
                worlds.append(World(framework, model, size, options))
        check(worlds)
        times: dict[str, list[float]] = {world.name: [] for world in worlds}
        steps = {world.name: max(1, int(SECONDS / world.ask(2))) for world in worlds}
        for number in range(options.rounds):
            place = number % len(worlds)
            for world in worlds[place:] + worlds[:place]:
                times[world.name].append(world.ask(steps[world.name]))
    finally:
        for world in worlds:
            world.close()
    cells = [
        f"{name} {BATCH[model] / statistics.median(found):,.0f}" for name, found in times.items()
    ]
    print(f"\n{model}: samples/s " + ", ".join(cells))
    efficiency = {
        framework: [
            one / (2 * two)
            for one, two in zip(times[f"{framework} 1"], times[f"{framework} 2"], strict=True)
        ]
        for framework in ("distgrad", "torch")
    }
    for framework, found in efficiency.items():
        print(f"  efficiency of 2 workers, {framework}: {spread(found)}")
    above = [a / b for a, b in zip(efficiency["distgrad"], efficiency["torch"], strict=True)]
    faster = [b / a for a, b in zip(times["distgrad 2"], times["torch 2"], strict=True)]
    print(f"  efficiency, ours / torch's: {spread(above)}; target above 1")
    print(f"  speed of 2 workers, ours / torch's: {spread(faster)}")
    reached = statistics.median(efficiency["distgrad"]) >= TARGETS[model]
    print(f"  target {TARGETS[model]:.2f}: {'reached' if reached else 'missed'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, default=PEERS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--launcher", choices=["local", "mpi"], default="local")
    parser.add_argument("--overlap", choices=["true", "false", "auto"], default="auto")
    for hidden in ("--serve", "--control"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.models, options.control, options.overlap)
        return
    for model in options.models.split(","):
        measure(model, options)


if __name__ == "__main__":
    main()
