"""A command without a reader, with closed streams, or interrupted while it begins."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import distgrad
from distgrad.testing import process

ROOT = Path(distgrad.__path__[0]).parent
COMMAND = [sys.executable, "-m", "distgrad"]


def in_shell(text: str, folder: Path) -> process.Result:
    line = text.replace("distgrad", f'"{sys.executable}" -m distgrad')
    return process.run(["bash", "-c", line], cwd=folder, env={"PYTHONPATH": str(ROOT)})


@pytest.mark.parametrize("words", ["config schema", "--help", "--version", "env --json"])
def test_a_reader_that_has_gone_is_no_error(words: str) -> None:
    """One is more than the buffer of stdout, others less; typer prints two, we the others."""
    with subprocess.Popen(
        [*COMMAND, *words.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        command.stdout.close()
        _, said = command.communicate(timeout=60)
    assert (command.returncode, said) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_empty_ones(tmp_path: Path, closed: str) -> None:
    result = in_shell(f"distgrad env {closed}", tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert (result.stdout == "") == (">&-" in closed.split())


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&- 2>&-", "2>&-"])
def test_nothing_is_written_into_a_file_that_has_the_number_of_a_closed_stream(
    tmp_path: Path, closed: str
) -> None:
    """Python leaves a closed stream's number to the next file; children would write into that.

    A child would do so itself, to the first file that it opens.
    """
    program = (
        "import os, sys\n"
        "from distgrad.cli import streams\n"
        "streams.prepare()\n"
        "with open('precious', 'wb') as file:\n"
        "    assert file.fileno() > 2, file.fileno()\n"
        "    os.system('echo spoilt; echo spoilt >&2')\n"
        "sys.exit(os.system('true <&0 && true >&1 && true >&2') != 0)\n"  # all are open there
    )
    (tmp_path / "program.py").write_text(program)
    command = ["bash", "-c", f'"{sys.executable}" program.py {closed}']
    result = process.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert result.returncode == 0
    assert (tmp_path / "precious").read_bytes() == b""


@pytest.mark.parametrize("slow", ["numpy", "typer"])
@pytest.mark.parametrize("program", ["-m distgrad", "distgrad", "script.py"])
def test_ctrl_c_while_python_imports_is_a_quiet_end(tmp_path: Path, slow: str, program) -> None:
    """Of the command, however it was started; a script ends as Python's scripts do."""
    (tmp_path / f"{slow}.py").write_text(
        f"import pathlib, time\npathlib.Path({str(tmp_path / 'begun')!r}).touch()\n"
        "for _ in range(600): time.sleep(0.1)\n"  # one sleep misses a signal just before it
    )
    for name in ("distgrad", "script.py"):
        (tmp_path / name).write_text("from distgrad.cli import main\nraise SystemExit(main())\n")
    words = program.split() if program.startswith("-m") else [str(tmp_path / program)]
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with process.Command([sys.executable, *words, "env"], env=env, cwd=ROOT) as command:
        process.wait_until((tmp_path / "begun").exists, 30, "the import")
        command.send_signal(signal.SIGINT)
        result = command.wait(20)
    if program == "script.py":
        assert "KeyboardInterrupt" in result.stderr
    else:
        assert (result.returncode, result.stdout, result.stderr) == (130, "", "")
