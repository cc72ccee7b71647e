"""Replicas of a strategy get their rows of ragged and sparse batches."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

DENSE = np.arange(12, dtype="f").reshape(6, 2) % 3
SPARSE = tf.sparse.from_dense(DENSE)
RAGGED = tf.RaggedTensor.from_row_lengths(np.arange(6.0), [1, 0, 2, 0, 3, 0])


@pytest.mark.parametrize("shards", ["1", "3"])
def test_rows_of_each_replica(monkeypatch, shards):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", shards)
    strategy = tf.distribute.MirroredStrategy()
    data = tf.data.Dataset.from_tensor_slices((SPARSE, RAGGED, np.arange(6, dtype="f"))).batch(6)
    seen = []

    def step(batch):
        sparse, ragged, numbers = batch
        seen.append((tf.sparse.to_dense(sparse).numpy(), ragged.to_list(), numbers.numpy()))
        return tf.reduce_sum(sparse.values) + tf.reduce_sum(numbers)

    for batch in strategy.experimental_distribute_dataset(data):
        seen.clear()
        total = strategy.reduce("SUM", strategy.run(step, (batch,)), axis=None)
    assert float(total) == DENSE.sum() + 15
    seen = seen[-int(shards) :]
    np.testing.assert_array_equal(np.concatenate([dense for dense, _, _ in seen]), DENSE)
    assert [row for _, rows, _ in seen for row in rows] == RAGGED.to_list()
    np.testing.assert_array_equal(
        np.concatenate([numbers for _, _, numbers in seen]), np.arange(6.0)
    )
