"""Training steps on one GPU, beside torch and JAX in the same run; and whether they are right.

    python benchmarks/gpu.py --all [--minutes N] [--write]
    python benchmarks/gpu.py [--check] [--kernels] [--write] [--rounds N] [--workload [NAME ...]]
    python benchmarks/gpu.py --buckets [MIB ...] [--write] [--rounds N] [--workload NAME]

Frameworks that are not installed, or fail, are named and left out. Each contender trains the same
initial weights on the same batch; the losses of the first steps are compared before anything is
timed. Rounds go through all contenders in turn, in rotating order; a time is wall-clock, ends when
the loss has been read on the host, and is the median over rounds. ``--check`` runs the tests on
the GPU first, ``--kernels`` adds the table of `gpu_kernels.py`, ``--write`` puts all of it into
``gpu.md``; ``--workload`` without a name leaves the training steps out. ``--device cpu`` tries the
program. ``--buckets`` measures sizes of buckets of gradients instead (``gpu_buckets.py``), on as
many GPUs as ranks: ``distgrad launch -n 4 benchmarks/gpu.py --buckets``. ``--all`` does all of it,
one after the other, within some minutes (``gpu_all.py``).
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.util
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gpu_all
import gpu_kernels
import numpy as np
from workloads import Trainer, Workload, cnn, mlp, transformer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "gpu.md"
BEGIN, BUCKETS, END = "<!-- measured -->", "<!-- buckets -->", "<!-- end -->"
CHECKED, KERNELS = "<!-- tests -->", "<!-- kernels -->"

WORKLOADS = {
    workload.slug: workload
    for workload in (
        mlp("MNIST MLP", 784, 128, 10, batch=128),
        mlp("wide MLP", 784, 4096, 4096, 10, batch=4096),
        cnn("CNN", 32, 64, padding="valid", batch=64),
        transformer("char transformer", 4, 128, 64, 4, 16),
        transformer("transformer 12 layers d 768", 12, 768, 512, 12, 8),
        transformer("transformer d 768 in bfloat16", 12, 768, 512, 12, 8, dtype="bfloat16"),
        Workload("Adam 100M", "adam", 0, {"shapes": [(1000, 1000)] * 100}, rate=1e-3),
    )
}
# Module of peers and form of it. The first one's losses are what the others must agree with.
CONTENDERS = {
    "distgrad eager": ("distgrad", "eager"),
    "distgrad captured": ("distgrad", "captured"),
    "distgrad captured TF32": ("distgrad", "captured"),
    "distgrad captured without cuDNN": ("distgrad", "captured"),
    "distgrad 8 shards": ("distgrad", "shards8"),
    "distgrad 8 shards, a launch each": ("distgrad", "shards8"),
    "torch eager": ("torch", "eager"),
    "torch reduce-overhead": ("torch", "reduce-overhead"),
    "torch max-autotune": ("torch", "max-autotune"),
    "JAX jit": ("jax", "jit"),
}
# Tests that are the same on every device, in the order in which a failure is worth knowing.
TESTS = (
    "tests/backend/test_cupy_exec.py",
    "tests/backend/test_cupy_graphs.py",
    "tests/compile/cuda",
    "tests/training",
    "tests/core",
    "tests/ops",
    "tests/keras",
    "tests/e2e/test_configs.py",
)


def devices_of(device: str) -> list[str]:
    """Puts every framework on the device; the lines that say what there is."""
    import distgrad
    from distgrad.core import devices
    from distgrad.launcher import environ

    devices.use(device, environ.detect().local_rank)
    lines = [f"distgrad {distgrad.__version__}, NumPy {np.__version__}, {platform.platform()}"]
    if device == "cuda":
        import cupy

        runtime = cupy.cuda.runtime
        name = runtime.getDeviceProperties(0)["name"].decode()
        lines.append(
            f"{name}, driver for CUDA {runtime.driverGetVersion()}, CuPy {cupy.__version__} "
            f"with CUDA {runtime.runtimeGetVersion()}, cuDNN {gpu().dnn.version()}"
        )
    return lines


def made(name: str, workload: Workload, device: str) -> Trainer:
    module, form = CONTENDERS[name]
    peer = importlib.import_module(f"peers.{module}_peer")
    if module == "torch":
        peer.DEVICE = device
    trainer: Trainer | None = peer.make(workload, workload.parameters(), form)
    if trainer is None:
        raise ValueError("it has no such form")
    return trainer


def gpu() -> Any:
    """The GPU that arrays are made on."""
    from distgrad.core import dispatch

    return dispatch.current()


def choose(name: str, device: str) -> None:
    """Sets what graphs made from now on are to be: how products are rounded, what does them, how
    many shards they run.
    """
    from distgrad.keras import mixed_precision
    from distgrad.training import chains

    mixed_precision.enable_tensor_float_32_execution(name.endswith("TF32"))
    chains.most_launches = 0 if name.endswith("a launch each") else chains.LAUNCHES
    if device == "cuda":
        gpu().dnn.wanted = not name.endswith("without cuDNN")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Context that raises TimeoutError when it takes longer: peers compile for minutes."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"not ready within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before)


def prepared(
    workload: Workload,
    names: list[str],
    device: str,
    say: Callable[[str], None],
    patience: float = 600.0,
) -> dict[str, Callable[[int], float]]:
    """``run(count)`` of every contender whose losses agree with ours, of peers that are in time."""
    runs: dict[str, Callable[[int], float]] = {}
    first: list[float] | None = None
    rtol = 2e-3 if workload.dtype == "float32" else 5e-3
    for name in names:
        if workload.dtype != "float32" and name.endswith("TF32"):
            continue  # there is no product of float32
        try:
            choose(name, device)
            x, y = workload.samples() if workload.kind != "adam" else (np.zeros(0), np.zeros(0))
            began = time.perf_counter()
            with within(patience if not name.startswith("distgrad") else 600.0):
                trainer = made(name, workload, device)
                batch = trainer.ready(x, y)
                losses = [trainer.run(batch, 1) for _ in range(3)]
            say(f"{name}: losses {losses}, {time.perf_counter() - began:.1f} s for 3 steps")
        except Exception as error:
            say(f"{name}: left out ({type(error).__name__}: {str(error).splitlines()[:1]})")
            continue
        first = first or losses
        if not np.allclose(losses, first, rtol=rtol):
            say(f"{name}: left out, its losses are not {first}")
            continue
        runs[name] = lambda count, t=trainer, b=batch: t.run(b, count)
    return runs


def timed(runs: dict[str, Callable[[int], float]], rounds: int, seconds: float) -> dict[str, Any]:
    """Milliseconds per step in each round, by contender."""
    counts = {}
    for name, run in runs.items():
        run(3)
        began = time.perf_counter()
        run(3)
        counts[name] = max(3, min(1000, int(seconds / ((time.perf_counter() - began) / 3))))
    found: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began = time.perf_counter()
            runs[name](counts[name])
            found[name].append((time.perf_counter() - began) / counts[name] * 1e3)
    return found


def table(results: dict[str, dict[str, list[float]]], names: list[str]) -> list[str]:
    """Milliseconds per step, and in brackets the ratio to the best peer of each round."""
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for workload, found in results.items():
        cells = []
        peers = [times for name, times in found.items() if not name.startswith("distgrad")]
        for name in names:
            if name not in found:
                cells.append("-")
                continue
            cell = f"{statistics.median(found[name]):.3g}"
            if peers:
                best = [min(times) for times in zip(*peers, strict=True)]
                ratios = [a / b for a, b in zip(found[name], best, strict=True)]
                cell += f" ({statistics.median(ratios):.2f})"
            cells.append(cell)
        lines.append(f"| {workload} | " + " | ".join(cells) + " |")
    return lines


def report(results: dict[str, dict[str, list[float]]]) -> list[str]:
    return [*table(results, list(CONTENDERS)), "", *shards_cost(results)]


def shards_cost(results: dict[str, dict[str, list[float]]]) -> list[str]:
    """The time of a batch in 8 shards over that in one, in one launch and in 8."""
    lines = []
    for workload, found in results.items():
        one = found.get("distgrad captured")
        ratios = {
            name.removeprefix("distgrad "): statistics.median(
                a / b for a, b in zip(times, one, strict=True)
            )
            for name, times in found.items()
            if one is not None and name.startswith("distgrad 8 shards")
        }
        if ratios:
            said = "; ".join(f"{name}: {ratio:.2f}" for name, ratio in ratios.items())
            lines.append(f"{workload}, over one shard: {said}.")
    return lines


def check(device: str, limit: float, note: Callable[[list[str]], None]) -> None:
    """The last lines of the tests on the device, folder by folder, noted after each of them."""
    lines: list[str] = []
    ends = time.monotonic() + limit
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    for tests in TESTS:
        command = [sys.executable, "-m", "pytest", "-q", "--maxfail=20", "--tb=line"]
        command += ["-p", "no:cacheprovider", "--device", device, tests]
        if importlib.util.find_spec("xdist") is not None:  # kernels are compiled at their first use
            command += ["-n", str(min(8, os.cpu_count() or 1))]
        left = max(1.0, ends - time.monotonic())
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=left
            )
        except subprocess.TimeoutExpired as late:
            said = (late.stdout or b"").decode(errors="replace").strip().splitlines()[-1:]
            lines.append(f"{tests}: not finished in time {said}")
            print(lines[-1], flush=True)
            note(lines)
            continue
        wrong = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        last = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["no output"]
        lines += [f"{tests}: {last[0]}", *wrong]
        print(*lines[-1 - len(wrong) :], sep="\n", flush=True)
        note(lines)


def write(text: str, begin: str = BEGIN) -> None:
    """Puts the results between the marks of ``gpu.md``, in place of those before."""
    old = RESULTS.read_text(encoding="utf-8")
    head, _, rest = old.partition(begin)
    _, _, tail = rest.partition(END)
    RESULTS.write_text(f"{head}{begin}\n{text}\n{END}{tail}", encoding="utf-8")


def measure_buckets(options: argparse.Namespace, lines: list[str]) -> None:
    """The sizes of buckets, on the first workload; the first rank speaks for all."""
    from gpu_buckets import measured

    from distgrad.training import world

    workload = WORKLOADS[options.workload[0]]
    lines += measured(workload, options.buckets, options.rounds, steps=10)
    if world.communicator().rank == 0:
        print("\n".join(lines), flush=True)
        if options.write:
            write("\n".join(lines), BUCKETS)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--all", action="store_true", help="everything, each with its own time")
    parser.add_argument("--minutes", type=float, default=9.0, help="for --all")
    parser.add_argument("--check", action="store_true", help="run the tests on the GPU first")
    parser.add_argument("--check-limit", type=float, default=360.0, help="seconds for the tests")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds to prepare a peer")
    parser.add_argument("--write", action="store_true", help="put the results into gpu.md")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="of one contender in a round")
    parser.add_argument("--kernels", action="store_true", help="and kernels alone, with cuDNN")
    parser.add_argument("--workload", nargs="*", choices=sorted(WORKLOADS), help="none: no steps")
    parser.add_argument("--buckets", nargs="*", type=float, help="sizes of buckets, in MiB")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))  # an installation of distgrad is not needed
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the GPU is shared by all

    def say(text: str) -> None:
        print(text, flush=True)

    if options.all:
        more = ["--device", options.device, *(["--write"] if options.write else [])]
        ends = gpu_all.run(options.minutes, more, say)
        say("\n" + "\n".join(f"{name}: {end}" for name, end in ends.items()))
        return
    if options.buckets is not None:
        options.buckets = options.buckets or [1, 4, 16, 64, 1024]
        options.workload = options.workload or ["transformer_12_layers_d_768"]
    options.workload = list(WORKLOADS) if options.workload is None else options.workload
    lines = [f"Measured {datetime.date.today()}: `{' '.join(['python', *sys.argv])}`", ""]

    def note(found: list[str], begin: str = BEGIN) -> None:
        if options.write:
            write("\n".join([*lines, *found]), begin)

    if options.check:  # by other processes: it comes before this one touches the GPU
        check(options.device, options.check_limit, lambda found: note(found, CHECKED))
    lines += [*devices_of(options.device), ""]
    if options.buckets is not None:
        measure_buckets(options, lines)
        return
    say("\n".join(lines))
    results: dict[str, dict[str, list[float]]] = {}
    for slug in options.workload:
        workload = WORKLOADS[slug]
        say(f"\n{workload.name}, batch {workload.batch}")
        runs = prepared(workload, list(CONTENDERS), options.device, say, options.patience)
        if runs:
            results[workload.name] = timed(runs, options.rounds, options.seconds)
        note(report(results))  # after each workload: the time on a GPU may end at any moment
    if results:
        say("\n" + "\n".join(report(results)))
    if options.kernels and options.device == "cuda":
        choose("", "cuda")
        seconds = options.seconds / 3
        gpu_kernels.table(gpu(), options.rounds, seconds, say, lambda found: note(found, KERNELS))


if __name__ == "__main__":
    main()
