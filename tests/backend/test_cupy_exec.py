"""Captured programs on a GPU, beside eager ones and replayed.

They run on the module that stands for CuPy, or on a GPU with ``--device cuda``. A captured program
sums rows in another order than the eager kernels, so that float32 is compared to 1e-5; its graphs
are compared with its own launches one by one bit by bit.
"""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.backend import cuda_rows
from distgrad.core import dispatch
from distgrad.core.primitive import bind
from distgrad.testing.primitives import built_in, samples_of

from .programs import RNG, check, executor_of, floats, on_host, pieces

BFLOAT16 = tf.bfloat16.numpy_dtype  # NumPy knows its name from here on
pytestmark = pytest.mark.usefixtures("on_gpu")


# Every primitive

PRIMITIVES = built_in()
LEFT_OUT = {  # Python code, and numbers that have no one shape
    *("host_values", "custom_call", "nonzero", "unique_parts", "mask_select", "random_rows"),
}
NAMES = sorted(set(PRIMITIVES) - LEFT_OUT)


@pytest.mark.timeout_s(240)
@pytest.mark.parametrize(
    ("part", "dtype"),
    [*((part, np.float32) for part in range(6)), *((p, BFLOAT16) for p in (0, 3))],
)
def test_primitives(part, dtype):
    """A program of many primitives at once, since a compiler takes half a second to start."""
    arrays, calls = [], []
    for primitive in (PRIMITIVES[name] for name in NAMES[part::6]):
        for sample in samples_of(primitive):
            args = []
            for a in sample.args:
                if isinstance(a, np.ndarray) and a.dtype.kind == "f":
                    a = a.astype(dtype)
                args.append((a,) if isinstance(a, np.ndarray) else a)
            calls.append((primitive, args, {**primitive.defaults, **sample.params}))
            arrays += [a[0] for a in args if isinstance(a, tuple)]

    def run(*tensors):
        left, made = iter(tensors), []
        for primitive, args, params in calls:
            out = bind(primitive, *[next(left) if type(a) is tuple else a for a in args], **params)
            made += out if primitive.multiple else [out]
        return made

    eager = [t.numpy() for t in run(*map(tf.constant, arrays))]
    executor = executor_of(run, *arrays)
    names = [p.name for p, args, params in calls]
    for _ in range(2):
        for i, (a, b) in enumerate(zip(on_host(executor(arrays)), eager, strict=True)):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            note = f"output {i} of {names}"
            rtol = 2e-5 if dtype == np.float32 else 1e-2
            if a.dtype == BFLOAT16:
                a, b = a.astype(np.float32), b.astype(np.float32)
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol, err_msg=note)


# Groups of operations as kernels


def test_elementwise_operations_have_the_bits_of_eager_ones():
    def f(x, y, row, flag):
        z = tf.where(flag, x * row - 0.1, y) / (1.0 + tf.abs(x))
        return z, tf.cast(z > 0.0, tf.float32) + tf.nn.relu(z), tf.square(y) - z

    executor = check(f, floats(5, 7), floats(5, 7), floats(7), floats(5, 1) > 0, equal=True)
    assert [k.name for k in executor.plan.kernels] == ["kernel_0"]
    assert pieces(executor) == ["graph"]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (70, 33), (2, 300), (2, 3, 1025), (1, 5000)])
def test_rows(shape):
    def f(x, g):
        y = tf.nn.softmax(x * 2.0)
        z = tf.nn.log_softmax(tf.nn.gelu(x)) + tf.reduce_max(x, -1, keepdims=True)
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        total = tf.reduce_sum(g * centred, -1)
        return y, z, centred * tf.math.rsqrt(tf.reduce_mean(centred**2, -1, True) + 1e-3), total

    check(f, floats(*shape), floats(*shape))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_rows_of_other_floats(dtype):
    labels = np.array([0, 4, 2])

    def f(x, t):
        y = tf.keras.layers.LayerNormalization(dtype=dtype, center=False, scale=False)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, x)
        return tf.nn.softmax(x), tf.nn.log_softmax(x), y(x), loss, x + t

    rtol = 1e-2 if dtype == "bfloat16" else 5e-3  # a rounding of the result, once
    executor = check(f, *[floats(3, 5).astype(dtype) for _ in range(2)], rtol=rtol)
    assert not any(node.opaque for node in executor.plan.nodes)


def test_rows_of_several_axes_and_columns():
    def f(x):
        return (
            tf.reduce_sum(x, (1, 2)) * 2.0,
            tf.reduce_mean(x, 0),
            tf.reduce_sum(x, (0, 1)),
            tf.reduce_max(x, (0, 2)),
            tf.reduce_min(x),
            x - tf.reduce_min(x, (1, 2), keepdims=True),
        )

    for shape in [(3, 4, 5), (200, 3, 40)]:
        check(f, floats(*shape))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_floats_of_16_bits_are_added_up_in_float32(dtype):
    indices = RNG.integers(0, 5, (300, 2))

    def f(x, table):
        with tf.GradientTape() as tape:
            tape.watch(table)
            y = tf.gather(table, indices)
        grad = tape.gradient(y, table, output_gradients=tf.reshape(x, (300, 2, 4)))
        return tf.reduce_sum(x, 0), tf.reduce_mean(x, 0), tf.reduce_sum(x, 1), grad

    x, table = (np.abs(floats(*shape)).astype(dtype) for shape in [(600, 4), (5, 4)])
    executor = executor_of(f, x, table)
    assert not any(node.opaque for node in executor.plan.nodes)
    wide = x.astype(np.float64)
    grad = np.zeros((5, 4))
    np.add.at(grad, indices.reshape(-1), wide)
    expected = wide.sum(0), wide.mean(0), wide.sum(1), grad
    for found, value in zip(on_host(executor([x, table])), expected, strict=True):
        rtol = 2.0 ** (-8 if dtype == "bfloat16" else -11) * 1.01  # one rounding
        np.testing.assert_allclose(found.astype(np.float64), value, rtol=rtol)


def test_a_nan_stays():
    x = floats(3, 4)
    x[1, 2] = np.nan
    found = on_host(executor_of(lambda x: [tf.nn.softmax(x), tf.reduce_max(x, 1)], x)([x]))
    assert np.isnan(found[0]).any(1).tolist() == np.isnan(found[1]).tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "int64", "uint8"])
def test_other_types(dtype):
    def f(x, y):
        parts = [x + y, x * 3 - y, tf.maximum(x, y), tf.cast(x, tf.float32) * 0.5]
        return [*parts, tf.where(x > y, x, y), tf.cast(tf.cast(x, tf.float32) * 2.0, dtype)]

    x = RNG.integers(0, 9, (4, 5)).astype(dtype)
    check(f, x, x[::-1].copy(), equal=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_floats_of_16_bits_are_rounded_after_each_operation(dtype):
    def f(x, y):
        return (x * y + x) * y - x / y * 0.1

    check(f, floats(6, 7).astype(dtype), floats(6, 7).astype(dtype), equal=True)


def test_numbers_become_bfloat16_as_on_the_host():
    x = np.array(
        [0.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, 3.4e38, np.inf, np.nan, -np.nan, 1e-40], np.float32
    )
    executor = executor_of(lambda x: [tf.cast(x, "bfloat16"), tf.cast(x * 1.0, "bfloat16")], x)
    for found in on_host(executor([x])):
        assert found.view(np.uint16).tolist() == x.astype(BFLOAT16).view(np.uint16).tolist()


# Views and products


def test_views_are_no_copies():
    def f(x):
        y = tf.transpose(x, (1, 0, 2))[1:, ::2]
        a, b = tf.split(tf.reshape(x, (4, 15)), [5, 10], 1)
        return (
            y * 2.0,
            tf.reshape(y, (-1,)),
            a + 1.0,
            tf.concat([b, a], 1),
            tf.broadcast_to(a, (2, 4, 5)),
        )

    check(f, floats(3, 4, 5), equal=True)


def test_views_that_go_backwards():
    def f(x):
        return x[::-1] * 2.0, tf.nn.softmax(x[:, ::-1]), tf.concat([x[..., ::-2], x], -1)

    check(f, floats(3, 4, 5))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_products(dtype):
    def f(a, b, heads):
        q = tf.transpose(heads, (0, 2, 1, 3))  # heads before time: no single stride
        scores = tf.matmul(q, q, transpose_b=True)
        return (
            tf.matmul(a, b),
            tf.matmul(a[0], a[1], transpose_a=True),
            tf.matmul(tf.transpose(b), tf.transpose(a[0])),
            tf.matmul(scores, q),
            tf.matmul(a, a, transpose_b=True),
            tf.matmul(a[:, :1], b[:, 1:2]),
            tf.matmul(tf.transpose(a, (1, 0, 2)), b),
        )

    arrays = [floats(2, 3, 4), floats(4, 5), floats(2, 6, 3, 8)]
    arrays = [a.astype(dtype) for a in arrays]
    executor = check(f, *arrays, rtol={"float16": 1e-2, "bfloat16": 4e-2}.get(dtype, 1e-5))
    assert pieces(executor) == ["graph"]


# What goes to cuDNN, where there is one


@pytest.mark.parametrize("dtype, rtol", [("float32", 1e-4), ("float16", 2e-2)])
def test_convolutions_and_their_gradients(dtype, rtol):
    def f(x, w, v):
        with tf.GradientTape() as tape:
            tape.watch([x, w, v])
            y = tf.nn.conv2d(x, w, (2, 1), "SAME", dilations=(1, 2))
            z = tf.nn.depthwise_conv2d(tf.nn.tanh(y), v, (1, 1, 1, 1), "VALID")
            loss = tf.reduce_sum(tf.cast(z, tf.float32) ** 2)
        return [z, *tape.gradient(loss, [x, w, v])]

    arrays = [floats(2, 13, 12, 8) / 4, floats(3, 3, 8, 16) / 4, floats(3, 2, 16, 1) / 4]
    with tf.device("/CPU:0"):
        expected = [t.numpy() for t in f(*[tf.constant(a.astype(np.float64)) for a in arrays])]
    given = [a.astype(dtype) for a in arrays]
    eager = [t.numpy() for t in f(*map(tf.constant, given))]
    for found in (eager, on_host(executor_of(f, *given)(given))):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize("causal", [False, True])
def test_attention_in_half_precision(causal):
    def f(q, k, v, g):
        with tf.GradientTape() as tape:
            tape.watch([q, k, v])
            scores = tf.matmul(q, k, transpose_b=True) * 0.2
            scores = tf.where(np.tri(48, 64, dtype=bool), scores, -3e4) if causal else scores
            y = tf.matmul(tf.nn.softmax(scores), v)
            loss = tf.reduce_sum(tf.cast(y * g, tf.float32))
        return [y, *tape.gradient(loss, [q, k, v])]

    shapes = [(2, 3, 48, 32), (2, 3, 64, 32), (2, 3, 64, 16), (2, 3, 48, 16)]
    arrays = [floats(*shape).astype(np.float16) for shape in shapes]
    with tf.device("/CPU:0"):
        expected = [t.numpy() for t in f(*[tf.constant(a.astype(np.float64)) for a in arrays])]
    for found in map(on_host, [executor_of(f, *arrays)(arrays)] * 2):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-2 * np.abs(b).max())


# What changes from run to run


@pytest.mark.parametrize("most", [0, 1 << 22])
def test_rows_are_added_by_their_index_in_a_graph(monkeypatch, most):
    """With lists of who belongs to a row, and without; they lie in planned memory."""
    monkeypatch.setattr(cuda_rows, "LISTED", most)

    def f(x, indices):
        added = bind(PRIMITIVES["take_grad"], x + 1.0, indices, shape=(40, 3), axis=0)
        return added * 2.0, tf.reduce_sum(added)

    executor = check(f, floats(300, 3), RNG.integers(-40, 40, 300), rtol=1e-4)
    assert pieces(executor) == ["graph"]
    assert not any(node.opaque for node in executor.plan.nodes)


def test_variables_are_read_and_written_at_each_run():
    v, w = tf.Variable(np.arange(3, dtype=np.float32)), tf.Variable(1.0)

    def step(x):
        before = v.read_value()
        v.assign_add(x)
        w.assign(w * 2.0)
        return before, v + 0.0, before * w

    run = tf.function(step, jit_compile="strict")
    x = tf.constant(np.ones(3, np.float32))
    held = v.value()
    for i in range(4):
        before, after, scaled = (t.numpy() for t in run(x))
        np.testing.assert_array_equal(before, np.arange(3) + i)
        np.testing.assert_array_equal(after, np.arange(3) + i + 1)
        np.testing.assert_array_equal(scaled, before * 2.0 ** (i + 1))
    np.testing.assert_array_equal(held.numpy(), np.arange(3))
    v._relocate(dispatch.current().xp.zeros(3, dtype=np.float32))  # moved into an arena
    run(x)
    np.testing.assert_array_equal(v.numpy(), np.arange(3) + 5)


def test_a_variable_that_is_written_twice_has_the_last_value():
    v = tf.Variable(np.ones(3, np.float32))

    @tf.function(jit_compile="strict")
    def f(x):
        v.assign_sub(x)
        v.assign(x)

    for k in range(3):
        x = np.arange(3, dtype=np.float32) + k
        f(x)
        np.testing.assert_array_equal(v.numpy(), x)


def test_a_variable_without_elements_is_written():
    v = tf.Variable(np.ones((2, 0), np.float32))

    @tf.function(jit_compile="strict")
    def f(x):
        v.assign(x)
        return x + v

    assert f(tf.ones([2, 0])).shape == (2, 0)


@pytest.mark.parametrize("draw", [tf.random.uniform, tf.random.normal, tf.random.truncated_normal])
def test_random_numbers_are_those_of_eager_runs(draw):
    def f(x):
        return x + draw((3, 4)), tf.nn.dropout(x, 0.5)

    x, found = tf.constant(floats(3, 4)), []
    for run in (f, tf.function(f, jit_compile="strict")):
        tf.random.set_seed(4)
        found.append([t.numpy() for _ in range(3) for t in run(x)])
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0][0], found[0][2])


def test_keys_are_no_constants_of_a_graph():
    executor = executor_of(lambda x: x + tf.random.uniform((2,)), floats(2))
    a, b = (on_host(executor([np.zeros(2, np.float32)]))[0] for _ in range(2))
    assert pieces(executor) == ["graph"] and not np.array_equal(a, b)


def test_what_has_more_arrays_than_a_launch_of_many_is_one_of_its_own():
    x = floats(300)
    executor = executor_of(lambda x: tf.scan(lambda total, each: 0.5 * total + each, x), x)
    found = on_host(executor([x]))[0]
    wanted = [x[0]]
    for each in x[1:]:
        wanted.append(np.float32(0.5) * wanted[-1] + each)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_inputs_may_lie_on_either_side():
    executor = executor_of(lambda x, y: x - y, floats(3), floats(3))
    x, y = floats(3), floats(3)
    there = dispatch.current().asarray(y)
    np.testing.assert_array_equal(on_host(executor([x, there]))[0], x - y)


def test_outputs_are_arrays_of_their_own():
    x = floats(4)
    executor = executor_of(lambda x: [x, x * 2.0, x[1:]], x)
    first, second = executor([x]), executor([x + 1])
    np.testing.assert_array_equal(on_host(first)[0], x)
    np.testing.assert_array_equal(on_host(first)[1], x * 2)
    np.testing.assert_array_equal(on_host(second)[2], x[1:] + 1)
