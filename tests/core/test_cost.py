"""What a tape costs: linear time and memory, no recursion, nothing kept that no rule needs."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import weakref

import numpy as np
import pytest

import distgrad as tf
from distgrad.core import dispatch, primitive, recording
from distgrad.core.straight import Noted

LONG = 100_000


def chain(n, x):
    y = x
    for _ in range(n):
        y = y * 1.00001
    return y


def counted_calls(monkeypatch, p):
    """The number of times a primitive's kernel runs, through whatever name it was imported."""
    calls = [0]
    xp = dispatch.current().xp
    kernel = p.kernel_for(xp)

    def counting(*args, **params):
        noted = [a for a in args if type(a) is Noted]
        if noted:  # a rule is looked at, to be called without tensors later
            return noted[0].call(counting, args)
        calls[0] += 1
        return kernel(*args, **params)

    monkeypatch.setitem(p._direct, xp, counting)
    primitive.forget_straight()
    return calls


def test_a_long_chain_needs_no_recursion_and_linear_work(monkeypatch):
    """100,000 small operations: one entry each, one backward multiplication each."""
    multiply = primitive.registry["multiply"]
    calls = counted_calls(monkeypatch, multiply)
    work, entries = {}, {}
    for n in (LONG // 10, LONG):
        x = tf.Variable(np.ones(16, np.float32))
        calls[0] = 0
        with tf.GradientTape() as tape:
            y = chain(n, x)
        entries[n] = len(tape._entries)
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(150)
        try:
            g = tape.gradient(y, x)
        finally:
            sys.setrecursionlimit(limit)
        work[n] = calls[0]
        factor = float(np.float32(1.00001))
        np.testing.assert_allclose(g, np.full(16, factor**n), rtol=1e-4)
    assert entries == {n: n for n in entries}
    assert work == {n: 2 * n for n in work}


def test_memory_of_a_long_chain_is_linear():
    """A recorded operation keeps a bounded number of bytes, whatever came before it."""

    def bytes_of(n):
        x = tf.Variable(np.ones(16, np.float32))
        gc.collect()
        tracemalloc.start()
        with tf.GradientTape() as tape:
            y = chain(n, x)
        used = tracemalloc.get_traced_memory()[0]
        tape.gradient(y, x)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used, peak

    bytes_of(10)
    small, small_peak = bytes_of(2_000)
    large, large_peak = bytes_of(16_000)
    # A set of numbers grows in steps, up to four times what it holds.
    assert large < 1.5 * 8 * small
    assert large_peak < 1.5 * 8 * small_peak
    assert large / 16_000 < 800  # of one multiplication by a constant: no array is kept


def test_unreferenced_intermediates_are_freed_under_a_tape():
    """A sum needs no operand for its rule: nothing keeps it, though the tape has recorded it."""
    x = tf.Variable(np.ones(1000))
    with tf.GradientTape() as tape:
        middle = x + 1.0
        gone = weakref.ref(middle)
        middle = middle + 1.0
        assert gone() is None
        saved = x * 2.0
        kept = weakref.ref(saved)
        y = tf.reduce_sum(saved * x + middle)
        del saved
        assert kept() is not None  # the product's rule needs it
    tape.gradient(y, x)
    assert kept() is None  # and lets it go once it has been used


def test_a_gradient_lets_go_of_values_as_it_goes():
    """On its way back a tape that is not persistent frees what it has passed."""
    x = tf.Variable(np.ones(4))
    alive = []

    @tf.custom_gradient
    def probe(value):
        def grad(upstream):
            alive.append(sum(ref() is not None for ref in refs))
            return upstream

        return tf.identity(value), grad

    refs = []
    with tf.GradientTape() as tape:
        y = probe(x * 1.0)
        for _ in range(10):
            factor = tf.exp(x)
            refs.append(weakref.ref(factor))
            y = y * factor
        del factor
    assert sum(ref() is not None for ref in refs) == 10
    tape.gradient(y, x)
    assert len(alive) == 1 and alive[0] <= 1


def test_a_tape_that_watches_nothing_records_nothing(monkeypatch):
    """It adds one check to an operation: is anything tracked at all?"""
    x = tf.constant([1.0, 2.0])
    looked = []
    monkeypatch.setattr(
        primitive.Primitive, "plan", lambda self, *args: looked.append(self) or None
    )
    with tf.GradientTape() as tape:
        y = chain(100, x)
        assert y._uid == 0  # not even numbered
    assert tape._entries == [] and tape._tracked == set() and looked == []


def test_without_a_tape_no_recorder_is_asked(monkeypatch):
    """With no tape anywhere an operation does one integer test and nothing else."""
    asked = []
    monkeypatch.setattr(recording, "stack", lambda: asked.append(1) or [])
    chain(10, tf.constant(1.0))
    assert asked == [] and recording.active == 0


def test_an_operation_on_what_is_not_watched_is_not_recorded():
    """Beside a watched variable only the operations that depend on it are kept."""
    x, c = tf.Variable([1.0, 2.0]), tf.constant([3.0, 4.0])
    with tf.GradientTape() as tape:
        chain(50, c)
        y = x * c
    assert len(tape._entries) == 1
    np.testing.assert_array_equal(tape.gradient(y, x), c)


def test_doubling_is_linear_in_depth(monkeypatch):
    """60 doublings: each node once, where a walk over all paths would take 2**60 steps."""
    calls = counted_calls(monkeypatch, primitive.registry["add"])
    x = tf.Variable(1.0, dtype=tf.float64)
    with tf.GradientTape() as tape:
        y = x * 1.0
        for _ in range(60):
            y = y + y
    calls[0] = 0
    assert float(tape.gradient(y, x)) == 2.0**60
    assert calls[0] == 60


def test_a_chain_of_5000_operations():
    """5000 operations of several kinds, and their second derivative."""
    x = tf.Variable(0.5, dtype=tf.float64)
    with tf.GradientTape() as t2:
        with tf.GradientTape() as t1:
            y = x * 1.0
            for _ in range(1250):
                y = tf.exp(tf.math.log(y * y)) / y + 0.0
        g = t1.gradient(y, x)
    assert float(g) == pytest.approx(1.0, rel=1e-9)
    assert float(t2.gradient(g, x)) == pytest.approx(0.0, abs=1e-9)


def test_a_gradient_of_part_of_the_graph_walks_only_that_part(monkeypatch):
    """Operations that no source reaches, or that do not reach the target, cost no kernel."""
    calls = counted_calls(monkeypatch, primitive.registry["multiply"])
    x, other = tf.Variable([1.0]), tf.Variable([1.0])
    with tf.GradientTape(persistent=True) as tape:
        chain(500, other)
        y = chain(10, x)
        chain(500, x)
    calls[0] = 0
    tape.gradient(y, x)
    assert calls[0] == 10
    calls[0] = 0
    assert tape.gradient(y, other) is None
    assert calls[0] == 0
