"""Small real runs, each trained once by the program itself."""

from __future__ import annotations

import pytest

from .homes import Home, level, rows, trained, write_csv

TABLE = """
name: table
data: {source: csv, path: train.csv, label: kind, validation_fraction: 0.2}
model:
  layers:
    - {type: Dense, units: 8, activation: relu}
    - {type: BatchNormalization}
    - {type: Dense, units: 2, activation: softmax}
loss: sparse_categorical_crossentropy
metrics: [accuracy]
optimizer: {type: Adam, learning_rate: 0.05, use_ema: true, ema_momentum: 0.6}
train: {epochs: 4, global_batch_size: 16}
parallel: {virtual_shards: 4, shard_optimizer: true}
checkpoint: {every_steps: 5, keep_last: 3}
"""


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Two classes of a standardized table, by two workers with a moving average of the weights."""
    folder = tmp_path_factory.mktemp("table")
    write_csv(folder / "train.csv", "a,b,kind", rows(0, 100))
    return trained(folder, TABLE, "-n", "2")


DIGITS = """
name: digits
data: {source: digits}
model: {layers: [{type: Flatten}, {type: Dense, units: 10}]}
loss: {type: SparseCategoricalCrossentropy, from_logits: true}
metrics: [accuracy]
optimizer: {type: Adam, learning_rate: 0.01}
train: {epochs: 2, global_batch_size: 64}
"""


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Images whose model gives logits; two workers, and no virtual shards that say so."""
    return trained(tmp_path_factory.mktemp("digits"), DIGITS, "-n", "2")


TEXT = """
name: text
data: {source: text, path: verse.txt, sequence_length: 8}
model:
  layers:
    - {type: Embedding, input_dim: 5, output_dim: 8}
    - {type: LSTM, units: 16, return_sequences: true}
    - {type: Dense, units: 5, activation: softmax}
loss: sparse_categorical_crossentropy
optimizer: {type: Adam, learning_rate: 0.02}
train: {epochs: 12, global_batch_size: 16}
"""


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A text that goes abcd, abcd, ..."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "verse.txt").write_text("abcd " * 400)
    return trained(folder, TEXT)


SERIES = """
name: series
data: {source: series, path: wave.csv, column: level, window: 12, horizon: 2}
model: {layers: [{type: Flatten}, {type: Dense, units: 2}]}
loss: mse
optimizer: {type: Adam, learning_rate: 0.02}
train: {epochs: 12, global_batch_size: 16}
"""


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A wave of period 12 around 1000, which twelve values decide."""
    folder = tmp_path_factory.mktemp("series")
    lines = [(i, round(level(i), 4)) for i in range(360)]
    write_csv(folder / "wave.csv", "month,level", lines)
    return trained(folder, SERIES)
