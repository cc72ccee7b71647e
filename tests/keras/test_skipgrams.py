"""keras.preprocessing.sequence: pairs of words for word2vec."""

from __future__ import annotations

import random

import numpy as np
import pytest

import distgrad as tf

sequence = tf.keras.preprocessing.sequence


def test_positive_pairs_are_words_within_the_window():
    couples, labels = sequence.skipgrams([1, 0, 2, 3], 4, 1, negative_samples=0, shuffle=False)
    assert couples == [[2, 3], [3, 2]] and labels == [1, 1]  # 0 is no word, yet takes a place
    couples, labels = sequence.skipgrams(range(1, 8), 8, 2, negative_samples=0, seed=42)
    expected = {(i, j) for i in range(1, 8) for j in range(1, 8) if 0 < abs(i - j) <= 2}
    assert set(map(tuple, couples)) == expected and len(couples) == len(expected)
    again, _ = sequence.skipgrams(range(1, 8), 8, 2, negative_samples=0, seed=42)
    assert couples == again


def test_negative_pairs_and_their_labels():
    random.seed(0)
    couples, labels = sequence.skipgrams([1, 2, 3], 50, 1, negative_samples=2.0, seed=1)
    assert len(couples) == 12 and sum(labels) == 4
    true = [tuple(c) for c, label in zip(couples, labels, strict=True) if label]
    assert sorted(true) == [(1, 2), (2, 1), (2, 3), (3, 2)]  # shuffled together
    assert all(1 <= word < 50 for couple in couples for word in couple)
    _, labels = sequence.skipgrams([1, 2], 5, 1, categorical=True, seed=1)
    assert sorted(labels) == [[0, 1], [0, 1], [1, 0], [1, 0]]


def test_sampling_table():
    table = sequence.make_sampling_table(10)
    # what Keras gives
    expected = [0.00315225, 0.00315225, 0.00547597, 0.00741556, 0.00912817]
    np.testing.assert_allclose(table[:5], expected, rtol=1e-5)
    random.seed(0)
    couples, _ = sequence.skipgrams([9] * 400, 10, 1, negative_samples=0, sampling_table=table)
    assert len(couples) / 2 == pytest.approx(400 * table[9], abs=8)
