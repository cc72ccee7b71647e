"""Functions called under a tape: programs forwards and backwards, with the bits of eager runs."""

from __future__ import annotations

import numpy as np

import distgrad as tf

from .taped import RUNS, X, assert_same, bits, gradients, no_warnings, programs  # noqa: F401


def test_python_runs_once_and_the_bits_are_those_of_eager():
    w, b, x = tf.Variable(X.T), tf.Variable(tf.ones(4)), tf.constant(X)
    seen = []

    def f(x):
        seen.append(1)
        return tf.nn.softmax(tf.tanh(x @ w + b)) * tf.reduce_sum(x)

    function = assert_same(gradients, f, x, [w, b])
    assert len(seen) == 2 and programs(function) == 1  # once without tf.function
    assert function.experimental_get_tracing_count() == 1
    assert_same(gradients, f, x, [w, b], False)  # nobody follows x: its gradient is None


def test_any_number_of_gradients_of_any_part():
    v, w, x = tf.Variable(2.0), tf.Variable([1.0, 3.0]), tf.constant([0.5, 0.25])

    def f(x):
        return x * v, tf.exp(w) * x, tf.constant(7), w

    def use(f):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            a, b, c, d = f(x)
            loss = tf.reduce_sum(a * b * d)
        found = [tape.gradient(y, [x, v, w]) for y in (a, b, c, d, loss, [a, b])]
        return found, tape.gradient(loss, w), tape.jacobian(b, [x, v, w]), c

    assert_same(use, f)


def test_derivatives_of_derivatives():
    v, x = tf.Variable(0.7), tf.constant(X)

    def f(x):
        return tf.sin(x * v) ** 2

    def inside(f):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            first = tape.gradient(f(x), [x, v])
            second = tape.gradient(first[0], [x, v])
        return first, second, tape.gradient(second[0], [x, v])

    def nested(f):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = f(x)
            g = inner.gradient(y, x)
        return outer.gradient(g, [x, v])

    def later(f):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = f(x)
        with tf.GradientTape() as other:
            other.watch(x)
            g = tape.gradient(y, x)
        return tape.gradient(y, v), other.gradient(g, [x, v])

    def forwards(f):
        with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as accumulator:
            y = f(x)
        return accumulator.jvp(y)

    for use in (inside, nested, later, forwards):
        assert_same(use, f)


def test_two_calls_before_a_gradient_keep_what_is_theirs():
    w = tf.Variable(X.T)
    function = tf.function(lambda x: tf.tanh(tf.tanh(x @ w)))

    def use(f):
        kept = []
        with tf.GradientTape(persistent=True) as tape:
            for scale in (1.0, 2.0, 3.0):
                kept.append(f(tf.constant(scale * X)))
        return [tape.gradient(y, w) for y in kept], kept

    want = bits(use(function.python_function))
    for _ in range(RUNS):
        first = use(function)
        assert bits(use(function)) == bits(first) == want


def test_a_variable_that_is_written_before_the_gradient():
    w = tf.Variable(X)

    def use(f):
        w.assign(X)
        with tf.GradientTape() as tape:
            y = f()
            w.assign(X + 1)
        return y, tape.gradient(y, w)

    assert_same(use, lambda: w * w)


def test_a_variable_that_the_function_writes():
    w, count = tf.Variable(X), tf.Variable(0.0)

    def f(x):
        y = x * w
        w.assign(2 * w)
        count.assign_add(1)
        return y * w * count

    def use(f):
        w.assign(X)
        count.assign(0)
        with tf.GradientTape() as tape:
            y = f(tf.constant(X))
        return y, tape.gradient(y, w), w, count

    assert_same(use, f)


def test_a_variable_that_is_made_at_the_first_call():
    made = []

    @tf.function
    def f(x):
        if not made:
            made.append(tf.Variable(3.0))
        return x * made[0]

    for _ in range(RUNS):
        with tf.GradientTape() as tape:
            y = f(2.0)
        assert float(tape.gradient(y, made[0])) == 2 and tape.watched_variables() == (made[0],)


def test_rows_of_a_table():
    table, ids = tf.Variable(X), tf.constant([2, 0, 2])

    def use(f, more):
        with tf.GradientTape() as tape:
            y = f(ids)
            loss = tf.reduce_sum(tf.square(y)) + (
                tf.reduce_sum(tf.gather(table, [1])) if more else 0
            )
        grad = tape.gradient(loss, table)
        assert isinstance(grad, tf.IndexedSlices)
        return grad.values, grad.indices, tf.convert_to_tensor(grad)

    for more in (False, True):
        assert_same(use, lambda ids: tf.gather(table, ids) * 2.0, more)


def test_what_a_tape_follows_by_no_argument():
    v = tf.Variable(3.0)

    def use(make):
        with tf.GradientTape() as tape:
            held = v * 2.0
            f = make(lambda x: x * held)
            y = [f(tf.constant(float(i))) for i in (1, 2)]
        return tape.gradient(y, v)

    assert float(use(tf.function)) == float(use(lambda f: f)) == 6


def test_a_constant_that_a_later_tape_follows():
    held, x = tf.constant(3.0), tf.constant(2.0)

    def use(f, watch):
        with tf.GradientTape() as tape:
            tape.watch([x, held] if watch else x)
            y = f(x)
        return tape.gradient(y, [x, held])

    f = tf.function(lambda x: x * held)
    assert [float(g) for g in use(f, True)] == [3, 2]
    assert float(use(f, False)[0]) == 3 and use(f, False)[1] is None
    assert [float(g) for g in use(f, True)] == [3, 2]


def test_what_a_tape_is_told_to_watch():
    v, w, x = tf.Variable(2.0), tf.Variable(3.0, trainable=False), tf.constant(4.0)

    def use(f, automatic, watched):
        with tf.GradientTape(watch_accessed_variables=automatic) as tape:
            for item in watched:
                tape.watch(item)
            y = f(x)
        return tape.gradient(y, [v, w, x]), [v is s or w is s for s in tape.watched_variables()]

    f = tf.function(lambda x: v * w * x)
    for automatic in (True, False):
        for watched in ([], [v], [w], [v, x], [x, w]):
            for _ in range(3):
                found = use(f, automatic, watched)
                assert bits(found) == bits(use(f.python_function, automatic, watched))


def test_a_variable_that_stops_to_train():
    v = tf.Variable(2.0)
    f = tf.function(lambda: v * v)
    for trainable in (True, False, True, False):
        v._trainable = v.trainable = trainable
        with tf.GradientTape() as tape:
            y = f()
        assert (tape.gradient(y, v) is not None) == trainable


def test_a_gradient_of_its_own():
    @tf.custom_gradient
    def clipped(x):
        y = tf.exp(x)
        return y, lambda g: g * tf.minimum(y, 1.0)

    v, x = tf.Variable(0.5), tf.constant(X)
    assert_same(gradients, lambda x: clipped(x * v) + tf.stop_gradient(x), x, [v])


def test_results_of_every_kind():
    v, x = tf.Variable([1.0, 2.0]), tf.constant([3.0, 4.0])

    def f(x):
        y = x * v
        return {"x": x, "v": v, "y": (y, y), "n": 3, "none": None, "twice": [x, x]}

    def use(f):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            z = x * 2.0
            found = f(z)
        found = tf.nest.map_structure(
            lambda y: None if y is None else tf.convert_to_tensor(y), found
        )
        leaves = [leaf for leaf in tf.nest.flatten(found) if leaf is not None]
        with tf.GradientTape() as both:
            both.watch(x)
            z = x * 2.0
            again = [leaf for leaf in tf.nest.flatten(f(z)) if leaf is not None]
            loss = tf.add_n([tf.reduce_sum(tf.cast(leaf, "float32")) for leaf in again])
        return found, both.gradient(loss, [x, v]), len(leaves)

    assert_same(use, f)


def test_a_bias_that_is_added_many_times():
    rng = np.random.default_rng(0)
    b, x = (
        tf.Variable(tf.constant(rng.normal(size=50), "float32")),
        tf.constant(np.ones((7, 50), "f")),
    )

    def f(x):
        for _ in range(5):
            x = tf.tanh(1.1 * x + b)
        return x

    assert_same(gradients, f, x, [b])


def test_the_tape_around_is_used_inside():
    v, x = tf.Variable(2.0), tf.constant(3.0)
    tapes = []

    def f(x):
        y = x * v
        tapes[0].watch(y)
        return y, y * y

    def use(f):
        with tf.GradientTape() as tape:
            tapes[:] = [tape]
            y, z = f(x)
        return tape.gradient(z, [y, v])

    assert_same(use, f)


def test_a_stop_inside_stops_no_tape_around():
    v = tf.Variable(2.0)

    def use(f):
        with tf.GradientTape() as tape:
            y = f(tape)
        return tape.gradient(y, v)

    @tf.function
    def f(tape):
        with tape.stop_recording():
            y = v * v
        return y * v

    assert float(use(f)) == 12  # as in TensorFlow
