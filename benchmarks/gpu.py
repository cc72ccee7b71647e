"""Training steps on one GPU, beside torch and JAX in the same run; and whether they are right.

    python benchmarks/gpu.py --all [STAGE ...] [--minutes N] [--write]
    python benchmarks/gpu.py [--check] [--kernels] [--write] [--rounds N] [--workload [NAME ...]]
    python benchmarks/gpu.py --buckets [MIB ...] [--write] [--rounds N] [--workload NAME]

Frameworks that are not installed, or fail, are named and left out. Each contender trains the same
initial weights on the same batch; the losses of the first steps are compared before anything is
timed. Rounds go through all contenders in turn, in rotating order; a time is wall-clock, ends when
the loss has been read on the host, and is the median over rounds. ``--check`` runs the tests on
the GPU first, ``--kernels`` adds the table of `gpu_kernels.py`, ``--passes`` that of
`gpu_passes.py` (``fit``, ``evaluate``, ``predict``), ``--write`` puts all of it into
``gpu.md``; ``--workload`` without a name leaves the training steps out. ``--device cpu`` tries the
program. ``--buckets`` measures sizes of buckets of gradients instead (``gpu_buckets.py``), on as
many GPUs as ranks: ``distgrad launch -n 4 benchmarks/gpu.py --buckets``. ``--all`` does all of it,
one after the other, within some minutes (``gpu_all.py``), or some of its stages.
"""

from __future__ import annotations

import argparse
import datetime
import faulthandler
import functools
import gc
import importlib
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gpu_all
import gpu_copy
import gpu_kernels
import gpu_passes
import gpu_tests
import numpy as np
from gpu_record import Record
from workloads import Parameter, Trainer, Workload, cnn, mlp, transformer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "gpu.md"
PATIENCE = 60.0  # seconds for some steps that are timed
GRACE = 10.0  # seconds until what does not come back to Python is ended
BEGIN, BUCKETS, END = "<!-- measured -->", "<!-- buckets -->", "<!-- end -->"
CHECKED, KERNELS, PASSES = "<!-- tests -->", "<!-- kernels -->", "<!-- passes -->"

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
# Module of peers and form of it, in the order in which they are made ready, of which the last may
# not be in time. The first one's losses are what the others must agree with.
CONTENDERS = {
    "distgrad eager": ("distgrad", "eager"),
    "distgrad captured": ("distgrad", "captured"),
    "torch eager": ("torch", "eager"),
    "torch reduce-overhead": ("torch", "reduce-overhead"),
    "JAX jit": ("jax", "jit"),  # it compiles for long, and so do torch's after it
    "torch max-autotune": ("torch", "max-autotune"),
    "distgrad captured TF32": ("distgrad", "captured"),
    "distgrad captured without cuDNN": ("distgrad", "captured"),
    "distgrad 8 shards": ("distgrad", "shards8"),
    "distgrad 8 shards, a launch each": ("distgrad", "shards8"),
    "JAX jit TF32": ("jax", "jit TF32"),
    "torch reduce-overhead TF32": ("torch", "reduce-overhead TF32"),
}


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


@functools.lru_cache(1)
def parameters_of(slug: str) -> list[Parameter]:
    """Those that all contenders begin with, and copy: they are seconds of random numbers."""
    return WORKLOADS[slug].parameters()


def made(name: str, workload: Workload, device: str) -> Trainer:
    module, form = CONTENDERS[name]
    peer = importlib.import_module(f"peers.{module}_peer")
    if module == "torch":
        peer.DEVICE = device
    trainer: Trainer | None = peer.make(workload, parameters_of(workload.slug), form)
    if trainer is None:
        raise ValueError("it has no such form")
    return trainer


def started(name: str, workload: Workload, device: str) -> tuple[Trainer, Any]:
    """A contender and its batch, with what it is to compute by."""
    choose(name, device)
    empty = np.zeros(0)
    x, y = workload.samples() if workload.kind != "adam" else (empty, empty)
    trainer = made(name, workload, device)
    return trainer, trainer.ready(x, y)


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
    """Context that raises TimeoutError when it takes longer: peers compile for minutes.

    What does not come back to Python ends this process, a little later: it says where that was.
    """

    def late(*_: Any) -> None:
        raise TimeoutError(f"not ready within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + GRACE, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before)


def stop_compilers() -> None:
    """Ends the processes in which torch may still compile what was not ready in time."""
    module = sys.modules.get("torch._inductor.async_compile")
    if module is not None:
        module.shutdown_compile_workers()


def tidy(device: str, name: str) -> None:
    """Gives back the memory that nobody uses: frameworks keep it, each for itself.

    Ends this process where the GPU is of no use to it any more, after an error of ``name``.
    """
    gc.collect()
    if device != "cuda":
        return
    import cupy

    torch = sys.modules.get("torch")
    try:
        cupy.cuda.Device().synchronize()
        cupy.get_default_memory_pool().free_all_blocks()
        if torch is not None:
            torch.cuda.empty_cache()
    except RuntimeError as error:
        sys.exit(f"this process cannot use the GPU any more, after {name}: {error}")


def prepared(
    workload: Workload,
    names: list[str],
    device: str,
    record: Record,
    say: Callable[[str], None],
    patience: float = 600.0,
    limit: float = 7200.0,
    note: Callable[[], None] = lambda: None,
) -> dict[str, Callable[[int], float]]:
    """``run(count)`` of every contender that is in time, and whose losses are the first one's.

    Three steps of each are timed at once, and noted: that is better than nothing. All of them have
    ``limit`` seconds, a part of which is left for what is timed in turn.
    """
    ends = time.monotonic() + limit - min(15.0, 0.3 * limit)
    runs: dict[str, Callable[[int], float]] = {}
    first: list[float] | None = None
    rtol = 2e-3 if workload.dtype == "float32" else 5e-3
    for name in names:
        if workload.dtype != "float32" and name.endswith("TF32"):
            continue  # there is no product of float32
        left = ends - time.monotonic()
        if left < 3.0:
            record.leave_out(workload.name, name, "no time was left")
            continue
        record.begin(workload.name, name)
        try:
            began = time.perf_counter()
            with within(min(patience, left)):
                trainer, batch = started(name, workload, device)
                losses = [trainer.run(batch, 1) for _ in range(3)]
                ready = time.perf_counter()
                trainer.run(batch, 3)
                step = (time.perf_counter() - ready) / 3
            took = f"{ready - began:.1f} s for 3 steps, then {step:.2g} each"
            say(f"{name}: losses {losses}, {took}")
        except Exception as error:
            said = " ".join(str(error).split("\n")[:2])  # torch names the cause in the second
            record.leave_out(workload.name, name, f"{type(error).__name__}: {said}")
            say(f"{name}: left out ({type(error).__name__}: {error})")
            trainer = batch = None  # type: ignore[assignment]
            note()
            tidy(device, name)
            continue
        tidy(device, name)
        first = first or losses
        if not np.allclose(losses, first, rtol=rtol):
            record.drop(workload.name, name, f"its losses are {losses}, not {first}")
            say(f"{name}: left out, its losses are not {first}")
            note()
            continue
        runs[name] = lambda count, t=trainer, b=batch: t.run(b, count)
        record.put(workload.name, {name: [step * 1e3]})
        note()
    return runs


def timed(
    workload: Workload,
    runs: dict[str, Callable[[int], float]],
    device: str,
    record: Record,
    rounds: int,
    seconds: float,
    note: Callable[[], None] = lambda: None,
) -> None:
    """Records milliseconds per step by contender, and notes after each round."""
    counts: dict[str, int] = {}
    found: dict[str, list[float]] = {name: [] for name in runs}

    def once(name: str, count: int) -> float:
        """Seconds; a contender that fails now is left out from here on."""
        record.begin(workload.name, name)
        try:
            with within(PATIENCE):
                began = time.perf_counter()
                runs[name](count)
                return time.perf_counter() - began
        except Exception as error:
            record.drop(workload.name, name, f"{type(error).__name__}: {error}")
            del found[name]
            tidy(device, name)
            return 0.0

    stop_compilers()
    for name in list(found):
        once(name, 3)
        if name in found:
            counts[name] = max(3, min(1000, int(seconds / max(once(name, 3) / 3, 1e-7))))
    for number in range(rounds):
        names = list(found)
        turn = number % max(len(names), 1)
        for name in [*names[turn:], *names[:turn]]:
            spent = once(name, counts[name])
            if name in found:
                found[name].append(spent / counts[name] * 1e3)
        record.put(workload.name, found)
        note()


def table(results: dict[str, dict[str, list[float]]], names: list[str]) -> list[str]:
    """Milliseconds per step, and in brackets the ratio to the best peer of each round.

    Peers are those that may round as much: to TF32, or not.
    """
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for workload, found in results.items():
        cells = []
        others = {
            name: times
            for name, times in found.items()
            if name in CONTENDERS and not name.startswith("distgrad")
        }
        for name in names:
            if name not in found:
                cells.append("-")
                continue
            cell = f"{statistics.median(found[name]):.3g}"
            rough = name.endswith("TF32")
            peers = [times for peer, times in others.items() if peer.endswith("TF32") == rough]
            if peers:
                cell += f" ({ratio(found[name], peers):.2f})"
            cells.append(cell)
        lines.append(f"| {workload} | " + " | ".join(cells) + " |")
    return lines


def ratio(times: list[float], peers: list[list[float]]) -> float:
    """The median over rounds of the time over that of the best peer; of some rounds, of medians."""
    if len({len(times), *map(len, peers)}) > 1:
        return statistics.median(times) / min(map(statistics.median, peers))
    best = [min(each) for each in zip(*peers, strict=True)]
    return statistics.median(a / b for a, b in zip(times, best, strict=True))


def report(record: Record) -> list[str]:
    timed = {name for found in record.results.values() for name in found}
    return [
        *table(record.results, [name for name in CONTENDERS if name in timed]),
        "",
        *shards_cost(record.results),
        *gpu_copy.bandwidth(WORKLOADS.values(), record.results),
        "",
        *record.reasons(),
    ]


def shards_cost(results: dict[str, dict[str, list[float]]]) -> list[str]:
    """The time of a batch in 8 shards over that in one, in one launch and in 8."""
    lines = []
    for workload, found in results.items():
        one = found.get("distgrad captured")
        ratios = {
            name.removeprefix("distgrad "): ratio(times, [one])
            for name, times in found.items()
            if one is not None and name.startswith("distgrad 8 shards")
        }
        if ratios:
            said = "; ".join(f"{name}: {ratio:.2f}" for name, ratio in ratios.items())
            lines.append(f"{workload}, over one shard: {said}.")
    return lines


def write(text: str, begin: str = BEGIN) -> None:
    """Puts the results between the marks of ``gpu.md``, in place of those before."""
    page = RESULTS.resolve()
    old = page.read_text(encoding="utf-8")
    head, _, rest = old.partition(begin)
    _, _, tail = rest.partition(END)
    new = page.with_name(f"{page.name}.new")
    new.write_text(f"{head}{begin}\n{text}\n{END}{tail}", encoding="utf-8")
    new.replace(page)  # whole, also if this process is ended now


def measure_buckets(options: argparse.Namespace, lines: list[str]) -> None:
    """The sizes of buckets, on the first workload; the first rank speaks for all."""
    from gpu_buckets import measured

    from distgrad.training import world

    workload = WORKLOADS[options.workload[0]]
    chief = world.communicator().rank == 0

    def note(found: list[str]) -> None:
        if chief and options.write:
            write("\n".join([*lines, *found]), BUCKETS)

    found = measured(workload, options.buckets, options.rounds, steps=10, note=note)
    if chief:
        print("\n".join([*lines, *found]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--all", nargs="*", choices=gpu_all.STAGES, help="everything, each with its own time"
    )
    parser.add_argument("--minutes", type=float, default=12.0, help="for --all")
    parser.add_argument("--compiling", type=float, default=gpu_all.COMPILING, help="share of it")
    parser.add_argument("--compile", choices=CONTENDERS, help="take two steps, and say nothing")
    parser.add_argument("--check", action="store_true", help="run the tests on the GPU first")
    parser.add_argument("--check-limit", type=float, default=360.0, help="seconds for the tests")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds to prepare one")
    parser.add_argument("--record", type=Path, help="where results of several runs are collected")
    parser.add_argument("--limit", type=float, default=7200.0, help="seconds for a workload")
    parser.add_argument(
        "--without", action="append", default=[], choices=CONTENDERS, help="it is left out"
    )
    parser.add_argument(
        "--first", action="append", default=[], choices=CONTENDERS, help="before other peers"
    )
    parser.add_argument("--write", action="store_true", help="put the results into gpu.md")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="of one contender in a round")
    parser.add_argument("--kernels", action="store_true", help="and kernels alone, with cuDNN")
    parser.add_argument("--passes", action="store_true", help="and fit, evaluate and predict")
    parser.add_argument("--workload", nargs="*", choices=sorted(WORKLOADS), help="none: no steps")
    parser.add_argument("--buckets", nargs="*", type=float, help="sizes of buckets, in MiB")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))  # an installation of distgrad is not needed
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the GPU is shared by all

    def say(text: str) -> None:
        print(text, flush=True)

    if options.all is not None:
        more = ["--device", options.device, *(["--write"] if options.write else [])]
        given = set(options.without), options.record, options.compiling
        ends = gpu_all.run(options.minutes, more, say, options.all, *given)
        say("\n" + "\n".join(f"{name}: {end}" for name, end in ends.items()))
        return
    if options.buckets is not None:
        options.buckets = options.buckets or [1, 4, 16, 64, 1024]
        options.workload = options.workload or ["transformer_12_layers_d_768"]
    options.workload = list(WORKLOADS) if options.workload is None else options.workload
    words = ["--all"] if options.record else sys.argv[1:]
    command = " ".join(["python benchmarks/gpu.py", *words])
    lines = [f"Measured {datetime.date.today()}: `{command}`", ""]

    def note(found: list[str], begin: str = BEGIN) -> None:
        if options.write:
            write("\n".join([*lines, *found]), begin)

    if options.check:  # by other processes: it comes before this one touches the GPU
        gpu_tests.check(options.device, options.check_limit, lambda found: note(found, CHECKED))
    lines += [*devices_of(options.device), ""]
    if options.buckets is not None:
        measure_buckets(options, lines)
        return
    say("\n".join(lines))
    if options.compile:
        trainer, batch = started(options.compile, WORKLOADS[options.workload[0]], options.device)
        trainer.run(batch, 2)
        return
    record = Record(options.record)
    names = [name for name in CONTENDERS if name not in options.without]
    names.sort(key=lambda name: not (name.startswith("distgrad") or name in options.first))

    def note_steps() -> None:  # often: the time on a GPU may end at any moment
        note(report(record))

    device = options.device
    for slug in options.workload:
        workload = WORKLOADS[slug]
        say(f"\n{workload.name}, batch {workload.batch}")
        times = options.patience, options.limit
        runs = prepared(workload, names, device, record, say, *times, note_steps)
        timed(workload, runs, device, record, options.rounds, options.seconds, note_steps)
        if runs and workload.kind == "adam" and device == "cuda":
            record.put(workload.name, gpu_copy.copies(gpu(), workload, options.rounds))
        record.end()
        runs.clear()
        note_steps()
    if options.workload:
        say("\n" + "\n".join(report(record)))
    if options.passes:
        gpu_passes.table(options.rounds, say, lambda found: note(found, PASSES))
    if options.kernels and options.device == "cuda":
        choose("", "cuda")
        seconds = options.seconds / 3
        gpu_kernels.table(gpu(), options.rounds, seconds, say, lambda found: note(found, KERNELS))


if __name__ == "__main__":
    main()
