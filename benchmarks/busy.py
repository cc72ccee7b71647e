"""What threads cost small models where others use the machine, too.

    python benchmarks/busy.py [--rounds N] [--seconds S]

Steps of ``train_on_batch``, wall time, alone and beside one busy loop for each core and half as
many, with one thread and with one for each core, in turns. Models: 784-128-10 on 128
samples, and two LSTMs of 64 units on 32 sequences of 40 steps.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("MLP", "LSTM")
CORES = os.cpu_count() or 1


def steps(name: str, seconds: float) -> float:
    """Milliseconds a step, over as many as there is time for."""
    import numpy as np

    import distgrad as tf

    layers, rng = tf.keras.layers, np.random.default_rng(0)
    shape, hidden = {
        "MLP": ((128, 784), [layers.Dense(128, activation="relu")]),
        "LSTM": ((32, 40, 16), [layers.LSTM(64, return_sequences=True), layers.LSTM(64)]),
    }[name]
    x, y = rng.random(shape, np.float32), rng.integers(0, 10, shape[0])
    model = tf.keras.Sequential([*hidden, layers.Dense(10)])
    model.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for _ in range(3):
        model.train_on_batch(x, y)
    done, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds or not done:
        model.train_on_batch(x, y)
        done += 1
    return passed / done * 1e3


def measured(name: str, seconds: float, threads: int) -> float:
    """``steps`` in a process with so many threads. Raises CalledProcessError."""
    env = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    path = os.pathsep.join([str(ROOT), *filter(None, [env.get("PYTHONPATH")])])
    env |= {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    words = [sys.executable, __file__, "--model", name, "--seconds", str(seconds)]
    result = subprocess.run(words, env=env, check=True, capture_output=True, text=True, timeout=300)
    return float(result.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--model", choices=MODELS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.model:
        print(steps(options.model, options.seconds))
        return
    print(f"| busy loops on {CORES} cores | model | 1 thread, ms a step | {CORES} threads |")
    print("|---|---|---|---|")
    for count in sorted({0, CORES // 2, CORES}):
        loop = [sys.executable, "-c", "while True: pass"]
        loops = [subprocess.Popen(loop) for _ in range(count)]
        try:
            for name in MODELS:
                times: dict[int, list[float]] = {1: [], CORES: []}
                for _ in range(options.rounds):
                    for threads, found in times.items():
                        found.append(measured(name, options.seconds, threads))
                one, all_ = map(statistics.median, times.values())
                print(f"| {count} | {name} | {one:.3g} | {all_:.3g} |", flush=True)
        finally:
            for each in loops:
                each.kill()
                each.wait()


if __name__ == "__main__":
    main()
