"""How much longer things may take where the machine is busy with something else."""

from __future__ import annotations

import os

from distgrad.launcher import environ

_MOST = 4.0
_BUSY = 1.5


def factor() -> float:
    """The load of the last minute for each core, from 1 to 4; 1 where the system does not say."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows
        return 1.0
    return min(max(1.0, load / environ.usable_cores()), _MOST)


def is_busy() -> bool:
    """Whether what was too slow may be in order, and the machine busy."""
    return factor() > _BUSY


def advice() -> str:
    """What to do about something that was too slow on a busy machine."""
    return f"this machine is busy ({described()}): try again when it is not"


def described() -> str:
    """The load of a machine that is busy."""
    return f"load {os.getloadavg()[0]:.0f} on {environ.usable_cores()} cores"
