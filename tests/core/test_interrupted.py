"""Ctrl-C in a notebook may come between any two lines of ours; the next cell must find all well."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm import communicator as communicator_module
from distgrad.core import recording
from distgrad.keras.optimizers import base


def interrupted_at(line: int, file: str | None, work: Callable[[], object]) -> bool:
    """Runs ``work`` with Ctrl-C before the given line of those of ``file`` it runs; did it come?"""
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename != file:
            return None
        # Python looks for signals nowhere within `with lock: x += 1`.
        if event == "line" and not recording._lock.locked():
            count += 1
            if count == line:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def taped() -> None:
    with tf.GradientTape(), recording.paused(), recording.suspended(), tf.GradientTape():
        pass


def test_no_interrupt_blinds_the_tapes_that_come_after_it() -> None:
    variable, line = tf.Variable(3.0), 0
    try:
        while True:
            line += 1
            came = interrupted_at(line, recording.__file__, taped)
            assert recording.active >= len(recording.stack()), line
            recording.stack().clear()  # what an interrupt has left of the tapes
            with tf.GradientTape() as tape:
                squared = variable**2
            assert tape.gradient(squared, variable) == 6.0, line
            if not came:
                break
        assert line > 20
    finally:
        recording.active = 0


@pytest.mark.parametrize("jit_compile", ["auto", False])
def test_a_model_goes_on_after_an_interrupted_collective(jit_compile: str | bool) -> None:
    x = np.linspace(0, 1, 24, dtype=np.float32).reshape(8, 3)
    y = x.sum(axis=1, keepdims=True)
    model = tf.keras.Sequential([tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=jit_compile)
    model.fit(x, y, verbose=0)
    file = communicator_module.__file__
    for line in range(1, 60, 9):
        interrupted_at(line, file, lambda: model.fit(x, y, batch_size=4, verbose=0))
        interrupted_at(line, file, lambda: model.evaluate(x, y, verbose=0))
        found = model.evaluate(x, y, verbose=0)
        kernel, bias = (weight.numpy() for weight in model.weights)
        np.testing.assert_allclose(found, np.mean((x @ kernel + bias - y) ** 2), rtol=1e-5)
    before = model.weights[0].numpy()
    model.fit(x, y, verbose=0)
    assert not np.array_equal(before, model.weights[0].numpy())


def test_an_optimizer_that_was_interrupted_while_it_was_built_is_built_anew() -> None:
    for line in range(1, 300):
        variable, optimizer = tf.Variable([1.0, 2.0]), tf.keras.optimizers.Adam(0.5)
        came = interrupted_at(line, base.__file__, lambda: optimizer.build([variable]))  # noqa: B023
        optimizer.apply_gradients([(tf.ones(2), variable)])
        np.testing.assert_allclose(variable, [0.5, 1.5], rtol=1e-5)
        if not came:
            break
    assert 10 < line < 299
