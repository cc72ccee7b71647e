"""Programs: their text for a reader, and the rules that the verifier keeps."""

from __future__ import annotations

import numpy as np
import pytest

from distgrad.compile.capture import trace
from distgrad.compile.program import Apply, Program, Read, Value, Write
from distgrad.core.primitive import registry
from distgrad.core.variable import Variable
from distgrad.ops.arithmetic import add, multiply

F32 = np.dtype(np.float32)


def value(*shape: int) -> Value:
    return Value(shape, F32)


def apply(name: str, *inputs, **params) -> Apply:
    return Apply(inputs, (value(2),), primitive=registry[name], params=params)


def test_text_of_a_program():
    v = Variable(np.ones(2, np.float32), name="weight")

    def scaled(x):
        y = add(multiply(x, v), 0.5)
        v.assign(y)
        return y

    program = trace(scaled, [np.ones(2, np.float32)], "scaled").program
    assert program.text() == "\n".join(
        [
            "scaled(x0: float32[2]):",
            "  v0: float32[2] = read(weight:0)",
            "  v1: float32[2] = multiply(x0, v0)",
            "  v2: float32[2] = add(v1, 0.5)",
            "  write(weight:0, v2)",
            "  return v2",
        ]
    )
    assert [w is v for w in program.variables] == [True]


def test_the_verifier_names_what_is_wrong():
    x = value(2)
    made = apply("negative", x)
    with pytest.raises(ValueError, match=r"used before it is made: .*negative"):
        Program("p", (), (made,), ()).verify()
    with pytest.raises(ValueError, match="made twice"):
        Program("p", (x,), (made, made), ()).verify()
    with pytest.raises(ValueError, match="returned, but never made"):
        Program("p", (), (), (x,)).verify()
    wrong = Variable(np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"float32\[2\] does not fit a variable of float32\[3\]"):
        Program("p", (x,), (Write((x,), variable=wrong),), ()).verify()
    with pytest.raises(ValueError, match="does not fit"):
        Program("p", (), (Read((), (x,), variable=wrong),), ()).verify()
    constant = Value((2,), F32, np.ones(2, np.float32))
    ok = Program("p", (x,), (apply("add", x, constant),), (constant,))
    assert ok.verify() is ok
