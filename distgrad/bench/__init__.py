"""How fast a job is on this machine: the worker's own loop, timed at several numbers of workers.

All numbers are there at once, each with ranks of its own, and take turns: a machine that is busy
meanwhile shows as spread, not as a speed-up.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from distgrad.bench.report import Report, Timing
from distgrad.bench.world import Answer, World
from distgrad.job import Job
from distgrad.launcher import base, environ

ROUNDS = 7
_ROUND_S = 0.4  # of one number of workers, roughly
_WARM_UP = 10  # steps after the first: caches, memory of MPI, the clock rate of the CPU
_FEWEST, _MOST = 3, 2000  # steps of a round


def usual_counts(job: Job) -> list[int]:
    """One worker, and as many as there are usable cores (of GPUs: one) and virtual shards."""
    most = environ.usable_cores() if job.device == "cpu" else 1
    return sorted({1, min(most, job.virtual_shards or most)})


def measure(
    job: Job,
    counts: Sequence[int],
    launcher: str,
    *,
    steps: int | None = None,
    say: Callable[[str], object] = print,
) -> Report:
    """Trains the job with each number of workers, in turns, and throws the weights away.

    Args:
        job: what to train; its checkpoints are left out.
        counts: numbers of workers.
        launcher: ``"local"`` or ``"mpi"``.
        steps: of each round; None takes as many as fill some tenths of a second.
        say: told what goes on.

    Raises:
        UsageError: there are more workers than virtual shards.
        JobError: a rank has ended; its last words, and its exit code.
    """
    for count in counts:
        base.check_workers(job, count)
    answers: dict[int, list[Answer]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory(prefix="distgrad-bench-") as folder, ExitStack() as stack:
        worlds = []
        for count in counts:
            say(f"starting {count} {'worker' if count == 1 else 'workers'}")
            worlds.append(stack.enter_context(World(_shaped(job, count, Path(folder)), launcher)))
        each = {world: steps or _steps_of(world.ask(_WARM_UP)) for world in worlds}
        for number in range(ROUNDS):
            say(f"round {number + 1} of {ROUNDS}")
            place = number % len(worlds)
            for world in worlds[place:] + worlds[:place]:
                answers[world.workers].append(world.ask(each[world]))
        timings = [Timing.of(world, answers[world.workers], each[world]) for world in worlds]
    return Report(job.name, launcher, timings, notes(job, counts, environ.usable_cores()))


def notes(job: Job, counts: Sequence[int], cores: int) -> list[str]:
    """What limits the workers of this job, here."""
    found = []
    shards = job.virtual_shards
    if shards is not None and shards < cores and max(counts) == shards and job.device == "cpu":
        found.append(
            f"virtual_shards: {shards} is the most workers that can share a batch, on {cores} "
            "cores: raise parallel.virtual_shards for more"
        )
    for count in counts:
        if shards is not None and shards % count:
            busiest = -(-shards // count)
            found.append(
                f"{count} workers share {shards} virtual shards unevenly, the busiest has {busiest}"
                f": at best {shards / busiest:.2f} times as fast as one"
            )
        if job.device == "cpu" and count * job.blas_threads > cores:
            found.append(
                f"{count} x {job.blas_threads} threads are more than {cores} cores: they "
                "wait for each other"
            )
    return found


def _shaped(job: Job, workers: int, folder: Path) -> Job:
    """The job as it is timed: it never ends by itself, and leaves nothing behind."""
    own = folder / f"workers_{workers}"
    own.mkdir()
    return dataclasses.replace(
        job,
        workers=workers,
        threads_per_worker=job.blas_threads,  # of all workers alike, whatever their number
        epochs=1 << 40,
        every_steps=None,
        run_dir=str(own / "run"),
    )


def _steps_of(answer: Answer) -> int:
    return max(_FEWEST, min(_MOST, int(_ROUND_S / answer.step)))
