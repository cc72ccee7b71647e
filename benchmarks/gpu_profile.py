"""Where the time of a training step goes on a GPU: its kernels, and how long it waits for the host.

    python benchmarks/gpu_profile.py WORKLOAD [CONTENDER ...]

Workloads and contenders are those of `gpu.py`, the contender "distgrad captured" unless others are
named. For each: milliseconds of a step (median of three times many steps, nothing recorded), then
the launches, copies and microseconds of a step as CUDA's profiler has them, in order of their time.
It takes torch, whose profiler this is; distgrad's launches are in it as well.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpu
from workloads import Trainer, Workload

STEPS = 3  # that are recorded
LONGEST = 25  # kernels that are named
_WORK = ("kernel", "gpu_memcpy", "gpu_memset")


def measured(trainer: Trainer, batch: Any) -> float:
    """Milliseconds of a step that nobody looks into."""
    began = time.perf_counter()
    trainer.run(batch, 5)
    count = max(5, min(300, int(2.0 / (time.perf_counter() - began))))
    times = []
    for _ in range(3):
        began = time.perf_counter()
        trainer.run(batch, count)
        times.append((time.perf_counter() - began) / count * 1e3)
    return statistics.median(times)


def recorded(trainer: Trainer, batch: Any) -> list[dict[str, Any]]:
    """What the GPU did in some steps: names, beginnings and microseconds, in order."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        trainer.run(batch, STEPS)
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return sorted((e for e in events if e.get("cat") in _WORK), key=lambda e: e["ts"])


def summary(events: Sequence[dict[str, Any]], steps: int = STEPS) -> list[str]:
    """Lines for a step: of all of it, and of the kernels that take longest."""
    if not events:
        return ["the profiler has seen nothing"]
    spent: dict[str, list[float]] = {}
    for event in events:
        spent.setdefault(event["name"], []).append(event["dur"])
    busy = sum(map(sum, spent.values())) / steps
    whole = (events[-1]["ts"] + events[-1]["dur"] - events[0]["ts"]) / steps
    lines = [f"{len(events) / steps:.1f} launches and copies, busy {busy:.1f} us of {whole:.1f} us"]
    by_time = sorted(spent.items(), key=lambda item: -sum(item[1]))
    for name, times in by_time[:LONGEST]:
        lines.append(f"{sum(times) / steps:9.1f} us  {len(times) / steps:6.1f} x  {name[:100]}")
    return lines


def profiled(workload: Workload, name: str) -> list[str]:
    trainer, batch = gpu.started(name, workload, "cuda")
    trainer.run(batch, 3)
    step = measured(trainer, batch)
    return [f"{workload.name}, {name}: {step:.3g} ms", *summary(recorded(trainer, batch))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("workload", choices=sorted(gpu.WORKLOADS))
    parser.add_argument("contenders", nargs="*", help='as in gpu.py: "torch eager"')
    options = parser.parse_args()
    sys.path.insert(0, str(gpu.ROOT))
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    print("\n".join(gpu.devices_of("cuda")), flush=True)
    for name in options.contenders or ["distgrad captured"]:
        lines = profiled(gpu.WORKLOADS[options.workload], name)
        print("\n" + "\n  ".join(lines), flush=True)
        gpu.tidy("cuda", name)


if __name__ == "__main__":
    main()
