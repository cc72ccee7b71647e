"""Train a tiny model on many ranks of this machine; compare the weights with one worker's.

    python benchmarks/many_ranks.py [--ranks 32]

Prints, for one worker, local processes over TCP and mpirun: the hash, the seconds until the first
step, those of the whole run, and the memory of a rank (proportional set size: what ranks share
counts once). The last line reads ``all equal`` (exit code 0) or ``DIFFERENT`` (1).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # measure the code beside this file

from distgrad.testing import process, ranks  # noqa: E402

JOB = """\
name: many-ranks
data: {source: digits, test_fraction: 0.2}
model:
  layers:
    - {type: Flatten}
    - {type: Dense, units: 16, activation: tanh}
    - {type: Dropout, rate: 0.2}
    - {type: Dense, units: 10, activation: softmax}
loss: sparse_categorical_crossentropy
optimizer: {type: Adam, learning_rate: 0.01}
train: {epochs: 2, global_batch_size: 128}
"""
LINE = "{:<12}{:>6}  {:<64}{:>12}{:>9}{:>13}"


def memory(pids: list[int]) -> list[int]:
    """The proportional set size of each process, in MB."""
    sizes = []
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue  # it has just ended
        sizes += [int(line.split()[1]) // 1024 for line in text.splitlines() if line[:4] == "Pss:"]
    return sizes


def train(how: str, count: int, job: Path, folder: Path) -> str:
    """One run, printed; the hash of its weights. Raises TimeoutError, or OSError where it fails."""
    words = [sys.executable, "-m", "distgrad", "train", str(job), "--run-dir", str(folder)]
    words += ["-n", str(count), "--launcher", how]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {"PYTHONPATH": path, "DISTGRAD_START_TIMEOUT": "240", "DISTGRAD_TIMEOUT": "240"}
    began, metrics, sizes = time.monotonic(), folder / "metrics.jsonl", []
    with process.Command(words, env=env) as running:
        process.wait_until(
            lambda: (metrics.exists() and metrics.stat().st_size) or not running.is_running(),
            300,
            "the first step",
        )
        first = time.monotonic() - began
        pids = list(ranks.rank_pids(running).values()) or [running.pid]
        sizes = memory(pids)
        result = running.wait(600)
    if result.returncode != 0:
        raise OSError(f"{how}: exit code {result.returncode}\n{result.stderr}")
    digest = json.loads((folder / "status.json").read_text())["weights_sha256"]
    size = f"{statistics.median(sizes):.0f} MB" if sizes else "-"
    seconds = (f"{first:.1f} s", f"{result.seconds:.1f} s")
    print(LINE.format(how, count, digest, *seconds, size), flush=True)
    return digest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=32)
    count = parser.parse_args().ranks
    print(LINE.format("launcher", "ranks", "weights_sha256", "first step", "all", "of a rank"))
    with tempfile.TemporaryDirectory(prefix="distgrad-many-ranks-") as name:
        job = Path(name) / "job.yaml"
        job.write_text(f"{JOB}parallel: {{virtual_shards: {count}}}\n")
        found = [
            train(how, workers, job, Path(name) / f"{how}{workers}")
            for how, workers in (("local", 1), ("local", count), ("mpi", count))
        ]
    print("all equal" if len(set(found)) == 1 else "DIFFERENT")
    return 0 if len(set(found)) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
