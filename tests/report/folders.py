"""Run folders made by hand, as the worker leaves them behind."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

JOB = """\
name: small
seed: {seed}
model:
  layers:
    - {{type: Dense, units: {units}}}
train: {{epochs: 4}}
"""


def make(
    path: Path, *, steps: int = 40, units: int = 8, seed: int = 0, epochs: int = 4, **status: Any
) -> Path:
    """A run of several starts' time ago; ``status`` changes what ``status.json`` says."""
    path.mkdir(parents=True)
    (path / "resolved.yaml").write_text(JOB.format(seed=seed, units=units))
    (path / "env.json").write_text(json.dumps({"distgrad": "0.1.0", "numpy": "2.4"}))
    each, lines, times = steps // epochs, [], [start(0, 1000.0)]
    for step in range(1, steps + 1):
        at = {"step": step, "epoch": (step - 1) // each}
        loss = 3 * math.exp(-6 * step / steps) + 0.2 / (1 + step % 3)
        lines.append({"kind": "step", **at, "loss": loss, "learning_rate": 0.01 / step})
        times.append(
            {
                **{"kind": "steps", **at, "time": 1000.0 + step / 10, "steps": 1, "samples": 64},
                **{"seconds": 0.1, "data": 0.01, "communication": 0.02},
            }
        )
        if step % each == 0:
            values = {"loss": loss, "accuracy": step / steps, "val_loss": loss + 0.1}
            lines.append({"kind": "epoch", **at, **values})
    results = {
        "loss": 0.2,
        "accuracy": 1.0,
        "val_loss": 0.3,
        "test_loss": 0.4,
        "test_accuracy": 0.9,
    }
    lines.append({"kind": "final", "step": steps, "epoch": epochs - 1, **results})
    write(path / "metrics.jsonl", lines)
    write(path / "timing.jsonl", times)
    known = {
        **{"name": "small", "state": "finished", "exit_code": 0, "step": steps, "epochs": epochs},
        **{"epoch": epochs - 1, "metrics": results, "world_size": 2, "launcher": "local"},
        **{"heartbeat": 1000.0 + steps / 10 + 1.0, "weights_sha256": "ab" * 32},
    }
    (path / "status.json").write_text(json.dumps({**known, **status}))
    return path


def start(step: int, at: float) -> dict[str, Any]:
    words = "distgrad train small.yaml <&>"
    return {"kind": "start", "step": step, "epoch": 0, "time": at, "command": words}


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def now() -> float:
    return time.time()
