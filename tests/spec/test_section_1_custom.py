"""Tape semantics 1.5 and 1.6: stop_gradient, custom_gradient, operations without a gradient."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf


def test_stop_gradient_has_no_path():
    """`stop_gradient(x)`: identity; no path."""
    x = tf.Variable(3.0)
    with tf.GradientTape(persistent=True) as tape:
        y = tf.stop_gradient(x * x)
        z = y * x
    assert float(y) == 9.0
    assert tape.gradient(y, x) is None
    assert float(tape.gradient(z, x)) == 9.0


def test_stop_gradient_hides_from_outer_tapes():
    """`stop_gradient`: It also hides from outer tapes."""
    x = tf.Variable(3.0)
    with tf.GradientTape() as outer:
        with tf.GradientTape() as tape:
            y = tf.stop_gradient(x) * x * x
        g = tape.gradient(y, x)
    assert float(g) == 18.0
    assert float(outer.gradient(g, x)) == 6.0


def test_custom_gradient_of_one_argument():
    """`grad` returns one gradient per argument (a bare tensor for one argument)."""

    @tf.custom_gradient
    def clipped(x):
        def grad(upstream):
            return tf.clip_by_value(upstream, -1.0, 1.0)

        return 5.0 * x, grad

    x = tf.constant([1.0, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = clipped(x) * [0.5, 7.0]
    np.testing.assert_array_equal(y, [2.5, 70.0])
    np.testing.assert_array_equal(tape.gradient(y, x), [0.5, 1.0])


@pytest.mark.parametrize("kind", [tuple, list])
def test_custom_gradient_of_several_arguments(kind):
    """`grad` returns one gradient per argument (tuple or list for several)."""

    @tf.custom_gradient
    def f(x, y):
        return x * y, lambda upstream: kind([10.0 * upstream, None])

    x, y = tf.Variable(2.0), tf.Variable(3.0)
    with tf.GradientTape() as tape:
        z = f(x, y)
    of_x, of_y = tape.gradient(z, [x, y])
    assert float(of_x) == 10.0 and of_y is None


def test_custom_gradient_with_several_outputs():
    """`grad(*upstream)` has one argument per output (zeros, not None, for unused outputs)."""
    seen = []

    @tf.custom_gradient
    def f(x):
        def grad(a, b):
            seen.append((a, b))
            return 2.0 * a + 3.0 * tf.reduce_sum(b)

        return (2.0 * x, tf.stack([x, x, x])), grad

    x = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        first, second = f(x)
    assert second.shape == (3,)
    assert float(tape.gradient(first, x)) == 2.0
    a, b = seen[0]
    assert float(a) == 1.0
    np.testing.assert_array_equal(b, [0.0, 0.0, 0.0])


def test_custom_gradient_keeps_the_structure_of_the_result():
    """`return y, grad`: y may be a nest."""

    @tf.custom_gradient
    def f(x):
        return {"a": x * 2.0, "b": [x * 3.0]}, lambda a, b: a + b

    x = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        out = f(x)
        y = out["a"] + 10.0 * out["b"][0]
    assert float(tape.gradient(y, x)) == 11.0


@pytest.mark.parametrize("found", [lambda g: (g, g), lambda g: [], lambda g: (g, None, g)])
def test_custom_gradient_with_a_wrong_count(found):
    """Wrong count: ValueError."""

    @tf.custom_gradient
    def f(x):
        return x * x, found

    x = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        y = f(x)
    with pytest.raises(ValueError, match="gradients for 1 arguments"):
        tape.gradient(y, x)


def test_second_order_goes_through_the_operations_inside_grad():
    """Second order differentiates through the ops inside `grad`."""

    @tf.custom_gradient
    def log1pexp(x):
        e = tf.exp(x)
        return tf.math.log(1.0 + e), lambda upstream: upstream * (1.0 - 1.0 / (1.0 + e))

    x = tf.Variable(0.7, dtype=tf.float64)
    with tf.GradientTape() as t2:
        with tf.GradientTape() as t1:
            y = log1pexp(x)
        g = t1.gradient(y, x)
    s = 1 / (1 + np.exp(-0.7))
    assert float(g) == pytest.approx(s, rel=1e-14)
    assert float(t2.gradient(g, x)) == pytest.approx(s * (1 - s), rel=1e-14)


def test_second_order_of_a_gradient_that_is_not_the_true_one():
    """Second order differentiates `grad`, not the function: here the derivative of x**5."""

    @tf.custom_gradient
    def f(x):
        return x * x, lambda upstream: upstream * x**5

    x = tf.Variable(2.0)
    with tf.GradientTape() as t2:
        with tf.GradientTape() as t1:
            y = f(x)
        g = t1.gradient(y, x)
    assert float(g) == 32.0
    assert float(t2.gradient(g, x)) == 80.0


def test_custom_gradient_that_reads_variables():
    """must have `grad(..., variables=None)` and return `(input_grads, variable_grads)`."""
    v, w = tf.Variable(3.0), tf.Variable(5.0)
    unused = tf.Variable(7.0, trainable=False)

    @tf.custom_gradient
    def f(x):
        def grad(upstream, variables=None):
            assert [id(a) for a in variables] == [id(v), id(w)]
            return 10.0 * upstream, [20.0 * upstream, 30.0 * upstream]

        return x * v * w * unused, grad

    x = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        y = f(x)
    assert [float(g) for g in tape.gradient(y, [x, v, w])] == [10.0, 20.0, 30.0]


def test_a_variable_argument_is_no_read_variable():
    """A variable among the arguments gets its gradient as an argument."""

    @tf.custom_gradient
    def f(v):
        return v * v, lambda upstream: 7.0 * upstream

    v = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        y = f(v)
    assert float(tape.gradient(y, v)) == 7.0


def test_reading_variables_without_the_variables_argument():
    """A function that reads variables must have `grad(..., variables=None)`: TypeError."""
    v = tf.Variable(3.0)

    @tf.custom_gradient
    def f(x):
        return x * v, lambda upstream: upstream * v

    with pytest.raises(TypeError, match="variables"):
        f(tf.constant(1.0))


def test_a_wrong_count_of_variable_gradients():
    """Wrong count: ValueError (of the variables' gradients)."""
    v = tf.Variable(3.0)

    @tf.custom_gradient
    def f(x):
        return x * v, lambda upstream, variables=None: (upstream, [])

    with tf.GradientTape() as tape:
        y = f(tf.constant(1.0))
    with pytest.raises(ValueError, match="0 gradients for 1 variables"):
        tape.gradient(y, v)


def test_keyword_arguments_pass_through():
    """`def f(*args)`: keyword arguments are options; they get no gradient."""

    @tf.custom_gradient
    def f(x, scale=1.0):
        return x * scale, lambda upstream: upstream * scale

    x = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        y = f(x, scale=4.0)
    assert float(y) == 8.0
    assert float(tape.gradient(y, x)) == 4.0


def test_a_custom_gradient_of_another_shape_or_dtype():
    """A gradient that cannot belong to its argument is refused with both shapes or dtypes."""

    def run(bad):
        @tf.custom_gradient
        def f(x):
            return x * x, lambda upstream: bad

        x = tf.Variable([1.0, 2.0])
        with tf.GradientTape() as tape:
            y = f(x)
        return tape.gradient(y, x)

    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        run(tf.ones(3))
    with pytest.raises(ValueError, match="float64.*float32"):
        run(tf.ones(2, tf.float64))
    np.testing.assert_array_equal(run(2.5), [2.5, 2.5])


def test_a_custom_gradient_of_a_method():
    """The decorator works on methods: the object is no argument of `grad`... but counts as one."""

    class Scaled:
        scale = 3.0

        def __call__(self, x):
            @tf.custom_gradient
            def f(x):
                return x * self.scale, lambda upstream: upstream * 100.0

            return f(x)

    x = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        y = Scaled()(x)
    assert float(tape.gradient(y, x)) == 100.0


def test_a_custom_result_that_is_the_argument_itself():
    """The outputs are tensors of their own: a result that is the input is not the input."""

    @tf.custom_gradient
    def reversal(x):
        return x, lambda upstream: -upstream

    v = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        y = reversal(v)
        z = reversal(tf.identity(v)) + y
    v.assign([8.0, 9.0])
    np.testing.assert_array_equal(y, [1.0, 2.0])
    np.testing.assert_array_equal(tape.gradient(z, v), [-2.0, -2.0])


# 1.6 Ops without a gradient (None, not zeros)

WITHOUT = {
    "floor": lambda x: tf.floor(x),
    "ceil": lambda x: tf.math.ceil(x),
    "round": lambda x: tf.round(x),
    "comparison": lambda x: tf.cast(x > 1.0, tf.float32),
    "equality": lambda x: tf.cast(tf.equal(x, 1.0), tf.float32),
    "argmax": lambda x: tf.cast(tf.argmax(x), tf.float32),
    "argmin": lambda x: tf.cast(tf.argmin(x), tf.float32),
    "shape": lambda x: tf.cast(tf.shape(x), tf.float32),
    "size": lambda x: tf.cast(tf.size(x), tf.float32),
    "rank": lambda x: tf.cast(tf.rank(x), tf.float32),
    "one_hot": lambda x: tf.one_hot(tf.cast(x, tf.int32), 5),
    "zeros_like": lambda x: tf.zeros_like(x),
    "ones_like": lambda x: tf.ones_like(x),
    "float to int to float": lambda x: tf.cast(tf.cast(x, tf.int32), tf.float32),
    ".numpy()": lambda x: tf.constant(x.numpy()),
    "float()": lambda x: tf.constant(float(x[0])),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_operations_without_a_gradient(name):
    """None, not zeros: floor, ceil, round, comparisons, argmax/argmin, shape/size/rank, ..."""
    x = tf.Variable([1.2, 2.7])
    with tf.GradientTape() as tape:
        y = WITHOUT[name](x)
    assert tape.gradient(y, x) is None


def test_sign_is_different():
    """`sign` is different: gradient zeros."""
    x = tf.Variable([1.2, -2.7])
    with tf.GradientTape() as tape:
        y = tf.sign(x)
    np.testing.assert_array_equal(tape.gradient(y, x), [0.0, 0.0])


def test_a_cast_between_floats_is_differentiable():
    """`cast` between floats is differentiable."""
    x = tf.Variable([1.2, -2.7])
    with tf.GradientTape() as tape:
        y = tf.cast(tf.cast(x, tf.float64) * 2.0, tf.float16)
    g = tape.gradient(y, x)
    np.testing.assert_array_equal(g, [2.0, 2.0])
    assert g.dtype == tf.float32
