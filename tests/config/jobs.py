"""A small job as YAML, and what is wrong with others."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgrad.config import ConfigError, Override, load

CONFIGS = Path(__file__).parents[2] / "configs"

JOB = """\
name: small
data: {source: digits}
model:
  layers:
    - {type: Flatten}
    - {type: Dense, units: 10}
loss: sparse_categorical_crossentropy
optimizer:
  type: Adam
train: {epochs: 2}
parallel: {workers: 2, virtual_shards: 4}
"""


def write(text: str, name: str = "job.yaml") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def problems(text: str, *overrides: str | Override) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(write(text), overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return list(caught.value.problems)


def changed(old: str, new: str) -> str:
    assert old in JOB
    return JOB.replace(old, new)
