"""What a resumed run goes on from: its newest commit, of the same job, and what computed it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distgrad.compile import eager
from distgrad.core.errors import UsageError
from distgrad.job import Job
from distgrad.training import checkpoint
from distgrad.training.handshake import differences, short
from distgrad.training.programs import ExecutorName, executor_for

# What of a job decides the weights after a given step, by its place in the YAML: a resumed run
# must have the same.
_DECIDES_BITS = {
    "seed": "seed",
    "device": "device",
    "data": "data",
    "model.layers": "layers",
    "loss": "loss",
    "metrics": "metrics",
    "optimizer": "optimizer",
    "train.global_batch_size": "global_batch_size",
    "train.shuffle": "shuffle",
    "train.class_weight": "class_weight",
    "train.mixed_precision": "mixed_precision",
    "train.tensor_float_32": "tensor_float_32",
    "parallel.virtual_shards": "virtual_shards",
    "parallel.deterministic": "deterministic",
    "parallel.threads_per_worker": "blas_threads",
}

# What else all ranks of one start must have alike: which calls they make, and when.
_DECIDES_CALLS = {
    "train.epochs": "epochs",
    "parallel.overlap": "overlap",
    "parallel.bucket_mib": "bucket_bytes",
    "parallel.shard_optimizer": "shard_optimizer",
    "parallel.check_every_steps": "check_every_steps",
    "checkpoint.every_steps": "every_steps",
}


def warn(text: str) -> None:
    """Prints a warning to the standard error."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


RUNS = {
    "generated": "steps captured, on generated kernels",
    "numpy": "steps captured, on NumPy",
    "cuda": "steps captured, as CUDA graphs",
    "eager": "steps run eagerly",
}


def newest_commit(job: Job, folder: Path, resumed: bool) -> checkpoint.Commit | None:
    """What a resumed run goes on from, None if nothing is there.

    Raises UsageError where another job has left it.
    """
    if not resumed:
        return None

    commit = checkpoint.load_newest(folder / "checkpoints", warn)
    if commit is None:
        return None
    if commit.state["config_hash"] != job.config_hash:
        raise UsageError(
            f"{folder} was trained with another job: {_differences(job, commit.state['job'])}. Use "
            "its settings again, or start anew with another --run-dir. Nothing was changed."
        )
    return commit


def executor(job: Job, folder: Path, commit: checkpoint.Commit | None) -> ExecutorName:
    """What runs the steps; a run that is resumed goes on with what it began with.

    Raises UsageError where the job asks for another.
    """
    chosen = executor_for(job.jit)
    if commit is None:
        return chosen
    begun: ExecutorName = commit.state.get("executor", "eager")
    if begun != chosen and job.jit != "auto":
        raise UsageError(
            f"{folder}: {RUNS[begun]}, and train.jit={job.jit} would give the weights other bits; "
            "leave it out to go on, or start anew with another --run-dir."
        )
    return begun


def kernels(executor: ExecutorName, commit: checkpoint.Commit | None) -> eager.Name:
    """The kernels of what runs eagerly: those of NumPy beside its executor, else the fastest.

    A run that is resumed goes on with those that it began with, and needs them.
    """
    if commit is not None:
        return commit.state.get("kernels", "numpy")
    return "numpy" if executor == "numpy" else eager.best()


def warn_of_changes(commit: checkpoint.Commit, environment: dict[str, Any]) -> None:
    """Says what of a machine and its libraries is not as it was when a commit was written."""
    changed = "; ".join(_changes(commit.state.get("environment", environment), environment))
    if changed:
        warn(f"the run goes on elsewhere than it began, and may get other bits: {changed}.")


def decides_bits(job: Job) -> dict[str, Any]:
    """What of a job decides the weights, by its place in the YAML."""
    found = {place: getattr(job, name) for place, name in _DECIDES_BITS.items()}
    plain: dict[str, Any] = json.loads(json.dumps(found))  # as a commit has it: lists, no tuples
    return plain


def decides_calls(job: Job) -> dict[str, Any]:
    """What decides the calls that the ranks of one start make together, beside `decides_bits`."""
    return {place: getattr(job, name) for place, name in _DECIDES_CALLS.items()}


def changes_of(job: Job, old: dict[str, Any]) -> list[str]:
    """What decides the weights and is not as in the job of a commit, each by its place."""
    return list(_changes(old, decides_bits(job)))


def _differences(job: Job, old: dict[str, Any]) -> str:
    found = changes_of(job, old)
    more = [f"and {len(found) - 6} more"] if len(found) > 6 else []
    return "; ".join([*found[:6], *more]) or "its settings differ"


def _changes(old: Any, new: Any) -> Iterator[str]:
    for name, before, after in differences("", old, new):
        yield f"{name} was {short(before)} and is {short(after)}"
