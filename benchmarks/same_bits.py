"""Train one job alone and under mpirun with 1, 2, 3, 4 and 8 workers; compare the weights.

    python benchmarks/same_bits.py [JOB.yaml] [key=value ...]

The job is configs/digits.yaml unless another is named; key=value changes it, as for
``distgrad train``. Every run is a process of its own, with its run folder in a temporary
directory. The last line reads ``all equal`` (exit code 0) or ``DIFFERENT`` (1).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # measure the code beside this file

from distgrad import config  # noqa: E402
from distgrad.core.errors import JobError  # noqa: E402
from distgrad.launcher.mpi import find_mpirun  # noqa: E402
from distgrad.testing import process  # noqa: E402

WORKERS = (1, 2, 3, 4, 8)
TIME_LIMIT = 900.0  # seconds for one run
LINE = "{:<16}{:>7}  {:<64}  {:>7}"


class Row(NamedTuple):
    """One run: how it was started, and what its status.json says."""

    how: str
    workers: int
    weights_sha256: str  # or what went wrong
    seconds: float
    finished: bool

    def __str__(self) -> str:
        return LINE.format(self.how, self.workers, self.weights_sha256, f"{self.seconds:.1f}")


def verdict(rows: Sequence[Row]) -> str:
    """``all equal`` where every run has finished, and with the same weights."""
    same = len({row.weights_sha256 for row in rows}) == 1
    return "all equal" if same and all(row.finished for row in rows) else "DIFFERENT"


def train(how: str, start: list[str], workers: int, job: list[str], folder: Path) -> Row:
    """One run of the job, ended after the time limit with all of its processes."""
    command = [*start, sys.executable, "-m", "distgrad", "train", *job, "--run-dir", str(folder)]
    if not start:
        command += ["-n", "1", "--launcher", "local"]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        result = process.run(command, timeout=TIME_LIMIT, env={"PYTHONPATH": path})
    except TimeoutError as error:
        print(error, file=sys.stderr)
        return Row(how, workers, f"not done in {TIME_LIMIT:g} s", TIME_LIMIT, False)
    if result.returncode != 0:
        print(result.stderr, file=sys.stderr)
        return Row(how, workers, f"exit code {result.returncode}", result.seconds, False)
    status = json.loads((folder / "status.json").read_text())
    if status["world_size"] != workers:
        text = f"{status['world_size']} workers instead of {workers}"
        return Row(how, workers, text, result.seconds, False)
    return Row(how, workers, status["weights_sha256"], result.seconds, True)


def main(words: Sequence[str]) -> int:
    """Runs the job in every way, prints a line for each, and returns the exit code."""
    files = [word for word in words if "=" not in word or Path(word).is_file()]
    changes = [word for word in words if word not in files]
    if len(files) > 1 or any(word.startswith("-") for word in words):
        print(__doc__, file=sys.stderr)
        return 2
    path = files[0] if files else str(ROOT / "configs" / "digits.yaml")
    try:
        shards = config.load(path, changes).parallel.virtual_shards
        mpirun = find_mpirun()
    except (config.ConfigError, JobError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if shards is None:
        message = (
            "error: without parallel.virtual_shards the weights depend on the number of workers"
        )
        print(f"{message}; add for example parallel.virtual_shards=8", file=sys.stderr)
        return 2

    ways: list[tuple[str, list[str], int]] = [("single process", [], 1)]
    ways += [(f"mpirun -n {n}", [mpirun, "-n", str(n)], n) for n in WORKERS if n <= shards]
    print(f"{path} {' '.join(changes)}".rstrip())
    print(LINE.format("started by", "workers", "weights_sha256", "seconds"))
    rows = []
    with tempfile.TemporaryDirectory(prefix="distgrad-same-bits-") as folder:
        for number, (how, start, workers) in enumerate(ways):
            run_dir = Path(folder) / f"run{number}"
            rows.append(train(how, start, workers, [path, *changes], run_dir))
            print(rows[-1], flush=True)
    if left_out := [n for n in WORKERS if n > shards]:
        print(f"left out, with {shards} virtual shards: {', '.join(map(str, left_out))} workers")
    print(verdict(rows))
    return 0 if verdict(rows) == "all equal" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
