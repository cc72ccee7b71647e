"""custom_gradient: the variables it counts; grad_pass_through: the gradient of the identity."""

from __future__ import annotations

import copy
import pickle

import numpy as np

import distgrad as tf
from distgrad.core.tape import TrainingTape


def test_a_rounding_with_the_gradient_of_the_identity():
    """To both orders: the second derivative of x**2 through it is that of x**2."""

    @tf.grad_pass_through
    def rounded(x):
        """Doc."""
        return tf.round(x)

    x = tf.Variable([1.2, 2.7])
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            y = rounded(x * x) * x
        g = inner.gradient(y, x)
    np.testing.assert_array_equal(y, np.float32([1.0, 7.0]) * np.float32([1.2, 2.7]))
    np.testing.assert_allclose(g, np.round(x.numpy() ** 2) + 2 * x.numpy() ** 2, rtol=1e-6)
    np.testing.assert_allclose(outer.gradient(g, x), 6 * x.numpy(), rtol=1e-6)
    assert (rounded.__name__, rounded.__doc__) == ("rounded", "Doc.")


def test_variables_that_the_function_reads_have_no_gradient():
    x, v = tf.Variable(3.0), tf.Variable(2.0)
    f = tf.grad_pass_through(lambda a, b: (a * v, b * v))
    with tf.GradientTape() as tape:
        one, two = f(x, x)
        y = one + 10.0 * two
    of_x, of_v = tape.gradient(y, [x, v])
    assert float(y) == 66.0 and float(of_x) == 11.0 and of_v is None


def counted(function, *extra):
    """The variables that the gradient of ``function`` is given; None for none."""
    found = []

    @tf.custom_gradient
    def f(x, *rest):
        def grad(upstream, variables=None):
            found.append(variables)
            of_args = [upstream, *[None] * len(rest)]
            return of_args if variables is None else (of_args, [None] * len(variables))

        return function(x), grad

    x = tf.constant(2.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = f(x, *extra)
    assert float(tape.gradient(y, x)) == 1.0
    return found[0]


def test_the_variables_that_a_gradient_is_given():
    """As TensorFlow 2.21 counts them: what was made trainable, in the order of making."""
    v, w = tf.Variable(3.0), tf.Variable(5.0)
    fixed = tf.Variable(4.0, trainable=False)
    number = tf.Variable(1)
    layer = tf.keras.layers.Dense(1)
    layer.build((None, 1))
    layer.trainable = False
    cases = [
        (lambda x: x * w * v * w, [v, w]),
        (lambda x: x * fixed, None),
        (lambda x: x * tf.cast(number, tf.float32), [number]),
        (lambda x: x * tf.stop_gradient(v), [v]),
        (lambda x: (v.assign(3.0), x)[1], [v]),
        (lambda x: (fixed.assign_add(1.0), w.assign_add(0.0), x)[2], [w]),
        (lambda x: layer(x[None, None])[0, 0], [layer.kernel, layer.bias]),
    ]
    for function, variables in cases:
        found = counted(function)
        assert (found and list(map(id, found))) == (variables and list(map(id, variables)))
    assert counted(lambda x: x * v * w, w) == [v]


def test_a_copy_of_a_variable_comes_after_it():
    old, new = tf.Variable(3.0), tf.Variable(5.0)
    copies = [copy.deepcopy(old), pickle.loads(pickle.dumps(old))]
    found = counted(lambda x: x * copies[1] * copies[0] * new * old)
    assert list(map(id, found)) == list(map(id, [old, new, *copies]))


def test_frozen_weights_have_gradients_through_a_recomputed_layer():
    """For a tape, as without; a training loop asks for none, and none are computed."""
    layer = tf.keras.layers.Dense(2)
    layer.build((None, 3))
    layer.trainable = False
    x = tf.constant([[1.0, 2.0, 3.0]])

    def slopes(function, tape):
        with tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, [x, layer.kernel, layer.bias])

    plain = slopes(layer, tf.GradientTape())
    again = slopes(tf.recompute_grad(layer), tf.GradientTape())
    for g, wanted in zip(again, plain, strict=True):
        np.testing.assert_array_equal(g, wanted)
    of_x, *of_weights = slopes(tf.recompute_grad(layer), TrainingTape())
    np.testing.assert_array_equal(of_x, plain[0])
    assert of_weights == [None, None]
