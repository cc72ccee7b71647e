"""Every test draws the same numbers, whichever ran before it in its process."""

from __future__ import annotations

import pytest

from .programs import RNG

_START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def _numbers_of_its_own() -> None:
    RNG.bit_generator.state = _START
