"""Names that count up in a process begin anew in every test."""

from __future__ import annotations

import pytest

from distgrad.keras import naming


@pytest.fixture(autouse=True)
def _names_begin_anew() -> None:
    naming.start_anew()
