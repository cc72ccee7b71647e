"""Tape semantics 6: shape and index errors are raised at the call."""

from __future__ import annotations

import pytest

import distgrad as tf

IAE = tf.errors.InvalidArgumentError
A, B = tf.ones((2, 3)), tf.ones((2, 4))

WRONG = {
    "matmul size": lambda: tf.matmul(A, B),
    "matmul rank below 2": lambda: tf.matmul(A, tf.ones(3)),
    "@ of vectors": lambda: tf.ones(3) @ tf.ones(3),
    "matmul batches": lambda: tf.matmul(tf.ones((2, 2, 3)), tf.ones((3, 3, 2))),
    "elementwise broadcast": lambda: A + B,
    "elementwise broadcast of comparisons": lambda: A < B,
    "maximum": lambda: tf.maximum(A, B),
    "where": lambda: tf.where(A > 0, A, B),
    "reshape count": lambda: tf.reshape(A, (4, 2)),
    "reshape to two -1": lambda: tf.reshape(A, (-1, -1)),
    "reshape -1 that does not divide": lambda: tf.reshape(A, (4, -1)),
    "concat shapes": lambda: tf.concat([A, B], 0),
    "concat ranks": lambda: tf.concat([A, tf.ones(3)], 0),
    "concat axis": lambda: tf.concat([A, A], 2),
    "concat of scalars": lambda: tf.concat([tf.constant(1.0)], 0),
    "empty concat": lambda: tf.concat([], 0),
    "stack shapes": lambda: tf.stack([A, B]),
    "stack axis": lambda: tf.stack([A, A], axis=4),
    "empty stack": lambda: tf.stack([]),
    "split count": lambda: tf.split(A, 2, axis=1),
    "split sizes": lambda: tf.split(A, [1, 1], axis=1),
    "split axis": lambda: tf.split(A, 2, axis=2),
    "squeeze of an axis that is not 1": lambda: tf.squeeze(A, 0),
    "squeeze axis": lambda: tf.squeeze(A, 2),
    "expand_dims axis": lambda: tf.expand_dims(A, 4),
    "transpose rank": lambda: tf.transpose(A, [0]),
    "transpose repeated": lambda: tf.transpose(A, [0, 0]),
    "tile rank": lambda: tf.tile(A, [2]),
    "pad rank": lambda: tf.pad(A, [[1, 1]]),
    "pad mode reflect too wide": lambda: tf.pad(A, [[2, 0], [0, 0]], "REFLECT"),
    "broadcast_to": lambda: tf.broadcast_to(A, (2, 4)),
    "broadcast_to smaller rank": lambda: tf.broadcast_to(A, (3,)),
    "reduce axis": lambda: tf.reduce_sum(A, 2),
    "reduce axis twice": lambda: tf.reduce_sum(A, [0, -2]),
    "argmax axis": lambda: tf.argmax(A, 2),
    "softmax axis": lambda: tf.nn.softmax(A, 2),
    "index out of range": lambda: A[2],
    "too many indices": lambda: A[0, 0, 0],
    "gather out of range": lambda: tf.gather(A, [2]),
    "gather negative": lambda: tf.gather(A, [-1]),
    "gather axis": lambda: tf.gather(A, [0], axis=2),
    "gather_nd out of range": lambda: tf.gather_nd(A, [[0, 3]]),
    "scatter_nd out of range": lambda: tf.scatter_nd([[4]], [1.0], [4]),
    "slice out of range": lambda: tf.slice(A, [0, 2], [2, 2]),
    "boolean_mask": lambda: tf.boolean_mask(A, [True, False, True]),
    "mask index": lambda: A[tf.constant([True, False, True])],
    "conv channels": lambda: tf.nn.conv2d(tf.ones((1, 4, 4, 2)), tf.ones((2, 2, 3, 1)), 1, "SAME"),
    "cross entropy": lambda: tf.nn.softmax_cross_entropy_with_logits(A, B),
    "labels out of range": lambda: tf.nn.sparse_softmax_cross_entropy_with_logits([0, 5], A),
    "tensordot": lambda: tf.tensordot(A, B, 1),
    "einsum": lambda: tf.einsum("ij,jk->ik", A, B),
    "negative integer power": lambda: tf.constant(2) ** -1,
}


@pytest.mark.parametrize("name", WRONG)
def test_raised_at_the_call(name):
    """Raised at the call: IAE for matmul size or rank < 2, broadcast, reshape count, ..."""
    with pytest.raises(IAE):
        WRONG[name]()


@pytest.mark.parametrize(
    "name, shapes",
    [
        ("matmul size", ["2, 3", "2, 4"]),
        ("elementwise broadcast", ["2, 3", "2, 4"]),
        ("maximum", ["2, 3", "2, 4"]),
        ("reshape count", ["2, 3", "4, 2"]),
        ("concat shapes", ["2, 3", "2, 4"]),
        ("broadcast_to", ["2, 3", "2, 4"]),
        ("conv channels", ["1, 4, 4, 2", "2, 2, 3, 1"]),
    ],
)
def test_the_message_holds_both_shapes(name, shapes):
    """Messages hold both shapes."""
    with pytest.raises(IAE) as caught:
        WRONG[name]()
    for shape in shapes:
        assert shape in str(caught.value), str(caught.value)


def test_the_message_holds_both_dtypes():
    """Messages hold ... both dtype names."""
    with pytest.raises(IAE, match="float32.*float64"):
        A + tf.ones((2, 3), tf.float64)


def test_an_error_is_raised_under_a_tape_too():
    """Raised at the call, whether or not a tape records it; the tape goes on."""
    v = tf.Variable(A)
    with tf.GradientTape() as tape:
        with pytest.raises(IAE):
            v + B
        y = tf.reduce_sum(v * v)
    assert tape.gradient(y, v).shape == (2, 3)


def test_none_beside_a_tensor():
    """`t + None`, ragged constant: ValueError."""
    with pytest.raises(ValueError):
        A + None
    with pytest.raises(ValueError):
        tf.constant([[1.0], [1.0, 2.0]])
    with pytest.raises(ValueError):
        tf.add(A, None)


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64, tf.uint8])
def test_uniform_integers_without_maxval(dtype):
    """`random.uniform(int dtype)` without maxval: ValueError."""
    with pytest.raises(ValueError, match="maxval"):
        tf.random.uniform((2,), dtype=dtype)


def test_the_error_class():
    """IAE is `tf.errors.InvalidArgumentError`; that it is also a ValueError is a superset of TF."""
    assert issubclass(IAE, tf.errors.OpError) and issubclass(IAE, ValueError)
    with pytest.raises(IAE) as caught:
        A + B
    assert caught.value.message == str(caught.value)
