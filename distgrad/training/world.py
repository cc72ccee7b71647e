"""The world that a script runs in: joined once, when something first asks for it."""

from __future__ import annotations

from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import worker_shards
from distgrad.launcher import environ

_joined: Communicator | None = None


def communicator() -> Communicator:
    """The collectives of this process among all that run the script."""
    global _joined
    if _joined is None:
        from distgrad.launcher.connect import connect
        from distgrad.training import timeline
        from distgrad.training.handshake import check_shards

        _joined = connect()
        check_shards(environ.script_virtual_shards(), _joined)
        timeline.ask_environment(_joined)
    return _joined


class use:
    """Context in which ``communicator`` is the world of this process."""

    def __init__(self, communicator: Communicator) -> None:
        self._communicator = communicator

    def __enter__(self) -> Communicator:
        global _joined
        self._before, _joined = _joined, self._communicator
        return self._communicator

    def __exit__(self, *exc: object) -> None:
        global _joined
        _joined = self._before


def virtual_shards() -> int:
    """Into how many shards a script's batches are cut: DISTGRAD_VIRTUAL_SHARDS, or one a rank."""
    return environ.script_virtual_shards() or communicator().world_size


def is_deterministic() -> bool:
    """Whether a script's sums have one fixed order on GPUs, too: where it has virtual shards."""
    return environ.script_virtual_shards() is not None


def share() -> tuple[Communicator, int, range]:
    """The communicator, the number of virtual shards, and those of them that are this rank's."""
    joined, shards = communicator(), virtual_shards()
    return joined, shards, worker_shards(shards, joined.rank, joined.world_size)
