"""Folders where a user works, and the data in them."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np

import distgrad
from distgrad import cli
from distgrad.core import dispatch
from distgrad.launcher.base import Program
from distgrad.launcher.starters import find_starter
from distgrad.testing import process


class Home:
    """A folder where a user works: a job, its data, and its run in ``run``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder / "run"

    def program(self, *words: object, ranks: int | None = None) -> process.Result:
        """The result of a command in a process of its own, or in so many under mpirun."""
        start: list[str] = []
        if ranks is not None:
            start = find_starter().command(Program([], ranks, threads=1))
        command = [*start, sys.executable, "-m", "distgrad", *map(str, words)]
        root = str(Path(distgrad.__path__[0]).parent)
        return process.run(command, timeout=90, cwd=self.folder, env={"PYTHONPATH": root})

    def command(self, *words: object) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command in this process, which it leaves as it was."""
        out, err = io.StringIO(), io.StringIO()
        device, variables = dispatch.default, dict(os.environ)
        try:
            with chdir(self.folder), redirect_stdout(out), redirect_stderr(err):
                code = cli.main([*map(str, words)])
        finally:
            dispatch.default = device
            os.environ.clear()
            os.environ.update(variables)
        return code, out.getvalue(), err.getvalue()

    def says(self, *words: object) -> str:
        """The output of a command that ends well."""
        code, out, err = self.command(*words)
        assert code == 0, out + err
        return out

    def refuses(self, *words: object, code: int, says: str) -> None:
        """A command that ends with this exit code and one line."""
        found, out, err = self.command(*words)
        assert found == code, out + err
        assert err.startswith("error: ") and says in err, err
        assert len(err.strip().splitlines()) == 1

    def final(self) -> dict[str, float]:
        """What the run itself found on its test samples, every bit of it."""
        last = json.loads((self.run / "metrics.jsonl").read_text().splitlines()[-1])
        assert last["kind"] == "final"
        return {k.removeprefix("test_"): v for k, v in last.items() if k.startswith("test_")}


def trained(folder: Path, job: str, *options: str) -> Home:
    (folder / "job.yaml").write_text(job)
    home = Home(folder)
    result = home.program("train", "job.yaml", "--run-dir", "run", *options)
    assert result.returncode == 0, result.stdout + result.stderr
    return home


def rows(seed: int, n: int, center: float = 4) -> list[tuple[float, float, str]]:
    """``high`` is where a + b is more than 8; other centers have other statistics."""
    found = np.random.default_rng(seed).normal(center, 2, (n, 2)).round(3)
    return [(a, b, "high" if a + b > 8 else "low") for a, b in found.tolist()]


def write_csv(path: Path, columns: str, lines: list[tuple]) -> Path:
    path.write_text("\n".join([columns, *(",".join(map(str, line)) for line in lines)]) + "\n")
    return path


def level(i: int) -> float:
    return 1000 + 50 * float(np.sin(i * np.pi / 6))
