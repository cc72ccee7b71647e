"""Passes, each alone: what goes, what stays, and that the bits are the same."""

from __future__ import annotations

import numpy as np

import distgrad as tf
from distgrad.compile.capture import trace
from distgrad.compile.numpy_exec import Executor
from distgrad.compile.passes import (
    Fused,
    drop_dead,
    expand,
    fold_constants,
    fold_transposes,
    fuse,
    share_common,
    simplify,
)
from distgrad.compile.passes.fusion import LARGEST
from distgrad.compile.program import Apply, Program
from distgrad.ops.normalization import standardize

X = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)


def traced(fn, *arrays) -> Program:
    program = trace(fn, arrays).program
    assert program is not None
    return program


def names(program: Program) -> list[str]:
    return [i.name for i in program.instructions]


def check(fn, one_pass, *arrays) -> Program:
    """The program after the pass, whose executor gives the bits of the function itself."""
    before = traced(fn, *arrays)
    after = one_pass(before).verify()
    wanted = tf.nest.flatten(fn(*map(tf.constant, arrays)))
    for program in (before, after):
        found = Executor(program, arrays)(arrays)
        for a, b in zip(found, wanted, strict=True):
            assert a.tobytes() == b.numpy().tobytes()
            assert a.shape == tuple(b.shape) and a.dtype == b.numpy().dtype
    return after


def test_dead_code_goes_and_effects_stay():
    v = tf.Variable(np.zeros((5, 7), np.float32))

    def fn(x):
        tf.exp(tf.sin(x))
        v.assign(x * 2.0)
        return x + 1.0

    assert names(check(fn, drop_dead, X)) == ["multiply", "write", "add"]
    np.testing.assert_array_equal(v.numpy(), X * 2)


def test_random_keys_are_drawn_even_where_nobody_uses_them():
    def fn(x):
        tf.random.normal([3])
        return x + 0.0

    assert names(drop_dead(traced(fn, X))) == ["slot", "add"]


def test_common_subexpressions_are_computed_once():
    def fn(x):
        return tf.exp(x) + tf.exp(x), tf.exp(x * 1.0), x**2.0, x**2.0

    after = check(fn, share_common, X)
    assert names(after) == ["exp", "add", "multiply", "exp", "power"]
    assert after.outputs[2] is after.outputs[3]


def test_equal_text_is_not_enough_for_numbers_of_different_kinds():
    def fn(x):
        return x * 0.0, x * -0.0, tf.reduce_sum(x, 0), tf.reduce_sum(x, 1)

    assert len(check(fn, share_common, X).instructions) == 4


def test_reads_are_shared_until_a_write():
    v = tf.Variable(1.0)

    def fn(x):
        a = v * 1.0
        b = v * 1.0
        v.assign_add(1.0)
        return a, b, v * 1.0

    program = share_common(traced(fn, X))
    assert names(program) == ["read", "multiply", "add", "write", "read", "multiply"]
    found = [float(a) for a in Executor(program, [X])([X])]
    assert found == [1.0, 1.0, 2.0]


def test_constants_fold_and_copies_go():
    c = tf.constant([1.0, 2.0])

    def fn(x):
        scale = tf.reduce_sum(tf.exp(c)) * 2.0
        return tf.identity(tf.stop_gradient(x)) * scale, tf.ones_like(x)

    after = check(fn, fold_constants, X)
    assert names(after) == ["multiply"]
    assert after.outputs[1].constant


def test_what_depends_on_an_argument_or_a_key_does_not_fold():
    def fn(x):
        return tf.reduce_sum(x), tf.random.uniform([2])

    assert names(fold_constants(traced(fn, X))) == ["sum", "slot", "random_uniform"]


def test_transposes_become_flags():
    def fn(x, w):
        a = tf.matmul(x, tf.transpose(tf.transpose(w)))
        b = tf.matmul(tf.transpose(x), x)
        return a, b, tf.matmul(tf.transpose(w), tf.transpose(x))

    after = drop_dead(check(fn, lambda p: drop_dead(fold_transposes(p)), X, W))
    assert names(after).count("dot") == 3
    # The first two of w stay, one under the other: a flag takes the last one in.
    flags = [tuple(i.params.values()) for i in after.instructions if i.name == "dot"]
    assert flags == [(False, True), (True, False), (True, True)]
    assert names(after).count("permute") == 1


def test_other_permutations_and_batches_of_rows_stay():
    cube = np.random.default_rng(2).normal(size=(2, 5, 7)).astype(np.float32)

    def fn(x, w):
        a = tf.matmul(tf.transpose(x, [0, 2, 1]), W[:5])  # one product of all rows
        return a, tf.matmul(tf.transpose(x, [1, 0, 2]), w)

    after = check(fn, fold_transposes, cube, W)
    flags = [tuple(i.params.values()) for i in after.instructions if i.name == "dot"]
    assert flags == [(False, False), (False, False)]


def test_elementwise_operations_fuse():
    def fn(x, w):
        h = tf.nn.relu(tf.matmul(x, w) + 1.0)
        s = tf.tanh(h) * h
        return tf.reduce_sum(s, 1), h

    after = check(fn, fuse, X, W)
    assert names(after) == ["dot", "fused", "sum"]
    (group,) = (i for i in after.instructions if isinstance(i, Fused))
    assert [i.name for i in group.body] == ["add", "relu", "tanh", "multiply"]
    assert len(group.outputs) == 2 and len(group.inputs) == 1


def test_groups_have_an_end():
    """Unrolled loops are long: two chains that meet, each of them too large to take the other."""

    def fn(x):
        a, b = x, tf.exp(x)
        for _ in range(100):
            a, b = a * 1.01 + 0.5, b - 0.25
        return a * b

    groups = [i for i in check(fn, fuse, X).instructions if isinstance(i, Fused)]
    assert len(groups) > 2 and max(len(group.body) for group in groups) == LARGEST


def test_groups_of_one_and_of_different_shapes_do_not_fuse():
    def fn(x):
        total = tf.reduce_sum(tf.exp(x), 0)
        return tf.exp(total) + x  # a row and the whole: two shapes

    after = check(fn, fuse, X)
    assert all(isinstance(i, Apply) for i in after.instructions)


def test_two_groups_that_meet_become_one_and_a_write_ends_both():
    v = tf.Variable(np.ones((5, 7), np.float32))

    def fn(x):
        a, b = tf.exp(x) * 2.0, tf.sin(x) * v
        c = a + b
        v.assign(c)
        return c * a

    after = check_written(fn, v)
    assert names(after) == ["read", "fused", "write", "multiply"]


def check_written(fn, variable) -> Program:
    start = variable.numpy()
    wanted = fn(tf.constant(X)).numpy()
    written = variable.numpy()
    variable.assign(start)
    after = fuse(traced(fn, X)).verify()
    (found,) = Executor(after, [X])([X])
    assert found.tobytes() == wanted.tobytes()
    assert variable.numpy().tobytes() == written.tobytes()
    return after


def test_a_group_waits_for_no_operation_that_needs_it():
    """The sum needs exp, the last multiply needs the sum: one group for both would be a cycle."""

    def fn(x):
        e = tf.exp(x)
        total = tf.reduce_sum(e, axis=1, keepdims=True)
        wide = tf.broadcast_to(total, [5, 7])
        return e * 2.0 + e / wide

    after = check(fn, fuse, X)
    assert names(after) == ["exp", "sum", "broadcast_to", "fused"]


def test_all_of_them_on_a_training_step():
    w, b = tf.Variable(W), tf.Variable(np.zeros(3, np.float32))
    labels = np.array([0, 1, 2, 0, 1])

    def fn(x, y):
        with tf.GradientTape() as tape:
            h = tf.tanh(tf.matmul(x, w) + b)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, h)
            loss = tf.reduce_mean(losses)
        return loss, tape.gradient(loss, [w, b])

    after = check(fn, lambda p: fuse(simplify(p)), X, labels)
    assert len(after.instructions) < len(traced(fn, X, labels).instructions)


def test_moments_over_several_runs_of_axes_are_reduced_run_by_run():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 2, 5)).astype(np.float32)
    program = expand(traced(lambda x: standardize(x, axis=(1, 2, 4), epsilon=1e-3), x))
    over = [i.params["axis"] for i in program.instructions if i.name == "mean"]
    assert over == [(1, 2), (4,), (1, 2), (4,)]
    (found,) = Executor(program, [x])([x])
    wanted = standardize(tf.constant(x, tf.float64), axis=(1, 2, 4), epsilon=1e-3)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
