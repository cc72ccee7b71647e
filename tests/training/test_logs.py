"""The log of a rank: all that it prints, as one would have seen it, and nothing else changed."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from distgrad.core.errors import UsageError
from distgrad.training import logs


def test_what_is_printed_is_seen_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = logs.log_path(tmp_path, 3)
    before = sys.stdout, sys.stderr
    with logs.kept(path):
        print("one")
        print("two", file=sys.stderr)
        print("four", end="", flush=True)
    assert (sys.stdout, sys.stderr) == before
    out, err = capsys.readouterr()
    assert out == "one\nfour" and err == "two\n"
    assert path.name == "rank_00003.log"
    assert path.read_text() == "one\ntwo\nfour\n"


def test_a_later_start_adds_to_it(tmp_path: Path) -> None:
    for word in ("first", "second"):
        with logs.kept(tmp_path / "log"):
            print(word)
    assert (tmp_path / "log").read_text() == "first\nsecond\n"


def test_lines_are_on_disk_as_they_are_printed(tmp_path: Path) -> None:
    with logs.kept(tmp_path / "log"):
        print("now")
        assert (tmp_path / "log").read_text() == "now\n"


def test_a_bar_leaves_what_a_terminal_would_show_in_the_end(tmp_path: Path) -> None:
    with logs.kept(tmp_path / "log"):
        for percent in (10, 50):
            sys.stdout.write(f"\r\x1b[2K{percent} %")
        sys.stdout.write("\r\x1b[2K\x1b[33mwarning: a word\x1b[0m\n\r\x1b[2K90 %")
        sys.stdout.write("\r100 %\r\n")
    assert (tmp_path / "log").read_text() == "warning: a word\n100 %\n"


def test_a_live_bar_of_rich_is_not_in_it_but_words_beside_it_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console
    from rich.progress import Progress

    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    with logs.kept(tmp_path / "log"), Progress(console=Console(force_terminal=True)) as bar:
        task = bar.add_task("bar", total=3)
        for step in range(3):
            bar.advance(task)
            bar.refresh()
            print(f"step {step}")
    assert "\x1b" in screen.getvalue() and screen.getvalue().count("bar") > 3
    kept = (tmp_path / "log").read_text()
    assert [line for line in kept.splitlines() if "bar" not in line and line] == [
        *("step 0", "step 1", "step 2")
    ]
    assert "\x1b" not in kept and kept.count("bar") == 1  # as it stands at the end


def test_the_error_that_ends_a_rank_is_its_last_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is printed by whoever catches it, and so not here."""
    with pytest.raises(UsageError), logs.kept(tmp_path / "expected"):
        raise UsageError("no such thing")
    assert (tmp_path / "expected").read_text() == "error: no such thing\n"
    with pytest.raises(ZeroDivisionError), logs.kept(tmp_path / "bug"):
        print(1 // 0)
    kept = (tmp_path / "bug").read_text()
    assert kept.startswith("Traceback") and kept.endswith(
        "ZeroDivisionError: integer division or modulo by zero\n"
    )
    assert capsys.readouterr() == ("", "")


def test_a_disk_that_does_not_take_it_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").write_text("a file in the way")
    with logs.kept(logs.log_path(tmp_path, 0)):
        print("one")
    with logs.kept(Path("/dev/full")):
        print("two")
        print("three" * 10_000)
    assert capsys.readouterr().out.startswith("one\ntwo\nthree")


def test_streams_are_what_they_were_and_warnings_are_kept(tmp_path: Path) -> None:
    program = (
        "import sys, warnings; from pathlib import Path; from distgrad.training import logs\n"
        f"with logs.kept(Path({str(tmp_path / 'log')!r})):\n"
        "    print(sys.stdout.isatty(), sys.stdout.fileno(), sys.stdout.encoding)\n"
        "    warnings.warn('three')\n"
        "    sys.stdout.flush()\n"
        "    sys.stdout.buffer.write(b'bytes')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("False 1 utf-8") and "bytes" in done.stdout
    assert "UserWarning: three" in done.stderr
    assert (tmp_path / "log").read_text() == done.stdout.replace("bytes", "") + done.stderr
