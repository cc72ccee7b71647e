"""GPUs that there are not, for the tests of what runs on several of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from distgrad.testing import fake_cupy


@pytest.fixture
def gpus(new_threads) -> Iterator[None]:
    """Four of them; this thread has the first."""
    with fake_cupy.installed(4), fake_cupy.own_gpu(0):
        yield
    assert not new_threads(), "a thread is left behind"
