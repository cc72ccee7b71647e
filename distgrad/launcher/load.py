"""What this machine gives a process: its share of the cores, and how busy they are."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from distgrad.launcher import environ

_MOST = 4.0
_BUSY = 1.5
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def quota() -> float | None:
    """The cores that a container may use at a time; None where nothing limits them."""
    with contextlib.suppress(OSError, ValueError):
        limit, period = _QUOTA.read_text().split()
        return int(limit) / int(period)
    return None


def cores() -> int:
    """How many cores this process may keep busy: those it may run on, or fewer by a quota."""
    limit = quota()
    usable = environ.usable_cores()
    return usable if limit is None else min(usable, max(1, int(limit)))


def _machine_cores() -> int:
    return os.cpu_count() or 1


def factor() -> float:
    """The load of the last minute for each core, from 1 to 4; 1 where the system does not say.

    The load is that of the whole machine, whatever part of it this process may use.
    """
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows
        return 1.0
    return min(max(1.0, load / _machine_cores()), _MOST)


def is_busy() -> bool:
    """Whether what was too slow may be in order, and the machine busy."""
    return factor() > _BUSY


def advice() -> str:
    """What to do about something that was too slow on a busy machine."""
    return f"this machine is busy ({described()}): try again when it is not"


def described() -> str:
    """The load of a machine that is busy."""
    return f"load {os.getloadavg()[0]:.0f} on {_machine_cores()} cores"
