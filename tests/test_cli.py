"""The command line: what reaches the launcher, what is printed, and how each command ends."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import distgrad
from distgrad import cli
from distgrad.config import load
from distgrad.config.editors import json_schema
from distgrad.core.errors import DivergedError, MissingExtraError, PreemptedError
from distgrad.data import source
from distgrad.job import Job
from distgrad.training.loop import TrainingLoop

ROOT = Path(__file__).parents[1]
DIGITS = str(ROOT / "configs" / "digits.yaml")


class Recorder:
    """Stands where a launcher is chosen, and keeps what the command line hands over."""

    def __init__(self) -> None:
        self.chosen: tuple[Any, ...] = ()
        self.job: Job | None = None
        self.argv: list[str] = []
        self.outcome: int | BaseException = 0

    def choose(self, *args: Any) -> Recorder:
        self.chosen = args
        return self

    def launch(self, job: Job, argv: list[str], *, max_restarts: int = 0) -> int:
        self.job, self.argv = job, argv
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    from distgrad.launcher import base

    made = Recorder()
    monkeypatch.setattr(base, "choose", made.choose)
    return made


# train


def test_train_hands_the_job_to_the_launcher(recorder: Recorder) -> None:
    recorder.outcome = 6
    words = ["seed=7", "-n", "3", DIGITS, "--launcher", "mpi", "train.epochs=1", "--run-dir", "r"]
    assert cli.main(["train", *words, "--resume", "auto"]) == 6
    job = recorder.job
    assert job is not None
    assert (job.seed, job.epochs, job.workers, job.launcher) == (7, 1, 3, "mpi")
    assert (job.run_dir, job.resume) == ("r", "auto")
    assert job.overrides == ("seed=7", "train.epochs=1")
    assert job.source_yaml == Path(DIGITS).read_text()
    requested, _, world = recorder.chosen
    assert requested == "mpi" and world.world_size == 1
    # What a rank is started with leads to the same job, less who starts it.
    assert recorder.argv[:2] == ["train", DIGITS] and "-n" not in recorder.argv
    recorder.outcome = 0
    assert cli.main(recorder.argv) == 0
    again = recorder.job
    assert (again.seed, again.epochs, again.run_dir, again.resume) == (7, 1, "r", "auto")
    assert again.config_hash == job.config_hash


def test_without_options_the_file_decides(recorder: Recorder) -> None:
    assert cli.main(["train", DIGITS]) == 0
    job = recorder.job
    assert job is not None
    assert (job.workers, job.launcher, job.run_dir, job.resume) == (1, "local", None, False)
    assert recorder.chosen[0] is None and recorder.chosen[1] == "local"


def test_garbage_is_collected_in_training_and_not_before(tmp_path: Path, monkeypatch) -> None:
    seen = []
    load, run = source.load, TrainingLoop.run
    monkeypatch.setattr(
        source, "load", lambda *a, **k: seen.append(gc.isenabled()) or load(*a, **k)
    )
    monkeypatch.setattr(
        TrainingLoop, "run", lambda self, n: seen.append(gc.isenabled()) or run(self, n)
    )
    monkeypatch.setattr(gc, "freeze", lambda: None)  # of this process, for good
    words = ["train", DIGITS, "train.epochs=1", "--run-dir", str(tmp_path / "run")]
    assert cli.main(words) == 0
    assert seen == [False, True]
    assert cli.main([*words, "seed=no"]) == 2
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("outcome", "code", "text"),
    [
        (MissingExtraError("pip install x"), 3, "error: pip install x\n"),
        (DivergedError("loss is nan\nat step 3"), 5, "error:\nloss is nan\nat step 3\n"),
        (PreemptedError("saved"), 75, "error: saved\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_an_error_that_ends_a_job_is_its_text_and_its_code(
    recorder: Recorder,
    capsys: pytest.CaptureFixture[str],
    outcome: BaseException,
    code: int,
    text: str,
) -> None:
    recorder.outcome = outcome
    assert cli.main(["train", DIGITS]) == code
    assert capsys.readouterr().err == text


def test_an_error_in_user_code_shows_its_traceback(
    recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder.outcome = ZeroDivisionError("by me")
    assert cli.main(["train", DIGITS]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and err.endswith("ZeroDivisionError: by me\n")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["train", "nosuch.yaml"], "error: nosuch.yaml: no such job file"),
        (["train"], "error: Missing argument"),
        (["train", "seed=1"], "error: one job file is needed, there is none"),
        (["train", DIGITS, "b.yaml"], "error: one job file is needed, these are 2: "),
        (["train", DIGITS, "--worker", "2"], "error: No such option: --worker"),
        (["train", DIGITS, "-np", "two"], "error: Invalid value for '-n' / '-np' / '--workers'"),
        (["train", DIGITS, "--resume", "yes"], "error: Invalid value for '--resume'"),
        (["train", DIGITS, "-n", "9"], "error: command line: -n 9: 9 workers are more than the 8"),
        (["train", DIGITS, "-n", "0"], "error: command line: -n 0: must be greater than or equal"),
        (["train", DIGITS, "--launcher", "pbs"], "error: command line: --launcher pbs: must be 'l"),
        (["train", DIGITS, "optimizer.lr=1"], "error: command line: optimizer.lr=1: unknown k"),
        (["trian"], "error: No such command 'trian'."),
        (["config", "validate", "nosuch.yaml"], "error: nosuch.yaml: no such job file"),
        (["config"], "error: Missing command."),
    ],
)
def test_usage_errors_start_nothing(
    recorder: Recorder, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert err.startswith(text) and "Traceback" not in err and out == ""
    assert recorder.job is None


def test_several_mistakes_are_lines_that_an_editor_can_follow(
    recorder: Recorder,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    text = Path(DIGITS).read_text().replace("learning_rate", "learning_rte").replace("seed", "sed")
    Path("job.yaml").write_text(text + "x" * 200 + ": 1\n")
    assert cli.main(["train", "job.yaml"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error:"
    assert lines[1] == "job.yaml:5:1: sed: unknown key, did you mean seed?"
    assert lines[2] == (
        "job.yaml:16:25: optimizer.learning_rte: unknown key, did you mean learning_rate?"
    )
    assert lines[3].startswith("job.yaml:20:1: xxx") and len(lines) == 4


def test_a_dry_run_shows_the_plan_and_starts_nothing(
    recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", DIGITS, "-n", "3", "--launcher", "mpi", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert recorder.job is None
    assert re.search(r"Dense units=256 activation=relu", out)
    assert re.search(r"worker 0 +shards 0 to 1, 16 samples", out)
    assert re.search(r"worker 2 +shards 5 to 7, 24 samples", out)
    assert "launcher   mpi, 3 workers" in out
    one = ("parallel.virtual_shards=1", "train.epochs=1", "train.global_batch_size=1")
    assert cli.main(["train", DIGITS, *one, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "train      1 epoch, 1 sample per step, in 1 shard\n" in out
    assert "launcher   local, 1 worker\nworker 0   shard 0, 1 sample per step\n" in out


# config, env, --help, --version


def test_config_show_prints_what_loads_as_the_same_job(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["config", "show", DIGITS, "seed=3"]) == 0
    shown = tmp_path / "shown.yaml"
    shown.write_text(capsys.readouterr().out)
    assert load(shown) == load(DIGITS, ["seed=3"])


def test_config_validate(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "validate", DIGITS]) == 0
    assert capsys.readouterr().out == f"{DIGITS}: digits-mlp is a valid job\n"


def test_config_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "schema"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == json.loads(json.dumps(json_schema()))
    assert out == (ROOT / "configs" / "schema.json").read_text(), "write it again"


def test_env(capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    assert cli.main(["env", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["numpy"] == np.__version__ and report["cpu_cores"] >= 1
    assert {"python", "blas", "mpi4py", "os", "distgrad"} <= set(report)
    assert cli.main(["env"]) == 0
    assert re.search(rf"^numpy +{re.escape(np.__version__)}$", capsys.readouterr().out, re.M)


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "train" in out and "config" in out and "env" in out


@pytest.mark.parametrize("words", [[], ["config"], ["runs"]], ids=str)
def test_lists_of_commands_say_of_each_what_it_does(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whole sentences, which are cut where they do not fit into 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main([*words, "--help"]) == 0
    said = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert len(said) > 3 and [line for line in said if line.endswith("...")] == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"distgrad {distgrad.__version__}\n"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from distgrad.cli import main; main(['train', '--help']);"
        "heavy = {'ruamel.yaml', 'mpi4py', 'ray', 'rich', 'scipy', 'distgrad.config'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()


# As processes


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", ["config schema", "--help"])
def test_a_stdout_that_is_full_is_one_line(words: str) -> None:
    """One is more than the buffer of stdout, one less."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "distgrad", *words.split()]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 4
    assert result.stderr == "error: stdout cannot be written (No space left on device)\n"


def test_a_change_may_be_longer_than_the_name_of_a_file(run_cli: Callable) -> None:
    layers = ", ".join(["{type: Dense, units: 100, activation: relu}"] * 9)
    change = f"model.layers=[{{type: Flatten}}, {layers}, {{type: Dense, units: 10}}]"
    result = run_cli("config", "show", DIGITS, change)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("units: 100") == 9
    result = run_cli("config", "validate", DIGITS, f"name={'x' * 300}")
    assert result.returncode == 2 and "at most 100 of them" in result.stderr


def test_a_job_from_a_pipe_is_for_one_worker(tmp_path: Path) -> None:
    train = f'"{sys.executable}" -m distgrad train <(cat "{DIGITS}") train.epochs=1'
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 100}
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", f"{train} -n 2"], env=path, **options)
    assert done.returncode == 2 and "write the job to a file" in done.stderr
    done = subprocess.run(["bash", "-c", f"{train} --run-dir run"], env=path, **options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "resolved.yaml").exists()


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_where_no_run_folder_can_be_made(run_cli: Callable, tmp_path: Path, options) -> None:
    (tmp_path / "runs").write_text("in the way")
    done = run_cli("train", DIGITS, *options)
    assert done.returncode == 2
    assert "error: the run folder runs/" in done.stderr and "--run-dir" in done.stderr


def test_an_old_locale_shows_what_it_can(run_cli: Callable, tmp_path: Path) -> None:
    (tmp_path / "jöb.yaml").write_text("näme: 1\n", encoding="utf-8")
    env = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    result = run_cli("config", "validate", "jöb.yaml", env=env)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert r"j\xf6b.yaml:1:1: n\xe4me: unknown key" in result.stderr


def test_python_m_distgrad(run_cli: Callable) -> None:
    done = run_cli("config", "validate", DIGITS)
    assert (done.returncode, done.stderr) == (0, "")
    done = run_cli("train", DIGITS, "sed=1")
    assert done.returncode == 2
    assert done.stderr == "error: command line: sed=1: unknown key, did you mean seed?\n"


@pytest.mark.mpi
def test_under_mpirun_one_rank_reports_a_usage_error(run_mpi: Callable) -> None:
    done = run_mpi(3, "-m", "distgrad", "train", DIGITS, "parallel.virtual_shards=2")
    assert done.returncode == 2
    assert done.stderr.count("3 workers are more than the 2 virtual shards") == 1
    assert "Traceback" not in done.stderr and not done.orphans


@pytest.mark.mpi
def test_mpirun_wins_over_options_and_file(run_mpi: Callable) -> None:
    options = ["-n", "9", "--launcher", "local", "--dry-run"]
    done = run_mpi(2, "-m", "distgrad", "train", DIGITS, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("launcher   mpi, 2 workers") == 1
