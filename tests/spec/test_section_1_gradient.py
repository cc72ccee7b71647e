"""Tape semantics 1.2: targets, sources, seeds and what ``gradient`` gives for them."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import numpy as np
import pytest

import distgrad as tf

Pair = namedtuple("Pair", "first second")


def test_the_result_has_the_structure_of_the_sources():
    """structure: list→list, tuple→tuple, dict, namedtuple, nests, `[]`→`[]`."""
    x, y = tf.Variable(2.0), tf.Variable(3.0)
    with tf.GradientTape(persistent=True) as tape:
        z = x * x * y

    def of(sources):
        return tape.gradient(z, sources)

    assert isinstance(of(x), tf.Tensor)
    assert of([x, y]) == [12.0, 4.0] and isinstance(of([x, y]), list)
    assert of((x, y)) == (12.0, 4.0) and isinstance(of((x, y)), tuple)
    assert of({"y": y, "x": x}) == {"y": 4.0, "x": 12.0}
    assert of(Pair(x, y)) == Pair(12.0, 4.0) and isinstance(of(Pair(x, y)), Pair)
    assert of(OrderedDict(b=y, a=x)) == OrderedDict(b=4.0, a=12.0)
    assert of([x, {"k": (y, [x])}]) == [12.0, {"k": (4.0, [12.0])}]
    assert of([]) == [] and of(()) == () and of({}) == {}


def test_repeated_sources_each_get_the_full_gradient():
    """structure: repeated sources each get the full gradient."""
    x = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        y = x * x
    assert [float(g) for g in tape.gradient(y, [x, x])] == [4.0, 4.0]


def test_no_path_is_none():
    """no path: None."""
    x, other = tf.Variable(2.0), tf.Variable(3.0)
    with tf.GradientTape() as tape:
        y = x * x
    assert tape.gradient(y, [other, tf.constant(1.0)]) == [None, None]


@pytest.mark.parametrize("zero", ["zero", tf.UnconnectedGradients.ZERO])
def test_no_path_can_be_zeros(zero):
    """no path: with 'zero' or UnconnectedGradients.ZERO zeros of the source's shape and dtype."""
    x = tf.Variable(2.0, dtype=tf.float64)
    unread = tf.Variable([[3, 4]], dtype=tf.int32)
    unwatched = tf.constant([1.0, 2.0])
    with tf.GradientTape() as tape:
        y = x * x
    of_x, of_int, of_constant = tape.gradient(y, [x, unread, unwatched], unconnected_gradients=zero)
    assert float(of_x) == 4.0
    np.testing.assert_array_equal(of_int, [[0, 0]])
    assert of_int.dtype == tf.int32
    np.testing.assert_array_equal(of_constant, [0.0, 0.0])
    assert of_constant.dtype == tf.float32


@pytest.mark.parametrize("other", ["ones", "ZERO", None, 0])
def test_another_word_for_unconnected_gradients(other):
    """no path: other string: ValueError."""
    x = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        y = x * x
    with pytest.raises(ValueError):
        tape.gradient(y, x, unconnected_gradients=other)


def test_a_target_that_is_no_scalar():
    """non-scalar target: gradient of the sum of its elements."""
    x = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        y = tf.stack([x * x, 3.0 * x])
    np.testing.assert_array_equal(tape.gradient(y, x), [5.0, 7.0])


def test_several_targets_are_summed():
    """list/dict of targets: sum over all of them; a target listed twice counts twice."""
    x = tf.Variable(3.0)
    with tf.GradientTape(persistent=True) as tape:
        y, z = x * x, 5.0 * x
    assert float(tape.gradient([y, z], x)) == 11.0
    assert float(tape.gradient({"a": y, "b": [z, z]}, x)) == 16.0
    assert float(tape.gradient([y, y], x)) == 12.0


def test_a_target_that_is_a_source():
    """target is a source: ones; `[y, x]` w.r.t. x gives dy/dx + 1."""
    x = tf.constant([3.0, 4.0])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = x * x
    np.testing.assert_array_equal(tape.gradient(x, x), [1.0, 1.0])
    np.testing.assert_array_equal(tape.gradient([y, x], x), [7.0, 9.0])
    np.testing.assert_array_equal(tape.gradient(y, y), [1.0, 1.0])


def test_a_source_between_target_and_other_sources():
    """A source in the middle of the graph keeps its gradient, and passes it on."""
    x = tf.Variable(3.0)
    with tf.GradientTape() as tape:
        y = x * x
        z = y * x
    assert [float(g) for g in tape.gradient(z, [y, x])] == [3.0, 27.0]


def test_a_target_that_is_a_variable():
    """target is a `tf.Variable`: read as value: d v/d v = 1."""
    v = tf.Variable([3.0, 4.0])
    with tf.GradientTape(persistent=True) as tape:
        y = v * v
    np.testing.assert_array_equal(tape.gradient(v, v), [1.0, 1.0])
    np.testing.assert_array_equal(tape.gradient([y, v], v), [7.0, 9.0])


def test_a_target_that_is_a_source_and_was_never_read():
    """Ones as well, as in `result = v0` under an `if` of the guide; d v/d w stays None."""
    v, w, x = tf.Variable(2.0), tf.Variable(3.0), tf.constant([2.0, 3.0])
    with tf.GradientTape(persistent=True) as tape:
        pass
    dv, dw = tape.gradient(v, [v, w])
    assert float(dv) == 1.0 and dw is None
    assert float(tape.gradient([v, v], v, output_gradients=[2.0, 3.0])) == 5.0
    np.testing.assert_array_equal(tape.gradient(x, x), [1.0, 1.0])
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        y = v * 2.0
    assert float(tape.gradient([y, v], v)) == 1.0
    assert tape.watched_variables() == ()


def test_a_source_recorded_later_than_the_target():
    """source recorded later than the target: None."""
    x = tf.Variable(3.0)
    with tf.GradientTape() as tape:
        y = x * x
        later = y * 2.0
    assert tape.gradient(y, later) is None


def test_output_gradients_weigh_the_target():
    """`output_gradients`: structure of target; seed cotangent; a python list is fine."""
    x = tf.Variable([1.0, 2.0])
    with tf.GradientTape(persistent=True) as tape:
        y = x * x
        z = 3.0 * x
        s = tf.reduce_sum(y)
    seed = tf.constant([10.0, 100.0])
    np.testing.assert_array_equal(tape.gradient(y, x, output_gradients=seed), [20.0, 400.0])
    np.testing.assert_array_equal(tape.gradient(y, x, output_gradients=[10.0, 100.0]), [20, 400])
    np.testing.assert_array_equal(tape.gradient(y, x, output_gradients=[seed]), [20.0, 400.0])
    np.testing.assert_array_equal(tape.gradient(s, x, output_gradients=[3.0]), [6.0, 12.0])
    pair = {"z": tf.constant([1.0, 0.0]), "y": seed}
    grads = tape.gradient({"y": y, "z": z}, x, output_gradients=pair)
    np.testing.assert_array_equal(grads, [23.0, 400.0])
    np.testing.assert_array_equal(
        tape.gradient([y, z], x, output_gradients=[[1.0, 1.0], [2.0, 2.0]]), [8.0, 10.0]
    )
    np.testing.assert_array_equal(
        tape.gradient([y, z], x, output_gradients=[None, seed]), [32, 304]
    )


def test_a_scalar_seed_broadcasts():
    """`output_gradients`: scalar seed broadcasts over a vector target."""
    x = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        y = x * x
    np.testing.assert_array_equal(
        tape.gradient(y, x, output_gradients=tf.constant(10.0)), [20.0, 40.0]
    )


def test_the_seed_is_differentiated_too():
    """`output_gradients`: a seed that an outer tape watches gets its own gradient."""
    x, seed = tf.Variable(3.0), tf.Variable(2.0)
    with tf.GradientTape() as outer:
        with tf.GradientTape() as tape:
            y = x * x
        g = tape.gradient(y, x, output_gradients=seed)
    assert [float(v) for v in outer.gradient(g, [x, seed])] == [4.0, 6.0]


@pytest.mark.parametrize("seed", [[3.0], tf.constant(3.0), np.float32([3.0]), [3]])
def test_a_seed_of_another_dtype(seed):
    """`output_gradients`: seed of wrong dtype (e.g. `[3.0]` for a float64 target): IAE."""
    x = tf.Variable([1.0], dtype=tf.float64)
    with tf.GradientTape() as tape:
        y = x * x
    with pytest.raises(tf.errors.InvalidArgumentError, match="float64"):
        tape.gradient(y, x, output_gradients=seed)


def test_a_seed_of_another_shape():
    """`output_gradients`: wrong shape: IAE; message holds both shapes."""
    x = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        y = x * x
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\(3,\).*\(2,\)"):
        tape.gradient(y, x, output_gradients=tf.constant([1.0, 2.0, 3.0]))


def test_too_few_output_gradients():
    """too few output_gradients: TF 2.21 crashes the process; here a ValueError."""
    x = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        y, z = x * x, 2.0 * x
    with pytest.raises(ValueError, match="1 output_gradients for 2 targets"):
        tape.gradient([y, z], x, output_gradients=[tf.constant(1.0)])


@pytest.mark.parametrize("bad", [1.5, np.ones(2), "x", 3])
def test_what_is_no_tensor_as_target_or_source(bad):
    """source or target not a tensor (float, ndarray): TF: AttributeError; here a TypeError."""
    x = tf.Variable(1.0)
    with tf.GradientTape(persistent=True) as tape:
        y = x * x
    with pytest.raises((ValueError, TypeError), match="tensor"):
        tape.gradient(y, bad)
    with pytest.raises((ValueError, TypeError), match="tensor"):
        tape.gradient(bad, x)


def test_target_none():
    """target None: TypeError."""
    x = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        x * x
    with pytest.raises(TypeError):
        tape.gradient(None, x)


def test_the_gradient_has_the_dtype_of_the_source():
    """gradient dtype: that of the source (f64 through `cast` to an f32 source: float32)."""
    x, w = tf.Variable(2.0), tf.Variable(3.0, dtype=tf.float64)
    with tf.GradientTape() as tape:
        y = tf.cast(x, tf.float64) * w
    of_x, of_w = tape.gradient(y, [x, w])
    assert of_x.dtype == tf.float32 and float(of_x) == 3.0
    assert of_w.dtype == tf.float64 and float(of_w) == 2.0


def test_integer_source_or_target():
    """integer source or integer target: None."""
    x, n = tf.Variable(2.0), tf.Variable(3)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(n)
        y = x * tf.cast(n, tf.float32)
        k = tf.cast(y, tf.int32) * n
    assert tape.gradient(y, n) is None
    assert tape.gradient(k, [x, n]) == [None, None]
    assert tape.gradient(n, n) is None


def test_a_path_through_an_integer_cast():
    """path through an integer cast: cut: None."""
    x = tf.Variable(2.7)
    with tf.GradientTape() as tape:
        y = tf.cast(tf.cast(x, tf.int32), tf.float32) * 2.0
    assert tape.gradient(y, x) is None


def test_an_exception_inside_a_backward_function():
    """an exception inside a backward function: propagates unchanged; later tapes unaffected."""

    class Own(Exception):
        pass

    problem = Own("in the backward pass")

    @tf.custom_gradient
    def f(x):
        def grad(upstream):
            raise problem

        return x * x, grad

    x = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        y = f(x)
    with pytest.raises(Own) as caught:
        tape.gradient(y, x)
    assert caught.value is problem
    with tf.GradientTape() as tape:
        y = x * x
    assert float(tape.gradient(y, x)) == 4.0
