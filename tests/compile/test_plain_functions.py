"""Functions under ``tf.function`` alone: traced as in TensorFlow, with the bits of eager."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import threadpoolctl

import distgrad as tf
from distgrad.compile import interpreter

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
S = tf.TensorSpec
RUNS = interpreter.TRIED + 3  # by then there is a plan


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def test_python_runs_once_for_each_kind_of_arguments():
    seen = []

    @tf.function
    def double(x):
        seen.append(x.dtype.name if isinstance(x, tf.Tensor) else x)
        return x + x

    for _ in range(RUNS):
        assert float(double(tf.constant(1))) == 2
        assert float(double(tf.constant(1.5))) == 3
        assert float(double(3)) == 6
    assert seen == ["int32", "float32", 3] and double.experimental_get_tracing_count() == 3


def test_the_first_calls_are_not_planned_and_all_have_the_same_bits():
    w, optimizer = tf.Variable(X.T), tf.keras.optimizers.Adam(0.1)
    v, other = tf.Variable(X.T), tf.keras.optimizers.Adam(0.1)

    def step(x, w, optimizer):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.exp(tf.nn.dropout(tf.matmul(x, w), 0.3)))
        optimizer.apply_gradients([(tape.gradient(loss, w), w)])
        return loss, w

    f, x = tf.function(step), tf.constant(X)
    for run in range(RUNS):
        tf.random.set_seed(run)
        found = f(x, w, optimizer)
        tf.random.set_seed(run)
        for a, b in zip(found, step(x, v, other), strict=True):
            assert a.numpy().tobytes() == b.numpy().tobytes()
        (executor,) = f.executors
        assert (executor.planned is not None) == (run >= interpreter.TRIED)


def test_an_array_in_another_layout_has_the_bits_of_eager():
    """Sums add in the order in which elements lie."""
    x = np.random.default_rng(0).normal(size=(33, 129)).astype(np.float32)
    f = tf.function(lambda x: [tf.reduce_sum(x), tf.matmul(x, x, transpose_b=True)])
    for _ in range(RUNS):
        for array in (x, np.asfortranarray(x), x[::-1]):
            for a, b in zip(f(array), f.python_function(tf.constant(array)), strict=True):
                assert a.numpy().tobytes() == b.numpy().tobytes()


def backwards(x):
    y = x[:, ::-1]
    return tf.matmul(tf.sin(tf.matmul(y, y, transpose_a=True)), y, transpose_b=True)


@pytest.mark.parametrize(
    ("fn", "shape"),
    [
        (lambda x: tf.math.reduce_variance(tf.transpose(x, (3, 1, 2, 0))), (2, 12, 7, 3)),
        (backwards, (1, 17)),
        (lambda x: tf.matmul(x, x * -0.0), (1, 1)),
    ],
    ids=["a repeated constant", "columns backwards", "a zero with a sign"],
)
def test_layouts_inside_a_function_are_those_of_eager(fn, shape):
    def both(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = fn(x)
        return y, tape.gradient(y, x)

    x = tf.constant(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    f = tf.function(both)
    for _ in range(RUNS):
        for a, b in zip(f(x), both(x), strict=True):
            assert a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.parametrize(
    "read",
    [
        lambda x, v: v.numpy(),
        lambda x, v: np.asarray(v),
        lambda x, v: float(v),
        lambda x, v: x.numpy().sum(),
        lambda x, v: float(f"{v:.1f}"),
        lambda x, v: 1.0 if v > 2 else 0.0,
    ],
)
def test_what_looks_at_values_runs_as_it_is(read):
    v = tf.Variable(1.0)
    f = tf.function(lambda x: x * read(x, v))
    for value in (1.0, 2.0, 3.0):
        v.assign(value)
        np.testing.assert_array_equal(f(X), X * np.float32(read(tf.constant(X), v)))


@pytest.mark.parametrize("last", [lambda y: y, lambda y: {"y": y, "kind": object}])
def test_what_runs_as_it_is_runs_once_in_the_first_call(last):
    """Its effects on lists, variables and random streams are those of one call."""
    seen, total = [], tf.Variable(1.0)
    tf.random.set_seed(3)
    expected = tf.random.uniform([2]).numpy()
    tf.random.set_seed(3)

    @tf.function
    def branching(x):
        seen.append("before")
        total.assign_add(1.0)
        y = x + tf.random.uniform([2])
        if last is not None and tf.reduce_sum(x) > 0:
            y = y * total
        seen.append("after")
        return last(y)

    found = branching(tf.ones(2))
    found = found["y"] if isinstance(found, dict) else found
    assert seen == ["before", "after"] and total.numpy() == 2
    np.testing.assert_array_equal(found, (1 + expected) * 2)
    assert type(found._data) is np.ndarray
    branching(tf.ones(2))
    assert len(seen) == 4 and total.numpy() == 3


@pytest.mark.parametrize("jit", [None, True])
@pytest.mark.parametrize("kind", ["length", "size", "gradient", "distinct"])
def test_shapes_that_depend_on_values_are_those_of_each_call(kind, jit):
    def f(x):
        if kind == "distinct":
            return tf.unique(tf.maximum(x, 0.0)).y
        if kind == "length":
            return x * float(len(tf.where(x > 0)))
        with tf.GradientTape() as tape:
            tape.watch(x)
            kept = tf.boolean_mask(x, x > 0)
            square = tf.reduce_mean(kept**2)
        return tape.gradient(square, x) if kind == "gradient" else tf.size(kept)

    captured = tf.function(f, jit_compile=jit)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for values in ([1.0, -2.0, 3.0], [1.0, 2.0, 3.0], [1.0, -2.0, -3.0]):
            x = tf.constant(values)
            np.testing.assert_array_equal(captured(x), f(x))
    assert len(told) == bool(jit) and not captured.executors
    assert all("depends on values" in str(warning.message) for warning in told)


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_variable_of_an_open_shape_has_that_of_each_call(kind):
    v = tf.Variable([1.0, 2.0], shape=tf.TensorShape([None]))

    @tf.function
    def f(x):
        if kind == "write":
            v.assign(x)
        return tf.reduce_sum(v) * tf.cast(tf.size(v), tf.float32)

    for values in ([1.0, 2.0], [1.0, 2.0, 3.0], [4.0, 5.0]):
        if kind == "read":
            v.assign(values)
        given = tf.constant(values if kind == "write" else 0.0)
        assert float(f(given)) == sum(values) * len(values)
        np.testing.assert_array_equal(v, values)


def test_what_was_left_to_replays_is_not_lost(capsys):
    """Where a variable is made, or a value read, after a print: that happens once all the same."""
    made = []

    @tf.function
    def printing(x, reads):
        tf.print("told", output_stream=sys.stdout)
        if reads and x > 0:
            return x
        made.append(tf.Variable(2.0)) if not made else None
        return x * made[0]

    for reads in (False, False, True, True):
        printing(tf.constant(1.0), reads)
    assert capsys.readouterr().out == "told\n" * 4


def test_elements_of_datasets_are_no_constants():
    dataset = tf.data.Dataset.range(2 * RUNS)
    one, other = iter(dataset), iter(dataset)
    following = tf.function(lambda: next(one))
    given = tf.function(lambda iterator: iterator.get_next())
    for n in range(RUNS):
        assert int(following()) == n and int(given(other)) == n
    drawn = tf.data.Dataset.range(100).shuffle(100).take(5)
    f = tf.function(lambda: [element for element in drawn])
    assert len({tuple(int(t) for t in f()) for _ in range(4)}) == 4


def test_python_code_that_is_asked_for_runs_at_each_call(capsys, tmp_path):
    seen, v = [], tf.Variable(0)

    @tf.function
    def told(x):
        tf.print("x is", x, v)
        v.assign_add(1)
        tf.print("hello", output_stream=f"file://{tmp_path}/log")
        return x * 2

    @tf.function
    def counted(x):
        tf.py_function(lambda t: seen.append(int(t)), [x], [])
        return x + tf.numpy_function(lambda: np.int32(len(seen)), [], tf.int32)

    for n in range(RUNS):
        assert int(told(tf.constant(n))) == 2 * n and int(counted(tf.constant(0))) == n + 1
    assert told.experimental_get_tracing_count() == 1
    assert capsys.readouterr().err.splitlines() == [f"x is {n} {n}" for n in range(RUNS)]
    assert (tmp_path / "log").read_text() == "hello\n" * RUNS


def test_summaries_are_written_at_each_call(tmp_path):
    pytest.importorskip("tensorboardX")
    reader = pytest.importorskip("distgrad.training.tensorboard")
    written = []
    add, reader.EventFile.add = (
        reader.EventFile.add,
        lambda self, step, made: written.append((step, made.value[0].simple_value)),
    )
    try:
        writer, step = tf.summary.create_file_writer(tmp_path), tf.Variable(0)

        @tf.function
        def f(x):
            with writer.as_default(), tf.summary.record_if(lambda: step < RUNS - 1):
                assert tf.summary.scalar("loss", tf.reduce_sum(x), step=step)
            step.assign_add(1)

        for n in range(RUNS):
            f(tf.constant([float(n)]))
    finally:
        reader.EventFile.add = add
    assert written == [(n, n) for n in range(RUNS - 1)] and f.experimental_get_tracing_count() == 1


def test_the_time_is_no_constant():
    now = tf.function(lambda: tf.timestamp())
    first = float(now())
    time.sleep(0.01)
    assert first < float(now()) < time.time() + 1


def test_arguments_of_one_call_make_no_programs():
    f = tf.function(lambda words: tf.constant([len(word) for word in words]))
    for n in range(20):
        words = np.array(["a" * n, "bc"])
        np.testing.assert_array_equal(f(words), [n, 2])
    iterators = tf.function(lambda iterator: next(iterator) + 1)
    for _ in range(20):  # a new iterator each time, and no warning
        assert int(iterators(iter(tf.data.Dataset.range(3)))) == 1
    assert iterators.experimental_get_tracing_count() <= 8


def test_programs_that_were_made_in_vain_are_told():
    f = tf.function(lambda x, n: x * n)
    for n in range(8):
        f(X, float(n))
    with pytest.warns(UserWarning, match=r"8 signatures already: argument 'n' \(7.0, now 9.5\)"):
        np.testing.assert_array_equal(f(X, 9.5), X * np.float32(9.5))


class Scaled(tf.Module):
    def __init__(self, scale):
        self.scale = tf.Variable(scale)

    @tf.function
    def f(self, x):
        return x * self.scale


def test_methods_keep_their_programs_where_their_object_can():
    traced = []

    class Open:
        @tf.function
        def f(self, x):
            traced.append(1)
            return x * 2.0

    class Slotted:
        __slots__ = ("scale",)

        @tf.function
        def f(self, x):
            return x * self.scale

    first, second, slotted = Open(), Open(), Slotted()
    for _ in range(3):
        for each in (first, second):
            np.testing.assert_array_equal(each.f(X), X * 2)
    assert len(traced) == 2
    for slotted.scale in (2.0, 3.0):
        np.testing.assert_array_equal(slotted.f(X), X * np.float32(slotted.scale))

    one = Scaled(2.0)
    np.testing.assert_array_equal(one.f(X), X * 2)
    for other in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        other.scale = tf.Variable(3.0)
        np.testing.assert_array_equal(other.f(X), X * 3)
        np.testing.assert_array_equal(one.f(X), X * 2)

    class Layer(tf.keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = tf.keras.layers.Dense(2)

        @tf.function
        def call(self, x):
            return self.dense(x)

    layer = Layer()
    for _ in range(3):
        np.testing.assert_array_equal(layer(X), layer.dense(X))
    assert len(layer.weights) == 2


def test_threads_share_a_function():
    v = tf.Variable(X)
    f, wrong = tf.function(lambda x: tf.reduce_sum(tf.exp(x) * v)), []
    wanted = {n: tf.reduce_sum(tf.exp(tf.constant(X * n)) * v).numpy() for n in range(4)}

    def work(n):
        for _ in range(2 * RUNS):
            if f(tf.constant(X * n)).numpy() != wanted[n]:
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_a_concrete_function_refuses_other_kinds():
    concrete = tf.function(lambda x: x * 2).get_concrete_function(S([None], tf.int32))
    np.testing.assert_array_equal(concrete([1, 2]), [2, 4])
    for error in (TypeError, tf.errors.InvalidArgumentError):
        with pytest.raises(error, match="a float32 tensor of shape"):
            concrete(tf.constant([1.0]))


def test_products_by_threads_of_blas_have_the_bits_of_eager():
    rng = np.random.default_rng(0)
    x, w = (tf.constant(rng.normal(size=s), tf.float32) for s in [(64, 257), (257, 33)])
    f = tf.function(lambda x: tf.matmul(x * 1.0, w))
    with threadpoolctl.threadpool_limits(2, "blas"):
        want = tf.matmul(x, w).numpy()
        assert all((f(x).numpy() == want).all() for _ in range(RUNS))


def test_a_bias_that_is_added_many_times_has_the_gradient_of_eager():
    rng = np.random.default_rng(0)
    x, b = (tf.constant(rng.normal(size=s), tf.float32) for s in [(7, 50), (50,)])
    b = tf.Variable(b)

    def step(x):
        with tf.GradientTape() as tape:
            for _ in range(5):
                x = tf.tanh(1.1 * x + b)  # no rule asks for the bias: nobody holds what was read
        return tape.gradient(x, b)

    f, want = tf.function(step), step(x).numpy()
    assert all((f(x).numpy() == want).all() for _ in range(RUNS))


def test_products_of_one_head_have_the_bits_of_eager():
    rng = np.random.default_rng(0)
    x, y = (tf.constant(rng.normal(size=s), tf.float32) for s in [(33, 1, 9, 9), (33, 1, 9, 8)])

    def f(x, y):
        return tf.matmul(x * 2.0, tf.transpose(y, [0, 1, 3, 2]), transpose_b=True)

    found, want = tf.function(f), f(x, y).numpy()  # a plan multiplies by y itself
    assert all((found(x, y).numpy() == want).all() for _ in range(RUNS))
