"""Indexing, gather and scatter, with the rules and errors of TensorFlow's ``[]``."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing.gradients import check_gradients

IAE = tf.errors.InvalidArgumentError
X = np.random.default_rng(0).normal(size=(2, 3, 4))
T = tf.constant(X)
MASK = X[0] > 0


@pytest.mark.parametrize(
    "pick",
    [
        pytest.param(lambda x: x[1], id="int"),
        pytest.param(lambda x: x[-1, -2], id="negative ints"),
        pytest.param(lambda x: x[:, 1:3, ::2], id="slices"),
        pytest.param(lambda x: x[:, ::-1, -1:-5:-3], id="negative steps"),
        pytest.param(lambda x: x[..., 0], id="ellipsis"),
        pytest.param(lambda x: x[0, ..., 1:2], id="ellipsis between"),
        pytest.param(lambda x: x[:, None, 0, tf.newaxis], id="newaxis"),
        pytest.param(lambda x: x[...], id="everything"),
        pytest.param(lambda x: x[:, 1:99, -99:2], id="slices past the end are cut"),
        pytest.param(lambda x: x[2:1], id="empty slice"),
        pytest.param(lambda x: x[X > 0], id="mask of the whole shape"),
        pytest.param(lambda x: x[X[:, :, 0] > 0], id="mask of the leading axes"),
        pytest.param(lambda x: x[np.array([True, False])], id="mask of the first axis"),
        pytest.param(lambda x: x[np.array([False, False])], id="mask of nothing"),
        pytest.param(lambda x: x[np.int64(1)], id="NumPy int"),
    ],
)
def test_spec_3_indexing(pick):
    np.testing.assert_array_equal(pick(T), pick(X))
    check_gradients(pick, [X], order=2)


def test_spec_3_scalar_int_tensors_index():
    one = tf.constant(1)
    np.testing.assert_array_equal(T[one], X[1])
    np.testing.assert_array_equal(T[0, one : tf.constant(3)], X[0, 1:3])
    np.testing.assert_array_equal(T[0, tf.Variable(1)], X[0, 1])
    np.testing.assert_array_equal(T[T > 0], X[X > 0])


@pytest.mark.parametrize(
    "key, error",
    [
        pytest.param(2, IAE, id="int out of range"),
        pytest.param((0, -4), IAE, id="negative int out of range"),
        pytest.param((0, 0, 0, 0), IAE, id="too many indices"),
        pytest.param((..., 0, ...), IAE, id="two ellipses"),
        pytest.param(slice(None, None, 0), IAE, id="step 0"),
        pytest.param(1.0, TypeError, id="float"),
        pytest.param(slice(0.0, 1), TypeError, id="float in a slice"),
        pytest.param("a", TypeError, id="text"),
        pytest.param([0, 1], TypeError, id="a list is not fancy indexing"),
        pytest.param(True, TypeError, id="bool"),
        pytest.param(np.array([0, 1]), TypeError, id="int array"),
        pytest.param(tf.constant(1.0), TypeError, id="float tensor"),
        pytest.param(np.array([True, False, True]), IAE, id="mask of another size"),
    ],
)
def test_spec_3_indexing_errors(key, error):
    with pytest.raises(error):
        T[key]


def test_boolean_mask():
    np.testing.assert_array_equal(tf.boolean_mask(X[0], MASK), X[0][MASK])
    np.testing.assert_array_equal(tf.boolean_mask(X, MASK, axis=1), X[:, MASK])
    keep = np.array([True, False, True])
    np.testing.assert_array_equal(tf.boolean_mask(X, keep, axis=1), X[:, keep])
    np.testing.assert_array_equal(tf.boolean_mask(X, keep, axis=-2), X[:, keep])
    check_gradients(lambda x: tf.boolean_mask(x, keep, axis=1), [X], order=2)
    for mask, axis in [(MASK, 0), (True, None), ([0, 1, 1], None), (keep, 3)]:
        with pytest.raises(IAE):
            tf.boolean_mask(X, mask, axis=axis)


def test_where_gives_int64_positions():
    found = tf.where(X[0] > 0)
    assert found.dtype == tf.int64
    np.testing.assert_array_equal(found, np.argwhere(X[0] > 0))


# Gather


@pytest.mark.parametrize(
    "found, expected",
    [
        (lambda x: tf.gather(x, [1, 1, 0]), X[[1, 1, 0]]),
        (lambda x: tf.gather(x, 1), X[1]),
        (lambda x: tf.gather(x, [[2, 0], [1, 1]], axis=1), X[:, [[2, 0], [1, 1]]]),
        (lambda x: tf.gather(x, [3], axis=-1), X[..., [3]]),
        (lambda x: tf.gather(x, np.zeros(0, int), axis=1), X[:, :0]),
        (
            lambda x: tf.gather(x, [[0, 2], [1, 1]], batch_dims=1),
            np.stack([X[0][[0, 2]], X[1][[1, 1]]]),
        ),
        (
            lambda x: tf.gather(x, [[3], [0]], axis=2, batch_dims=1),
            np.stack([X[0][:, [3]], X[1][:, [0]]]),
        ),
        (
            lambda x: tf.gather(x, [[[0], [1], [2]]] * 2, axis=2, batch_dims=2),
            np.stack([[X[b, i, [i]] for i in range(3)] for b in range(2)]),
        ),
        (lambda x: tf.gather_nd(x, [[1, 2, 3], [0, 0, 0]]), X[[1, 0], [2, 0], [3, 0]]),
        (lambda x: tf.gather_nd(x, [[[1, 2]], [[0, 0]]]), X[[[1], [0]], [[2], [0]]]),
        (lambda x: tf.gather_nd(x, [[1]]), X[[1]]),
        (lambda x: tf.gather_nd(x, np.zeros((2, 0), int)), np.stack([X, X])),
        (lambda x: tf.gather_nd(x, [[2], [0]], batch_dims=1), X[[0, 1], [2, 0]]),
        (
            lambda x: tf.gather_nd(x, [[[0, 1], [2, 3]]] * 2, batch_dims=1),
            X[:, [0, 2], [1, 3]],
        ),
    ],
)
def test_gather(found, expected):
    np.testing.assert_array_equal(found(X), expected)
    check_gradients(found, [X], order=2)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda: tf.gather(X, [2]), id="gather out of range"),
        pytest.param(lambda: tf.gather(X, [-1]), id="gather negative"),
        pytest.param(lambda: tf.gather(X, [0], axis=3), id="gather axis"),
        pytest.param(lambda: tf.gather(1.0, [0]), id="gather from a scalar"),
        pytest.param(lambda: tf.gather(X, [0.0]), id="gather float indices"),
        pytest.param(lambda: tf.gather(X, [[0]], batch_dims=1), id="gather batch sizes"),
        pytest.param(lambda: tf.gather(X, [[0]] * 2, axis=0, batch_dims=1), id="gather batch axis"),
        pytest.param(lambda: tf.gather_nd(X, [[0, 3]]), id="gather_nd out of range"),
        pytest.param(lambda: tf.gather_nd(X, [[0, 0, 0, 0]]), id="gather_nd too deep"),
        pytest.param(lambda: tf.gather_nd(X, 0), id="gather_nd scalar"),
        pytest.param(lambda: tf.scatter_nd([[4]], [1.0], [4]), id="scatter_nd out of range"),
        pytest.param(lambda: tf.scatter_nd([[0]], [1.0, 2.0], [4]), id="scatter_nd updates"),
        pytest.param(
            lambda: tf.tensor_scatter_nd_update(X, [[0]], [[1.0]]), id="tensor_scatter updates"
        ),
        pytest.param(
            lambda: tf.tensor_scatter_nd_add(X, [[2, 0, 0]], tf.zeros([1], tf.float64)),
            id="tensor_scatter out of range",
        ),
        pytest.param(
            lambda: tf.tensor_scatter_nd_add(T, [[0, 0, 0]], tf.zeros([1], tf.float32)),
            id="tensor_scatter dtypes",
        ),
        pytest.param(lambda: tf.one_hot([0.5], 2), id="one_hot of floats"),
        pytest.param(lambda: tf.one_hot([0], 2, axis=3), id="one_hot axis"),
        pytest.param(lambda: tf.dynamic_partition(X, [0, 2], 2), id="dynamic_partition range"),
        pytest.param(lambda: tf.dynamic_partition(X, [0], 2), id="dynamic_partition shape"),
        pytest.param(lambda: tf.dynamic_stitch([[0]], [[1.0, 2.0]]), id="dynamic_stitch shape"),
    ],
)
def test_spec_6_index_errors_at_the_call(call):
    with pytest.raises(IAE):
        call()


# Scatter


AT = np.array([[1, 0], [0, 2], [1, 0]])
ROWS = np.random.default_rng(1).normal(size=(3, 4))


def scattered(start, op):
    out = np.array(start)
    for (i, j), row in zip(AT, ROWS, strict=True):
        out[i, j] = op(out[i, j], row)
    return out


@pytest.mark.parametrize(
    "ours, expected",
    [
        (tf.tensor_scatter_nd_add, scattered(X, np.add)),
        (tf.tensor_scatter_nd_sub, scattered(X, np.subtract)),
        (tf.tensor_scatter_nd_max, scattered(X, np.maximum)),
        (tf.tensor_scatter_nd_min, scattered(X, np.minimum)),
    ],
)
def test_tensor_scatter(ours, expected):
    np.testing.assert_allclose(ours(X, AT, ROWS), expected, rtol=1e-14)
    check_gradients(lambda x, u: ours(x, AT, u), [X, ROWS], order=2)


def test_tensor_scatter_update_and_scatter_nd():
    found = tf.tensor_scatter_nd_update(X, AT[:2], ROWS[:2])
    expected = X.copy()
    expected[1, 0], expected[0, 2] = ROWS[:2]
    np.testing.assert_array_equal(found, expected)
    check_gradients(lambda x, u: tf.tensor_scatter_nd_update(x, AT[:2], u), [X, ROWS[:2]], order=2)
    np.testing.assert_allclose(tf.scatter_nd(AT, ROWS, [2, 3, 4]), scattered(0 * X, np.add))
    check_gradients(lambda u: tf.scatter_nd(AT, u, [2, 3, 4]), [ROWS], order=2)
    assert tf.scatter_nd([[0], [0]], [1, 2], [3]).dtype == tf.int32
    assert tf.scatter_nd(tf.zeros([0, 1], tf.int32), tf.zeros([0]), [3]).shape == (3,)


def test_tensor_scatter_max_ties_share_equally():
    x, u = tf.constant([1.0, 2.0]), tf.constant([2.0, 2.0])
    with tf.GradientTape() as tape:
        tape.watch([x, u])
        y = tf.tensor_scatter_nd_max(x, [[1], [1]], u)
    gx, gu = tape.gradient(y, [x, u])
    np.testing.assert_allclose(gx, [1, 1 / 3])
    np.testing.assert_allclose(gu, [1 / 3, 1 / 3])


def test_dynamic_partition_and_stitch():
    where = np.array([1, 0, 1])
    parts = tf.dynamic_partition(X[0], where, 3)
    np.testing.assert_array_equal(parts[0], X[0][[1]])
    np.testing.assert_array_equal(parts[1], X[0][[0, 2]])
    assert parts[2].shape == (0, 4)
    places = tf.dynamic_partition(tf.range(3), where, 3)
    np.testing.assert_array_equal(tf.dynamic_stitch(places, parts), X[0])
    merged = tf.dynamic_stitch([0, [2, 0]], [[1.0], [[2.0], [3.0]]])
    np.testing.assert_array_equal(merged, [[3.0], [0.0], [2.0]])
    check_gradients(lambda x: tf.dynamic_partition(x, where, 2), [X[0]], order=2)
    check_gradients(lambda x: tf.dynamic_stitch([[2, 0], [1]], [x[:2], x[2:]]), [X[0]], order=2)
    x = tf.constant([1.0, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.dynamic_stitch([[0], [0]], [x[:1], x[1:]])
    np.testing.assert_array_equal(tape.gradient(y, x), [0, 1])


# one_hot


def test_one_hot():
    found = tf.one_hot([0, 2, -1, 5], 3)
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found, [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(tf.one_hot([1, 0], 3, axis=0), [[0, 1], [1, 0], [0, 0]])
    assert tf.one_hot([[0, 1]], 5, axis=1).shape == (1, 5, 2)
    valued = tf.one_hot([1], 2, on_value=5, off_value=-1)
    assert valued.dtype == tf.int32
    np.testing.assert_array_equal(valued, [[-1, 5]])
    assert tf.one_hot([1], 2, dtype=tf.bool).dtype == tf.bool
    assert tf.one_hot(1, 2, on_value=True, off_value=False).shape == (2,)
    assert tf.one_hot([1], 2, dtype=tf.int64).dtype == tf.int64
    with pytest.raises(TypeError):
        tf.one_hot([1], 2, on_value=tf.constant(1.0), off_value=tf.constant(0))


@pytest.mark.parametrize(
    "discrete",
    [
        lambda x: tf.cast(tf.argmax(x), tf.float32),
        lambda x: tf.cast(tf.shape(x), tf.float32),
        lambda x: tf.cast(tf.size(x), tf.float32),
        lambda x: tf.cast(tf.rank(x), tf.float32),
        lambda x: tf.one_hot(tf.cast(x, tf.int32), 3),
        lambda x: tf.cast(tf.argsort(x), tf.float32),
        lambda x: tf.cast(tf.math.count_nonzero(x), tf.float32),
        lambda x: tf.cast(tf.searchsorted(x, [0.5]), tf.float32),
    ],
)
def test_spec_1_6_ops_without_a_gradient(discrete):
    x = tf.constant([0.0, 1.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = discrete(x)
    assert tape.gradient(y, x) is None


@pytest.mark.parametrize("mask", [np.array([True, False, True]), tf.constant([True, False, True])])
def test_a_mask_that_is_always_the_same_is_captured(mask):
    x = np.arange(12.0).reshape(3, 2, 2)
    uses = {
        "first axis": lambda x: tf.boolean_mask(x, mask),
        "two axes": lambda x: tf.boolean_mask(x, tf.fill((3, 2), True)),
        "later axis": lambda x: tf.boolean_mask(x, [False, True], axis=2),
        "brackets": lambda x: x[mask],
    }
    for use in uses.values():
        eager = use(tf.constant(x))
        captured = tf.function(use, jit_compile="strict")
        np.testing.assert_array_equal(captured(x), eager)
        np.testing.assert_array_equal(captured(x + 1), eager + 1)
        v = tf.Variable(x)

        def slope(use=use, v=v):
            with tf.GradientTape() as tape:
                y = use(v) ** 2
            return tape.gradient(y, v)

        np.testing.assert_array_equal(tf.function(slope, jit_compile="strict")(), slope())
