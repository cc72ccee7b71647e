"""Denormals are zeros within a training step, in its threads as well, and nowhere else."""

import threading

import numpy as np
import pytest

from distgrad.backend import denormals
from distgrad.backend.denormals import flushed

TINY = np.full(100, 1e-40, np.float32)

pytestmark = pytest.mark.skipif(
    denormals._library is None, reason="this system cannot flush denormals"
)


def kept() -> bool:
    return bool((TINY * np.float32(1.0)).all())


def test_only_within_and_in_threads_that_start_there():
    seen = []
    with flushed():
        seen.append(kept())
        with flushed():
            thread = threading.Thread(target=lambda: seen.append(kept()))
            thread.start()
            thread.join()
        seen.append(kept())
    assert seen == [False, False, False] and kept()


def test_an_error_ends_it():
    with pytest.raises(ValueError, match="so"), flushed():
        raise ValueError("so")
    assert kept()
