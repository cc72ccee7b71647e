"""One framework in a process of its own; ``crew.py`` starts it and asks the questions.

A request is a line of JSON, a list of a name in ANSWERS and its arguments; so is the answer, a dict
with "error" where it failed. Times are the process's CPU time, of all its threads, in seconds; on
several cores they are those of the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import time
import traceback
from pathlib import Path
from typing import Any


def peak_bytes() -> int:
    """The most memory that was resident; the kernel's own count, where it tells."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10
    except (OSError, IndexError):
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak << 10


class Server:
    """A peer's module, one of its forms, and the workload at hand."""

    def __init__(self, peer: str, form: str, start: float, several: bool) -> None:
        import importlib

        self.start = start
        self.clock = time.perf_counter if several else time.process_time
        self.module = importlib.import_module(f"peers.{peer}_peer")
        self.form = form
        self.imported = time.time() - start

    def about(self) -> dict:
        return {"version": self.module.version(), "imported": self.imported}

    def _make(self, name: str, path: str) -> dict[str, Any]:
        import numpy as np
        from kinds_models import register
        from workloads import WORKLOADS, Parameter

        register()
        self.trainer = self.batch = None  # what the last workload held goes first
        with np.load(path) as file:
            arrays = dict(file)
        kinds = arrays.pop("kinds").tolist()
        parameters = [Parameter(kind, arrays[f"p{i}"]) for i, kind in enumerate(kinds)]
        self.trainer = self.module.make(WORKLOADS[name], parameters, self.form)
        return arrays

    def losses(self, name: str, path: str, steps: int) -> dict:
        """Makes the workload; the losses of its first steps, None where there is no form of it."""
        start = time.process_time()
        arrays = self._make(name, path)
        if self.trainer is None:
            return {"losses": None}
        self.batch = self.trainer.ready(arrays["x"], arrays["y"])
        found = [self.trainer.run(self.batch, 1)]
        setup = time.process_time() - start
        found += [self.trainer.run(self.batch, 1) for _ in range(steps - 1)]
        return {"losses": found, "setup": setup}

    def time(self, steps: int) -> float:
        """Seconds a step."""
        start = self.clock()
        self.trainer.run(self.batch, steps)
        return (self.clock() - start) / steps

    def epoch(self, name: str, path: str) -> dict:
        """One pass over the samples of the file; seconds since the process was started."""
        from workloads import WORKLOADS

        arrays, size = self._make(name, path), WORKLOADS[name].batch
        x, y = arrays["x"], arrays["y"]
        first = None
        for i in range(0, len(x), size):
            loss = self.trainer.run(self.trainer.ready(x[i : i + size], y[i : i + size]), 1)
            first = first or time.time() - self.start
        return {"first": first, "epoch": time.time() - self.start, "loss": loss}

    def memory(self) -> int:
        return peak_bytes()


ANSWERS = ("about", "losses", "time", "epoch", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--cores", type=lambda text: set(map(int, text.split(","))))
    parser.add_argument("--start", type=float, required=True)
    parser.add_argument("peer")
    parser.add_argument("form")
    options = parser.parse_args()
    several = options.cores is not None and len(options.cores) > 1
    if options.cores is not None:  # before anything counts the cores
        os.sched_setaffinity(0, options.cores)
    lines = socket.socket(fileno=options.socket).makefile("rw")
    server = None
    for line in iter(lines.readline, ""):
        name, *args = json.loads(line)
        try:
            server = server or Server(options.peer, options.form, options.start, several)
            if name not in ANSWERS:
                raise ValueError(f"no answer to {name!r}")
            answer = getattr(server, name)(*args)
        except Exception as error:
            traceback.print_exc()
            message = str(error).strip().splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {message[0][:200]}"}
        print(json.dumps(answer), file=lines, flush=True)
    os._exit(0)  # nothing to save, and some frameworks take seconds to leave


if __name__ == "__main__":
    main()
