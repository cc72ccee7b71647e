"""What a checkpoint costs the training: the same job with and without them, in turns.

    python benchmarks/checkpoints.py [--rounds N] [--units N] [--workers N] [--folder DIR]

Digits through two layers of ``--units`` (3000: 9.2 million parameters, with Adam's two moments
110 MB a checkpoint), 92 steps of 64 samples, a checkpoint every 20 steps. The time is that from the
second step to the last one, of rank 0; a checkpoint costs its share of what the job with them took
longer. ``--folder`` is where they are written (a temporary folder): its disk matters.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EVERY, EPOCHS = 20, 4
JOB = """\
name: checkpoints
data: {{source: digits, test_fraction: 0.2}}
model:
  layers:
    - {{type: Flatten}}
    - {{type: Dense, units: {units}, activation: relu}}
    - {{type: Dense, units: {units}, activation: relu}}
    - {{type: Dense, units: 10, activation: softmax}}
loss: sparse_categorical_crossentropy
optimizer: {{type: Adam, learning_rate: 0.001}}
train: {{epochs: {epochs}, global_batch_size: 64}}
parallel: {{virtual_shards: {workers}}}
"""


def seconds(job: Path, folder: Path, workers: int, every: int | None) -> float:
    """How long the steps of a run took, but for the first. Raises CalledProcessError."""
    words = [sys.executable, "-m", "distgrad", "train", str(job), "--run-dir", str(folder)]
    words += [f"checkpoint.every_steps={'null' if every is None else every}", "-n", str(workers)]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path}  # measure the code beside this file
    subprocess.run(words, check=True, env=env, capture_output=True, timeout=600)
    lines = map(json.loads, (folder / "timing.jsonl").read_text().splitlines())
    times = [line["time"] for line in lines if line["kind"] == "steps"]
    return times[-1] - times[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--units", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    costs, plain, size = [], [], 0
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        job = folder / "job.yaml"
        job.write_text(JOB.format(units=options.units, epochs=EPOCHS, workers=options.workers))
        for number in range(options.rounds):
            without = seconds(job, folder / f"{number}-without", options.workers, None)
            run = folder / f"{number}-with"
            with_ = seconds(job, run, options.workers, EVERY)
            steps = int(max(run.glob("checkpoints/step_*")).name[5:])
            costs.append((with_ - without) / (steps // EVERY) * 1e3)
            plain.append(without)
            size = sum(file.stat().st_size for file in max(run.glob("checkpoints/*")).iterdir())
    low, middle, high = min(costs), statistics.median(costs), max(costs)
    step = statistics.median(plain) / (steps - 1) * 1e3
    workers = "1 worker" if options.workers == 1 else f"{options.workers} workers"
    print(f"{workers}, {size / 1e6:.0f} MB a checkpoint, {step:.1f} ms a step without any")
    print(f"a checkpoint costs {middle:.0f} ms ({low:.0f} to {high:.0f}, {options.rounds} rounds)")


if __name__ == "__main__":
    main()
