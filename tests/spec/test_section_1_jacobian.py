"""Tape semantics 1.3: jacobian, batch_jacobian, hessians."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.core import recording


def test_jacobian_has_the_shape_of_target_and_source():
    """`jacobian`: shape `target.shape + source.shape`; structure of `sources`."""
    x = tf.Variable([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=tf.float64)
    w = tf.Variable([1.0, 10.0], dtype=tf.float64)
    with tf.GradientTape() as tape:
        y = tf.reshape(w, (2, 1)) * x * x
    jac = tape.jacobian(y, {"x": x, "w": (w,)})
    assert jac["x"].shape == (2, 3, 2, 3)
    assert jac["w"][0].shape == (2, 3, 2)
    exact = np.zeros((2, 3, 2, 3))
    for i in range(2):
        for j in range(3):
            exact[i, j, i, j] = 2 * w.numpy()[i] * x.numpy()[i, j]
    np.testing.assert_array_equal(jac["x"], exact)
    np.testing.assert_array_equal(jac["w"][0], np.eye(2)[:, None] * x.numpy()[..., None] ** 2)


def test_jacobian_of_a_scalar_is_the_gradient():
    """`jacobian`: shape `target.shape + source.shape`, of a scalar by a scalar and a vector."""
    x, v = tf.Variable(3.0), tf.Variable([1.0, 2.0])
    with tf.GradientTape(persistent=True) as tape:
        y = x * x * tf.reduce_sum(v)
    assert tape.jacobian(y, x).shape == () and float(tape.jacobian(y, x)) == 18.0
    np.testing.assert_array_equal(tape.jacobian(y, v), [9.0, 9.0])


def test_jacobian_without_a_path():
    """`jacobian`: None when unconnected; zeros where asked."""
    x, other = tf.Variable([1.0, 2.0]), tf.Variable([[3.0]], dtype=tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        y = x * x
    assert tape.jacobian(y, [other, tf.constant(1.0)]) == [None, None]
    zeros = tape.jacobian(y, other, unconnected_gradients="zero")
    assert zeros.shape == (2, 1, 1) and zeros.dtype == tf.float64 and not np.any(zeros)
    with pytest.raises(ValueError):
        tape.jacobian(y, x, unconnected_gradients="some")


def test_jacobian_of_an_empty_target():
    """`jacobian`: shape `target.shape + source.shape`, also where the target has no element."""
    x = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        y = x[:0] * 2.0
    assert tape.jacobian(y, x).shape == (0, 2)


def test_jacobian_of_a_target_that_is_a_source():
    """`jacobian` of the source itself is the identity, of a variable as well."""
    x = tf.Variable([1.0, 2.0])
    with tf.GradientTape(persistent=True) as tape:
        x * x
    np.testing.assert_array_equal(tape.jacobian(x, x), np.eye(2))


def test_jacobian_of_a_list_of_targets():
    """`jacobian`: Target is one tensor (a list: AttributeError)."""
    x = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        y = x * x
    with pytest.raises(AttributeError):
        tape.jacobian([y, y], x)


@pytest.mark.parametrize("persistent", [False, True])
def test_jacobian_on_a_non_persistent_tape(persistent):
    """On a non-persistent tape allowed once."""
    x = tf.Variable([[1.0, 2.0]])
    with tf.GradientTape(persistent=persistent) as tape:
        y = x * x
    tape.jacobian(y, x)
    if persistent:
        tape.jacobian(y, x)
        tape.batch_jacobian(y, x)
        return
    with pytest.raises(RuntimeError):
        tape.jacobian(y, x)
    with pytest.raises(RuntimeError):
        tape.batch_jacobian(y, x)
    with pytest.raises(RuntimeError):
        tape.gradient(y, x)


@pytest.mark.parametrize("method", ["jacobian", "batch_jacobian"])
def test_without_pfor_the_tape_must_be_persistent(method):
    """with `experimental_use_pfor=False` the tape must be persistent (else RuntimeError)."""
    x = tf.Variable([[1.0, 2.0]])
    with tf.GradientTape() as tape:
        y = x * x
    with pytest.raises(RuntimeError, match="persistent"):
        getattr(tape, method)(y, x, experimental_use_pfor=False)
    with tf.GradientTape(persistent=True) as tape:
        y = x * x
    for _ in range(2):
        found = getattr(tape, method)(y, x, parallel_iterations=4, experimental_use_pfor=False)
        np.testing.assert_array_equal(np.reshape(found, (2, 2)), np.diag([2.0, 4.0]))


def test_batch_jacobian_is_sample_by_sample():
    """`batch_jacobian(target, source)`: `[b, ...target, ...source]`, sample i against i only."""
    rng = np.random.default_rng(0)
    x, a = rng.normal(size=(4, 3)), rng.normal(size=(3, 2))
    source = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(source)
        y = tf.matmul(source * source, tf.constant(a))
    found = tape.batch_jacobian(y, source)
    assert found.shape == (4, 2, 3)
    np.testing.assert_allclose(found, 2 * x[:, None, :] * a.T[None], rtol=1e-13)


def test_batch_jacobian_is_the_diagonal_of_the_jacobian():
    """`batch_jacobian`: sample i against sample i only, for targets of higher rank."""
    x = tf.constant(np.arange(1.0, 7.0).reshape(2, 3))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = tf.stack([x * x, x * x * x], axis=1)
    full = tape.jacobian(y, x).numpy()
    found = tape.batch_jacobian(y, x).numpy()
    assert found.shape == (2, 2, 3, 3)
    for i in range(2):
        np.testing.assert_array_equal(found[i], full[i, :, :, i])


def test_batch_jacobian_without_a_path_is_zeros():
    """TF gives zeros of `[b, ...target, ...source]` where there is no path, and so do we."""
    x, other = tf.Variable([[1.0, 2.0]]), tf.Variable([[3.0]])
    with tf.GradientTape() as tape:
        y = x * x
    found = tape.batch_jacobian(y, other)
    assert found.shape == (1, 2, 1) and not np.any(found)


def test_batch_jacobian_with_other_first_dimensions():
    """`batch_jacobian`: First dimensions differing: ValueError."""
    x = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    with tf.GradientTape(persistent=True) as tape:
        y = tf.transpose(tf.concat([x, x], 0))
    with pytest.raises(ValueError, match="4 samples in target, 2 in source"):
        tape.batch_jacobian(tf.reshape(y, (4, 2)), x)


def test_batch_jacobian_of_a_scalar():
    """`batch_jacobian`: Scalar target: an error (IndexError in TF)."""
    x = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(x)
    with pytest.raises(IndexError):
        tape.batch_jacobian(y, x)


def test_hessian_is_the_jacobian_of_the_gradient():
    """Hessian = outer.jacobian(inner.gradient(f, w), w)."""
    rng = np.random.default_rng(1)
    a = rng.normal(size=(3, 3))
    a = a + a.T
    w = tf.Variable(rng.normal(size=3))
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            f = 0.5 * tf.reduce_sum(w * tf.linalg.matvec(tf.constant(a), w)) + tf.reduce_sum(w**3)
        g = inner.gradient(f, w)
    np.testing.assert_allclose(outer.jacobian(g, w), a + np.diag(6 * w.numpy()), rtol=1e-12)


def test_a_jacobian_can_be_differentiated():
    """A jacobian taken inside an outer tape is an operation like others: third derivatives."""
    x = tf.Variable([1.0, 2.0], dtype=tf.float64)
    with tf.GradientTape() as t3:
        with tf.GradientTape() as t2:
            with tf.GradientTape() as t1:
                y = tf.reduce_sum(x**4)
            g = t1.gradient(y, x)
        h = t2.jacobian(g, x)
    third = t3.jacobian(h, x).numpy()
    exact = np.zeros((2, 2, 2))
    exact[0, 0, 0], exact[1, 1, 1] = 24.0, 48.0
    np.testing.assert_allclose(third, exact, rtol=1e-12)


def test_the_cost_of_a_jacobian_is_one_walk_per_element():
    """Every element of the target costs one backward walk over the recorded operations."""

    class Counter:
        count = 0

        def record(self, *args):
            self.count += 1

        def read_variable(self, *args): ...

    def binds(n):
        x = tf.Variable(np.ones(3))
        with tf.GradientTape() as tape:
            y = tf.concat([x] * n, 0)
            for _ in range(20):
                y = y * 1.5
        counter = Counter()
        recording.push(counter)
        try:
            tape.jacobian(y, x)
        finally:
            recording.remove(counter)
        return counter.count

    one, four = binds(1), binds(4)
    assert four <= 5 * one
