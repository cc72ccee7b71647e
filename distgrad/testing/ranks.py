"""Which processes of a running command are its ranks. Needs Linux's /proc."""

from __future__ import annotations

from pathlib import Path

from distgrad.launcher import environ
from distgrad.testing.process import Command


def rank_pids(command: Command) -> dict[int, int]:
    """The process id of each rank of a launcher that is running."""
    found = {}
    for pid in command.family():
        try:
            entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        except OSError:
            continue  # it has just ended
        world = environ.detect(dict(entry.split("=", 1) for entry in entries if "=" in entry))
        if world.is_rank:
            found[world.rank] = pid
    return found
