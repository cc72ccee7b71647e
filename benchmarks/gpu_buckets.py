"""What the size of a bucket of gradients costs a captured step on GPUs, and what it gains.

Part of ``gpu.py --buckets``. On one GPU nothing is sent: the times say what it costs that a launch
ends at each bucket. Among several, started by ``distgrad launch -n N``, each bucket goes through
NCCL while the backward pass goes on, and the fastest size is the one to take.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from networks import keras_model
from workloads import EPSILON, Workload

MIB = 1 << 20


def stepper(workload: Workload, mib: float, shards: int) -> tuple[Any, int]:
    """``run(steps)``, which gives the loss, and the number of buckets of this size."""
    import distgrad as tf
    from distgrad.comm.tree import worker_shards
    from distgrad.data.loader import cut
    from distgrad.training import world
    from distgrad.training.programs import executor_for
    from distgrad.training.step import TrainStep

    communicator = world.communicator()
    model, variables = keras_model(workload, tf, tf.keras)
    for variable, parameter in zip(variables, workload.parameters(), strict=True):
        variable.assign(parameter.value)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.Adam(workload.rate, epsilon=EPSILON), loss)
    x, y = workload.samples()
    shards *= communicator.world_size
    own = worker_shards(shards, communicator.rank, communicator.world_size)
    batch = cut(0, len(x), shards, own, lambda a, b: (x[a:b], y[a:b]))
    model.prepare(batch.shards[0][1])
    step = TrainStep.of(
        model,
        communicator,
        shards,
        0,
        stop_on_nan=False,
        overlap=True,
        check_every=0,
        bucket_bytes=max(1, int(mib * MIB)),
        executor=executor_for("auto"),
    )
    buckets = len(step.sum.buckets.buckets)
    step.sum.overlap = buckets > 1  # alone as well: a launch ends at each bucket
    numbers = count()

    def run(steps: int) -> float:
        for _ in range(steps):
            result = step(next(numbers), batch)
        return float(result.loss)

    return run, buckets


def measured(
    workload: Workload,
    sizes: Sequence[float],
    rounds: int,
    steps: int,
    shards: int = 1,
    note: Callable[[list[str]], None] = lambda lines: None,
) -> list[str]:
    """A table over the sizes, in MiB: milliseconds of a step on the slowest rank, medians.

    It is noted after each round.
    """
    from distgrad.training import world
    from distgrad.training.staging import link

    communicator = world.communicator()
    link(communicator, deterministic=shards > 1)
    runs = {mib: stepper(workload, mib, shards) for mib in sizes}
    losses = {run(3) for run, _ in runs.values()}
    assert len(losses) == 1, f"the size of a bucket changes the loss: {losses}"
    found: dict[float, list[float]] = {mib: [] for mib in sizes}
    for number in range(rounds):
        turn = number % len(sizes)
        for mib in [*sizes[turn:], *sizes[:turn]]:
            communicator.barrier()
            began = time.perf_counter()
            runs[mib][0](steps)
            spent = (time.perf_counter() - began) / steps * 1e3
            found[mib].append(max(communicator.allgather_object(spent)))
        note(_table(workload, communicator.world_size, runs, found))
    return _table(workload, communicator.world_size, runs, found)


def _table(workload: Workload, ranks: int, runs: Any, found: dict[float, list[float]]) -> list[str]:
    lines = [
        f"{workload.name}, batch {workload.batch}, {ranks} ranks:",
        "",
        "| bucket, MiB | buckets | ms a step |",
        "|---|---|---|",
    ]
    for mib, times in found.items():
        lines.append(f"| {mib:g} | {runs[mib][1]} | {statistics.median(times):.3g} |")
    return lines
