"""Kernels for GPUs: words of memory, sums of columns, and small kernels that share a launch.

They run on the module that stands for CuPy, or on a GPU with ``--device cuda``.
"""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile.capture import trace
from distgrad.compile.cuda import columns, gathering, rows, writer
from distgrad.compile.cupy_exec import CudaExecutor, cuda_executor
from distgrad.compile.passes import simplify
from distgrad.compile.passes.fusion import Fused, fuse, reduction
from distgrad.compile.program import Value

RNG = np.random.default_rng(0)
BFLOAT16 = tf.bfloat16.numpy_dtype  # NumPy knows its name from here on
pytestmark = pytest.mark.usefixtures("on_gpu")


def floats(*shape, dtype="float32"):
    return RNG.normal(size=shape).astype(dtype)


def executor_of(fn, *arrays) -> CudaExecutor:
    return cuda_executor(trace(fn, arrays).program, arrays)


def run(executor, *arrays) -> list[np.ndarray]:
    return [np.asarray(array.get()) for array in executor(arrays)]


def text(executor) -> str:
    return "\n".join(kernel.body for kernel in executor.plan.kernels)


# Words


def mixed(x, half, row, column, flags):
    wide = tf.cast(half, tf.float32)
    y = tf.where(flags, x * row - column, wide)
    turned = tf.transpose(tf.reshape(y, (16, 12)))
    return y, tf.cast(y * 2.0, half.dtype), turned + 1.0, tf.cast(half > 0, tf.float32) - x


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_several_elements_at_a_time_have_the_bits_of_one(dtype, monkeypatch):
    arrays = (
        floats(6, 32),
        floats(6, 32, dtype=dtype),
        floats(32),
        floats(6, 1),
        floats(6, 32) > 0,
    )
    one = executor_of(mixed, *arrays)
    assert "Pack<" not in text(one)
    monkeypatch.setattr(writer, "MANY", 1)
    several = executor_of(mixed, *arrays)
    assert "Pack<float, 8>" in text(several) or "Pack<float, 4>" in text(several)
    for a, b in zip(run(one, *arrays), run(several, *arrays), strict=True):
        assert a.tobytes() == b.tobytes()


def test_weights_are_rounded_and_gradients_written_by_words(monkeypatch):
    """What lies in variables and places of the caller starts at a word, too."""
    monkeypatch.setattr(writer, "MANY", 1)
    w = tf.Variable(floats(8, 16))
    one = floats(1)
    traced = trace(lambda x: tf.cast(tf.cast(w, tf.float16), tf.float32) * x, (one,))
    executor = cuda_executor(traced.program, (one,), [[0]])
    assert "Pack<" in text(executor) and not any(node.opaque for node in executor.plan.nodes)
    assert {view.buffer.kind for view in executor.plan.kernels[0].places} >= {"variable", "output"}
    between = executor.backend.xp.zeros(8 * 16 + 1, "float32")[1:].reshape(8, 16)
    with pytest.raises(ValueError, match="lies at 0x"):
        executor.frame({0: between})([one])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool"])
def test_copies_are_words_where_they_can_be(dtype, monkeypatch):
    x = floats(4, 6, 16)
    x = x > 0 if dtype == "bool" else x.astype(tf.as_dtype(dtype).numpy_dtype)

    def f(x):
        return tf.concat([x[:, :2], x[:, 3:]], 1), tf.reshape(tf.transpose(x, (1, 0, 2)), (24, 16))

    expected = np.concatenate([x[:, :2], x[:, 3:]], 1), x.transpose(1, 0, 2).reshape(24, 16)
    monkeypatch.setattr(writer, "MANY", 1)
    executor = executor_of(f, x)
    assert "Pack<" in text(executor)
    for found, value in zip(run(executor, x), expected, strict=True):
        assert found.tobytes() == value.tobytes()


@pytest.mark.parametrize("size", [1, 3, 7, 129])
def test_what_is_no_whole_number_of_words_is_taken_one_by_one(size, monkeypatch):
    monkeypatch.setattr(writer, "MANY", 1)
    x = floats(3, size)
    executor = executor_of(lambda x: (tf.square(x) + 1.0, x[:, ::-1] * 2.0), x)
    assert "Pack<" not in text(executor)
    squared, turned = run(executor, x)
    np.testing.assert_array_equal(squared, np.square(x) + np.float32(1))
    np.testing.assert_array_equal(turned, x[:, ::-1] * np.float32(2))


def test_rows_and_parts_of_arrays_that_start_between_words():
    x = floats(9, 12)
    found = run(executor_of(lambda x: tf.nn.softmax(x[1:, 1:9] * 3.0), x), x)[0]
    cut = (x[1:, 1:9] * np.float32(3)).astype(np.float64)
    expected = np.exp(cut - cut.max(1, keepdims=True))
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), rtol=1e-5)


# Sums of columns


@pytest.mark.parametrize("rows", [1, 256, 257, 1000])
@pytest.mark.parametrize("width", [1, 10, 33, 128])
def test_sums_of_columns(rows, width, monkeypatch):
    if width == 128:
        monkeypatch.setattr(columns, "MANY", 1)  # four columns a lane
    x, y = floats(rows, width), floats(rows, width)

    def f(x, y):
        z = tf.nn.relu(x) * y
        return z, tf.reduce_sum(z, 0), tf.reduce_mean(x - y, 0)

    executor = executor_of(f, x, y)
    assert not any(node.opaque for node in executor.plan.nodes)
    z, total, mean = run(executor, x, y)
    np.testing.assert_array_equal(z, np.maximum(x, 0) * y)
    np.testing.assert_allclose(total, z.astype(np.float64).sum(0), rtol=2e-5, atol=2e-4)
    wide = (x - y).astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(0), rtol=2e-5, atol=2e-5)
    again = run(executor, x, y)
    assert [a.tobytes() for a in again] == [a.tobytes() for a in (z, total, mean)]


@pytest.mark.parametrize("rows", [255, 257, 4097, 65_537, 70_001, 1_000_003])
@pytest.mark.parametrize("width", [1, 96, 5000])
def test_segments_have_all_rows_and_none_is_empty(rows, width):
    x = Value((rows, width), np.dtype(np.float32))
    fused = Fused((x,), (), body=(), shape=x.shape, trailing=1, line="")
    cut = columns.cuts(fused)
    assert (cut.segments - 1) * cut.segment < rows <= cut.segments * cut.segment


def test_sums_of_more_rows_than_segments_divide():
    x = floats(65_537, 1)  # 512 segments of 129 would be too many
    (found,) = run(executor_of(lambda x: tf.reduce_sum(x, 0), x), x)
    np.testing.assert_allclose(found, x.astype(np.float64).sum(0), rtol=1e-4)


def test_many_rows_are_one_launch_and_nothing_is_left_counted():
    arrays = floats(1000, 40), floats(700, 3)

    def f(x, y):
        return tf.reduce_sum(x, 0), tf.reduce_mean(x * x, 0), tf.reduce_sum(y * 2.0, 0)

    executor = executor_of(f, *arrays)
    assert len(executor.plan.nodes) == 2 and executor.plan.counted == 4 * (2 + 1)
    frame = executor.frame()
    for _ in range(3):
        found = [np.asarray(array.get()) for array in frame(arrays)]
        x, y = (array.astype(np.float64) for array in arrays)
        np.testing.assert_allclose(found[0], x.sum(0), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found[1], (x * x).mean(0), rtol=1e-4)
        np.testing.assert_allclose(found[2], (y * 2).sum(0), rtol=1e-4, atol=1e-4)
        counters = frame.parts[0]._memory.counters
        cupy = executor.backend.xp
        counted = cupy.ndarray((executor.plan.counted,), "uint8", counters).get()
        assert not np.any(counted)


@pytest.mark.parametrize("shape", [(8, 1024), (7, 1024), (8, 100), (3, 1028), (2, 9000)])
def test_rows_in_registers_have_the_bits_of_rows_that_are_read_again(shape, monkeypatch):
    x, w = floats(*shape), floats(shape[1])

    def f(x, w):
        y = tf.nn.softmax(x * w)
        return y - tf.reduce_mean(y * x, 1, keepdims=True), tf.reduce_max(x, 1)

    found = run(short := executor_of(f, x, w), x, w)
    assert ("t = 0" in text(short)) == (shape[1] < 9000)
    monkeypatch.setattr(rows, "_UNROLLED", 0)
    again = run(long := executor_of(f, x, w), x, w)
    assert "t = 0" not in text(long)
    assert [a.tobytes() for a in found] == [a.tobytes() for a in again]


def test_sums_of_several_axes_of_a_view():
    x = floats(4, 70, 6)
    executor = executor_of(lambda x: tf.reduce_sum(tf.transpose(x, (1, 0, 2)), (0, 1)), x)
    np.testing.assert_allclose(run(executor, x)[0], x.astype(np.float64).sum((0, 1)), rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_sums_of_columns_of_other_floats_are_rounded_once(dtype):
    x = np.abs(floats(600, 5, dtype=dtype))
    (found,) = run(executor_of(lambda x: tf.reduce_sum(x * x, 0), x), x)
    squares = (x * x).astype(np.float64)
    rtol = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float64": 1e-14}[dtype] * 1.01
    np.testing.assert_allclose(found.astype(np.float64), squares.sum(0), rtol=rtol)


def test_sums_over_one_shape_are_one_kernel_before_the_next_product():
    def f(x, y, w):
        return tf.reduce_sum(x, 0), tf.reduce_sum(x * y, 0), tf.matmul(x, w), tf.reduce_sum(y, 0)

    executor = executor_of(f, *(arrays := (floats(8, 4), floats(8, 4), floats(4, 3))))
    launches = [node.kernel is not None for node in executor.plan.nodes]
    assert launches == [True, False, True]
    total, products, _, last = run(executor, *arrays)
    near = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(total, arrays[0].sum(0), **near)
    np.testing.assert_allclose(products, (arrays[0] * arrays[1]).sum(0), **near)
    np.testing.assert_allclose(last, arrays[1].sum(0), **near)


def test_a_group_sums_rows_or_columns():
    def f(x):
        y = tf.nn.softmax(x)
        return tf.reduce_sum(y, 0), y - tf.reduce_mean(x, 0)

    program = simplify(trace(f, (floats(5, 4),)).program)
    for group in fuse(program, lambda i: True, smallest=1, mixed=False).instructions:
        if isinstance(group, Fused):
            kinds = {r.kind for i in group.body if (r := reduction(i)) is not None}
            assert len(kinds) < 2


# Small kernels


def test_kernels_alike_are_compiled_once():
    def f(x, w):
        for _ in range(3):
            x = tf.nn.relu(tf.matmul(x, w) + 1.0)
        return x

    executor = executor_of(f, *(arrays := (floats(4, 4), floats(4, 4))))
    assert len(executor.plan.kernels) == 3 and executor.plan.source.count("__global__") == 1
    x, w = arrays
    for _ in range(3):
        x = np.maximum(x @ w + np.float32(1), 0)
    np.testing.assert_allclose(run(executor, *arrays)[0], x, rtol=1e-4, atol=1e-6)


def test_small_kernels_share_a_launch():
    shapes = [(3, 5), (7,), (2, 2, 2), (64, 9)]
    arrays = [floats(*shape) for shape in shapes]

    def f(*xs):
        return [tf.cast(x * 2.0, tf.bfloat16) for x in xs]

    executor = executor_of(f, *arrays)
    assert [len(kernel.places) for kernel in executor.plan.kernels] == [2 * len(arrays)]
    for x, found in zip(arrays, run(executor, *arrays), strict=True):
        np.testing.assert_array_equal(found, (x * np.float32(2)).astype(BFLOAT16))


def test_what_needs_another_kernel_is_launched_after_it():
    def f(x, y):
        a = tf.transpose(x) + 1.0  # of another shape each: none of them is one group
        b = tf.reshape(a, (-1,)) * 2.0
        return b, tf.reshape(b, (2, -1)) - 3.0, y * 5.0

    executor = executor_of(f, *(arrays := (floats(4, 6), floats(3))))
    assert len(executor.plan.kernels) > 1
    b, c, d = run(executor, *arrays)
    expected = (arrays[0].T + np.float32(1)).reshape(-1) * np.float32(2)
    np.testing.assert_array_equal(b, expected)
    np.testing.assert_array_equal(c, expected.reshape(2, -1) - np.float32(3))
    np.testing.assert_array_equal(d, arrays[1] * np.float32(5))


def test_a_variable_is_written_after_what_reads_it():
    variable = tf.Variable(floats(2, 3))

    def f(x):
        turned = tf.transpose(variable) * 2.0
        variable.assign(x)
        return turned

    x, before = floats(2, 3), variable.numpy()
    executor = executor_of(f, x)
    assert len(executor.plan.kernels) == 2  # not as one, whose blocks run at a time
    np.testing.assert_array_equal(run(executor, x)[0], before.T * np.float32(2))
    np.testing.assert_array_equal(run(executor, x)[0], x.T * np.float32(2))


def test_a_variable_may_be_written_with_a_view_of_itself():
    variable = tf.Variable(floats(4, 4))

    def f(x):
        variable.assign(tf.transpose(variable))
        return x * 2.0

    before = variable.numpy()
    executor = executor_of(f, x := floats(3))
    for expected in (before.T, before):
        run(executor, x)
        np.testing.assert_array_equal(variable.numpy(), expected)


def test_a_launch_has_as_many_arrays_as_it_can_take(monkeypatch):
    monkeypatch.setattr(gathering, "_ARRAYS", 6)
    arrays = [floats(2, n) for n in range(1, 8)]
    executor = executor_of(lambda *xs: [x + 1.0 for x in xs], *arrays)
    assert [len(kernel.places) for kernel in executor.plan.kernels] == [6, 6, 2]
    for x, found in zip(arrays, run(executor, *arrays), strict=True):
        np.testing.assert_array_equal(found, x + np.float32(1))


def test_weights_that_are_rounded_come_before_all_else():
    weights = [tf.Variable(floats(4, 4)) for _ in range(3)]
    x = floats(2, 4)

    def f(x):
        y = tf.cast(x, tf.bfloat16)
        for weight in weights:
            y = tf.matmul(y, tf.cast(weight, tf.bfloat16))
        return y

    executor = executor_of(f, x)
    first, *others = executor.plan.nodes
    assert len(first.writes) == 4 and all(node.kernel is None for node in others)
    product = x.astype(BFLOAT16)
    for weight in weights:
        wide = weight.numpy().astype(BFLOAT16).astype(np.float32)
        product = (product.astype(np.float32) @ wide).astype(BFLOAT16)
    found = run(executor, x)[0].astype(np.float32)
    np.testing.assert_allclose(found, product.astype(np.float32), rtol=2e-2, atol=1e-2)


# Numbers that are sent


def test_a_number_that_changes_is_sent_again():
    x, numbers = floats(3), [np.float32(v) for v in (2.0, 2.0, 0.0, -0.0, 3.0, np.nan, 3.0)]
    executor = executor_of(lambda x, n: (x * n, 1.0 / n), x, np.array(numbers[0]))
    for number in numbers:
        scaled, inverse = run(executor, x, np.array(number))
        np.testing.assert_array_equal(scaled, x * number)
        with np.errstate(divide="ignore"):
            np.testing.assert_array_equal(inverse, np.float32(1) / number)


def test_a_number_of_a_run_that_failed_is_sent_again():
    x, one, five = floats(3), np.array(np.float32(1)), np.array(np.float32(5))
    executor = executor_of(lambda n, x: (x * n, n * 2.0), one, x)
    assert run(executor, one, x)[1] == 2.0
    with pytest.raises(ValueError):
        run(executor, five, floats(4))  # when the number waits to be sent
    assert run(executor, five, x)[1] == 10.0
