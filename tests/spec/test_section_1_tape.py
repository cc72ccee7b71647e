"""Tape semantics 1 and 1.1: what a GradientTape records, and what it watches."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

import distgrad as tf
from distgrad.core import recording


@pytest.fixture(autouse=True)
def _stack_is_sane():
    assert recording.stack() == []
    yield
    assert recording.stack() == []


def test_unknown_keyword_is_a_type_error():
    """``GradientTape(persistent=False, watch_accessed_variables=True)``: unknown keyword."""
    with pytest.raises(TypeError):
        tf.GradientTape(persitent=True)
    tape = tf.GradientTape(persistent=False, watch_accessed_variables=True)
    assert tape.watched_variables() == ()


def test_gradient_twice_on_a_non_persistent_tape():
    """`gradient` twice on a non-persistent tape: refused; message names persistent=True."""
    x = tf.Variable(3.0)
    with tf.GradientTape() as tape:
        y = x * x
    tape.gradient(y, x)
    with pytest.raises(RuntimeError, match="non-persistent.*persistent=True"):
        tape.gradient(y, x)


@pytest.mark.parametrize("method", ["jacobian", "batch_jacobian"])
def test_jacobian_after_gradient_on_a_non_persistent_tape(method):
    """`jacobian`/`batch_jacobian` after `gradient` on a non-persistent tape: refused."""
    x = tf.constant([[3.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = x * x
    tape.gradient(y, x)
    with pytest.raises(RuntimeError, match="persistent"):
        getattr(tape, method)(y, x)


def test_gradient_on_a_tape_never_entered():
    """`gradient` on a tape never entered: refused."""
    x = tf.Variable(3.0)
    with pytest.raises(RuntimeError):
        tf.GradientTape().gradient(x * x, x)
    with pytest.raises(RuntimeError):
        tf.GradientTape(persistent=True).gradient(x * x, x)


def test_persistent_tape_gives_any_number_of_gradients():
    """persistent tape: any number of calls, any target/source pair, intermediates as sources."""
    x, w = tf.constant([1.0, 2.0]), tf.Variable([3.0, 4.0])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = x * w
        z = tf.reduce_sum(y * y)
    for _ in range(2):
        np.testing.assert_array_equal(tape.gradient(z, y), [6.0, 16.0])
        np.testing.assert_array_equal(tape.gradient(z, x), [18.0, 64.0])
        np.testing.assert_array_equal(tape.gradient(y, w), [1.0, 2.0])
        np.testing.assert_array_equal(tape.jacobian(y, x), np.diag([3.0, 4.0]))
        assert tape.gradient(y, z) is None


def test_gradient_inside_the_block_ends_a_non_persistent_recording():
    """`gradient` inside the block, non-persistent: allowed; ends the recording."""
    x = tf.Variable(3.0)
    with tf.GradientTape() as tape:
        y = x * x
        assert float(tape.gradient(y, x)) == 6.0
        assert recording.stack() == []
        z = y * x
        with pytest.raises(RuntimeError):
            tape.gradient(z, x)


def test_gradient_inside_the_block_of_a_persistent_tape_is_recorded():
    """`gradient` inside the block, persistent: the backward ops are recorded (d, d2, d3)."""
    x = tf.Variable(2.0)
    with tf.GradientTape(persistent=True) as tape:
        y = x * x * x * x
        d = tape.gradient(y, x)
        d2 = tape.gradient(d, x)
        d3 = tape.gradient(d2, x)
    assert [float(v) for v in (d, d2, d3)] == [32.0, 48.0, 48.0]
    assert float(tape.gradient(d3, x)) == 24.0


def test_gradient_outside_the_block_of_a_persistent_tape_is_not_recorded():
    """`gradient` outside the block, persistent: differentiating its result again gives None."""
    x = tf.Variable(2.0)
    with tf.GradientTape(persistent=True) as tape:
        y = x * x * x
    d = tape.gradient(y, x)
    assert float(d) == 12.0
    assert tape.gradient(d, x) is None


def test_leaving_the_block_by_an_exception():
    """leaving the block by an exception: it propagates; the tape stack stays sane."""
    x = tf.Variable(2.0)
    with pytest.raises(KeyError), tf.GradientTape() as outer, tf.GradientTape():
        y = x * x
        raise KeyError("inside")
    assert recording.stack() == [] and recording.active == 0
    assert float(outer.gradient(y, x)) == 4.0
    with tf.GradientTape() as later:
        z = 3.0 * x
    assert float(later.gradient(z, x)) == 3.0


def test_with_tape_inside_its_own_block():
    """`with tape:` inside its own block: refused (ValueError)."""
    x = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        with pytest.raises(ValueError), tape:
            pass
        y = x * x
    assert float(tape.gradient(y, x)) == 4.0


def test_with_tape_again_before_gradient_resumes():
    """`with tape:` again after leaving, before `gradient`: recording resumes."""
    x = tf.Variable(2.0)
    tape = tf.GradientTape()
    with tape:
        y = x * x
    with tape:
        z = y * x
    assert float(tape.gradient(z, x)) == 12.0


def test_operations_after_the_block_are_not_recorded():
    """ops run after the block: not recorded; sources unreachable: None."""
    x = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        y = x * x
    z = y * 2.0
    assert tape.gradient(z, x) is None


@pytest.mark.parametrize("depth", range(1, 7))
def test_nested_tapes_of_any_depth(depth):
    """nested tapes: inner `gradient` is recorded by all outer active tapes; any depth."""

    def derivative(n, x):
        if n == 0:
            return x * x * x * x * x * x
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = derivative(n - 1, x)
        return tape.gradient(y, x)

    exact = np.polyval(np.polyder([1.0, 0, 0, 0, 0, 0, 0], depth), 1.5)
    assert float(derivative(depth, tf.constant(1.5, tf.float64))) == pytest.approx(exact)


def test_inner_gradient_is_recorded_by_all_outer_tapes():
    """nested tapes: inner `gradient` is recorded by all outer active tapes."""
    x = tf.Variable(2.0)
    with tf.GradientTape() as t3, tf.GradientTape() as t2:
        with tf.GradientTape() as t1:
            y = x * x * x
        d = t1.gradient(y, x)
    assert float(t2.gradient(d, x)) == 12.0
    assert float(t3.gradient(d, x)) == 12.0


def test_stop_recording():
    """`stop_recording()`: ops inside are invisible to this tape only; results are constants."""
    x = tf.Variable(3.0)
    with tf.GradientTape() as outer, tf.GradientTape() as tape:
        with tape.stop_recording():
            hidden = x * x
        y = hidden * x
    assert float(tape.gradient(y, x)) == 9.0
    assert float(outer.gradient(y, x)) == 27.0


def test_stop_recording_needs_a_recording_tape():
    """`stop_recording()`: ValueError if tape not recording; RuntimeError if never entered."""
    tape = tf.GradientTape()
    with pytest.raises(RuntimeError), tape.stop_recording():
        pass
    with tape:
        pass
    with pytest.raises(ValueError), tape.stop_recording():
        pass
    with tape, tape.stop_recording():
        with pytest.raises(ValueError), tape.stop_recording():
            pass
        assert recording.stack() == []


def test_gradient_inside_stop_recording():
    """A gradient inside ``stop_recording`` ends a non-persistent tape, and no other recording."""
    x = tf.Variable(3.0)
    with tf.GradientTape() as tape:
        y = x * x
        with tape.stop_recording():
            g = tape.gradient(y, x)
        assert recording.stack() == []
    assert float(g) == 6.0


def test_reset():
    """`reset()`: forgets ops, watches and watched variables; recording goes on."""
    x, c = tf.Variable(3.0), tf.constant(1.0)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(c)
        y = x * x + c
        assert len(tape.watched_variables()) == 1
        tape.reset()
        assert tape.watched_variables() == ()
        z = x * 2.0 + c
    assert tape.gradient(y, [x, c]) == [None, None]
    assert float(tape.gradient(z, x)) == 2.0
    assert tape.gradient(z, c) is None
    with pytest.raises(ValueError):
        tape.reset()


def test_a_tape_records_only_its_own_thread():
    """threads: a tape records only the thread that entered it."""
    x, made = tf.Variable(3.0), []
    with tf.GradientTape(persistent=True) as tape:
        thread = threading.Thread(target=lambda: made.append(x * x))
        thread.start()
        thread.join()
        y = x * 4.0
    assert tape.gradient(made[0], x) is None
    assert float(tape.gradient(y, x)) == 4.0


def test_several_threads_may_each_hold_tapes():
    """threads: several threads may each hold tapes" (on the same variable at once)."""
    x, results, start = tf.Variable([1.0, 2.0]), {}, threading.Barrier(8)

    def work(k):
        start.wait()
        total = np.zeros(2)
        for _ in range(50):
            with tf.GradientTape() as tape:
                y = tf.reduce_sum(x * x * float(k))
            total += tape.gradient(y, x).numpy()
        results[k] = total / 50

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(8):
        np.testing.assert_allclose(results[k], [2.0 * k, 4.0 * k])


def test_long_chains_need_no_recursion():
    """long chains: 5000 sequential ops work: no recursion, each node once."""
    x = tf.Variable(1.0, dtype=tf.float64)
    with tf.GradientTape() as tape:
        y = x * 1.0
        for _ in range(5000):
            y = y * 1.0001
    assert float(tape.gradient(y, x)) == pytest.approx(1.0001**5000)


def test_doubling_visits_each_node_once():
    """long chains: 60-fold doubling `y = y + y`: each node once."""
    x = tf.Variable(1.0, dtype=tf.float64)
    with tf.GradientTape() as tape:
        y = x * 1.0
        for _ in range(60):
            y = y + y
    assert float(tape.gradient(y, x)) == 2.0**60


# 1.1 Watching


def test_trainable_variables_are_watched_when_read():
    """trainable `tf.Variable` read inside the block: watched automatically (unless ...)."""
    x = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        y = x * x
    assert float(tape.gradient(y, x)) == 4.0
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        y = x * x
    assert tape.watched_variables() == ()
    assert tape.gradient(y, x) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: tf.Variable(2.0, trainable=False),
        lambda: tf.constant(2.0),
        lambda: tf.constant(1.0) + 1.0,
    ],
    ids=["not trainable", "constant", "intermediate"],
)
def test_what_is_not_watched_by_itself(make):
    """`trainable=False` variable, constant, intermediate: not watched; `watch` makes it so."""
    x = make()
    with tf.GradientTape() as tape:
        y = x * x
    assert tape.gradient(y, x) is None
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = x * x
    assert float(tape.gradient(y, x)) == 4.0


def test_watch_accepts_nests():
    """`watch(x)` accepts a tensor, variable, or any nest (list, tuple, dict) of them."""
    a, b, c = tf.constant(1.0), tf.constant(2.0), tf.Variable(3.0, trainable=False)
    for nest in ([a, b, c], (a, (b, c)), {"a": a, "rest": [b, {"c": c}]}):
        with tf.GradientTape() as tape:
            tape.watch(nest)
            y = a * b * c
        assert [float(g) for g in tape.gradient(y, [a, b, c])] == [6.0, 3.0, 2.0]


@pytest.mark.parametrize("value", [1.5, np.ones(2), "x", None, [tf.Variable(1.0), 2]])
def test_watch_refuses_what_is_no_tensor(value):
    """`watch(1.5)`, `watch(ndarray)`, `watch('x')`: ValueError."""
    with tf.GradientTape() as tape, pytest.raises(ValueError):
        tape.watch(value)


def test_watch_on_a_tape_never_entered():
    """TensorFlow fails with an AttributeError of its own inside; here it is a RuntimeError."""
    with pytest.raises(RuntimeError):
        tf.GradientTape().watch(tf.constant(1.0))


def test_watch_after_an_operation_used_the_tensor():
    """watch after an op used the tensor: only later ops count."""
    x = tf.constant(3.0)
    with tf.GradientTape() as tape:
        early = x * x
        tape.watch(x)
        y = early + 5.0 * x
    assert float(tape.gradient(y, x)) == 5.0


def test_watch_on_an_intermediate():
    """watch on an intermediate: gradient to what lies before it stays None if not watched."""
    x = tf.constant(3.0)
    with tf.GradientTape(persistent=True) as tape:
        y = x * x
        tape.watch(y)
        z = y * y
    assert float(tape.gradient(z, y)) == 18.0
    assert tape.gradient(z, x) is None


def test_watch_of_an_integer_tensor(caplog):
    """watch of an integer tensor: accepted (a warning is logged); its gradient is None."""
    n = tf.constant([1, 2])
    with caplog.at_level(logging.WARNING), tf.GradientTape() as tape:
        tape.watch(n)
        y = tf.cast(n, tf.float32) * 2.0
    assert "int32" in caplog.text
    assert tape.gradient(y, n) is None


def test_watched_variables():
    """`watched_variables()`: tuple, order of first access, each once; still valid after
    `gradient`; empty after `reset`."""
    a, b = tf.Variable(1.0), tf.Variable(2.0)
    fixed, unread = tf.Variable(3.0, trainable=False), tf.Variable(4.0)
    with tf.GradientTape() as tape:
        y = b * a * b * fixed
        tape.watch(fixed)
        y = y + fixed
    watched = tape.watched_variables()
    assert isinstance(watched, tuple)
    assert [id(v) for v in watched] == [id(b), id(a), id(fixed)]
    tape.gradient(y, a)
    assert len(tape.watched_variables()) == 3
    assert unread.name  # never read, never listed


def test_layer_variables_can_be_watched():
    """Keras 3 layer variables in `watch`: TF raises ValueError; accepting them is friendlier."""
    layer = tf.keras.layers.Dense(2)
    x = tf.ones((1, 3))
    layer(x)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(layer.trainable_variables)
        y = tf.reduce_sum(layer(x))
    kernel, bias = tape.gradient(y, layer.trainable_variables)
    np.testing.assert_array_equal(kernel, np.ones((3, 2)))
    np.testing.assert_array_equal(bias, np.ones(2))
