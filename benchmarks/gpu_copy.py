"""The bandwidth of Adam on a GPU, beside that of a copy of as many bytes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from workloads import Workload

COPY = "a copy of as many bytes"
_CALLS = 20


def moved(workload: Workload) -> int:
    """Bytes of a step: weights and two moments are read and written, gradients are read."""
    return 7 * 4 * sum(map(math.prod, workload.sizes["shapes"]))


def copies(gpu: Any, workload: Workload, rounds: int) -> dict[str, list[float]]:
    """Milliseconds in which as many bytes are read and written within the memory of the GPU."""
    wait = gpu.xp.cuda.Device().synchronize
    source = gpu.xp.arange(moved(workload) // 2 // 4, dtype=np.int32)
    target, found = gpu.xp.empty_like(source), []
    for _ in range(rounds + 1):  # the first one is not counted
        wait()
        began = time.perf_counter()
        for _ in range(_CALLS):
            gpu.xp.copyto(target, source)
        wait()
        found.append((time.perf_counter() - began) / _CALLS * 1e3)
    return {COPY: found[1:]}


def bandwidth(
    workloads: Iterable[Workload], results: Mapping[str, Mapping[str, Sequence[float]]]
) -> list[str]:
    """What each contender reaches of the copy's bandwidth, where that was measured."""
    lines = []
    for workload in workloads:
        found = dict(results.get(workload.name, {}))
        if COPY not in found:
            continue
        copied, nbytes = statistics.median(found.pop(COPY)), moved(workload)
        said = [f"{name} {copied / statistics.median(t):.0%}" for name, t in found.items()]
        lines.append(
            f"{workload.name}: {COPY} ({nbytes / 1e9:.1f} GB) takes {copied:.3g} ms, "
            f"{nbytes / copied / 1e9:.2f} TB/s; of that bandwidth {', '.join(said)}."
        )
    return lines
