"""How long a rank waits for its peers."""

from __future__ import annotations

import pytest

from distgrad.comm import transport
from distgrad.core.errors import PeerLostError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(transport.time, "monotonic", lambda: now[0])
    return now


def look_for(deadline: transport.Deadline, clock: list[float], seconds: float) -> None:
    for _ in range(int(seconds * 4)):
        clock[0] += 0.25
        deadline.look(0, lambda: {1})


def test_a_wait_warns_once_and_ends(clock: list[float], capsys) -> None:
    deadline = transport.Deadline("barrier", 12.0)
    look_for(deadline, clock, 11.75)
    assert capsys.readouterr().err.count("warning: rank 0 has waited 2.0 s for rank 1 in bar") == 1
    with pytest.raises(PeerLostError, match=r"waited 12\.0 s for rank 1 in barrier"):
        look_for(deadline, clock, 0.25)


def test_time_in_which_the_process_was_stopped_does_not_count(clock: list[float]) -> None:
    deadline = transport.Deadline("barrier", 12.0)
    look_for(deadline, clock, 5)
    clock[0] += 3600  # ctrl-Z, and fg
    look_for(deadline, clock, 6.75)
    with pytest.raises(PeerLostError):
        look_for(deadline, clock, 0.5)
