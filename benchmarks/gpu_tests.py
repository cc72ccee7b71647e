"""The tests that are the same on every device, on a GPU, counted by folder: ``gpu.py --check``."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = (
    "tests/backend/test_cupy_exec.py",
    "tests/backend/test_cupy_graphs.py",
    "tests/backend/test_convolution_plans.py",
    "tests/backend/test_tables.py",
    "tests/compile/cuda",
    "tests/training",
    "tests/core",
    "tests/distribute",
    "tests/ops",
    "tests/keras",
    "tests/e2e/test_configs.py",
)
_PROCESSES = 12  # each has a context of its own on the GPU
_LAST_WORDS = 15.0  # seconds for tracebacks when time is over; xdist takes 10 to end its processes
_OUTCOMES = ("passed", "failed", "error", "skipped")
_DONE = re.compile(r"\b(PASSED|FAILED|ERROR|SKIPPED)\b (?:\[.*?\] )?(tests/\S.*)")
_DONE_ALONE = re.compile(r"^(tests/\S.*?) (PASSED|FAILED|ERROR|SKIPPED)\b")


def check(device: str, limit: float, note: Callable[[list[str]], None]) -> None:
    """What the tests say on the device within some seconds; tracebacks are printed alone."""
    began = time.monotonic()
    text, in_time = _ran(device, limit)
    print(text.partition("= FAILURES =")[2] or text[-4000:])
    lines = [f"{_said(text, in_time)} ({time.monotonic() - began:.0f} s)", ""]
    found = dict(_outcomes(text))
    for tests in TESTS:
        counts = Counter(how for name, how in found.items() if name.startswith(tests))
        said = ", ".join(f"{counts[how]} {how}" for how in _OUTCOMES if counts[how])
        lines.append(f"- {tests}: {said or 'nothing was run'}")
    wrong = sorted(name for name, how in found.items() if how in ("failed", "error"))
    lines += ["", *(f"- wrong: {name}" for name in wrong)]
    print(*lines, sep="\n", flush=True)
    note(lines)


def _outcomes(text: str) -> list[tuple[str, str]]:
    found = []
    for line in text.partition("= FAILURES =")[0].splitlines():
        if match := _DONE.search(line):
            found.append((match[2].strip(), match[1].lower()))
        elif match := _DONE_ALONE.search(line):
            found.append((match[1], match[2].lower()))
    return found


def _said(text: str, in_time: bool) -> str:
    last = (text.strip().splitlines() or ["no output"])[-1].strip("= ")
    return last if in_time else "not finished in time"


def _ran(device: str, seconds: float) -> tuple[str, bool]:
    """The output of pytest, and whether it took no longer; it is ended then, with all its tests."""
    command = [sys.executable, "-m", "pytest", "-v", "--maxfail=50", "--tb=short", "-rfE"]
    command += ["-p", "no:cacheprovider", "--device", device, *TESTS]
    if importlib.util.find_spec("xdist") is not None:  # kernels are compiled at their first use
        command += ["-n", str(min(_PROCESSES, os.cpu_count() or 1))]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    in_time = True
    with tempfile.TemporaryFile("w+", errors="replace") as output:  # a pipe may stay open
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(max(1.0, seconds - _LAST_WORDS))
        except subprocess.TimeoutExpired:
            in_time = False
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LAST_WORDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return output.read(), in_time
