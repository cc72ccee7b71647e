"""Start-up side by side: import, first step, end of the first epoch, with caches cold and warm.

    python benchmarks/run.py --install        # once: an environment with the peers
    python benchmarks/startup.py [--rounds N] [--only A,B] [--write]

A classifier (64-128-10) on the digits that ship with distgrad, batch 64, with the short last batch
that an epoch has. Seconds of wall time since the process was started, on one core with one thread.
Cold means that the caches of compiled kernels are empty (those of distgrad, torch and JAX), warm
that one run has filled them; the byte code of Python and the files of libraries are in the
machine's memory in both, by a run that is not counted. Contenders take turns, in rotating order.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from crew import ROOT, PeerError, Process, arguments, chosen, handing, machine, write_section
from run import TOLERANCE, disagreement
from workloads import WORKLOADS

CONTENDERS = [
    *("distgrad eager", "distgrad captured", "torch eager", "torch compile"),
    *("TensorFlow function", "TensorFlow XLA", "Keras", "JAX jit", "HIPS autograd"),
]
MOMENTS = ("imported", "first", "epoch")


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The training samples: rows of 64 grey values, and labels."""
    import sys

    sys.path.insert(0, str(ROOT))
    from distgrad.data import source

    train = source.load({"source": "digits", "test_fraction": 0.2}, 0).train
    x, y = train.take(slice(0, len(train)))
    return x.reshape(len(x), -1).astype(np.float32), y.astype(np.int64)


def caches(folder: Path) -> dict[str, str]:
    """Where all caches of compiled code lie, by environment variables."""
    return {
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / ".cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def once(name: str, python: Path | None, path: str, folder: Path) -> dict[str, float]:
    process = Process(name, python, caches(folder))
    try:
        imported = process.ask("about")["imported"]
        return {"imported": imported, **process.ask("epoch", "digits_mlp", path)}
    finally:
        process.close()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    python, names = chosen(options, CONTENDERS)
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    failures: dict[str, str] = {}
    with handing() as handed:
        path = handed(WORKLOADS["digits_mlp"], digits())
        for turn in range(-1, options.rounds):
            place = turn % max(1, len(names))
            for name in names[place:] + names[:place]:
                with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                    for state in ("cold", "warm"):
                        try:
                            run = once(name, python, path, Path(folder))
                        except PeerError as error:
                            failures[name] = str(error)
                            break
                        if turn >= 0:
                            found.setdefault((name, state), []).append(run)
    lines = [
        "| | import | first step, cold | epoch, cold | first step, warm | epoch, warm "
        "| last loss |\n|---|---|---|---|---|---|---|"
    ]

    def median(name: str, state: str, moment: str) -> str:
        return f"{statistics.median(run[moment] for run in found[name, state]):.2f}"

    for name in names:
        if (name, "warm") not in found:
            continue
        cells = [median(name, "warm", "imported")]
        cells += [median(name, s, moment) for s in ("cold", "warm") for moment in MOMENTS[1:]]
        cells.append(f"{found[name, 'warm'][-1]['loss']:.4f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    last = {key: runs[-1]["loss"] for key, runs in found.items()}
    expected = statistics.median(last.values()) if last else 0.0
    for (name, _), loss in last.items():
        if disagreement([loss], [expected]) > TOLERANCE:
            failures[name] = f"{name}: its last loss is {loss:.6g}, of the others {expected:.6g}"
    lines += [f"\n{note}" for note in failures.values()]
    text = "\n".join(lines)
    print(text)
    if options.write:
        head = f"{machine()}; {time.strftime('%Y-%m-%d')}. Seconds since the start of the process, "
        head += f"medians of {options.rounds} rounds, on one core with one thread.\n\n"
        write_section("Start-up, `python benchmarks/startup.py`", head + text)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
