"""Frameworks in processes of their own, each on one core with one thread, asked in turn."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from crew import PEERS, peers_python


class Child:
    """A framework in a process of its own, which runs a program that serves it."""

    def __init__(self, framework: str, python: str, core: int, program: str) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        env.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
        command = [python, program, "--serve", framework]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self.process.pid, {core})

    def ask(self, kind: str, name: str):
        self.process.stdin.write(f"{kind} {name}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)


def main(
    program: str,
    doc: str,
    frameworks: list[str],
    serve: Callable[[str], None],
    report: Callable[[dict[str, Child], int], None],
    rounds: int,
) -> None:
    """The command line of a benchmark: ``serve`` is a child's, ``report`` asks all of them."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--serve", choices=frameworks, help=argparse.SUPPRESS)
    parser.add_argument("--peers", type=Path, default=PEERS)
    parser.add_argument("--rounds", type=int, default=rounds)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    peers = peers_python(options.peers)
    children = {
        name: Child(name, sys.executable if name == "distgrad" else peers, core, program)
        for name in frameworks
    }
    try:
        report(children, options.rounds)
    finally:
        for child in children.values():
            child.close()
