"""Captured functions: the same results as eagerly, and every footgun with its right answer."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile import executors
from distgrad.compile.captured import BUDGET, CaptureError
from distgrad.keras.optimizers.scaling import LossScaleOptimizer
from distgrad.ops import streams

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)


def strict(fn):
    return tf.function(fn, jit_compile="strict")


def eager(fn):
    made = tf.function(fn)
    made._programs = None
    return made


# As it is, bind by bind, and by a plan at once (on NumPy's kernels, as the fixture sees to).
FORMS = (eager, tf.function, strict)


def programs(function):
    return len(function.executors)


@pytest.fixture(autouse=True)
def no_warnings(monkeypatch):
    """A fall back to eager is a warning: none may go unseen."""
    monkeypatch.setattr(executors, "best", lambda: "numpy")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def same(a, b):
    for p, q in zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True):
        assert p.numpy().tobytes() == q.numpy().tobytes()


# What changes from call to call


def test_results_have_the_structure_of_the_function():
    @strict
    def f(x, *, scale=2.0):
        return {"b": [x * scale, None], "a": ("text", 1.5)}

    for value in (X, X + 1):
        out = f(value, scale=3.0)
        assert list(out) == ["b", "a"] and out["b"][1] is None and out["a"][0] == "text"
        np.testing.assert_array_equal(out["b"][0], value * 3)
        assert float(out["a"][1]) == 1.5
    assert strict(lambda: None)() is None


def test_variables_are_read_and_written_at_each_call():
    v, n = tf.Variable([1.0, 2.0]), tf.Variable(0)

    @strict
    def f(x):
        n.assign_add(1)
        v.assign_sub(x)
        return v * 2.0, n

    for i in range(1, 4):
        doubled, count = f(tf.constant([1.0, 1.0]))
        np.testing.assert_array_equal(doubled, [2 * (1 - i), 2 * (2 - i)])
        assert int(count) == i
    v.assign([5.0, 5.0])  # from outside
    np.testing.assert_array_equal(f(tf.constant([1.0, 1.0]))[0], [8, 8])
    assert programs(f) == 1


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "Nadam", "RMSprop", "Lion", "Ftrl"])
def test_training_has_the_bits_of_eager(optimizer):
    """With clipping, weight averages and a schedule: nothing of a step is baked in."""
    results = []
    for form in FORMS:
        w = tf.Variable(X.T)
        rate = tf.keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
        opt = getattr(tf.keras.optimizers, optimizer)(
            rate, clipnorm=0.5, use_ema=True, ema_overwrite_frequency=3
        )

        @form
        def step(x, w=w, opt=opt):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(tf.matmul(x, w)))
            opt.apply_gradients([(tape.gradient(loss, w), w)])
            return loss, opt.learning_rate

        results.append([step(X + i) for i in range(7)] + [v.value() for v in (w, *opt.variables)])
    for captured in results[1:]:
        same(results[0], captured)


def test_each_call_has_a_dropout_mask_of_its_own_and_that_of_eager():
    results = []
    for form in FORMS:
        tf.random.set_seed(7)
        f = form(lambda x: tf.nn.dropout(x, 0.5))
        results.append([f(np.ones((4, 50), np.float32)) for _ in range(4)])
        results[-1].append(tf.random.normal([3]))  # the stream stands where it should
    for captured in results[1:]:
        same(results[0], captured)
    masks = {r.numpy().tobytes() for r in results[1][:4]}
    assert len(masks) == 4


def test_random_streams_and_generators():
    results = []
    for form in FORMS:
        generator = tf.random.Generator.from_seed(3)

        @form
        def f(x, generator=generator):
            return x + generator.normal([2, 3]), tf.random.uniform([2], seed=4)

        out = []
        for step in range(3):
            tf.random.set_seed(step)
            out.append(f(X))
        results.append(out)
    for captured in results[1:]:
        same(results[0], captured)


def test_recomputed_gradients_see_the_same_mask():
    results = []
    for form in FORMS:
        tf.random.set_seed(1)

        @form
        def f(x):
            inner = tf.recompute_grad(lambda t: tf.nn.dropout(tf.exp(t), 0.5))
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = inner(x)
            return y, tape.gradient(y, x)

        results.append([f(X) for _ in range(3)])
    for captured in results[1:]:
        same(results[0], captured)
    value, gradient = results[1][0]
    np.testing.assert_array_equal(value, gradient)  # exp is its own derivative


def test_nested_tapes_and_indexed_slices():
    table = tf.Variable(np.arange(8, dtype=np.float32).reshape(4, 2))
    results = []
    for form in FORMS:

        @form
        def f(x, rows):
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    y = tf.reduce_sum(tf.sin(x) * x)
                first = tape.gradient(y, x)
            with tf.GradientTape() as tape:
                z = tf.reduce_sum(tf.gather(table, rows) ** 2.0)
            return first, outer.gradient(first, x), tape.gradient(z, table)

        results.append([f(X, np.array(rows)) for rows in ([0, 2, 2], [1, 1, 3])])
    for captured in results[1:]:
        same(results[0], captured)


def test_metrics_and_learning_rates_are_those_of_the_call():
    mean, opt = tf.keras.metrics.Mean(), tf.keras.optimizers.SGD(0.5)

    @strict
    def f(x):
        mean.update_state(x)
        return mean.result(), opt.learning_rate * 2.0

    assert [float(v) for v in f(tf.constant([1.0]))] == [1.0, 1.0]
    opt.learning_rate = 0.25
    assert [float(v) for v in f(tf.constant([3.0]))] == [2.0, 0.5]


def test_a_label_out_of_range_is_named_at_replay():
    f = strict(lambda y, x: tf.nn.sparse_softmax_cross_entropy_with_logits(y, x))
    f(np.array([0, 2]), X)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"label lies outside \[0, 3\)"):
        f(np.array([0, 3]), X)
    gather = strict(lambda x, i: tf.gather(x, i))
    gather(X, np.array([1]))
    with pytest.raises(tf.errors.InvalidArgumentError):
        gather(X, np.array([5]))


# Values read by Python


READS = {
    "if": lambda x: x if tf.reduce_sum(x) > 0 else -x,
    "float": lambda x: x * float(tf.reduce_max(x)),
    "numpy": lambda x: x + x.numpy(),
    "item": lambda x: x * int(tf.argmax(x[0])),
    "format": lambda x: (f"{x[0, 0]:.1f}", x)[1] * 2.0,
    "iterate": lambda x: x * tf.cast(tf.range(tf.reduce_sum(tf.cast(x > 0, tf.int32)))[0], x.dtype),
    "np function": lambda x: x + np.sin(x),
    "segments": lambda x: tf.math.segment_sum(x, tf.cast(x[:, 0] > 5.0, tf.int32)),
}


@pytest.mark.parametrize("name", READS)
def test_a_host_read_falls_back_and_shows_the_line(name):
    fn = READS[name]
    f = tf.function(fn, jit_compile=True)
    with pytest.warns(UserWarning, match=r"runs eagerly: the value of a tensor is read") as seen:
        same(f(X), fn(tf.constant(X)))
    assert "test_captured.py" in str(seen[0].message) and "lambda x" in str(seen[0].message)
    same(f(-X), fn(tf.constant(-X)))  # once
    with pytest.raises(CaptureError, match="value of a tensor is read at .*test_captured.py"):
        strict(fn)(X)


def test_a_handler_of_exceptions_does_not_hide_a_host_read():
    @strict
    def f(x):
        try:
            return x * float(x[0, 0])
        except Exception:
            return x

    with pytest.raises(CaptureError, match=r"return x \* float"):
        f(X)


def test_a_host_read_of_a_constant_is_no_host_read():
    two = tf.constant([2, 3])
    f = strict(lambda x: tf.reshape(x, two[::-1]) * float(tf.reduce_sum(two)))
    np.testing.assert_array_equal(f(X), X.reshape(3, 2) * 5)


def test_a_trace_that_falls_back_leaves_no_mark():
    v = tf.Variable(1.0)
    tf.random.set_seed(0)
    wanted = tf.random.normal([3])
    tf.random.set_seed(0)

    @tf.function(jit_compile=True)
    def f(x):
        v.assign_add(1.0)
        out = tf.random.normal([3]) if float(x[0, 0]) < 5 else x
        return out

    with pytest.warns(UserWarning, match="runs eagerly"):
        same(f(X), wanted)
    assert float(v) == 2.0


# Signatures


def test_shapes_retrace_until_the_budget_names_the_argument():
    f = tf.function(lambda x, data: x + tf.reduce_sum(data), jit_compile=True)
    sizes = range(1, BUDGET + 1)
    for n in [*sizes, *sizes]:
        assert float(f(tf.constant(1.0), np.ones(n, np.float32))) == 1 + n
    assert programs(f) == BUDGET
    with pytest.warns(UserWarning, match=r"argument 'data' \(float32\[8\], now float32\[9\]\)"):
        assert float(f(tf.constant(1.0), np.ones(9, np.float32))) == 10
    assert float(f(tf.constant(1.0), np.ones(10, np.float32))) == 11  # warned once
    assert float(f(tf.constant(1.0), np.ones(3, np.float32))) == 4  # known ones go on
    s = strict(lambda x: x)
    with pytest.raises(CaptureError, match="argument 'x'"):
        for i in range(BUDGET + 1):
            s(float(i))


def test_python_values_and_dtypes_are_part_of_the_signature():
    f = strict(lambda x, flag, n=1: x * n if flag else -x)
    one = tf.constant(1.0)
    assert [float(f(one, True)), float(f(one, False)), float(f(one, True, n=3))] == [1, -1, 3]
    assert f(tf.constant(2), True).dtype == tf.int32
    assert float(f(one, 1)) == 1  # 1 == True, but another signature


def test_arguments_in_nests_and_variables():
    a, b = tf.Variable(1.0), tf.Variable(2.0)
    f = strict(lambda d, v: d["x"][0] * v + d["y"])
    for v in (a, b, a):
        assert float(f({"x": [tf.constant(3.0)], "y": tf.constant(1.0)}, v)) == 3 * float(v) + 1
    a.assign(5.0)
    assert float(f({"y": tf.constant(1.0), "x": [tf.constant(3.0)]}, a)) == 16


# Python's own doings


def test_side_effects_happen_at_the_first_call_only(capsys):
    seen = []

    @strict
    def f(x):
        print("traced")
        seen.append(1)
        return x * 2.0

    for _ in range(3):
        f(X)
    assert capsys.readouterr().out == "traced\n" and seen == [1]


def test_text_of_a_tensor_says_what_is_known_at_the_first_call(capsys):
    v = tf.Variable(1.0, name="v")

    @strict
    def f(x):
        y = x * v
        print(x, [y], v)
        print(f"{x} {tf.constant(2.0)}")
        return y

    for scale in (1.0, 2.0):
        np.testing.assert_array_equal(f(X * scale), X * scale)
    shape = f"shape={X.shape}"
    assert capsys.readouterr().out.splitlines() == [
        f'Tensor("traced:0", {shape}, dtype=float32) '
        f"[<tf.Tensor 'traced:0' {shape} dtype=float32>] "
        "<tf.Variable 'v:0' shape=() dtype=float32>",
        f'Tensor("traced:0", {shape}, dtype=float32) 2.0',
    ]


def test_a_value_that_is_returned_does_not_change_later():
    v = tf.Variable([1.0, 2.0])

    @strict
    def f(x):
        before = v.value()
        v.assign(v + x)
        return before, v.read_value()

    one = tf.constant([1.0, 1.0])
    before, after = f(one)
    f(one)
    np.testing.assert_array_equal(before, [1, 2])
    np.testing.assert_array_equal(after, [2, 3])
    held = v.value()  # and one held outside keeps its value, too
    f(one)
    np.testing.assert_array_equal(held, [3, 4])


def test_an_update_that_reads_what_it_writes():
    """The gradient of x**2/2 is a view of x itself, which the optimizer writes over."""
    results = []
    for form in FORMS:
        w, opt = tf.Variable(X), tf.keras.optimizers.Adam(0.1)

        @form
        def f(w=w, opt=opt):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(w * tf.stop_gradient(w))
            opt.apply_gradients([(tape.gradient(loss, w), w)])
            return w

        results.append([f() for _ in range(3)])
    for captured in results[1:]:
        same(results[0], captured)


def test_variables_made_at_the_first_call():
    results = []
    for form in FORMS:
        tf.random.set_seed(5)
        layers = tf.keras.layers
        model = tf.keras.Sequential(
            [layers.Dense(4, activation="relu"), layers.Dropout(0.5), layers.Dense(1)]
        )
        opt = tf.keras.optimizers.Adam(0.01)

        @form
        def step(x, model=model, opt=opt):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(x, training=True)))
            v = model.trainable_variables
            opt.apply_gradients(zip(tape.gradient(loss, v), v, strict=True))
            return loss

        results.append([step(X) for _ in range(5)])
        if form is strict:
            assert programs(step) == 1
    for captured in results[1:]:
        same(results[0], captured)


def test_variables_made_at_each_call_run_eagerly():
    f = tf.function(lambda x: tf.Variable(x) * 2.0, jit_compile=True)
    np.testing.assert_array_equal(f(X), X * 2)
    with pytest.warns(UserWarning, match="makes variables at each call"):
        np.testing.assert_array_equal(f(X), X * 2)
    np.testing.assert_array_equal(f(X + 1), (X + 1) * 2)


def test_parts_of_variables_cannot_be_written():
    v = tf.Variable([1.0, 2.0])
    writes = {
        "scatter": lambda x: v.scatter_nd_update([[0]], x[0, :1]),
        "slice": lambda x: v[1].assign(x[0, 0]),
    }
    for write in writes.values():
        with pytest.raises(CaptureError, match="Variable:0 is written to in part,? at .*test_capt"):
            strict(lambda x, write=write: (write(x), x)[1])(X)
    np.testing.assert_array_equal(v.numpy(), [1, 2])


def test_exceptions_pass_through_and_leave_no_mark():
    v = tf.Variable(1.0)

    @strict
    def f(x, fail):
        v.assign_add(1.0)
        if fail:
            raise KeyError("mine")
        return x

    with pytest.raises(KeyError, match="mine"):
        f(X, True)
    assert float(v) == 1.0
    f(X, False)
    assert float(v) == 2.0


def test_under_a_tape_it_runs_as_it_is():
    f = strict(lambda x: x * x)
    f(X)
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = f(x)
    np.testing.assert_array_equal(tape.gradient(y, x), 2 * X)


def test_functions_call_functions():
    inner = strict(lambda x: tf.exp(x))
    outer = strict(lambda x: inner(x) + 1.0)
    same(outer(X), tf.exp(X) + 1.0)
    assert not programs(inner)


def test_methods_keep_their_programs_with_the_object():
    class Model:
        def __init__(self, scale):
            self.scale = tf.Variable(scale)

        @tf.function(jit_compile="strict")
        def double(self, x):
            return x * self.scale

    models = [Model(2.0), Model(3.0)]
    for _ in range(2):
        for model in models:
            same(model.double(X), tf.constant(X) * model.scale)
    other = copy.deepcopy(models[0])
    other.scale.assign(7.0)
    same(other.double(X), tf.constant(X) * 7.0)


def test_what_no_program_can_give():
    with pytest.raises(CaptureError, match="returns a object"):
        strict(lambda x: [x, object()])(X)
    with pytest.raises(CaptureError, match="random stream of its own"):

        @strict
        def f(x):
            with streams.stream(0, 1):
                return x + tf.random.normal([3])

        f(X)


def test_functions_run_as_they_are_on_demand():
    calls = []
    f = tf.function(lambda x: calls.append(1) or x * 2.0)
    f(X), f(X)
    assert len(calls) == 1 and not tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        assert tf.config.functions_run_eagerly()
        f(X), f(X)
    finally:
        tf.config.run_functions_eagerly(False)
    f(X)
    assert len(calls) == 3
    tf.config.experimental_run_functions_eagerly(True)  # the older name
    try:
        f(X)
    finally:
        tf.config.experimental_run_functions_eagerly(False)
    assert len(calls) == 4


@pytest.mark.parametrize("scale", [1.0, 2.0**60])
def test_loss_scales_adapt(scale):
    results = []
    for form in FORMS:
        w = tf.Variable(X)
        opt = LossScaleOptimizer(
            tf.keras.optimizers.SGD(0.1), initial_scale=scale, dynamic_growth_steps=2
        )

        @form
        def f(x, w=w, opt=opt):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.exp(w * x) * 1e25)
                scaled = opt.scale_loss(loss)
            opt.apply_gradients([(tape.gradient(scaled, w), w)])
            return loss

        results.append([f(X) for _ in range(6)] + [w.value(), opt.dynamic_scale.value()])
    for captured in results[1:]:
        same(results[0], captured)
