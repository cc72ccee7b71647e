"""Functions under a tape in use: with layers, losses, loops, threads, and other functions."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import distgrad as tf

from .taped import RUNS, X, assert_same, bits, gradients, no_warnings, programs  # noqa: F401

L = tf.keras.layers


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


class Scaled(tf.experimental.ExtensionType):
    x: tf.Tensor
    by: int


@pytest.mark.parametrize(
    "given, body",
    [
        (lambda: tf.ragged.constant([[1.0, 2.0], [3.0]]), lambda r: tf.reduce_sum(r, axis=1)),
        (lambda: tf.ragged.constant([[1.0, 2.0], [3.0]]), lambda r: r * 2.0),
        (
            lambda: tf.sparse.from_dense([[1.0, 0.0], [2.0, 3.0]]),
            lambda s: tf.sparse.sparse_dense_matmul(s, tf.ones((2, 2))),
        ),
        (lambda: Scaled(x=tf.constant([1.0, 2.0]), by=3), lambda p: p.x * float(p.by)),
    ],
)
def test_arguments_that_are_no_dense_tensors(given, body):
    v, argument = tf.Variable(2.0), given()

    def use(f):
        with tf.GradientTape() as tape:
            y = f(argument)
        values = getattr(y, "flat_values", y)
        return values, tape.gradient(values, v)

    function = assert_same(use, lambda a: body(a) * v)
    assert function.experimental_get_tracing_count() == 1 == programs(function)
