"""What the tests of functions under a tape share."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile import interpreter

RUNS = interpreter.TRIED + 3  # by then there is a plan
X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


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
