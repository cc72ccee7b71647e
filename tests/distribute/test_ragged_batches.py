"""Batches of ragged tensors are shared by rows, with the same bits at any number of processes."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad import distribute

ROWS = [[1, 2, 3], [4], [], [2, 5], [3, 3, 1, 6], [7], [1, 6], []]
Y = np.arange(8, dtype="f") / 8

LOOP = """
import numpy as np
import distgrad as tf
from distgrad import distribute

ids = tf.ragged.constant(ROWS)
y = np.arange(8, dtype="f") / 8
tf.random.set_seed(3)
table, w = tf.Variable(tf.random.normal([8, 5])), tf.Variable(tf.random.normal([5, 1]))
optimizer = tf.keras.optimizers.Adam(0.1)

def loss_fn(batch):
    rows = tf.reduce_sum(tf.nn.embedding_lookup(table, batch["ids"]), axis=1)
    return tf.reduce_mean((rows @ w - batch["y"][:, None]) ** 2)

for _ in range(4):
    found = distribute.gradients(loss_fn, {"ids": ids, "y": y})
    optimizer.apply_gradients(found)
if distribute.rank() == 0:
    print(found.loss, table.numpy().tobytes().hex(), w.numpy().tobytes().hex())
"""


def test_the_gradients_are_those_of_a_tape(monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", "4")
    ids, table = tf.ragged.constant(ROWS), tf.Variable(tf.ones([8, 5]))
    seen = []

    def loss_fn(batch):
        rows, y = batch
        seen.append(rows.to_list())
        return tf.reduce_mean(tf.reduce_sum(tf.gather(table, rows), axis=[1, 2]) * y)

    with tf.GradientTape() as tape:
        loss = loss_fn((ids, Y))
    expected = tf.convert_to_tensor(tape.gradient(loss, table))
    seen.clear()
    found = distribute.gradients(loss_fn, (ids, Y), [table], [])
    assert seen == [ROWS[i : i + 2] for i in range(0, 8, 2)]
    assert found.loss == pytest.approx(float(loss), rel=1e-6)
    np.testing.assert_allclose(found[0][0], expected, rtol=1e-6)


@pytest.mark.timeout_s(100)
def test_the_same_bits_on_two_and_on_three_processes(run_cli, tmp_path):
    (tmp_path / "loop.py").write_text(LOOP.replace("ROWS", repr(ROWS)))
    said = {
        run_cli(
            "launch", "-n", n, tmp_path / "loop.py", env={"DISTGRAD_VIRTUAL_SHARDS": "4"}
        ).stdout
        for n in (1, 2, 3)
    }
    assert len(said) == 1 and len(said.pop().split()) == 3


def test_wrong_batches():
    with pytest.raises(ValueError, match="one first dimension"):
        distribute.gradients(lambda batch: None, (tf.ragged.constant(ROWS), Y[:3]))
