"""Tape semantics 4: tf.Variable."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import distgrad as tf


def test_name():
    """`name='w'` → `.name == 'w:0'` (default `Variable:0`)."""
    assert tf.Variable(1.0, name="w").name == "w:0"
    assert tf.Variable(1.0).name == "Variable:0"


def test_attributes():
    """`.trainable`, `.shape`, `.dtype`, `.value()`, `.read_value()`, `.numpy()`."""
    v = tf.Variable([[1.0, 2.0]])
    assert v.trainable and not tf.Variable(1.0, trainable=False).trainable
    assert v.shape == (1, 2) and v.shape.rank == 2 and v.dtype == tf.float32 and v.ndim == 2
    for value in (v.value(), v.read_value(), tf.convert_to_tensor(v)):
        assert isinstance(value, tf.Tensor)
        np.testing.assert_array_equal(value, [[1.0, 2.0]])
    assert isinstance(v.numpy(), np.ndarray) and isinstance(tf.Variable(1.0).numpy(), np.float32)
    assert "w:0" in repr(tf.Variable([1.0], name="w")) and "numpy=array([1.]" in repr(
        tf.Variable([1.0], name="w")
    )


def test_assign():
    """`.assign*`; `assign*` return the variable."""
    v = tf.Variable([1.0, 2.0])
    assert v.assign([3.0, 4.0]) is v
    assert v.assign_add([1.0, 1.0]) is v
    assert v.assign_sub(tf.constant([0.5, 0.5])) is v
    np.testing.assert_array_equal(v, [3.5, 4.5])
    v.assign(v[::-1])
    np.testing.assert_array_equal(v, [4.5, 3.5])
    v.assign(v)
    np.testing.assert_array_equal(v, [4.5, 3.5])


def test_scatter_nd_update():
    """`scatter_nd_update`."""
    v = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    assert v.scatter_nd_update([[0, 1], [1, 0]], [20.0, 30.0]) is v
    np.testing.assert_array_equal(v, [[1.0, 20.0], [30.0, 4.0]])
    v.scatter_nd_update([[1]], [[7.0, 8.0]])
    np.testing.assert_array_equal(v, [[1.0, 20.0], [7.0, 8.0]])
    v.scatter_nd_add([[0], [0]], [[1.0, 1.0], [1.0, 1.0]])
    v.scatter_nd_sub([[1, 1]], [8.0])
    np.testing.assert_array_equal(v, [[3.0, 22.0], [7.0, 0.0]])
    for bad in ([[2]], [[-1]], [[0, 2]], [[0, 0, 0]], [[0.5]]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            v.scatter_nd_update(bad, [[0.0, 0.0]])


def test_assign_to_a_slice():
    """`v[1].assign(x)`."""
    v = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    assert v[1].assign([30.0, 40.0]) is v
    v[0, 1].assign(20.0)
    v[:, :1].assign(np.array([[5.0], [6.0]]))
    np.testing.assert_array_equal(v, [[5.0, 20.0], [6.0, 40.0]])
    v[0].assign(v[1])
    np.testing.assert_array_equal(v, [[6.0, 40.0], [6.0, 40.0]])
    with pytest.raises(ValueError):
        v[0].assign([1.0, 2.0, 3.0])
    with pytest.raises(ValueError):
        v[0].assign(tf.ones(2, tf.float64))


def test_variables_are_tensors_to_operators_and_functions():
    """All operators and functions take it as a tensor."""
    v, a = tf.Variable([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    pairs = [
        (v + v, a + a),
        (v - 1, a - 1),
        (2 * v, 2 * a),
        (1 / v, 1 / a),
        (v**2, a**2),
        (2**v, 2**a),
        (v @ v, a @ a),
        (v // 2, a // 2),
        (v % 2, a % 2),
        (-v, -a),
        (+v, a),
        (abs(-v), a),
        (v > 2, a > 2),
        (v <= v, a <= a),
        (v[0], a[0]),
        (tf.exp(v), np.exp(a)),
        (tf.reduce_sum(v, 0), a.sum(0)),
        (tf.reshape(v, (4,)), a.ravel()),
        (tf.transpose(v), a.T),
        (tf.concat([v, v], 1), np.concatenate([a, a], 1)),
        (tf.stack([v, v]), np.stack([a, a])),
        (tf.where(v > 2, v, 0), np.where(a > 2, a, 0)),
        (tf.gather(v, [1]), a[[1]]),
        (tf.maximum(v, 2), np.maximum(a, 2)),
        (tf.cast(v, tf.int32), a.astype(int)),
        (tf.zeros_like(v), 0 * a),
        (tf.shape(v), [2, 2]),
        (tf.nn.relu(v), a),
    ]
    for found, expected in pairs:
        assert isinstance(found, (tf.Tensor, tf.Variable))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_is_tensor():
    """`tf.is_tensor(v)` is True."""
    assert tf.is_tensor(tf.Variable(1.0)) is True


@pytest.mark.parametrize("method", ["assign", "assign_add", "assign_sub"])
def test_assign_of_another_shape(method):
    """shape mismatch ValueError (message names both shapes)."""
    v = tf.Variable([1.0, 2.0])
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        getattr(v, method)([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"\(\).*\(2,\)"):
        getattr(v, method)(1.0)


@pytest.mark.parametrize("method", ["assign", "assign_add", "assign_sub"])
def test_assign_of_another_dtype(method):
    """tensor of another dtype ValueError; ndarray of another dtype is converted."""
    v = tf.Variable([1.0, 2.0])
    for other in (tf.ones(2, tf.float64), tf.constant([1, 2]), tf.Variable([1, 2])):
        with pytest.raises(ValueError, match="float32"):
            getattr(v, method)(other)
    getattr(v, method)(np.array([1.0, 2.0]))
    getattr(v, method)(np.array([1, 2]))
    assert v.dtype == tf.float32


def test_plus_gives_a_tensor():
    """`v = v + 1` gives a tensor."""
    v = tf.Variable(1.0)
    v = v + 1
    assert type(v) is tf.Tensor and float(v) == 2.0


def test_in_place_operators():
    """`v += 1` raises RuntimeError (message: use assign_add)."""
    v = tf.Variable(1.0)
    with pytest.raises(RuntimeError, match="assign_add"):
        v += 1
    with pytest.raises(RuntimeError):
        v -= 1
    with pytest.raises(RuntimeError):
        v *= 2
    with pytest.raises(RuntimeError):
        v /= 2
    assert isinstance(v, tf.Variable) and float(v) == 1.0


@pytest.mark.parametrize("args", [(), (None,)])
def test_a_variable_without_a_value(args):
    """`tf.Variable()` / `tf.Variable(None)` ValueError."""
    with pytest.raises(ValueError):
        tf.Variable(*args)


def test_a_callable_initial_value():
    """A callable initial value is called."""
    v = tf.Variable(lambda: tf.ones((2,)))
    np.testing.assert_array_equal(v, [1.0, 1.0])


def test_dtype_and_shape_of_the_initial_value():
    """`dtype` converts Python values and arrays; `shape` is checked."""
    assert tf.Variable(1, dtype=tf.float64).dtype == tf.float64
    assert tf.Variable(np.ones(2), dtype=tf.float32).dtype == tf.float32
    with pytest.raises(ValueError):
        tf.Variable(tf.constant(1.0), dtype=tf.int32)
    assert tf.Variable(tf.ones((2, 3)), shape=(None, 3)).shape == (None, 3)
    with pytest.raises(ValueError):
        tf.Variable(tf.ones((2, 3)), shape=(2, 2))


def test_a_variable_of_a_variable_is_a_copy():
    """`tf.Variable(v)` has a value of its own, and its making is seen by no tape."""
    v = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        w = tf.Variable(v)
        y = w * 2.0
    v.assign([5.0, 5.0])
    np.testing.assert_array_equal(w, [1.0, 2.0])
    assert tape.gradient(y, v) is None


def test_comparison_compares_values():
    """`v == w` compares values."""
    v, w = tf.Variable([1.0, 2.0]), tf.Variable([1.0, 3.0])
    np.testing.assert_array_equal(v == w, [True, False])
    np.testing.assert_array_equal(v != w, [False, True])
    assert (v == tf.Variable([1.0, 2.0, 3.0])).numpy() == np.False_


def test_copies_are_independent():
    """`copy.deepcopy(v)` is independent; so is a pickled copy."""
    v = tf.Variable([1.0, 2.0], name="w")
    for twin in (copy.deepcopy(v), pickle.loads(pickle.dumps(v))):
        twin.assign([7.0, 8.0])
        np.testing.assert_array_equal(v, [1.0, 2.0])
        assert twin.name == "w:0"
    both = copy.deepcopy([v, v])
    assert both[0] is both[1]


def test_max_sum_if():
    """`max([v1, v2])`, `sum(...)`, `if v > 0` work."""
    v1, v2 = tf.Variable(1.0), tf.Variable(2.0)
    assert max([v1, v2]) is v2 and min([v1, v2]) is v1
    assert float(sum([v1, v2])) == 3.0
    assert sorted([v2, v1])[0] is v1
    if v1 > 0:
        v1.assign(5.0)
    assert float(v1) == 5.0 and bool(v1) and int(v2) == 2 and round(float(v2)) == 2


def test_a_variable_that_is_only_read_keeps_no_list_of_readers():
    """Reads lend the buffer; what is remembered of them stays bounded."""
    v = tf.Variable([1.0, 2.0])
    for _ in range(1000):
        tf.reshape(v, (2, 1))
    assert len(v._loans) < 200


def test_open_shapes_take_values_of_any_size():
    """`shape=[None, 2]`: `assign` takes other sizes where it leaves them open, and reads follow."""
    v = tf.Variable(np.zeros((1, 2)), shape=tf.TensorShape([None, 2]), dtype=tf.float32)
    assert v.shape == [None, 2] and v.numpy().shape == (1, 2)
    before = v.value()
    given = np.arange(6, dtype=np.float32).reshape(3, 2)
    v.assign(given)
    given[:] = 9
    np.testing.assert_array_equal(v, [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(before, [[0, 0]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(v * v)
    np.testing.assert_array_equal(tape.gradient(loss, v), 2 * v.numpy())
    v.assign_add(tf.ones((3, 2)))
    for wrong in (np.zeros((3, 3)), np.zeros(2)):
        with pytest.raises(ValueError, match="cannot assign"):
            v.assign(wrong)
    with pytest.raises(ValueError, match="cannot assign"):
        tf.Variable([1.0]).assign([1.0, 2.0])


def test_a_variable_of_any_rank():
    """`shape=tf.TensorShape(None)`: `assign` takes values of any shape, as the guide has it."""
    v = tf.Variable(1.0, shape=tf.TensorShape(None))
    assert v.shape.rank is None and v.numpy() == 1
    for value in ([1.0, 2.0], [[3.0]], 4.0):
        v.assign(value)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(v**2)
        np.testing.assert_array_equal(tape.gradient(loss, v), 2 * np.array(value))
    assert tf.TensorSpec(None).shape == tf.TensorShape(None)
    assert tf.TensorSpec(None).is_compatible_with(tf.zeros((2, 3)))
