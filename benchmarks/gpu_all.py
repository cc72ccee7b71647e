"""All that is to be known of a GPU that is there for some minutes: ``gpu.py --all --minutes N``.

Stages follow each other in the order of what is lost without them, each a process of its own that
is ended when its time is over; what one leaves of it is the next one's. Each writes its table into
``gpu.md`` as it goes, so that there is one whatever happens later.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Arguments of gpu.py, and the share of the time.
STAGES = {
    "tests": (["--check", "--workload"], 0.35),
    "training steps": (["--patience", "25", "--rounds", "3"], 0.45),
    "convolutions and attention": (["--kernels", "--workload", "--rounds", "3"], 0.1),
    "sizes of buckets": (["--buckets", "1", "16", "1024", "--rounds", "3"], 0.1),
}


def run(minutes: float, more: list[str], say: Callable[[str], None]) -> dict[str, str]:
    """Runs all stages, with ``more`` arguments for each; how each of them ended."""
    began, shares, ends = time.monotonic(), 0.0, {}
    for name, (words, share) in STAGES.items():
        shares += share
        left = began + shares * minutes * 60 - time.monotonic()
        limit = ["--check-limit", f"{max(left - 5, 1):.0f}"] if "--check" in words else []
        say(f"\n== {name}: {max(left, 0):.0f} s ==")
        ends[name] = _ended([*words, *limit, *more], max(left, 1.0))
        say(f"== {name}: {ends[name]} ==")
    return ends


def _ended(words: list[str], seconds: float) -> str:
    """What became of gpu.py with these arguments, and of all that it started."""
    command = [sys.executable, str(Path(__file__).with_name("gpu.py")), *words]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(seconds)
        return "done" if code == 0 else f"failed with exit code {code}"
    except subprocess.TimeoutExpired:
        return "not finished in time"
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # tests that it started, too
        except ProcessLookupError:
            pass
        process.wait()
