"""A run of each kind of job, for the tests of what becomes of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import distgrad
from distgrad.testing import process

IMAGES = """
name: images
data: {source: digits, test_fraction: 0.1}
model:
  layers:
    - {type: Reshape, target_shape: [8, 8, 1]}
    - {type: Conv2D, filters: 4, kernel_size: 3, activation: relu}
    - {type: BatchNormalization}
    - {type: Flatten}
    - {type: Dense, units: 10}
loss: {type: SparseCategoricalCrossentropy, from_logits: true}
metrics: [accuracy]
optimizer: {type: Adam, learning_rate: 0.01}
train: {epochs: 2, global_batch_size: 64}
"""

TABLE = """
name: tumours
data: {source: breast_cancer}
model: {layers: [{type: Dense, units: 4, activation: relu}, {type: Dense, units: 1}]}
loss: {type: BinaryCrossentropy, from_logits: true}
optimizer: {type: Adam, learning_rate: 0.01}
train: {epochs: 3, global_batch_size: 32}
"""

GAPS = """
name: gaps
data: {source: csv, path: gaps.csv, label: kind, missing: median}
model: {layers: [{type: Dense, units: 4, activation: relu}, {type: Dense, units: 2}]}
loss: {type: SparseCategoricalCrossentropy, from_logits: true}
optimizer: {type: Adam, learning_rate: 0.05}
train: {epochs: 10, global_batch_size: 16}
"""

SERIES = """
name: series
data: {source: series, builtin: el-nino, window: 6, horizon: 2}
model: {layers: [{type: GRU, units: 4}, {type: Dense, units: 2}]}
loss: mean_squared_error
optimizer: {type: Adam, learning_rate: 0.01}
train: {epochs: 1, global_batch_size: 32}
"""

TEXT = """
name: writer
data: {source: text, path: text.txt, sequence_length: 4}
model: {layers: [{type: Embedding, input_dim: 8, output_dim: 3}, {type: Dense, units: 8}]}
loss: {type: SparseCategoricalCrossentropy, from_logits: true}
optimizer: {type: Adam, learning_rate: 0.01}
train: {epochs: 1, global_batch_size: 8}
"""

JOBS = {"images": IMAGES, "tumours": TABLE, "gaps": GAPS, "series": SERIES, "writer": TEXT}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each kind."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "text.txt").write_text("abcdefgh" * 40)
    rows = [f"{i % 7 or ''},{i * i % 11 if i % 5 else 'NA'},{'ab'[-i % 7 < 4]}" for i in range(100)]
    (folder / "gaps.csv").write_text("\n".join(["first,second,kind", *rows]))
    root = str(Path(distgrad.__path__[0]).parent)
    for name, text in JOBS.items():
        (folder / f"{name}.yaml").write_text(text)
        command = [sys.executable, "-m", "distgrad", "train", f"{name}.yaml", "--run-dir", name]
        result = process.run(command, timeout=90, cwd=folder, env={"PYTHONPATH": root})
        assert result.returncode == 0, result.stderr
    return folder
