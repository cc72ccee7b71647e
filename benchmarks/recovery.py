"""Kill a random worker with -9 at random moments, on each launcher; see the job end rightly.

    python benchmarks/recovery.py [--kills 5] [--workers 2] [--launchers local,mpi,ray] [--seed N]

Every kill meets a run of its own (configs/digits.yaml, short, checkpoints every 10 steps) under
``--max-restarts 1``. A run counts as recovered when it exits with 0, its weights have the bits of
an undisturbed run, and no process is left. Detection is the time from the kill to the line that
says so. The last line reads ``all recovered`` (exit code 0) or ``NOT all recovered`` (1).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # measure the code beside this file

from distgrad.testing import process, ranks  # noqa: E402

JOB = [str(ROOT / "configs" / "digits.yaml"), "train.epochs=12", "checkpoint.every_steps=10"]
STEPS = 12 * 23
LINE = "{:<9}{:>5}{:>6}{:>13}{:>12}{:>8}{:>9}  {}"


class Outcome(NamedTuple):
    """One run with one kill."""

    launcher: str
    step: int
    rank: int
    detected: float  # seconds
    recovered: bool
    same_bits: bool
    orphans: int

    def __str__(self) -> str:
        words = ("yes" if self.recovered else "NO", "yes" if self.same_bits else "NO")
        seconds = f"{self.detected:.2f} s"
        return LINE.format(
            self.launcher, self.step, self.rank, seconds, words[0], words[1], self.orphans, ""
        ).rstrip()


def command(folder: Path, *options: str) -> process.Command:
    words = [sys.executable, "-m", "distgrad", "train", *JOB, "--run-dir", str(folder), *options]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return process.Command(words, env={"PYTHONPATH": path})


def steps_logged(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b'"kind": "step"') if path.exists() else 0


def weights(folder: Path) -> str:
    return json.loads((folder / "status.json").read_text()).get("weights_sha256", "none")


def one_kill(launcher: str, workers: int, folder: Path, expected: str, chance: random.Random):
    """A run whose worker is killed at a random step. Raises TimeoutError for one that hangs."""
    step, rank = chance.randint(1, STEPS - 60), chance.randrange(workers)
    options = ("-n", str(workers), "--launcher", launcher, "--max-restarts", "1")
    with command(folder, *options) as running:
        process.wait_until(
            lambda: steps_logged(folder) >= step or not running.is_running(), 200, f"step {step}"
        )
        os.kill(ranks.rank_pids(running)[rank], signal.SIGKILL)
        killed = time.monotonic()
        process.wait_until(
            lambda: "(restart 1 of 1)" in running.stderr or not running.is_running(), 60, "restart"
        )
        detected = time.monotonic() - killed
        result = running.wait(300, grace=5.0)
    same = result.returncode == 0 and weights(folder) == expected
    return Outcome(
        launcher, step, rank, detected, result.returncode == 0, same, len(result.orphans)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--launchers", default="local,mpi,ray")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    chance = random.Random(seed)
    print(f"{options.workers} workers, {options.kills} kills on each launcher, seed {seed}")
    good = True
    with tempfile.TemporaryDirectory(prefix="distgrad-recovery-") as name:
        base = Path(name)
        with command(base / "undisturbed") as running:
            assert running.wait(300).returncode == 0
        expected = weights(base / "undisturbed")
        print(
            LINE.format(
                "launcher", "step", "rank", "detected in", "recovered", "bits", "orphans", ""
            )
        )
        for launcher in options.launchers.split(","):
            found = []
            for number in range(options.kills):
                folder = base / f"{launcher}{number}"
                found.append(one_kill(launcher, options.workers, folder, expected, chance))
                print(found[-1], flush=True)
            median = statistics.median(each.detected for each in found)
            print(f"{launcher}: median time to detection {median:.2f} s", flush=True)
            good = good and all(f.recovered and f.same_bits and not f.orphans for f in found)
    print("all recovered" if good else "NOT all recovered")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
