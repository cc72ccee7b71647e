"""Passes about what is kept in memory: arrays made again, and floats that stay narrow."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile.capture import trace
from distgrad.compile.numpy_exec import Executor
from distgrad.compile.passes import (
    Fused,
    expand,
    fuse,
    recompute,
    simplify,
    unrounded,
    widened_late,
)
from distgrad.compile.program import Apply, Program

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 32)).astype(np.float32)
W = RNG.normal(size=(32, 32)).astype(np.float32)
SCALE = RNG.normal(size=32).astype(np.float32)


def program_of(fn, *arrays) -> Program:
    return simplify(trace(fn, arrays).program)


def grouped(program: Program) -> Program:
    return fuse(program, lambda i: i.name in WANTED, smallest=1, mixed=False)


WANTED = {
    *("add", "subtract", "multiply", "square", "exp", "rsqrt", "mean", "sum", "sum_to", "relu"),
    *("cast_float", "gelu_exact", "gelu_exact_grad"),
}


def values(program: Program, *arrays) -> list[bytes]:
    return [np.asarray(a).tobytes() for a in Executor(program, arrays)(arrays)]


def both(fn, *arrays) -> tuple[Program, Program]:
    """Groups before and after the pass, which give the same bits."""
    before = grouped(expand(program_of(fn, *arrays)))
    after = recompute(before).verify()
    assert values(after, *arrays) == values(before, *arrays)
    return before, after


def stored(program: Program) -> list[tuple[int, ...]]:
    groups = (i for i in program.instructions if isinstance(i, Fused))
    return [v.shape for group in groups for v in group.outputs]


def normalised(x):
    centred = x - tf.reduce_mean(x, 1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), 1, keepdims=True)
    return centred * tf.math.rsqrt(variance + 1e-3)


def test_standardised_values_are_made_again_of_numbers_of_rows():
    def fn(x, w):
        y = normalised(x)
        z = tf.matmul(y * SCALE, w)
        return z, tf.reduce_sum(z * y, 0)

    before, after = both(fn, X, W)
    assert stored(before).count((16, 32)) == 2  # y, and what the product takes
    assert stored(after).count((16, 32)) == 1
    assert stored(after).count((16, 1)) == 2  # means and scales


def test_what_a_gradient_reads_is_made_of_the_product_itself():
    def fn(x, w):
        h = tf.matmul(x, w) + SCALE
        with tf.GradientTape() as tape:
            tape.watch(h)
            y = tf.matmul(tf.nn.gelu(h, approximate=False), w)
        return y, tape.gradient(y, h)

    before, after = both(fn, X, W)
    assert len(stored(before)) == len(stored(after)) + 1


def test_what_is_returned_or_read_by_others_is_kept():
    def returned(x, w):
        y = x * 2.0
        return y, tf.matmul(x, w) + y

    def multiplied(x, w):
        y = x * 2.0
        return tf.matmul(y, w) + y

    for fn in (returned, multiplied):
        before, after = both(fn, X, W)
        assert stored(before) == stored(after)


def test_what_costs_more_than_reading_it_is_kept():
    def of_two(x, w):
        y = x + tf.matmul(x, w)
        return tf.matmul(tf.exp(y), w) + y

    def slow(x, w):
        y = tf.exp(x)
        return tf.matmul(y * 2.0, w) + y

    def long(x, w):
        y = x
        for number in range(20):
            y = y * (number + 0.5) + 1.0
        return tf.matmul(tf.exp(y), w) + y

    for fn in (of_two, slow, long):
        before, after = both(fn, X, W)
        assert stored(before) == stored(after)


def test_a_group_that_nobody_needs_any_more_goes():
    def fn(x, w):
        y = x * 2.0
        return tf.matmul(x, w) + y, tf.exp(tf.matmul(w, w))

    program = program_of(fn, X, W)
    first, *rest = program.instructions
    assert isinstance(first, Apply) and first.name == "multiply"
    alone = Fused(
        first.inputs, first.outputs, body=(first,), shape=(16, 32), trailing=None, line=""
    )
    before = program.with_([alone, *grouped(program.with_(rest)).instructions])
    after = recompute(before).verify()
    assert len(after.instructions) == len(before.instructions) - 1
    assert values(after, X, W) == values(before, X, W)


def test_a_chain_of_arrays_is_made_again_from_its_beginning():
    def fn(x, w):
        a = x * 2.0
        first = tf.matmul(tf.exp(a), w)
        b = a + 1.0
        second = tf.matmul(tf.exp(b), w)
        return first + a, second * b

    both(fn, X, W)


# Floats of 16 bits


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_products_and_sums_that_are_widened_are_made_wide(dtype):
    """Of float16 they stay: a loss scale has to see what is too large for it."""
    kind = tf.as_dtype(dtype).numpy_dtype

    def fn(x, w):
        y = tf.matmul(x, w)
        return tf.cast(y, tf.float32), tf.cast(tf.reduce_sum(x, 0), tf.float32)

    program = program_of(fn, X.astype(kind), W.astype(kind))
    taken = {"dot", "sum"}
    after = unrounded(program, lambda i: i.name in taken).verify()
    if dtype == "float16":
        assert after.instructions == program.instructions
        return
    assert sorted(i.name for i in after.instructions) == ["dot", "sum"]
    assert {v.dtype.name for i in after.instructions for v in i.outputs} == {"float32"}
    assert unrounded(program, lambda i: False).instructions == program.instructions


def test_what_is_looked_at_as_it_was_rounded_stays_so():
    def fn(x, w):
        y = tf.matmul(x, w)
        return tf.cast(y, tf.float32), y

    kind = tf.bfloat16.numpy_dtype
    program = program_of(fn, X.astype(kind), W.astype(kind))
    after = unrounded(program, lambda i: True)
    assert [i.name for i in after.instructions] == [i.name for i in program.instructions]


def test_each_widens_what_it_reads():
    def fn(x, w):
        wide = tf.cast(x, tf.float32)
        return tf.exp(wide), tf.reduce_sum(wide * 2.0, 0), tf.matmul(wide, w)

    narrow = X.astype(np.float16)
    before = program_of(fn, narrow, W)
    after = widened_late(before, lambda i: i.name in WANTED).verify()
    names = [i.name for i in after.instructions]
    assert names.count("cast_float") == 3  # one of them for the product
    assert values(after, narrow, W) == values(before, narrow, W)
    (only,) = (i for i in after.instructions if i.name == "dot")
    assert only.inputs[0].dtype == np.float32
