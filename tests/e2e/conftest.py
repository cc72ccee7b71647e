"""The whole program, run for real: alone and under mpirun, killed, stopped and resumed.

One undisturbed run serves many tests; whoever changes a run folder takes a copy.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

import distgrad
from distgrad.launcher.base import Program
from distgrad.launcher.starters import Starter, flavour
from distgrad.testing import process, ranks

LIMIT_S = 240.0  # for one command, on a machine that is busy with something else
GRACE_S = 20.0  # for its children to follow it, of Ray those of a cluster of its own
SCREEN_LINES = 24


class Run:
    """A run folder as a user or a program reads it, and the job that filled it."""

    def __init__(self, folder: Path, job: Sequence[object], result: process.Result | None = None):
        self.folder = folder
        self.job = tuple(job)
        self.result = result

    @property
    def status(self) -> dict[str, Any]:
        return json.loads((self.folder / "status.json").read_text())

    @property
    def sha256(self) -> str:
        assert self.status["state"] == "finished"
        return self.status["weights_sha256"]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def steps_logged(self) -> int:
        """Steps in metrics.jsonl, also while the run goes on."""
        path = self.folder / "metrics.jsonl"
        return path.read_bytes().count(b'"kind": "step"') if path.exists() else 0

    @property
    def commits(self) -> list[Path]:
        return sorted((self.folder / "checkpoints").glob("step_*"))

    @property
    def printed(self) -> list[str]:
        """What it has printed, without what may differ: folder, workers, threads, speed."""
        text = self.result.stdout.replace(str(self.folder), "FOLDER")
        text = re.sub(r"[\d,]+ samples/s|\d+ (?:workers?|threads?)\b", "...", text)
        return text.splitlines()

    def saved_sha256(self) -> str:
        """The hash of the last commit's weights, computed from its file and nothing else."""
        digest = hashlib.sha256()
        arrays = load_file(self.commits[-1] / "model.safetensors")
        for path in sorted(arrays):
            digest.update(arrays[path].astype(arrays[path].dtype.newbyteorder("<")).tobytes("C"))
        return digest.hexdigest()

    def anew(self, folder: Path, *job: object) -> Run:
        """The same job (or another), not yet begun, in another folder."""
        return Run(folder, job or self.job)

    def copy(self, folder: Path) -> Run:
        shutil.copytree(self.folder, folder)
        return Run(folder, self.job)

    def contents(self, *, without: Sequence[str] = ()) -> dict[str, str]:
        """The hash of every file in the folder, hidden ones too."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.folder.rglob("*")
            if path.is_file() and path.name not in without
        }


class Distgrad:
    """Starts ``distgrad`` as a user would: by itself, or as every rank of ``mpirun -n ranks``."""

    limit = LIMIT_S
    root = Path(__file__).parents[2]
    digits = root / "configs" / "digits.yaml"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device  # as --device of pytest

    def start(
        self,
        *words: object,
        ranks: int | None = None,
        program: Sequence[str] | None = None,
        cwd: Path | None = None,
    ) -> process.Command:
        """The running command; leaving its ``with`` block kills what is left of it."""
        if program is None:
            fake = self.device == "fake"
            program = ("-m", "distgrad.testing.fake_cupy" if fake else "distgrad")
        start: list[str] = []
        if ranks is not None:  # with what Open MPI needs for root, and for more ranks than cores
            found = self.mpirun()
            start = Starter(found, flavour(found)).command(Program([], ranks))
        command = [*start, sys.executable, *program, *map(str, words)]
        path = str(Path(distgrad.__path__[0]).parent)
        return process.Command(command, cwd=cwd, env={"PYTHONPATH": path})

    def run(self, *words: object, limit: float = LIMIT_S, **how: Any) -> process.Result:
        """The result of a command that has left no process behind."""
        with self.start(*words, **how) as command:
            result = command.wait(limit, grace=GRACE_S)
        assert not result.orphans, described(result)
        return result

    def train(self, run_dir: Path, *job: object, options: Sequence[object] = (), **how: Any) -> Run:
        """A training that ends well. ``options`` are no part of the job: ``-n 2``."""
        device = [] if self.device == "cpu" else ["device=cuda"]
        result = self.run("train", *job, *device, "--run-dir", run_dir, *options, **how)
        assert result.returncode == 0, described(result)
        return Run(run_dir, job, result)

    def resume(self, run: Run, *options: object, **how: Any) -> Run:
        """Goes on with a run, to a good end, by the command that began it."""
        return self.train(run.folder, *run.job, options=["--resume", "auto", *options], **how)

    def refuses(self, *words: object, code: int, says: Sequence[str] = (), **how: Any) -> str:
        """A command that ends with this exit code and one clear message, which is returned."""
        result = self.run(*words, **how)
        text, output = described(result), result.stdout + result.stderr
        assert result.returncode == code, text
        assert "Traceback" not in output, text
        assert len(output.splitlines()) <= SCREEN_LINES, text
        assert len(re.findall(r"^(?:\[rank \d+\] )?error:", output, re.MULTILINE)) == 1, text
        for word in says:
            assert word in result.stderr, f"{word!r} is missing\n{text}"
        return result.stderr

    def mpirun(self) -> str:
        # The environment's own first: it is the one that mpi4py beside it was made for.
        beside = str(Path(sys.executable).parent)
        found = shutil.which("mpirun", path=beside) or shutil.which("mpirun")
        if found is None or importlib.util.find_spec("mpi4py") is None:
            pytest.skip("no mpirun or no mpi4py: pip install 'distgrad[mpich]'")
        return found

    def rank_pids(self, command: process.Command) -> dict[int, int]:
        """The process id of each rank of a launcher that is running."""
        return ranks.rank_pids(command)


def described(result: process.Result) -> str:
    words = " ".join(result.args)
    return f"{words}: {result.returncode}\n--- stdout\n{result.stdout}\n--- stderr\n{result.stderr}"


@pytest.fixture(scope="session")
def dg(pytestconfig: pytest.Config) -> Distgrad:
    return Distgrad(pytestconfig.getoption("--device"))


@pytest.fixture(autouse=True)
def _mpi_or_skip(dg: Distgrad, request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("mpi"):
        dg.mpirun()


@pytest.fixture(scope="session")
def short(dg: Distgrad, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two epochs of digits (46 steps, commits at 20, 40 and 46) by one process."""
    job = (dg.digits, "train.epochs=2", "checkpoint.every_steps=20", "checkpoint.keep_last=3")
    return dg.train(tmp_path_factory.mktemp("short") / "run", *job)
