"""The tests that are the same on every device, on a GPU, folder by folder: ``gpu.py --check``."""

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
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# In the order in which a failure is worth knowing.
TESTS = (
    "tests/backend/test_cupy_exec.py",
    "tests/backend/test_cupy_graphs.py",
    "tests/compile/cuda",
    "tests/training",
    "tests/core",
    "tests/distribute",
    "tests/ops",
    "tests/keras",
    "tests/e2e/test_configs.py",
)
_PART = 0.6  # of the time that is left, for a folder before the last: one that hangs ends there
_PROCESSES = 12  # each has a context of its own on the GPU
_WRONG = re.compile(r"(?:FAILED|ERROR) (?:\[.*?\] )?(tests/\S+)|(tests/\S+) (?:FAILED|ERROR)")


def check(device: str, limit: float, note: Callable[[list[str]], None]) -> None:
    """What the tests say on the device, noted after each folder; tracebacks are printed alone."""
    lines: list[str] = []
    ends = time.monotonic() + limit
    for number, tests in enumerate(TESTS):
        left = ends - time.monotonic()
        seconds = left if number == len(TESTS) - 1 else left * _PART
        began = time.monotonic()
        text = _ran(device, tests, max(1.0, seconds))
        spent = time.monotonic() - began
        wrong = sorted({one or other for one, other in _WRONG.findall(text)})
        if wrong:
            print(text.partition("= FAILURES =")[2] or text[-4000:])
        lines += [f"{tests}, {spent:.0f} s: {_said(text)}", *(f"- {name}" for name in wrong)]
        print(*lines[-1 - len(wrong) :], sep="\n", flush=True)
        note(lines)


def _said(text: str) -> str:
    """Its last line; the tests that are done, where there is no such line yet."""
    last = (text.strip().splitlines() or ["no output"])[-1].strip("= ")
    if re.search(r"\d (passed|failed|skipped|error)", last):
        return last
    return f"not finished in time, {len(re.findall('PASSED', text))} passed"


def _ran(device: str, tests: str, seconds: float) -> str:
    """The output of pytest, of so long at most; then it is ended, with all that it has started."""
    command = [sys.executable, "-m", "pytest", "-v", "--maxfail=20", "--tb=short", "-rfE"]
    command += ["-p", "no:cacheprovider", "--device", device, tests]
    if importlib.util.find_spec("xdist") is not None:  # kernels are compiled at their first use
        command += ["-n", str(min(_PROCESSES, os.cpu_count() or 1))]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
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
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return output.read()
