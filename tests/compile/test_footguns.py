"""What surprises users of captured functions: each ends in the right answer or a named error."""

from __future__ import annotations

import collections
import copy
import threading
import warnings

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile import executors
from distgrad.compile.captured import CaptureError
from distgrad.compile.llvm import engine

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
EXECUTORS = ["numpy", *(["generated"] if engine.available() else [])]


@pytest.fixture(autouse=True, params=EXECUTORS)
def executor(request, monkeypatch):
    """On every executor; a fall back to eager is a warning, and none may go unseen."""
    monkeypatch.setattr(executors, "best", lambda: request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def strict(fn):
    return tf.function(fn, jit_compile="strict")


# Kernels and checks that look at values


@pytest.mark.parametrize("name", ["floordiv", "floormod", "truncatediv", "truncatemod"])
def test_a_division_of_whole_numbers_that_looks_for_zeros(name):
    x, y = tf.constant([7, -7, 9]), tf.constant([2, 2, -4])
    divide = getattr(tf, name, None) or getattr(tf.math, name)
    np.testing.assert_array_equal(strict(divide)(x, y), divide(x, y))


def test_positions_that_are_arguments():
    x, at, new = tf.constant(X), tf.constant([[1, 2], [0, 1]]), tf.constant([3.0, 4.0])
    for fn in (
        lambda x, at, new: tf.gather_nd(x, at),
        lambda x, at, new: tf.scatter_nd(at, new, [2, 3]),
        lambda x, at, new: tf.tensor_scatter_nd_update(x, at, new),
    ):
        captured = strict(fn)
        np.testing.assert_array_equal(captured(x, at, new), fn(x, at, new))
        with pytest.raises(tf.errors.InvalidArgumentError, match="an index lies outside"):
            captured(x, at + 1, new)


# Memory that two names share


@pytest.mark.parametrize("write", ["assign", "optimizer"])
def test_an_argument_that_is_the_value_of_a_variable_written_in_the_function(write):
    v = tf.Variable(X)
    opt = tf.keras.optimizers.SGD(1.0)

    @strict
    def f(x):
        if write == "assign":
            v.assign_add(x)
        else:
            opt.apply_gradients([(-x, v)])
        return x * 1.0, x

    for _ in range(3):
        before = v.numpy()
        held = v.value()
        product, same = f(held)
        for found in (product, same, held):
            np.testing.assert_array_equal(found, before)
        np.testing.assert_array_equal(v, 2 * before)


def test_a_part_of_a_variable_as_an_argument():
    v = tf.Variable([1.0, 2.0, 3.0])

    @strict
    def f(x):
        v.assign(v * 10.0)
        return x + 0.0

    for scale in (1, 10, 100):
        np.testing.assert_array_equal(f(v.value()[1:]), [2 * scale, 3 * scale])


def test_one_tensor_given_twice_and_one_returned_twice():
    @strict
    def f(x, y):
        z = x + y
        return z, z, x

    x = tf.constant(X)
    for _ in range(2):
        a, b, same = f(x, x)
        np.testing.assert_array_equal(a, 2 * X)
        np.testing.assert_array_equal(b, 2 * X)
        np.testing.assert_array_equal(same, X)


def test_one_tensor_given_twice_is_two_within_as_in_tensorflow():
    x, v = tf.constant(3.0), tf.Variable(2.0)

    def slopes(a, b):
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            y = a * b + a
        return tape.gradient(y, [a, b])

    captured = strict(slopes)
    assert [list(map(float, captured(x, other))) for other in (x, tf.constant(5.0), x)] == [
        [4, 3],
        [6, 3],
        [4, 3],
    ]
    assert list(map(float, slopes(x, x))) == [7, 7]  # eagerly it is one
    assert list(map(float, captured(v, v))) == [5, 5]  # and so is a variable
    product = strict(lambda a, b: a * b + a)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = product(x, x)
    assert float(tape.gradient(y, x)) == 7


def test_results_that_are_kept_are_not_written_over():
    f = strict(lambda x: tf.tanh(x) * 2.0)
    kept = [f(X * i) for i in range(4)]
    for i, result in enumerate(kept):
        np.testing.assert_array_equal(result, f(X * i))
    array = kept[1].numpy()
    try:
        array[...] = 7
    except ValueError:
        pass  # read-only: as good
    np.testing.assert_array_equal(f(X), f(X * 1))


def test_arrays_that_the_caller_writes_over():
    f, same = strict(lambda x: x * 2.0), strict(lambda x: x)
    array = X.copy()
    first, returned = [f(array) for _ in range(2)][1], [same(array) for _ in range(2)][1]
    array[...] = 5
    np.testing.assert_array_equal(first, 2 * X)
    np.testing.assert_array_equal(returned, X)
    np.testing.assert_array_equal(f(array), np.full_like(X, 10))


# Python's part


@pytest.mark.parametrize("taped", [False, True])
def test_a_tensor_that_leaves_by_a_side_effect_is_out_of_scope(taped):
    kept = []

    @strict
    def f(x):
        kept.append(x * 2.0)
        kept.append(x)
        return kept[-2] + 1.0

    for i in range(3):
        if taped:
            with tf.GradientTape():
                f(X + i)
        else:
            f(X + i)
    made, given = kept
    assert made.shape == given.shape == X.shape and made.dtype == tf.float32
    assert "traced" in f"{made!r} {made}"
    copied = copy.deepcopy(made)
    w = tf.Variable(X)
    for use in (
        lambda: made + 1.0,
        lambda: given.numpy(),
        lambda: tf.matmul(made, X, transpose_b=True),
        lambda: made[0],
        lambda: tf.concat([copied, X], 0),
        lambda: strict(lambda x: x + made)(X),
        lambda: f(made),
        lambda: w.assign(made),
        lambda: np.asarray(made),
        lambda: np.add(made, 1.0),
        lambda: bool(tf.reduce_any(made > 0)),
        lambda: tf.keras.layers.Dense(2)(made),
        lambda: tf.shape(made) + tf.cast(made[0, 0], "int32"),
    ):
        with pytest.raises(TypeError, match="out of scope: f made it"):  # as in TensorFlow
            use()


def test_what_is_closed_over_is_baked_in_and_arguments_are_not():
    scale = [2.0]
    f = strict(lambda x: x * scale[0])
    f(X)
    scale[0] = 3.0
    np.testing.assert_array_equal(f(X), X * 2.0)  # as in TensorFlow
    g = strict(lambda x, s: x * s)
    for s in (2.0, 3.0):
        np.testing.assert_array_equal(g(X, s), X * np.float32(s))


def test_recursion_and_functions_in_functions():
    @strict
    def power(x, n):
        return x if n == 0 else power(x * 2.0, n - 1)

    for _ in range(2):
        np.testing.assert_array_equal(power(X, 5), X * 32)
    plus = strict(lambda x: x + 1.0)
    twice = strict(lambda x: plus(plus(x)) - plus(x))
    for _ in range(2):
        np.testing.assert_array_equal(twice(X), (X + 1 + 1) - (X + 1))


def test_python_loops_over_what_is_no_argument():
    def f(x):
        i = tf.constant(0)
        while i < 3:
            i += 1
            x = x * 2.0
        return x

    for _ in range(2):
        np.testing.assert_array_equal(strict(f)(X), X * 8)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x, lambda: -x),
        lambda x: x * float(len(range(abs(int(x[0, 0]))))),
        lambda x: x if bool(tf.reduce_any(x > 5)) else x + 1.0,
    ],
)
def test_branches_on_values_are_named_or_run_eagerly(fn):
    with pytest.raises(CaptureError, match=r"value of a tensor is read at .*test_footguns\.py"):
        strict(fn)(X)
    f = tf.function(fn, jit_compile=True)
    with pytest.warns(UserWarning, match="runs eagerly: the value of a tensor is read at"):
        f(X)
    for x in (X + 9, X - 9):
        np.testing.assert_array_equal(f(x), fn(tf.constant(x)))


def test_checks_of_values_are_made_at_each_call():
    @strict
    def f(x, y):
        tf.debugging.assert_positive(x, message="first")
        tf.debugging.assert_less(x=x, y=y)
        tf.debugging.Assert(tf.reduce_all(x < 9), [x, "large"])
        return tf.debugging.check_numerics(x * y, "product")

    one = np.ones(3, np.float32)
    for x, y in ((one, 2 * one), (3 * one, 4 * one)):
        np.testing.assert_array_equal(f(x, y), x * y)
    wrong = [(-one, one, "first"), (one, one, "x < y"), (10 * one, 20 * one, "large")]
    for x, y, said in [*wrong, (one, one * np.inf, "product : Tensor had Inf")]:
        with pytest.raises(tf.errors.InvalidArgumentError, match=said):
            f(x, y)
    np.testing.assert_array_equal(f(one, 2 * one), 2 * one)


# Arguments and results


def test_no_arguments_and_no_results():
    v = tf.Variable(1.0)
    count = strict(lambda: v.assign_add(1.0))
    assert [float(count()) for _ in range(3)] == [2, 3, 4]

    @strict
    def silent():
        v.assign(v * 2.0)

    assert silent() is None and silent() is None and float(v) == 16


def test_keywords_defaults_and_a_tensor_as_a_default():
    three = tf.constant(3.0)

    @strict
    def f(x, y=three, *, z=1.0):
        return x * y + z

    two = tf.constant(2.0)
    for _ in range(2):
        assert float(f(two)) == float(f(x=two)) == 7
        assert float(f(two, two)) == float(f(y=two, x=two)) == 5
        assert float(f(z=5.0, x=two)) == 11


def test_nests_come_and_go_as_they_are():
    Pair = collections.namedtuple("Pair", "a b")
    f = strict(lambda p, d: (Pair(p.b, p.a), {"k": [d["k"], None], "t": ("s", p.a)}))
    for i in range(2):
        pair, nest = f(Pair(tf.constant(1.0 + i), tf.constant(2.0)), {"k": X})
        assert type(pair) is Pair and (float(pair.a), float(pair.b)) == (2, 1 + i)
        assert nest["k"][1] is None and nest["t"][0] == "s"
        nest["k"][0] = "changed by the caller"
    assert f(Pair(tf.constant(0.0), tf.constant(0.0)), {"k": X})[1]["k"][0].shape == (2, 3)


def test_dtypes_and_shapes_that_change():
    f = strict(lambda x: x * 2 if x.shape[0] > 2 else x)
    for dtype in ("float32", "float64", "int32", "float32"):
        assert f(np.ones((3, 1), dtype)).dtype.name == dtype
    np.testing.assert_array_equal(f(X), X)
    empty = strict(lambda x: tf.reduce_sum(x * 2.0, 0))
    for n in (0, 3, 0):
        np.testing.assert_array_equal(empty(np.ones((n, 2), np.float32)), [2 * n] * 2)


def test_sizes_in_nests_are_constants_and_values_in_nests_are_not():
    @strict
    def f(x, w):
        rows = tf.shape(x)[0]
        y = tf.pad(tf.reshape(x, [rows, -1, 1]), [[0, 4 - rows], [0, 0], [0, 0]])
        return tf.reduce_sum(y) * tf.matmul([[1.0, w]], [[w, 0.0], [1.0, w]])

    for w in (2.0, 3.0):
        np.testing.assert_allclose(f(X + 1, tf.constant(w)), [[12 * w, 6 * w * w]], 1e-6)


def test_shapes_that_are_said_to_vary_have_programs_of_their_own():
    signed = tf.function(
        lambda x: x * 2.0, input_signature=[tf.TensorSpec([None])], jit_compile="strict"
    )
    relaxed = tf.function(lambda x: x * 2.0, reduce_retracing=True, jit_compile="strict")
    for f in (signed, relaxed):
        for n in range(20):
            np.testing.assert_array_equal(f(np.ones(n, np.float32)), np.full(n, 2))
        assert len(f.executors) == 20


def test_a_concrete_function_runs_the_same_programs():
    f = strict(lambda x, n: x * n)
    concrete = f.get_concrete_function(tf.TensorSpec([2, 3]), 3.0)
    for _ in range(2):
        np.testing.assert_array_equal(concrete(X), X * 3)
    assert len(f.executors) == 1
    with pytest.raises(TypeError):
        concrete(X[:1])


def test_what_a_generator_gives_is_baked_in_at_the_trace():
    """An iterator is no tensor: it is asked when the function is traced, and no more."""
    f = strict(lambda it: next(it) * 2.0)
    values = iter([tf.constant(1.0), tf.constant(2.0)])
    assert float(f(values)) == float(f(values)) == 2


# Threads, errors, and what was deleted


def test_threads_share_a_function():
    v = tf.Variable(2.0)
    f = strict(lambda x: x * v + tf.reduce_sum(x) * 0.0)
    found = [None] * 6

    def run(i):
        for _ in range(20):
            found[i] = f(np.full((50, 50), i, np.float32))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, result in enumerate(found):
        np.testing.assert_array_equal(result, np.full((50, 50), 2 * i))


def test_an_error_at_replay_leaves_the_program_usable():
    v = tf.Variable(0.0)

    @strict
    def f(x):
        v.assign_add(1.0)
        tf.debugging.assert_positive(x)
        return x

    f(X * 0 + 1)
    with pytest.raises(tf.errors.InvalidArgumentError):
        f(X)
    assert float(v) == 2.0  # what came before the error has happened, as it does eagerly
    f(X * 0 + 1)
    assert float(v) == 3.0


def test_variables_that_come_and_go():
    f = strict(lambda x, v: x * v)
    for i in range(4):
        v = tf.Variable(float(i))
        assert float(f(tf.constant(1.0), v)) == i
        del v


def shifted(a, b):
    old = a.read_value()
    a.assign(b)
    b.assign(old + 1.0)


def swapped(a, b):
    old = tf.identity(a)
    a.assign(b)
    b.assign(old)


def summed(a, b):
    a.assign_add(b)
    b.assign(a)


def softly(a, b):
    a.assign(0.9 * a + 0.1 * b)
    b.assign_sub(a)


@pytest.mark.parametrize("update", [shifted, swapped, summed, softly])
def test_a_variable_that_is_assigned_to_another(update):
    """As a target network takes the weights of the one that is trained."""
    captured, plain = ([tf.Variable(X), tf.Variable(X[::-1] + 2)] for _ in range(2))
    step = strict(lambda: update(*captured))
    for call in range(4):
        step()
        update(*plain)
        if call == 1:
            for pair in (captured, plain):
                pair[1].assign(X * 7)
        for one, other in zip(captured, plain, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_part_of_a_variable_that_is_written_to_before_the_whole():
    v = tf.Variable([1.0, 2.0])

    @tf.function
    def step():
        v[0].assign(v[1])
        v.assign(v * 2.0)
        return v + 0.0

    assert step().numpy().tolist() == [4.0, 4.0]
    assert step().numpy().tolist() == [8.0, 8.0]
    with pytest.raises(CaptureError, match="written to in part"):
        strict(step.python_function)()
