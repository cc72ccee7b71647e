"""Whatever is wrong: the documented exit code, one clear message, and nothing lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from distgrad.testing import process

pytestmark = [pytest.mark.slow, pytest.mark.timeout_s(300)]

mpi = pytest.mark.mpi


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def copy(short, run_dir):
    """A finished run of 46 steps with commits at 20, 40 and 46, to be spoilt."""
    return short.copy(run_dir)


# The job file.


def test_unknown_key_and_wrong_type(dg, tmp_path: Path, run_dir: Path) -> None:
    job = tmp_path / "job.yaml"
    text = dg.digits.read_text()
    job.write_text(text.replace("learning_rate:", "learning_rte:").replace("epochs: ", "epochs: x"))
    says = ["job.yaml:", "optimizer.learning_rte", "did you mean learning_rate?", "train.epochs"]
    dg.refuses("train", job, "--run-dir", run_dir, code=2, says=says)
    assert not run_dir.exists()


@pytest.mark.parametrize("options", [(), ("-n", 2)])
def test_a_start_that_fails_leaves_no_folder_and_no_latest(dg, tmp_path: Path, options) -> None:
    words = ("train", dg.digits, "train.epochs=1", *options)
    dg.refuses(*words, "data={source: npz, path: no.npz}", code=4, says=["no.npz"], cwd=tmp_path)
    assert not any((tmp_path / "runs").iterdir())
    diverges = ("optimizer={type: SGD, learning_rate: 1e38}", "train.jit=off")
    dg.refuses(*words, *diverges, code=5, cwd=tmp_path)
    (failed,) = (tmp_path / "runs").glob("*-digits-mlp-*")
    result = dg.run("runs", "ls", cwd=tmp_path)
    assert failed.name in result.stdout and "diverged" in result.stdout, result.stdout


def test_missing_job_file(dg, tmp_path: Path) -> None:
    shutil.copy(dg.digits, tmp_path / "digits.yaml")
    says = ["digit.yaml: no such job file", "did you mean digits.yaml?"]
    dg.refuses("train", "digit.yaml", code=2, says=says, cwd=tmp_path)
    assert os.listdir(tmp_path) == ["digits.yaml"]


@mpi
def test_a_bad_job_under_mpirun_is_said_once(dg, run_dir: Path) -> None:
    words = ("train", dg.digits, "train.epoch=3", "--run-dir", run_dir)
    dg.refuses(*words, ranks=3, code=2, says=["did you mean epochs?"])
    assert not run_dir.exists()


@pytest.mark.skipif(find_spec("cupy") is not None, reason="CuPy is here")
def test_a_gpu_without_cupy(dg, run_dir: Path) -> None:
    words = ("train", dg.digits, "--run-dir", run_dir)
    says = ["GPUs need CuPy: pip install 'distgrad[cuda12]'"]
    dg.refuses(*words, "device=cuda", code=3, says=says)
    assert not run_dir.exists()


# More workers than virtual shards.


@mpi
def test_more_workers_than_shards(dg, run_dir: Path) -> None:
    words = ("train", dg.digits, "parallel.virtual_shards=2", "--run-dir", run_dir)
    says = ["3 workers", "2 virtual shards", "use at most 2 workers"]
    dg.refuses(*words, "-n", 3, "--launcher", "mpi", code=2, says=says)
    dg.refuses(*words, ranks=3, code=2, says=says)
    assert not run_dir.exists()


# A loss that is no number.


@pytest.mark.parametrize("ranks", [None, pytest.param(2, marks=mpi)])
def test_diverged(dg, short, run_dir: Path, ranks: int | None) -> None:
    job = (dg.digits, "optimizer.learning_rate=1e30", "checkpoint.every_steps=1")
    says = ["the loss is", "Lower optimizer.learning_rate"]
    dg.refuses("train", *job, "--run-dir", run_dir, ranks=ranks, code=5, says=says)
    run = short.anew(run_dir)
    assert (run.status["state"], run.status["exit_code"]) == ("diverged", 5)
    # The first step had a finite loss, and its commit is there.
    assert [path.name for path in run.commits] == ["step_00000001"]
    assert [entry["step"] for entry in run.metrics] == [1]


def test_spoilt_by_the_very_last_update(dg, run_dir: Path) -> None:
    """No later loss tells, but the test does."""
    job = (dg.digits, "optimizer.learning_rate=1e30", "train.global_batch_size=1437")
    words = ("train", *job, "train.epochs=1", "--run-dir", run_dir)
    dg.refuses(*words, code=5, says=["the loss on the test samples is nan after step 1"])


# Checkpoints that cannot be read.


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_a_number(path: Path) -> None:
    """Still good JSON, and wrong."""
    text = path.read_text()
    assert text.count('"step_in_epoch": 23') == 1
    path.write_text(text.replace('"step_in_epoch": 23', '"step_in_epoch": 22'))


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


DAMAGES = [
    ("model.safetensors", flip_a_byte),
    ("optimizer.safetensors", cut_off),
    ("model.safetensors", Path.unlink),
    ("manifest.json", change_a_number),
    ("manifest.json", cut_off),
    ("manifest.json", Path.unlink),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_the_newest_checkpoint_is_damaged(dg, short, copy, name: str, damage) -> None:
    broken = copy.commits[-1] / name
    damage(broken)
    resumed = dg.resume(copy)
    assert resumed.result.stderr.count("warning:") == 1
    assert str(broken) in resumed.result.stderr
    assert "Going back to the commit before it" in resumed.result.stderr
    assert f"resuming {copy.folder} at step 40" in resumed.result.stdout
    assert copy.sha256 == copy.saved_sha256() == short.sha256
    assert copy.metrics == short.metrics
    assert [path.name for path in copy.commits] == [path.name for path in short.commits]


def test_the_two_newest_are_damaged_and_steps_are_saved_elsewhere(dg, short, copy) -> None:
    """What cannot be read takes no good commit's place."""
    for path in copy.commits[1:]:
        flip_a_byte(path / "model.safetensors")
    copy.job = (*copy.job, "checkpoint.every_steps=7", "checkpoint.keep_last=2")
    resumed = dg.resume(copy)
    assert resumed.result.stderr.count("warning:") == 2
    assert copy.sha256 == short.sha256
    assert [path.name for path in copy.commits] == ["step_00000042", "step_00000046"]


@mpi
def test_no_checkpoint_can_be_read(dg, copy) -> None:
    for path in copy.commits:
        flip_a_byte(path / "model.safetensors")
    before = copy.contents()
    words = ("train", *copy.job, "--run-dir", copy.folder, "--resume", "auto")
    says = ["No checkpoint in", str(copy.commits[0]), "Nothing was changed"]
    dg.refuses(*words, code=4, says=says)
    dg.refuses(*words, ranks=2, code=4, says=says)
    assert copy.contents() == before


# Run folders.


@mpi
def test_a_run_folder_in_use(dg, copy) -> None:
    before = copy.contents()
    words = ("train", *copy.job, "--run-dir", copy.folder)
    dg.refuses(*words, code=2, says=["is not empty", "--resume auto"])
    dg.refuses(*words, ranks=2, code=2, says=["is not empty", "--resume auto"])
    assert copy.contents() == before


def test_a_folder_that_holds_no_run(dg, run_dir: Path) -> None:
    run_dir.mkdir()
    (run_dir / "thesis.tex").write_text("precious")
    words = ("train", dg.digits, "--run-dir", run_dir)
    dg.refuses(*words, code=2, says=["is not empty"])
    dg.refuses(*words, "--resume", "auto", code=2, says=["holds no run to resume"])
    assert os.listdir(run_dir) == ["thesis.tex"]
    assert (run_dir / "thesis.tex").read_text() == "precious"


@mpi
def test_resume_with_another_job(dg, copy) -> None:
    before = copy.contents()
    words = ("train", *copy.job, "--run-dir", copy.folder, "--resume", "auto")
    changes = ("seed=1", "optimizer.learning_rate=0.5", "parallel.virtual_shards=4")
    says = [
        "was trained with another job",
        "seed was 0 and is 1",
        "optimizer.learning_rate was",
        "and is 0.5",
        "parallel.virtual_shards was 8 and is 4",
    ]
    dg.refuses(*words, *changes, code=2, says=says)
    dg.refuses(*words, *changes, ranks=2, code=2, says=says)
    assert copy.contents() == before


def test_resume_with_other_layers(dg, copy, tmp_path: Path) -> None:
    before = copy.contents()
    job, text = tmp_path / "job.yaml", dg.digits.read_text()
    words = ("train", job, *copy.job[1:], "--run-dir", copy.folder, "--resume", "auto")
    job.write_text(re.sub("Dropout, rate: [0-9.]+", "Dropout, rate: 0.125", text))
    dg.refuses(*words, code=2, says=["model.layers.2.rate was", "and is 0.125"])
    job.write_text(text.replace("    - {type: Flatten}\n", ""))
    dg.refuses(*words, code=2, says=["model.layers was"])
    assert copy.contents() == before


@mpi
def test_a_run_dir_that_is_a_file(dg, run_dir: Path) -> None:
    run_dir.write_text("precious")
    words = ("train", dg.digits, "train.epochs=1", "--run-dir")
    dg.refuses(*words, run_dir, code=2, says=[f"{run_dir} is a file, not a folder"])
    dg.refuses(*words, run_dir, ranks=2, code=2, says=[f"{run_dir} is a file, not a folder"])
    dg.refuses(*words, run_dir / "below", code=2, says=["cannot be used", f"{run_dir}/below"])
    assert run_dir.read_text() == "precious"


# A process of root's that permissions bind like anyone else's (CAP_DAC_OVERRIDE is number 1).
WITHOUT_OVERRIDE = """
import ctypes, os, runpy, sys
if os.geteuid() == 0:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(24, 1, 0, 0, 0):  # PR_CAPBSET_DROP
        sys.exit(99)
    sys.argv[0:1] = [sys.executable, "-m", "distgrad"]
    os.execv(sys.executable, sys.argv)
runpy.run_module("distgrad", run_name="__main__", alter_sys=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="drops a Linux capability")
def test_a_run_dir_that_cannot_be_written_to(dg, short, copy, tmp_path: Path) -> None:
    how = {"program": ["-c", WITHOUT_OVERRIDE]}
    locked = tmp_path / "locked"
    locked.mkdir()
    before = copy.contents()
    for folder in (locked, copy.folder):
        folder.chmod(0o555)
    try:
        if dg.run("--version", **how).returncode == 99:
            pytest.skip("root here may not give up its right to write everywhere")
        words = ("train", *copy.job, "--run-dir")
        dg.refuses(*words, locked, **how, code=2, says=[f"{locked} cannot be written to"])
        dg.refuses(*words, locked / "new", **how, code=2, says=[f"{locked}/new"])
        again = (*words, copy.folder, "--resume", "auto")
        dg.refuses(*again, **how, code=2, says=[f"{copy.folder} cannot be written to"])
    finally:
        for folder in (locked, copy.folder):
            folder.chmod(0o755)
    assert os.listdir(locked) == []
    assert copy.contents() == before


# Ranks that do not belong together.


@pytest.mark.parametrize("launcher", ["local", pytest.param("mpi", marks=mpi)])
def test_ranks_with_different_jobs_are_refused_once(
    dg, tmp_path: Path, run_dir: Path, launcher: str
) -> None:
    """As where a host has an old copy of the file: a restart would not mend it."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from distgrad.cli import main\n"
        "from distgrad.launcher import environ\n"
        "rate = ['0.003', '0.25'][environ.detect().rank]\n"
        f"words = ['train', {str(dg.digits)!r}, '--run-dir', {str(run_dir)!r}]\n"
        "sys.exit(main([*words, f'optimizer.learning_rate={rate}']))\n"
    )
    options = ("-n", 2, "--launcher", launcher, "--max-restarts", 2)
    said = dg.refuses("launch", *options, script, code=2, says=["learning_rate 0.25", "0.003"])
    assert "starting all workers again" not in said
    assert not run_dir.exists()


@pytest.mark.parametrize("launcher", ["local", pytest.param("mpi", marks=mpi)])
@pytest.mark.parametrize("call", ["pass", "c.barrier()"])
def test_ranks_that_make_other_calls_are_not_started_again(
    dg, tmp_path: Path, launcher: str, call: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\n"
        "from distgrad.launcher.connect import connect\n"
        "c = connect()\n"
        f"if c.rank == 1:\n    {call}\n"
        "else:\n    c.allreduce(np.ones(3))\n"
    )
    options = ("-n", 3, "--launcher", launcher, "--max-restarts", 2)
    said = dg.refuses("launch", *options, script, code=1)
    assert "starting all workers again" not in said


# Data.


@mpi
def test_bad_data(dg, tmp_path: Path, run_dir: Path) -> None:
    path = tmp_path / "data.npz"
    job = tmp_path / "job.yaml"
    source = f"{{source: npz, path: {path}}}"
    text = dg.digits.read_text()
    job.write_text(text.replace("{source: digits, test_fraction: 0.2}", source))
    words = ("train", job, "train.epochs=1", "--run-dir", run_dir)
    dg.refuses(*words, code=4, says=[f"{path} does not exist"])
    dg.refuses(*words, ranks=2, code=4, says=[f"{path} does not exist"])
    path.write_bytes(b"PK not quite")
    dg.refuses(*words, code=4, says=[f"{path} cannot be read"])
    np.savez(path, pixels=np.zeros((9, 4)))
    dg.refuses(*words, code=4, says=["pixels", "x, y"])
    np.savez(path, x=np.full((30, 4), np.nan), y=np.arange(30) % 3)
    dg.refuses(*words, code=4, says=["no finite float32"])
    # A run that never began stands in nobody's way.
    np.savez(path, x=np.ones((30, 4)), y=np.arange(30) % 3)
    assert dg.train(run_dir, job, "train.epochs=1").status["state"] == "finished"


def test_ctrl_c_names_the_checkpoint_to_go_on_from(dg, run_dir: Path) -> None:
    job = (dg.digits, "train.epochs=5000", "checkpoint.every_steps=10")
    with dg.start("train", *job, "--run-dir", run_dir) as command:
        saved = run_dir / "checkpoints" / "step_00000020"
        process.wait_until(saved.exists, 60, "the second checkpoint")
        command.send_signal(signal.SIGINT)
        result = command.wait(60)
    assert result.returncode == 130, result.stderr
    said = r"interrupted; the last checkpoint is of step \d+: .* --run-dir .*run --resume auto"
    assert re.search(said, result.stderr), result.stderr
