"""tf.gradients and tf.hessians: derivatives that a function asks for without a tape."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing.gradients import check_gradients

X = np.array([0.5, -1.25, 2.0])


def test_outside_of_functions_they_are_refused():
    x = tf.constant(X)
    with pytest.raises(RuntimeError, match="GradientTape"):
        tf.gradients(x * x, x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        with pytest.raises(RuntimeError, match="GradientTape"):
            tf.hessians(x * x, x)


def test_a_function_that_asks_is_captured():
    calls = []

    @tf.function
    def slope(x):
        calls.append(1)
        return tf.gradients(x**3, x)

    for _ in range(3):
        (g,) = slope(tf.constant(X))
        np.testing.assert_allclose(g, 3 * X**2)
    assert len(calls) == 2 and len(slope.executors) == 1  # once to see that it asks


def test_of_what_lies_in_the_middle():
    @tf.function
    def of_two(x):
        y = x * x
        z = 3.0 * y + x
        return (
            tf.gradients([z, y], [x, y], grad_ys=[2.0 * tf.ones_like(z), None]),
            tf.gradients(z, [x, y], stop_gradients=[y]),
            tf.gradients(z, z),
        )

    both, stopped, itself = of_two(tf.constant(X))
    np.testing.assert_allclose(both[0], 2 * (6 * X + 1) + 2 * X)
    np.testing.assert_allclose(both[1], [7.0] * 3)
    np.testing.assert_allclose(stopped, [[1.0] * 3, [3.0] * 3])
    np.testing.assert_allclose(itself, [[1.0] * 3])


def test_one_of_several_outputs_may_be_taken_for_a_constant():
    @tf.function
    def of_parts(x):
        a, b = tf.split(x * x, [1, 2])
        return tf.gradients([a, b], x, stop_gradients=b)

    np.testing.assert_allclose(of_parts(tf.constant(X))[0], [1.0, 0.0, 0.0])


def test_variables_of_all_kinds():
    v, fixed = tf.Variable(2.0), tf.Variable(3.0, trainable=False)

    @tf.function
    def of_variables(x):
        before = v * 1.0
        v.assign_add(1.0)
        return tf.gradients([before, v * fixed * x], [v, fixed, x])

    for value in (2.0, 3.0):
        of_v, of_fixed, of_x = map(float, of_variables(tf.constant(5.0)))
        assert (of_v, of_fixed, of_x) == (1.0 + 15.0, 5 * (value + 1), 3 * (value + 1))
    assert float(v) == 4.0


@pytest.mark.parametrize("taped", [False, True])
def test_what_was_assigned_before_it_asked_is_assigned_once(taped):
    v = tf.Variable(1.0)

    @tf.function
    def step(x):
        v.assign(2.0 * v)
        if taped or float(x) > 0:  # looks at a value: no program
            return tf.gradients(v * x, x)[0]
        return x

    x = tf.constant(3.0)
    with tf.GradientTape() as tape:
        if taped:
            found = step(x)
    found = found if taped else step(x)
    assert float(found) == 2.0 and float(v) == 2.0
    assert tape.watched_variables() == ((v,) if taped else ())


def test_a_later_call_may_ask_first():
    v = tf.Variable(1.0)

    @tf.function
    def step(x, slopes):
        v.assign_add(1.0)
        return tf.gradients(v * x, x)[0] if slopes else x

    x = tf.constant(3.0)
    assert float(step(x, False)) == 3.0 and float(step(x, True)) == 3.0 == float(v)
    assert float(step(x, True)) == 4.0 and float(step(x, False)) == 3.0 and float(v) == 5.0

    @tf.function
    def looks(x, slopes):
        return tf.gradients(v * x, x)[0] if slopes and float(x) else x

    looks(x, False)
    with pytest.raises(RuntimeError, match="whose first call asks for it"), tf.GradientTape():
        looks(x, True)


def test_where_there_is_no_path():
    v = tf.Variable(1.0)

    @tf.function
    def of_others(x):
        return (
            tf.gradients(x * 2.0, [v, tf.constant(1.0)]),
            tf.gradients(x * 2.0, [v, x], unconnected_gradients="zero"),
            tf.gradients(tf.cast(x, tf.int32), [x]),
        )

    none, zero, whole = of_others(tf.constant(3.0))
    assert none == [None, None] and whole == [None] and list(map(float, zero)) == [0.0, 2.0]


def test_through_loops_branches_and_other_functions():
    square = tf.function(lambda x: x * x)

    @tf.function
    def of_flow(x):
        looped = tf.while_loop(lambda i, s: i < 3, lambda i, s: (i + 1, s * x), [0, x])[1]
        chosen = tf.cond(tf.reduce_sum(x) > 0, lambda: x * x, lambda: x)
        mapped = tf.map_fn(lambda v: tf.gradients(v**3, v)[0], x)
        return [tf.gradients(y, x)[0] for y in (looped, chosen, square(x), mapped)]

    looped, chosen, called, mapped = of_flow(tf.constant(X))
    np.testing.assert_allclose(looped, 4 * X**3)
    np.testing.assert_allclose(chosen, 2 * X)
    np.testing.assert_allclose(called, 2 * X)
    np.testing.assert_allclose(mapped, 6 * X)


def test_a_function_within_another_and_methods():
    class Model:
        @tf.function
        def slope(self, x):
            return tf.gradients(x * x, x)[0]

    model = Model()
    twice = tf.function(lambda x: model.slope(2.0 * x))
    for _ in range(2):
        assert float(twice(tf.constant(3.0))) == 12.0
        assert float(model.slope(tf.constant(3.0))) == 6.0


def test_beside_tapes():
    """Their gradients are known to tapes around them, and those of tapes to them."""

    @tf.function
    def in_turn(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            slope = tf.gradients(x**4, x)[0]
        return tf.gradients(tape.gradient(slope, x), x)[0]

    np.testing.assert_allclose(in_turn(tf.constant(X)), 24 * X)


def test_a_gradient_penalty_beside_finite_differences():
    """As critics have it: a second derivative by way of the first, and both of its own."""
    w = np.random.default_rng(0).normal(size=(3, 4))

    @tf.function
    def penalty(x, w):
        y = tf.reduce_sum(tf.tanh(x @ w), 1)
        slope = tf.gradients(y, x)[0]
        return tf.reduce_mean((tf.norm(slope, axis=1) - 1.0) ** 2)

    check_gradients(penalty, [np.random.default_rng(1).normal(size=(2, 3)), w])


def test_hessians():
    @tf.function
    def second(x, y):
        return tf.hessians(tf.reduce_sum(x**3) * y, [x, y])

    of_x, of_y = second(tf.constant(X), tf.constant(2.0, tf.float64))
    np.testing.assert_allclose(of_x, np.diag(12 * X))
    assert of_y.shape == () and float(of_y) == 0.0
    with pytest.raises(ValueError, match="do not depend"):
        tf.function(lambda x: tf.hessians(x * x, tf.constant(1.0)))(tf.constant(1.0))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="2 grad_ys for 1 ys"):
        tf.function(lambda x: tf.gradients(x, x, [1.0, 2.0]))(tf.constant(1.0))
    with pytest.raises(ValueError, match="cannot be converted"):
        tf.function(lambda x: tf.gradients({"a": x}, x))(tf.constant(1.0))


def test_the_old_names():
    K = tf.keras.backend
    f = tf.function(lambda x: K.gradients(x * x, [x]) + tf.compat.v1.gradients(x * x * x, x))
    assert list(map(float, f(tf.constant(2.0)))) == [4.0, 12.0]
