"""Names that count up in a process begin anew in every test; a folder of data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgrad.keras import naming


@pytest.fixture(autouse=True)
def _names_begin_anew() -> None:
    naming.start_anew()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where Keras keeps its data sets, in a home folder of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".keras" / "datasets"
    folder.mkdir(parents=True)
    return folder
