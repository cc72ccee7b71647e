import os
import signal
import sys
import time

import pytest

from distgrad.testing.process import Command, run, wait_until

# A child in a session of its own, as mpirun's ranks are, that would sleep for a minute.
LEAVES_A_CHILD = """
import subprocess, sys
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
child = subprocess.Popen(sleep, start_new_session=True)
print(child.pid, flush=True)
"""


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"


def test_result(tmp_path):
    program = "import os, sys; print(os.getcwd()); sys.stderr.write('oh'); sys.exit(7)"
    result = run([sys.executable, "-c", program], cwd=tmp_path, timeout=30)
    assert result.returncode == 7
    assert result.stdout.strip() == str(tmp_path)
    assert result.stderr == "oh"
    assert 0 < result.seconds < 30
    assert result.orphans == ()


def test_environment_is_inherited_with_changes(monkeypatch):
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("CHANGED", "1")
    monkeypatch.setenv("DROPPED", "1")
    program = "import os; print([os.environ.get(k) for k in ('KEPT', 'CHANGED', 'DROPPED', 'NEW')])"
    changes = {"CHANGED": "a b", "DROPPED": None, "NEW": "2"}
    result = run([sys.executable, "-c", program], env=changes, timeout=30)
    assert result.stdout.strip() == "['1', 'a b', None, '2']"


def test_a_hang_is_an_error_that_shows_the_output():
    program = "import time; print('so far', flush=True); time.sleep(60)"
    with Command([sys.executable, "-c", program]) as command:
        wait_until(lambda: command.stdout, 30, "the first line")
        start = time.monotonic()
        with pytest.raises(TimeoutError, match=r"still running after 0\.1 s(.|\n)*so far"):
            command.wait(timeout=0.1)
        assert time.monotonic() - start < 10
        assert not command.is_running()


def test_an_orphan_is_named_and_killed():
    with Command([sys.executable, "-c", LEAVES_A_CHILD]) as command:
        result = command.wait(timeout=30, grace=0.1)
    child = int(result.stdout)
    assert result.orphans == (child,)
    assert not is_alive(child)


def test_kill_reaches_a_child_in_another_session():
    program = LEAVES_A_CHILD + "child.wait()"
    with Command([sys.executable, "-c", program]) as command:
        wait_until(lambda: command.stdout, 30, "the child's process id")
        child = int(command.stdout)
        assert set(command.family()) == {command.pid, child}
    assert not is_alive(child)
    assert not command.is_running()


def test_signal_to_the_command_alone():
    with Command(
        [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"]
    ) as command:
        wait_until(lambda: command.stdout, 30, "the first line")
        command.send_signal(signal.SIGKILL)
        assert command.wait(timeout=10).returncode == -signal.SIGKILL


@pytest.mark.mpi
def test_ranks_under_mpirun_are_family(mpi_command):
    program = "import time; print('up', flush=True); time.sleep(61.25)"
    with Command(mpi_command(2, "-c", program)) as command:
        wait_until(lambda: command.stdout.count("up") == 2, 30, "both ranks")
        with pytest.raises(TimeoutError, match=r"up(.|\n)*up"):
            command.wait(timeout=0.1)
    leftovers = [
        pid for pid in filter(str.isdigit, os.listdir("/proc")) if "61.25" in _command_line(pid)
    ]
    assert leftovers == []


def _command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""


def test_wait_until_has_a_deadline():
    with pytest.raises(TimeoutError, match=r"0\.05 s in vain for the moon"):
        wait_until(lambda: False, 0.05, "the moon")
