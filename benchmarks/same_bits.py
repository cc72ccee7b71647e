"""Train one job alone and under mpirun with 1, 2, 3, 4 and 8 workers; compare the weights.

    python benchmarks/same_bits.py [--all] [JOB.yaml] [key=value ...]

The job is configs/digits.yaml unless another is named; key=value changes it, as for
``distgrad train``. With ``--all`` it is trained by every launcher, with and without a sharded
optimizer and overlapped reductions; without a job these are the digits MLP, the digits CNN and the
character transformer, each cut short. Every run is a process of its own, with its run folder in a
temporary directory. The last line reads ``all equal`` (exit code 0) or ``DIFFERENT`` (1).
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # measure the code beside this file

from distgrad.config import ConfigError, load  # noqa: E402
from distgrad.core.errors import JobError  # noqa: E402
from distgrad.launcher.starters import find_mpirun  # noqa: E402
from distgrad.testing import process  # noqa: E402

WORKERS = (1, 2, 3, 4, 8)
TIME_LIMIT = 900.0  # seconds for one run
LINE = "{:<28}{:>7}  {:<64}  {:>7}"
SHORT = {
    "digits.yaml": ["train.epochs=3"],
    "digits_cnn.yaml": ["train.epochs=1"],
    "python_help_transformer.yaml": [
        "train.epochs=1",
        "data.test_fraction=0.9",
        "parallel.virtual_shards=4",
    ],
}


class Way(NamedTuple):
    """One way to train a job: the program before it, the words behind it."""

    how: str
    workers: int
    start: tuple[str, ...] = ()
    words: tuple[str, ...] = ("-n", "1", "--launcher", "local")


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


def train(way: Way, job: list[str], folder: Path) -> Row:
    """One run of the job, ended after the time limit with all of its processes."""
    how, workers = way.how, way.workers
    command = [*way.start, sys.executable, "-m", "distgrad", "train", *job, *way.words]
    command += ["--run-dir", str(folder)]
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


def ways(mpirun: str, shards: int, everything: bool) -> list[Way]:
    """How to train; no more workers than there are shards."""

    def local(workers: int, *words: str, name: str = "local, TCP") -> Way:
        command = ("-n", str(workers), "--launcher", "local", *words)
        return Way(f"{name} -n {workers}", workers, (), command)

    def mpi(workers: int, *words: str, name: str = "mpirun") -> Way:
        return Way(f"{name} -n {workers}", workers, (mpirun, "-n", str(workers)), words)

    def ray(workers: int) -> Way:
        return Way(f"ray -n {workers}", workers, (), ("-n", str(workers), "--launcher", "ray"))

    found = [Way("single process", 1)]
    if not everything:
        return found + [mpi(n) for n in WORKERS if n <= shards]
    found += [local(n) for n in (2, 3, 4)] + [mpi(n) for n in (1, 2, 3, 4)]
    if importlib.util.find_spec("ray") is not None:
        found += [ray(n) for n in (1, 2, 4)]
    sharded = "parallel.shard_optimizer=true"
    found += [local(3, sharded, name="sharded optimizer, TCP")]
    found += [mpi(2, sharded, name="sharded optimizer, mpirun")]
    for on in ("true", "false"):
        overlap = f"parallel.overlap={on}"
        found += [local(2, overlap, name=f"overlap {on}, TCP")]
        found += [mpi(4, overlap, name=f"overlap {on}, mpirun")]
    return [way for way in found if way.workers <= shards]


def main(words: Sequence[str]) -> int:
    """Runs the job in every way, prints a line for each, and returns the exit code."""
    everything = "--all" in words
    words = [word for word in words if word != "--all"]
    files = [word for word in words if "=" not in word or Path(word).is_file()]
    changes = [word for word in words if word not in files]
    if len(files) > 1 or any(word.startswith("-") for word in words):
        print(__doc__, file=sys.stderr)
        return 2
    shipped = ROOT / "configs"
    if everything and not files:
        jobs = [(str(shipped / name), [*short, *changes]) for name, short in SHORT.items()]
    else:
        jobs = [(files[0] if files else str(shipped / "digits.yaml"), changes)]
    rows: list[list[Row]] = []
    for path, settings in jobs:
        try:
            shards = load(path, settings).parallel.virtual_shards
            mpirun = find_mpirun()
        except (ConfigError, JobError) as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        if shards is None:
            message = (
                "error: without parallel.virtual_shards the weights depend on the number of workers"
            )
            print(f"{message}; add for example parallel.virtual_shards=8", file=sys.stderr)
            return 2
        rows.append(compare([path, *settings], ways(mpirun, shards, everything)))
        if left_out := [n for n in WORKERS if n > shards]:
            print(
                f"left out, with {shards} virtual shards: {', '.join(map(str, left_out))} workers"
            )
    result = "all equal" if all(verdict(each) == "all equal" for each in rows) else "DIFFERENT"
    print(result)
    return 0 if result == "all equal" else 1


def compare(job: list[str], chosen: Sequence[Way]) -> list[Row]:
    """The rows of one job, printed as they come."""
    print(" ".join(job))
    print(LINE.format("started by", "workers", "weights_sha256", "seconds"))
    rows = []
    with tempfile.TemporaryDirectory(prefix="distgrad-same-bits-") as folder:
        for number, way in enumerate(chosen):
            rows.append(train(way, job, Path(folder) / f"run{number}"))
            print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
