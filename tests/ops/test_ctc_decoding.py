"""CTC decoding: the likeliest label sequences, against all paths there are."""

import itertools
from collections import defaultdict

import numpy as np
import pytest

import distgrad as tf

RNG = np.random.default_rng(0)


def by_all_paths(logits):
    """The logarithm of the chance of every label sequence, the last class being "nothing"."""
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    steps, classes = chances.shape
    found = defaultdict(float)
    for path in itertools.product(range(classes), repeat=steps):
        merged = [label for label, _ in itertools.groupby(path)]
        labels = tuple(label for label in merged if label != classes - 1)
        found[labels] += np.prod(chances[range(steps), path])
    return sorted(((np.log(p), labels) for labels, p in found.items()), reverse=True)


def filled(labels):
    return tf.sparse.to_dense(labels, default_value=-1).numpy().tolist()


def rows(labels):
    return [tuple(n for n in row if n >= 0) for row in filled(labels)]


def test_a_wide_search_finds_the_likeliest_of_all():
    x = 2 * RNG.normal(size=(5, 3, 3)).astype(np.float32)
    lengths = [5, 4, 1]
    paths, scores = tf.nn.ctc_beam_search_decoder(x, lengths, beam_width=200, top_paths=3)
    for b, length in enumerate(lengths):
        best = by_all_paths(x[:length, b].astype(np.float64))[:3]
        np.testing.assert_allclose(scores[b], [score for score, _ in best], rtol=1e-5)
        assert [rows(path)[b] for path in paths] == [labels for _, labels in best]
    assert all(path.dtype == tf.int64 for path in paths)


def test_a_narrow_search_forgets_as_tensorflow_does():
    x = np.array([[2, 1, 0], [-2, -1, -3], [-3, -3, -2], [2, 1, 3], [0, 1, 3]], np.float32)[:, None]
    paths, scores = tf.nn.ctc_beam_search_decoder(x, [5], beam_width=2, top_paths=2)
    assert [filled(path) for path in paths] == [[[0, 1]], [[0]]]
    np.testing.assert_allclose(scores, [[-1.3402073, -2.3139904]], rtol=1e-5)


def test_the_likeliest_class_of_each_step():
    steps = [[1, 1, 3, 1, 0, 3], [2, 2, 2, 0, 0, 1]]
    x = np.eye(4, dtype=np.float32)[np.transpose(steps)]
    (labels,), scores = tf.nn.ctc_greedy_decoder(x, [6, 5])
    assert filled(labels) == [[1, 1, 0], [2, 0, -1]] and labels.shape == (2, 3)
    np.testing.assert_array_equal(scores, [[-6], [-5]])
    (labels,), _ = tf.nn.ctc_greedy_decoder(x, [6, 5], merge_repeated=False, blank_index=0)
    assert filled(labels) == [[1, 1, 3, 1, 3], [2, 2, 2, -1, -1]]


def test_any_class_may_be_nothing():
    x = RNG.normal(size=(2, 5, 4)).astype(np.float32)
    moved = np.concatenate([x[..., 1:], x[..., :1]], -1)
    first, scores = tf.keras.ops.ctc_decode(x, [5, 5], "beam_search", top_paths=2)
    last, same = tf.keras.ops.ctc_decode(moved, [5, 5], "beam_search", top_paths=2, mask_index=3)
    assert first.shape == (2, 2, 5) and first.dtype == "int32"
    np.testing.assert_array_equal(first, np.where(last.numpy() >= 0, last.numpy() + 1, -1))
    np.testing.assert_allclose(scores, same)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: tf.nn.ctc_greedy_decoder(x, [3, 9]),
        lambda x: tf.nn.ctc_greedy_decoder(x, [3]),
        lambda x: tf.nn.ctc_greedy_decoder(x[0], [3, 3]),
        lambda x: tf.nn.ctc_beam_search_decoder(x, [3, 3], beam_width=2, top_paths=3),
    ],
)
def test_errors(call):
    with pytest.raises(tf.errors.InvalidArgumentError, match="CTC decoding"):
        call(RNG.normal(size=(3, 2, 4)).astype(np.float32))
