"""Convolutions and attention by cuDNN, beside what does them without it, on one GPU.

    python benchmarks/gpu_kernels.py [--rounds N] [--seconds S]

Each is the same arrays through both ways in turn; a time is the median over rounds of the mean of
calls that follow each other, and ends when the last one is done. The last columns are the memory
beside the arrays that the plan takes, and the largest difference, over the largest number. Where
cuDNN has no plan that gives equal bits, what it said is there instead. `gpu.py` writes this too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# (batch, height, width, in, out, filter, stride), all with "SAME" padding: those of a CNN for small
# images, and of a ResNet-50 for large ones.
CONVOLUTIONS = [
    (64, 28, 28, 1, 32, 3, 1),
    (64, 14, 14, 32, 64, 3, 1),
    (64, 224, 224, 3, 64, 7, 2),
    (64, 56, 56, 64, 64, 3, 1),
    (64, 56, 56, 64, 256, 1, 1),
    (64, 28, 28, 128, 128, 3, 2),
    (64, 14, 14, 256, 256, 3, 1),
    (64, 7, 7, 512, 512, 3, 1),
]
DEPTHWISE = [(64, 56, 56, 128, 128, 3, 1)]
# (batch, heads, steps, size)
ATTENTION = [(16, 4, 64, 32), (8, 12, 512, 64), (8, 12, 2048, 64), (2, 16, 4096, 128)]


class Case(NamedTuple):
    """Something that is done in two ways; ``job`` is what cuDNN is asked for."""

    name: str
    with_it: Callable[[], Any]
    without: Callable[[], Any]
    job: Any


def convolutions(gpu: Any) -> Iterator[Case]:
    """The three primitives of each convolution, one by one."""
    from distgrad.backend import cudnn
    from distgrad.core.primitive import registry
    from distgrad.ops.windows import window_geometry

    rng = np.random.default_rng(0)
    for kind, sizes in [("", CONVOLUTIONS), ("depthwise_", DEPTHWISE)]:
        for n, h, w, c, o, k, s in sizes:
            geometry = window_geometry("conv", (h, w), (k, k), s, "SAME", None, False)
            filters = (k, k, c, o) if not kind else (k, k, c, o // c)
            shapes = (n, h, w, c), filters, (n, *geometry.counts((h, w)), o)
            for dtype in ("float32", "float16"):
                x, f, y = (gpu.asarray(rng.normal(size=z).astype(dtype)) for z in shapes)
                for which, args in [("", (x, f)), ("_grad_x", (y, f)), ("_grad_w", (x, y))]:
                    primitive = registry[f"{kind}convolve{which}"]
                    params = {"geometry": geometry}
                    if which == "_grad_x":
                        params["shape"] = x.shape
                    found = cudnn.convolution(
                        primitive.name, args[0].shape, args[1].shape, x.dtype, params
                    )
                    if found is None:
                        continue
                    plain = partial(primitive.kernel, gpu.capturable, *args, **params)
                    with_it = partial(gpu.kernels[primitive.name], None, *args, **params)
                    name = f"{primitive.name} {dtype} {n}x{h}x{w}x{c} to {o}, {k}x{k} / {s}"
                    yield Case(name, with_it, plain, found.job)


def attentions(gpu: Any) -> Iterator[Case]:
    """Causal attention and its gradients, as a captured function."""
    import distgrad as tf
    from distgrad.backend import cudnn
    from distgrad.backend.cudnn import Layout

    rng = np.random.default_rng(0)
    for shape in ATTENTION:
        mask = tf.constant(np.tri(shape[2], dtype=bool))
        arrays = [tf.constant(rng.normal(size=shape).astype("float16")) for _ in range(4)]

        def step(q: Any, k: Any, v: Any, g: Any, mask: Any = mask, size: int = shape[3]) -> Any:
            with tf.GradientTape() as tape:
                tape.watch([q, k, v])
                scores = tf.matmul(q, k, transpose_b=True) * size**-0.5
                y = tf.matmul(tf.nn.softmax(tf.where(mask, scores, -3e4)), v)
                loss = tf.reduce_sum(y * g)
            return [*tape.gradient(loss, [q, k, v]), y]

        ways = []
        for wanted in (True, False):
            gpu.dnn.wanted = wanted
            run = tf.function(step, jit_compile=True)
            run(*arrays)
            ways.append(lambda run=run, arrays=arrays: run(*arrays)[0]._data)
        gpu.dnn.wanted = True
        q = Layout.steps_first(shape, "float16")
        job = cudnn.attention_grad([q] * 5, None, scale=shape[3] ** -0.5, causal=True)
        yield Case("attention and gradients " + "x".join(map(str, shape)), *ways, job)


def timed(run: Callable[[], Any], gpu: Any, seconds: float) -> float:
    """Milliseconds of a call, of as many as take about so long."""
    done = gpu.xp.cuda.get_current_stream()
    run()
    done.synchronize()
    began = time.perf_counter()
    run()
    done.synchronize()
    count = max(1, min(1000, int(seconds / max(time.perf_counter() - began, 1e-6))))
    began = time.perf_counter()
    for _ in range(count):
        run()
    done.synchronize()
    return (time.perf_counter() - began) / count * 1e3


def table(
    gpu: Any,
    rounds: int,
    seconds: float,
    say: Callable[[str], None] = print,
    note: Callable[[list[str]], None] = lambda lines: None,
) -> list[str]:
    """A line for each case, of Markdown; all lines so far are noted after each of them."""
    lines = [
        f"cuDNN {gpu.dnn.version()}, in milliseconds:",
        "",
        "| | cuDNN | without | ratio | workspace, MiB | difference |",
        "|---|---|---|---|---|---|",
    ]
    say("\n".join(lines))
    for cases in (convolutions(gpu), attentions(gpu)):
        for case in cases:
            if not gpu.dnn.takes(case.job):
                said = gpu.dnn.declined.get(case.job, "not installed").splitlines()[0]
                lines.append(f"| {case.name} | no plan: {said} |")
                say(lines[-1])
                note(lines)
                continue
            a, b = (gpu.to_numpy(way()).astype("float64") for way in (case.with_it, case.without))
            off = np.abs(a - b).max() / np.abs(b).max()
            pairs = [
                (timed(case.with_it, gpu, seconds), timed(case.without, gpu, seconds))
                for _ in range(rounds)
            ]
            one, other = (statistics.median(times) for times in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            room = gpu.dnn.workspace(case.job) / 2**20
            lines.append(
                f"| {case.name} | {one:.3g} | {other:.3g} | {ratio:.2f} | {room:.1f} | {off:.0e} |"
            )
            say(lines[-1])
            note(lines)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1, help="of one way in a round")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from distgrad.core import devices

    table(devices.use("cuda"), options.rounds, options.seconds)


if __name__ == "__main__":
    main()
