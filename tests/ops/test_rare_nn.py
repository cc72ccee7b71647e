"""Functions of ``tf.nn`` that few scripts need."""

import itertools

import numpy as np
import pytest

import distgrad as tf

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 6)).astype(np.float32)


def test_the_largest_and_the_smallest():
    values, places = tf.nn.approx_max_k(X, 2)
    np.testing.assert_array_equal(values, -np.sort(-X, 1)[:, :2])
    np.testing.assert_array_equal(places, np.argsort(-X, 1)[:, :2])
    least = tf.nn.approx_min_k(X, 1, reduction_dimension=0)
    np.testing.assert_array_equal(least.values[0], X.min(0))
    np.testing.assert_array_equal(least.indices[0], X.argmin(0))


def nearest(row):
    """The best of all ways to pool neighbours, such that means fall."""
    best = None
    for cuts in itertools.product([False, True], repeat=len(row) - 1):
        starts = [0, *(i + 1 for i, cut in enumerate(cuts) if cut)]
        found = np.concatenate(
            [np.full(len(part), part.mean()) for part in np.split(row, starts[1:])]
        )
        error = np.square(found - row).sum()
        if (np.diff(found) <= 1e-12).all() and (best is None or error < best[0]):
            best = error, found
    return best[1]


def test_numbers_that_only_fall():
    falling, segments = tf.nn.isotonic_regression(X)
    np.testing.assert_allclose(falling, [nearest(row.astype(float)) for row in X], rtol=1e-5)
    assert segments.dtype == tf.int32 and (np.diff(segments.numpy()) >= 0).all()
    rising, _ = tf.nn.isotonic_regression(-X, decreasing=False)
    np.testing.assert_array_equal(rising, -falling.numpy())
    across, _ = tf.nn.isotonic_regression(X.T, axis=0)
    np.testing.assert_array_equal(across, falling.numpy().T)


def test_their_gradient_is_shared():
    x = tf.constant([3.0, 1.0, 2.0, 4.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(tf.nn.isotonic_regression(x)[0] * [1.0, 2.0, 3.0, 7.0])
    np.testing.assert_allclose(tape.gradient(y, x), [1, 4, 4, 4])


def test_labels_without_repetitions():
    rows, lengths = tf.nn.collapse_repeated([[1, 1, 2, 0], [0, 0, 1, 1]], [4, 3])
    assert rows.numpy().tolist() == [[1, 2, 0], [0, 1, 0]] and lengths.numpy().tolist() == [3, 2]
    unique, places = tf.nn.ctc_unique_labels([[1, 1, 2, 0], [0, 3, 1, 1]])
    assert unique.numpy().tolist() == [[1, 2, 0, 0], [0, 3, 1, 0]]
    assert places.numpy().tolist() == [[0, 0, 1, 2], [0, 1, 2, 2]]


def test_a_label_of_ctc_may_be_the_class_of_nothing():
    """As any label it follows another at once: of 3 classes in 4 steps 7 paths give 3 labels."""
    loss = tf.nn.ctc_loss([[1, 2, 0]], np.zeros((4, 1, 3), np.float32), [3], [4])
    np.testing.assert_allclose(loss, [-np.log(7 / 81)], rtol=1e-6)


@pytest.mark.parametrize("blank", [0, -1])
def test_sparse_labels_of_ctc(blank):
    labels = np.array([[1, 2, 3], [2, 2, 0], [0, 0, 0]])
    logits = RNG.normal(size=(6, 3, 5)).astype(np.float32)
    dense = tf.nn.ctc_loss(labels, logits, [3, 2, 0], [6, 6, 5], blank_index=blank)
    sparse = tf.sparse.from_dense(labels)
    found = tf.nn.ctc_loss(sparse, logits, None, [6, 6, 5], blank_index=blank)
    np.testing.assert_array_equal(found, dense)
    with pytest.raises(ValueError, match="blank_index"):
        tf.nn.ctc_loss(sparse, logits, None, [6, 6, 5])


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_gradients_of_a_depthwise_convolution(padding):
    x, w = (RNG.normal(size=shape).astype(np.float32) for shape in ((2, 5, 5, 3), (3, 3, 3, 2)))
    strides = [1, 2, 2, 1]
    inputs = [tf.constant(x), tf.constant(w)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = tf.nn.depthwise_conv2d(*inputs, strides, padding)
    upstream = RNG.normal(size=y.shape).astype(np.float32)
    of_x, of_w = tape.gradient(y, inputs, upstream)
    found = tf.nn.depthwise_conv2d_backprop_input(x.shape, w, upstream, strides, padding)
    np.testing.assert_allclose(found, of_x, rtol=1e-5, atol=1e-5)
    found = tf.nn.depthwise_conv2d_backprop_filter(x, w.shape, upstream, strides, padding)
    np.testing.assert_allclose(found, of_w, rtol=1e-5, atol=1e-5)


def test_a_transposed_atrous_convolution():
    x, w = (RNG.normal(size=shape).astype(np.float32) for shape in ((1, 4, 4, 3), (3, 3, 2, 3)))
    y = tf.nn.atrous_conv2d_transpose(x, w, (1, 8, 8, 2), 2, "VALID")
    other = RNG.normal(size=(1, 8, 8, 2)).astype(np.float32)
    there = np.vdot(tf.nn.atrous_conv2d(other, w, 2, "VALID").numpy(), x)
    np.testing.assert_allclose(np.vdot(y.numpy(), other), there, rtol=1e-5)


def test_normalised_with_and_without_a_scale():
    given = [np.abs(RNG.normal(size=6)).astype(np.float32) for _ in range(4)]
    mean, variance, beta, gamma = given
    plain = (X - mean) / np.sqrt(variance + 0.1)
    norm = tf.nn.batch_norm_with_global_normalization
    np.testing.assert_allclose(
        norm(X, *given, 0.1, True), plain * gamma + beta, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(norm(X, *given, 0.1, False), plain + beta, rtol=1e-5, atol=1e-5)


def test_dropout_by_a_seed_or_by_numbers_of_ones_own():
    dropout = tf.nn.experimental.stateless_dropout
    y = dropout(tf.ones((50, 50)), 0.2, [1, 2]).numpy()
    np.testing.assert_array_equal(y, dropout(tf.ones((50, 50)), 0.2, [1, 2]))
    assert set(np.unique(y)) == {0, np.float32(1.25)} and abs((y == 0).mean() - 0.2) < 0.03
    noise = lambda shape, dtype: tf.constant([[0.1], [0.6], [0.5]], dtype)  # noqa: E731
    kept = tf.nn.experimental.general_dropout(X, 0.5, noise, noise_shape=(3, 1))
    np.testing.assert_array_equal(kept, [0 * X[0], 2 * X[1], 2 * X[2]])
    drawn = tf.nn.experimental.general_dropout(X, 0.5, tf.random.Generator.from_seed(7).uniform)
    assert all(value in (0, 2) for value in np.unique(drawn / X))
