"""What conftest does to every test: limits, tried on tests that break them, and random draws."""

import sys
from pathlib import Path

import pytest

from distgrad.testing import process

CONFTEST = Path(__file__).parents[1] / "conftest.py"
PYTEST_INI = """
[pytest]
markers = timeout_s(seconds): limit
"""


@pytest.fixture
def run_tests(tmp_path):
    """Run pytest on a file with the given text, under the project's own conftest."""

    def run(text):
        (tmp_path / "pytest.ini").write_text(PYTEST_INI)
        (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
        (tmp_path / "test_it.py").write_text(text)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
        root = str(CONFTEST.parents[1])
        return process.run(command, cwd=tmp_path, env={"PYTHONPATH": root}, timeout=60)

    return run


def test_a_test_that_takes_too_long_fails_and_the_next_one_runs(run_tests):
    result = run_tests(
        "import time, pytest\n"
        "@pytest.mark.timeout_s(0.5)\n"
        "def test_slow(): time.sleep(30)\n"
        "def test_next(): pass\n"
    )
    assert result.returncode == 1, result
    assert "test_slow ran past its limit of 0.5 s" in result.stdout
    assert "1 failed, 1 passed" in result.stdout
    assert result.seconds < 20


def test_a_connection_to_the_outside_fails_the_test(run_tests):
    result = run_tests(
        "import socket\n"
        "def test_out():\n"
        "    try: socket.create_connection(('192.0.2.1', 80), timeout=1)\n"
        "    except OSError: pass\n"
        "def test_loopback():\n"
        "    with socket.create_server(('127.0.0.1', 0)) as server:\n"
        "        socket.create_connection(server.getsockname(), timeout=5).close()\n"
    )
    assert "a test may not connect to ('192.0.2.1', 80)" in result.stdout
    assert "1 failed, 1 passed" in result.stdout, result


def test_a_test_without_a_seed_draws_the_same_in_every_session(run_tests, tmp_path):
    draws = (
        "import pytest\n"
        "import distgrad as tf\n"
        "@pytest.fixture(scope='module')\n"
        "def first(): return float(tf.random.uniform(()))\n"
        "def test_one(first):\n"
        "    print(first, float(tf.random.uniform(())), file=open('drawn', 'a'))\n"
        "def test_two(): print(*tf.random.uniform((2,)).numpy(), file=open('drawn', 'a'))\n"
    )
    for _ in range(2):
        assert "2 passed" in run_tests(draws).stdout
    lines = (tmp_path / "drawn").read_text().splitlines()
    assert lines[:2] == lines[2:]


def test_examples_of_a_property_may_take_long(run_tests):
    result = run_tests(
        "import time\n"
        "from hypothesis import given, settings, strategies as st\n"
        "@settings(max_examples=4)\n"
        "@given(st.integers().map(lambda number: time.sleep(0.4)))\n"
        "def test_it(_): time.sleep(0.3)\n"
    )
    assert "1 passed" in result.stdout, result.stdout
