"""The functions of the old keras.backend of which layers were made."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

K = tf.keras.backend
rng = np.random.default_rng(0)


def x(*shape):
    return rng.normal(size=shape).astype(np.float32)


def test_activations_and_running_values():
    v = np.array([-4.0, -1.0, 0.5, 8.0], np.float32)
    np.testing.assert_allclose(K.relu(v, alpha=0.5, max_value=6), [-2, -0.5, 0.5, 6])
    np.testing.assert_allclose(K.relu(v, threshold=1.0), [0, 0, 0, 8])
    np.testing.assert_allclose(K.elu(v, 2.0)[1], 2 * np.expm1(-1), rtol=1e-6)
    np.testing.assert_allclose(K.hard_sigmoid(v), [0, 0.3, 0.6, 1], rtol=1e-6)
    np.testing.assert_allclose(K.cumsum(v), np.cumsum(v))
    np.testing.assert_allclose(K.cumprod(v[None], axis=1)[0], np.cumprod(v))


def test_noise():
    kept = K.dropout(np.ones(200, np.float32), 0.25).numpy()
    np.testing.assert_allclose(np.unique(kept), [0, 4 / 3])
    assert set(np.unique(K.random_bernoulli((200,), 0.3))) == {0.0, 1.0}
    assert np.abs(K.truncated_normal((200,), 1.0, 0.5).numpy() - 1).max() <= 1


@pytest.mark.parametrize(
    ("left", "right", "axes", "sums"),
    [
        ((2, 3, 4), (2, 4, 5), None, "bij,bjk->bik"),
        ((2, 3, 4), (2, 5, 4), (2, 2), "bij,bkj->bik"),
        ((2, 3, 4), (2, 3, 5), 1, "bji,bjk->bik"),
        ((2, 4), (2, 4, 5), (1, 1), "bj,bjk->bk"),
        ((2, 3, 4), (2, 4), None, "bij,bj->bi"),
        ((2, 3, 4, 5), (2, 5, 6), (-1, 1), "bijk,bkl->bijl"),
    ],
)
def test_batch_dot_is_a_product_of_each_sample(left, right, axes, sums):
    a, b = x(*left), x(*right)
    np.testing.assert_allclose(K.batch_dot(a, b, axes), np.einsum(sums, a, b), rtol=1e-5, atol=1e-6)


def test_batch_dot_of_vectors_and_what_it_refuses():
    a, b = x(3, 4), x(3, 4)
    np.testing.assert_allclose(K.batch_dot(a, b, 1), (a * b).sum(1, keepdims=True), rtol=1e-5)
    for wrong in ((x(3), b), (a, x(3, 5)), (a, x(2, 4))):
        with pytest.raises(ValueError, match="batch_dot"):
            K.batch_dot(*wrong, 1)
    with pytest.raises(ValueError, match="axis 0 is the batch"):
        K.batch_dot(a, b, 0)


def test_choices():
    a, b = x(2, 3), x(2, 3)
    np.testing.assert_array_equal(K.switch([True, False], a, lambda: b), np.stack([a[0], b[1]]))
    np.testing.assert_array_equal(K.switch(a > 0, a, b), np.where(a > 0, a, b))
    np.testing.assert_array_equal(K.switch(tf.constant(False), lambda: 1 / 0, b), b)
    with pytest.raises(ValueError, match="rank 3"):
        K.switch(np.ones((1, 1, 1), bool), a, b)
    assert K.in_top_k([[0.1, 0.7, 0.2]] * 2, [2, 0], 2).numpy().tolist() == [True, False]
    np.testing.assert_array_equal(K.map_fn(lambda row: row * 2, a), a * 2)


def test_shapes():
    a = x(2, 3)
    np.testing.assert_array_equal(K.repeat(a, 4), np.stack([a] * 4, 1))
    np.testing.assert_array_equal(K.repeat_elements(a, 2, 1), a.repeat(2, 1))
    assert K.arange(3).dtype == tf.int32 and K.arange(1, 7, 2, "float32").numpy().tolist() == [
        1,
        3,
        5,
    ]
    assert K.arange(-3).shape == (0,)
    one, two = tf.Variable(1.0), tf.Variable([1.0])
    K.batch_set_value([(one, 2), (two, [3.0])])
    assert [value.tolist() for value in K.batch_get_value([one, two])] == [2.0, [3.0]]


def test_windows_and_borders():
    image, kernel = x(2, 5, 6, 3), x(2, 2, 3, 4)
    np.testing.assert_array_equal(
        K.conv2d(image, kernel, padding="same"), tf.nn.conv2d(image, kernel, 1, "SAME")
    )
    assert K.conv1d(x(2, 6, 3), x(2, 3, 4), strides=2).shape == (2, 3, 4)
    assert K.conv3d(x(1, 3, 3, 3, 2), x(2, 2, 2, 2, 4)).shape == (1, 2, 2, 2, 4)
    np.testing.assert_array_equal(
        K.pool2d(image, (2, 2), (2, 2)), tf.nn.max_pool2d(image, 2, 2, "VALID")
    )
    assert K.pool2d(image, (2, 2), pool_mode="avg").shape == (2, 4, 5, 3)
    with pytest.raises(ValueError, match="pool_mode.*'mean'"):
        K.pool2d(image, (2, 2), pool_mode="mean")
    np.testing.assert_array_equal(
        K.bias_add(image, [1.0, 2.0, 3.0]), image + np.array([1, 2, 3], np.float32)
    )
    assert K.temporal_padding(x(1, 2, 3), (0, 2)).shape == (1, 4, 3)
    assert K.spatial_2d_padding(image, ((1, 0), (2, 2))).shape == (2, 6, 10, 3)
    np.testing.assert_array_equal(K.resize_images(image, 2, 1), image.repeat(2, axis=1))
    assert K.resize_images(image, 2, 3, "channels_first").shape == (2, 5, 12, 9)


def test_ctc():
    """The chance of a label is that of all paths that come to it."""
    p = np.array([[[0.6, 0.1, 0.3], [0.2, 0.5, 0.3]]], np.float32)  # the last is "nothing"
    cost = K.ctc_batch_cost(np.array([[0]]), p, [[2]], [[1]])
    paths = 0.6 * 0.2 + 0.6 * 0.3 + 0.3 * 0.2
    assert cost.shape == (1, 1) and float(cost[0, 0]) == pytest.approx(-np.log(paths), rel=1e-6)
    filled = K.ctc_batch_cost(np.array([[0, 99], [0, 2]]), np.repeat(p, 2, 0), [[2]] * 2, [[2]] * 2)
    assert filled.numpy().tolist() == [[float(cost[0, 0])]] * 2  # what is no class fills labels up
    (found,), score = K.ctc_decode(np.concatenate([p, p[:, ::-1]]), [2, 2])
    assert found.dtype == tf.int64 and found.numpy().tolist() == [[0, 1], [1, 0]]
    np.testing.assert_allclose(score[:, 0], -np.log(0.6 * 0.5), rtol=1e-5)
    likely, chances = K.ctc_decode(p, [2], greedy=False, beam_width=5, top_paths=2)
    assert [labels.numpy().tolist() for labels in likely] == [[[0, -1]], [[0, 1]]]
    np.testing.assert_allclose(chances[0], np.log([paths, 0.6 * 0.5]), rtol=1e-5)


def test_gradients_pass():
    a, b = tf.Variable(x(2, 3)), tf.Variable(x(2, 3))
    with tf.GradientTape() as tape:
        y = K.sum(K.batch_dot(K.relu(a), b, 1) * K.repeat_elements(b, 2, 1))
    assert all(np.abs(g.numpy()).max() > 0 for g in tape.gradient(y, [a, b]))
