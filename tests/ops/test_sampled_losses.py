"""Candidate samplers, and the losses that look at a sample of the classes."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing.gradients import check_gradients

IAE = tf.errors.InvalidArgumentError
TRUE = np.array([[1, 2], [7, 0], [4, 4]])
LOG_UNIFORM = np.log((np.arange(20) + 2) / (np.arange(20) + 1)) / np.log(21)


def test_expected_counts_without_repetition_follow_the_draws():
    """Each is the chance to come at least once in as many draws as it took."""
    tf.random.set_seed(1)
    for sampler, chances in (
        (tf.random.log_uniform_candidate_sampler, LOG_UNIFORM),
        (tf.random.uniform_candidate_sampler, np.full(20, 0.05)),
    ):
        sampled, of_true, of_sampled = sampler(TRUE, 2, 8, True, 20)
        assert sampled.dtype == tf.int64 and len(set(sampled.numpy().tolist())) == 8
        assert of_true.dtype == of_sampled.dtype == tf.float32
        assert of_true.shape == (3, 2) and of_sampled.shape == (8,)
        # 1 - (1 - p)^n for one and the same whole number of draws n >= 8
        n = np.log1p(-of_true.numpy().astype(float)) / np.log1p(-chances[TRUE])
        assert n == pytest.approx(np.full((3, 2), round(n[0, 0])), abs=1e-4) and n[0, 0] > 7.9
        expected = -np.expm1(round(n[0, 0]) * np.log1p(-chances[sampled.numpy()]))
        np.testing.assert_allclose(of_sampled, expected, rtol=1e-5)


def test_with_repetition_counts_are_chances_times_draws():
    sampled, of_true, of_sampled = tf.random.log_uniform_candidate_sampler(TRUE, 2, 50, False, 20)
    np.testing.assert_allclose(of_true, 50 * LOG_UNIFORM[TRUE], rtol=1e-5)
    np.testing.assert_allclose(of_sampled, 50 * LOG_UNIFORM[sampled.numpy()], rtol=1e-5)


def test_a_seed_makes_the_sample():
    draws = []
    for _ in range(2):
        tf.random.set_seed(3)
        draws.append(tf.random.uniform_candidate_sampler(TRUE, 2, 6, True, 50, seed=4)[0].numpy())
    np.testing.assert_array_equal(*draws)
    other = tf.random.uniform_candidate_sampler(TRUE, 2, 6, True, 50, seed=4)[0].numpy()
    assert (draws[0] != other).any()


def test_unigrams_with_reserved_classes():
    tf.random.set_seed(1)
    sampled, of_true, _ = tf.random.fixed_unigram_candidate_sampler(
        [[2]], 1, 3000, False, 4, distortion=0.5, num_reserved_ids=1, unigrams=[1.0, 4.0, 16.0]
    )
    counts = np.bincount(sampled, minlength=4)
    assert counts[0] == 0 and counts[1:] / 3000 == pytest.approx(np.array([1, 2, 4]) / 7, abs=0.03)
    assert of_true.numpy()[0, 0] == pytest.approx(3000 * 2 / 7)


def test_all_classes_and_accidental_hits():
    sampled, of_true, of_sampled = tf.random.all_candidate_sampler(TRUE, 2, 5, True)
    assert sampled.numpy().tolist() == [0, 1, 2, 3, 4]
    assert of_true.numpy().tolist() == [[1, 1]] * 3 and of_sampled.numpy().tolist() == [1] * 5
    rows, places, weights = tf.nn.compute_accidental_hits(TRUE, sampled, 2)
    assert list(zip(rows.numpy().tolist(), places.numpy().tolist(), strict=True)) == [
        (0, 1), (0, 2), (1, 0), (2, 4),
    ]  # fmt: skip
    assert (weights.numpy() == -np.finfo(np.float32).max).all()


def test_errors():
    with pytest.raises(IAE, match="9 unique candidates of 8 classes"):
        tf.random.uniform_candidate_sampler(TRUE, 2, 9, True, 8)
    with pytest.raises(IAE, match="num_true=1"):
        tf.random.uniform_candidate_sampler(TRUE, 1, 3, True, 8)
    with pytest.raises(IAE, match="counts of 3 classes, not of 2"):
        tf.random.fixed_unigram_candidate_sampler(TRUE, 2, 1, True, 3, unigrams=[1, 2])
    with pytest.raises(ValueError, match="as unigrams"):
        tf.random.fixed_unigram_candidate_sampler(TRUE, 2, 1, True, 3, vocab_file="words")


# One sample, as TensorFlow takes it.

VALUES = (
    np.array([3, 7, 9]),
    np.array([[0.1], [0.2], [0.3], [0.1], [0.4]], np.float32),
    np.array([0.2, 0.3, 0.4], np.float32),
)
LABELS = np.array([[1], [2], [3], [4], [9]])


def inputs(dtype=np.float32):
    rs = np.random.RandomState(0)
    w, x = rs.normal(size=(12, 4)), rs.normal(size=(5, 4))
    return w.astype(dtype), (np.arange(12) / 10).astype(dtype), x.astype(dtype)


@pytest.mark.parametrize(
    "name, expected", [("nce_loss", "nce"), ("sampled_softmax_loss", "softmax")]
)
def test_losses_are_those_of_a_plain_computation(name, expected):
    w, b, x = (a.astype(float) for a in inputs())
    sampled, of_true, of_sampled = VALUES
    true = (x * w[LABELS[:, 0]]).sum(1) + b[LABELS[:, 0]] - np.log(of_true[:, 0])
    other = x @ w[sampled].T + b[sampled] - np.log(of_sampled)
    if expected == "softmax":
        other[sampled[None, :] == LABELS] = -np.inf  # a true class is no negative one
        exact = np.log(np.exp(true) + np.exp(other).sum(1)) - true
    else:
        exact = np.log1p(np.exp(-true)) + np.log1p(np.exp(other)).sum(1)
    loss = getattr(tf.nn, name)(*inputs()[:2], LABELS, inputs()[2], 3, 12, sampled_values=VALUES)
    assert loss.shape == (5,) and loss.dtype == tf.float32
    np.testing.assert_allclose(loss, exact, rtol=1e-6)


@pytest.mark.parametrize("name", ["nce_loss", "sampled_softmax_loss"])
def test_gradients_to_second_order(name):
    def loss(w, b, x):
        return getattr(tf.nn, name)(w, b, LABELS, x, 3, 12, sampled_values=VALUES)

    check_gradients(loss, inputs(np.float64), order=2)


def test_gradients_of_tables_are_the_rows_used():
    w, b, x = inputs()
    w, b = tf.Variable(w), tf.Variable(b)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.nn.nce_loss(w, b, LABELS, x, 3, 12, sampled_values=VALUES))
    of_w, of_b = tape.gradient(loss, [w, b])
    assert isinstance(of_w, tf.IndexedSlices) and isinstance(of_b, tf.IndexedSlices)
    assert set(of_w.indices.numpy().tolist()) == {1, 2, 3, 4, 7, 9}


def test_the_sampled_softmax_of_all_classes_is_the_softmax():
    w, b, x = inputs()
    every = tf.random.all_candidate_sampler(LABELS, 1, 12, True)
    sampled = tf.nn.sampled_softmax_loss(w, b, LABELS, x, 12, 12, sampled_values=every)
    whole = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS[:, 0], x @ w.T + b)
    np.testing.assert_allclose(sampled, whole, rtol=1e-5)


def test_captured_steps_draw_other_candidates_each_time():
    w, b, x = inputs()

    @tf.function(jit_compile=True)
    def loss(x):
        return tf.reduce_sum(tf.nn.sampled_softmax_loss(w, b, LABELS, x, 3, 12))

    tf.random.set_seed(0)
    assert len({float(loss(tf.constant(x))) for _ in range(6)}) > 1
