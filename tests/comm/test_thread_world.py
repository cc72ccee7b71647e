"""The thread world itself: results, errors and limits."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from distgrad.core.errors import PeerLostError
from distgrad.testing.thread_world import run_world


def test_results_come_by_rank() -> None:
    assert run_world(3, lambda c: (c.rank, c.world_size)) == [(0, 3), (1, 3), (2, 3)]


def test_the_first_error_is_raised_not_what_it_caused() -> None:
    def fn(communicator) -> None:
        if communicator.rank == 2:
            raise ZeroDivisionError("culprit")
        communicator.barrier()

    start = time.monotonic()
    with pytest.raises(ZeroDivisionError, match="culprit"):
        run_world(4, fn, time_limit=60, timeout=60)
    assert time.monotonic() - start < 20  # long before any deadline


def test_an_abort_wakes_everyone_and_gives_its_reason() -> None:
    seen = {}

    def fn(communicator) -> None:
        if communicator.rank == 0:
            communicator.abort(5, "loss is nan")
            return
        try:
            communicator.broadcast(np.zeros(3), root=1 if communicator.rank == 2 else 2)
        except PeerLostError as error:
            seen[communicator.rank] = str(error)

    run_world(3, fn, timeout=5)
    assert set(seen) == {1, 2}
    assert all("lost rank 0" in text and "loss is nan" in text for text in seen.values())


def test_a_rank_that_ends_early_is_lost_at_once() -> None:
    def fn(communicator) -> None:
        if communicator.rank == 1:
            communicator.allreduce(np.zeros(3))

    start = time.monotonic()
    with pytest.raises(PeerLostError, match=r"rank 1 lost rank 0 in allreduce\(sum\)"):
        run_world(2, fn, time_limit=60, timeout=60)
    assert time.monotonic() - start < 20  # long before any deadline


def test_the_time_limit_names_the_stuck_ranks() -> None:
    release = threading.Event()
    try:
        with pytest.raises(TimeoutError, match=r"ranks \[1\] of 2"):
            run_world(2, lambda c: release.wait(10) if c.rank == 1 else None, time_limit=0.2)
    finally:
        release.set()


def test_the_seconds_of_collectives_are_counted_with_the_wait_for_others() -> None:
    there = threading.Event()

    def fn(communicator) -> float:
        if communicator.rank == 1:
            there.wait(10)
            time.sleep(0.3)
        there.set()
        communicator.barrier()
        return communicator.seconds

    patient, late = run_world(2, fn)
    assert 0.25 < patient < 5 and late < patient
