"""Signals that ask a run to stop."""

import signal
from types import SimpleNamespace

import pytest

from distgrad import stopping


def test_a_signal_that_comes_by_two_ways_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr(stopping.time, "monotonic", lambda: clock)
    step = SimpleNamespace(stop_requested=False)
    with stopping.stop_on_signal(step):
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
            assert step.stop_requested
        clock += 3
        with pytest.raises(SystemExit, match="143"):
            signal.raise_signal(signal.SIGTERM)
