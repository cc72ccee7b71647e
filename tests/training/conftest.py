"""GPUs that there are not, for the tests of what runs on several of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from distgrad.testing import fake_cupy


@pytest.fixture
def gpus() -> Iterator[None]:
    """Four of them; this thread has the first."""
    with fake_cupy.installed(4), fake_cupy.own_gpu(0):
        yield
    assert threading.active_count() == 1, "a thread is left behind"
