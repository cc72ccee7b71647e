"""Arrays of a batch as tensors: looked into while a shard runs, and copied for who keeps one."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.training.lending import Lender

pytestmark = pytest.mark.cpu  # what runs elsewhere has its batches there
X = np.random.default_rng(0).normal(size=(256, 128)).astype(np.float32)


def test_large_arrays_of_numbers_are_lent_and_the_rest_is_handed_on():
    others = (X[:2], np.array(["text"] * 20000), {"x": X}, None)
    lent, *rest = Lender().tensors((X, *others))
    assert type(lent) is tf.Tensor and lent._data is X
    assert all(a is b for a, b in zip(rest, others, strict=True))


def test_who_keeps_a_tensor_or_a_view_of_it_gets_a_copy():
    lender, array = Lender(), X.copy()
    (tensor,) = lender.tensors((array,))
    view = tf.reshape(tensor, (128, 256))
    lender.recall()
    array[...] = 0
    np.testing.assert_array_equal(tensor.numpy(), X)
    np.testing.assert_array_equal(view.numpy(), X.reshape(128, 256))


def test_a_lent_tensor_is_no_variable():
    lender = Lender()
    (tensor,) = lender.tensors((X,))
    with pytest.raises(AttributeError, match="assign works on a Variable"):
        tensor.assign(0 * X)


class Keeping(tf.keras.layers.Layer):
    """A layer that keeps its inputs."""

    def call(self, x):
        self.kept = [*getattr(self, "kept", []), x]
        return x


def test_inputs_that_a_layer_keeps_outlast_the_users_array():
    x, y = np.concatenate([X, X]), np.zeros(512, np.int64)
    keeping = Keeping()
    model = tf.keras.Sequential([keeping, tf.keras.layers.Dense(3)])
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=False)
    model.fit(x, y, batch_size=256, shuffle=False, verbose=0)
    x[...] = 0
    assert len(keeping.kept) >= 2
    for kept in keeping.kept[-2:]:
        np.testing.assert_array_equal(kept.numpy(), X)


def test_nothing_is_copied_where_nobody_keeps_anything(monkeypatch):
    left: list[int] = []
    recall = Lender.recall

    def counting(self):
        left.append(sum(loan() is not None for loan in self._loans))
        recall(self)

    monkeypatch.setattr(Lender, "recall", counting)
    model = tf.keras.Sequential(
        [tf.keras.layers.Dense(8, activation="relu"), tf.keras.layers.Dense(3)]
    )
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=False)
    model.fit(X, np.zeros(256, np.int64), batch_size=256, verbose=0)
    assert left == [0]
