"""Functions called under a tape: programs forwards and backwards, with the bits of eager runs."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile import interpreter

RUNS = interpreter.TRIED + 3  # by then there is a plan
X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
L = tf.keras.layers


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def bits(nest):
    return [None if leaf is None else np.asarray(leaf).tobytes() for leaf in tf.nest.flatten(nest)]


def assert_same(use, plain, *others, runs=RUNS):
    """``use(function)`` gives the same bits as ``use(plain)``, at every call."""
    function = tf.function(plain)
    want = bits(use(plain, *others))
    for run in range(runs):
        assert bits(use(function, *others)) == want, run
    return function


def programs(function):
    """How many programs there are under a tape."""
    under = function._captured(function._programs)._under
    ways = [way for ways in under._ways.values() for way in ways]
    return sum(len(way.captured.executors) for way in ways)


def gradients(f, x, variables, watch=True):
    with tf.GradientTape() as tape:
        if watch:
            tape.watch(x)
        y = f(x)
        loss = tf.reduce_sum(tf.sin(y))
    return y, tape.gradient(loss, [x, *variables])


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


@pytest.mark.parametrize("training", [True, False])
def test_layers_with_state_and_random_numbers(training):
    def build():
        tf.keras.utils.set_random_seed(1)
        x = tf.keras.Input((6, 6, 1))
        y = L.BatchNormalization()(L.Conv2D(3, 3, activation="relu")(x))
        y = L.Dropout(0.3, seed=3)(L.Flatten()(L.MaxPooling2D()(y)))
        return tf.keras.Model(x, L.Dense(2, activation="softmax")(y))

    plain, other = build(), build()
    function = tf.function(other)
    x = tf.constant(np.linspace(-1, 1, 144, dtype=np.float32).reshape(4, 6, 6, 1))

    def step(model, f, run):
        tf.random.set_seed(run)
        with tf.GradientTape() as tape:
            y = f(x, training=training)
            loss = tf.reduce_mean(tf.keras.losses.sparse_categorical_crossentropy([0, 1, 0, 1], y))
        grads = tape.gradient(loss, model.trainable_variables)
        for variable, grad in zip(model.trainable_variables, grads, strict=True):
            variable.assign_sub(0.1 * grad)
        return [y, loss, grads, model.get_weights()]

    for run in range(RUNS):
        assert bits(step(plain, plain, run)) == bits(step(other, function, run)), run
    assert programs(function) == 1


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


def test_losses_see_what_is_behind_probabilities():
    w, x = tf.Variable(60 * X.T), tf.constant(X)

    def use(f):
        with tf.GradientTape() as tape:
            loss = tf.keras.losses.sparse_categorical_crossentropy([0, 1, 2, 3], f(x))
        return loss, tape.gradient(loss, w)

    assert_same(use, lambda x: tf.keras.activations.softmax(x @ w))

    def of_itself(f):
        with tf.GradientTape() as tape:
            z = x @ w
            y = f(z)
            loss = tf.keras.losses.sparse_categorical_crossentropy([0, 1, 2, 3], y)
            loss = tf.reduce_sum(loss) + tf.reduce_sum(tf.sin(z)) + tf.reduce_sum(y * y)
        return loss, tape.gradient(loss, w)

    assert_same(of_itself, lambda x: tf.keras.activations.softmax(x))


def test_masks_go_on():
    tf.keras.utils.set_random_seed(0)
    embed, rest = L.Embedding(5, 3, mask_zero=True), L.LSTM(2)
    ids = tf.constant([[1, 2, 0], [3, 0, 0]])
    rest(embed(ids))

    def use(f):
        with tf.GradientTape() as tape:
            y = rest(f(ids))
        table, *others = tape.gradient(y, [*embed.trainable_variables, *rest.trainable_variables])
        return y, tf.convert_to_tensor(table), others

    assert_same(use, lambda ids: embed(ids))


def test_losses_that_layers_add():
    tf.keras.utils.set_random_seed(0)
    dense = L.Dense(2, activity_regularizer="l2")
    x = tf.constant(X)
    dense(x)

    def use(f):
        with tf.GradientTape() as tape:
            y = f(x)
            loss = tf.reduce_sum(y) + tf.add_n(dense.losses)
        return loss, tape.gradient(loss, dense.trainable_variables)

    assert_same(use, lambda x: dense(x))


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


def test_functions_within_functions_and_control_flow():
    v, x = tf.Variable(0.5), tf.constant(X)
    inner = tf.function(lambda x: tf.tanh(x) * v)

    def f(x):
        y = inner(x)
        for _ in tf.range(3):
            y = y + inner(y)
        return tf.cond(tf.reduce_sum(y) > 100.0, lambda: y, lambda: 2.0 * y)

    def branches(x):
        return x * v if tf.reduce_sum(x) > 0 else x * v * v

    for fn in (f, branches, lambda x: tf.map_fn(lambda row: row * v, x)):
        assert_same(gradients, fn, x, [v])


def test_methods_keywords_and_shapes():
    class Model(tf.Module):
        def __init__(self):
            self.w = tf.Variable(X.T)

        @tf.function
        def __call__(self, x, *, scale):
            return scale * (x @ self.w)

    model, x = Model(), tf.constant(X)
    plain = Model.__dict__["__call__"].python_function
    for rows in (1, 2, 4, 3, 4):
        part = x[:rows]
        want = gradients(lambda x: plain(model, x, scale=2.0), part, [model.w])
        for _ in range(3):
            found = gradients(lambda x: model(x, scale=2.0), part, [model.w])
            assert bits(found) == bits(want)


@pytest.mark.parametrize("jit", [True, "strict"])
def test_a_compiled_function_has_the_bits_of_eager_under_a_tape(jit):
    w, x = tf.Variable(X.T), tf.constant(X)
    plain = lambda x: tf.nn.softmax(tf.exp(x @ w) / 3.0)  # noqa: E731
    f = tf.function(plain, jit_compile=jit)
    f(x)
    for _ in range(RUNS):
        assert bits(gradients(f, x, [w])) == bits(gradients(plain, x, [w]))


def test_a_training_loop_of_shards(monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", "2")

    def train(decorate):
        tf.keras.utils.set_random_seed(4)
        model = tf.keras.Sequential([tf.keras.Input((3,)), L.Dense(4), L.Dropout(0.5), L.Dense(1)])
        optimizer = tf.keras.optimizers.Adam(0.1)
        f = decorate(lambda x: model(x, training=True))

        def loss(batch):
            return tf.reduce_mean(tf.square(f(batch)))

        for step in range(4):
            optimizer.apply_gradients(tf.distribute.gradients(loss, X, step=step))
        return model.get_weights()

    assert bits(train(tf.function)) == bits(train(lambda f: f))


def test_many_threads_at_once():
    w = tf.Variable(X.T)
    f = tf.function(lambda x: tf.tanh(tf.tanh(x @ w)))
    want = [gradients(f.python_function, tf.constant(X * i), [w])[1][1].numpy() for i in range(4)]
    wrong = []

    def work(i):
        for _ in range(RUNS):
            found = gradients(f, tf.constant(X * i), [w])[1][1].numpy()
            if found.tobytes() != want[i].tobytes():
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_memory_is_used_again_when_nobody_looks_into_it():
    w, x = tf.Variable(X.T), tf.constant(X)
    f = tf.function(lambda x: tf.tanh(tf.tanh(x @ w)))
    for _ in range(RUNS + 20):
        gradients(f, x, [w])
    under = f._captured(f._programs)._under
    (way,) = (way for ways in under._ways.values() for way in ways)
    (executor,) = way.captured.executors
    assert len(executor.planned._idle) == 1


def test_fit_that_runs_eagerly():
    def train(decorate):
        tf.keras.utils.set_random_seed(0)

        class Net(tf.keras.Model):
            def __init__(self):
                super().__init__()
                self.parts = [L.Dense(8, activation="relu"), L.Dropout(0.2), L.Dense(3)]

            @decorate
            def call(self, x, training=False):
                for part in self.parts[:-1]:
                    x = part(x, training=training) if isinstance(part, L.Dropout) else part(x)
                return self.parts[-1](x)

        net = Net()
        net.compile("adam", "mse", run_eagerly=True)
        fit = net.fit(X, X[::-1], batch_size=2, epochs=6, verbose=0)
        return fit.history["loss"], net.get_weights()

    assert bits(train(tf.function)) == bits(train(lambda f: f))


def test_functions_within_one_that_asks_for_gradients():
    v, x = tf.Variable(0.7), tf.constant(X)

    def plain(x):
        return tf.tanh(x) * tf.sin(x)

    def asks(inner):
        @tf.function
        def f(x):
            y = inner(x * v)
            if tf.reduce_sum(y) > -100:  # the value is read: this function is no program
                y = inner(y)
            return tf.gradients(y, [x, v])

        return f

    found, want = asks(tf.function(plain)), bits(asks(plain)(x))
    assert all(bits(found(x)) == want for _ in range(RUNS))
