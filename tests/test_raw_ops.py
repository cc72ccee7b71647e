"""tf.raw_ops: how its operations are called. What they give is beside TensorFlow's values."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import distgrad as tf


def test_every_one_is_compared_with_that_of_tensorflow():
    path = Path(__file__).parent / "reference" / "raw_expressions.py"
    spec = importlib.util.spec_from_file_location("raw_expressions", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (_, expressions) = module.GROUPS["raw_ops"]
    listed = set(dir(tf.raw_ops)) - set(tf.raw_ops._OWN)  # which are among the other expressions
    assert listed == set(re.findall(r"raw\.(\w+)\(", " ".join(expressions)))


def test_arguments_are_given_by_keyword():
    assert (
        str(inspect.signature(tf.raw_ops.Sum))
        == "(*, input, axis=None, keep_dims=False, name=None)"
    )
    assert tf.raw_ops.Add(x=1, y=2, name="three").numpy() == 3
    for wrong, said in (
        (lambda: tf.raw_ops.Add(1, 2), "Add takes its arguments by keyword"),
        (lambda: tf.raw_ops.Add(x=1), "missing a required argument: 'y'"),
        (lambda: tf.raw_ops.Add(x=1, y=2, z=3), "unexpected keyword argument 'z'"),
    ):
        with pytest.raises(TypeError, match=said):
            wrong()
    with pytest.raises(AttributeError, match="public name"):
        tf.raw_ops.VarHandleOp  # noqa: B018


def test_gradients_pass():
    x = tf.Variable([1.0, -2.0])
    with tf.GradientTape() as tape:
        y = tf.raw_ops.Mul(x=tf.raw_ops.Relu(features=x), y=x)
    assert tape.gradient(y, x).numpy().tolist() == [2.0, 0.0]
