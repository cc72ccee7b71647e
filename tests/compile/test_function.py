"""distgrad.function: TensorFlow's decorator forms, over functions that run as they are."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest

import distgrad as tf

S = tf.TensorSpec


def test_decorator_without_and_with_arguments():
    @tf.function
    def plain(x):
        """Doc of plain."""
        return x * 2.0

    @tf.function(
        input_signature=[S([None], tf.float32)],
        autograph=False,
        jit_compile=True,
        reduce_retracing=True,
    )
    def hinted(x):
        return x * 2.0

    called = tf.function(lambda x: x * 2.0, experimental_relax_shapes=True)
    for f in (plain, hinted, called, tf.function()(lambda x: x * 2.0)):
        np.testing.assert_array_equal(f(tf.constant([1.0, 2.0])), [2.0, 4.0])
    assert (plain.__name__, plain.__doc__) == ("plain", "Doc of plain.")
    assert plain.__wrapped__ is plain.python_function and "plain" in repr(plain)
    with pytest.raises(TypeError):
        tf.function(unknown=True)
    with pytest.raises(TypeError, match="callable, not 3"):
        tf.function(3)


def test_what_goes_in_and_comes_out():
    """Arrays come in as tensors, Python numbers as they are; arrays and numbers go out as tensors.

    None and text stay.
    """
    seen = []

    @tf.function
    def f(*args, **kwargs):
        seen.extend([*args, kwargs["k"]])
        return {"n": 3, "a": [np.ones(2), 1.5], "none": None, "v": v, "text": "t"}

    v = tf.Variable(4.0)
    out = f(1, 2.0, np.ones(2), k=np.float32(3.0))
    assert [type(s) for s in seen] == [int, float, tf.Tensor, tf.Tensor]
    assert seen[2].dtype == tf.float64
    assert out["n"].dtype == tf.int32 and out["a"][0].dtype == tf.float64
    assert out["a"][1].dtype == tf.float32 and out["none"] is None and out["text"] == "t"
    assert type(out["v"]) is tf.Tensor and float(out["v"]) == 4.0


def test_python_control_flow_over_tensors():
    @tf.function
    def collatz(n):
        steps = 0
        while n != 1:
            if n % 2 == 0:
                n = n // 2
            else:
                n = 3 * n + 1
            steps += 1
        return steps

    @tf.function
    def total(x):
        s = tf.zeros(())
        for i in tf.range(len(x)):
            s += x[i] if x[i] > 0 else tf.constant(0.0)
        for row in x:
            s = s + row
        return s

    assert int(collatz(tf.constant(27))) == 111
    assert float(total(tf.constant([1.0, -2.0, 3.0]))) == 6.0


def test_gradients_through_it():
    """Inside a tape, with a tape inside, and to second order."""
    v = tf.Variable(3.0)

    @tf.function
    def cube(x):
        return x * x * x * v

    @tf.function
    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = cube(x)
        return tape.gradient(y, x)

    x = tf.constant(2.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        g = slope(x)
    assert float(g) == 36.0
    assert [float(d) for d in tape.gradient(g, [x, v])] == [36.0, 12.0]


def test_methods():
    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.w = 2.0, None

        @tf.function
        def __call__(self, x):
            if self.w is None:  # a variable made in the first call only
                self.w = tf.Variable(3.0)
            return self.w * x * self.scale

        @tf.function(input_signature=[S([], tf.float32)])
        def checked(self, x):
            return x * self.scale

    m = Model()
    assert float(m(tf.constant(1.0))) == 6.0
    first = m.w
    m.w.assign(5.0)
    with tf.GradientTape() as tape:
        y = m(tf.constant(1.0))
    assert float(y) == 10.0 and m.w is first and float(tape.gradient(y, m.w)) == 2.0
    assert m.trainable_variables == (first,) and float(m.checked(4.0)) == 8.0
    with pytest.raises(TypeError):
        m.checked(tf.constant([1.0]))
    assert float(tf.function(m.checked)(4.0)) == 8.0


def test_callables_of_other_kinds():
    class Times:
        def __call__(self, x):
            return x * 7.0

    assert float(tf.function(Times())(tf.constant(1.0))) == 7.0
    partial = functools.partial(lambda x, y: x * y, y=2.0)
    assert float(tf.function(partial)(tf.constant(3.0))) == 6.0


def test_input_signature():
    @tf.function(input_signature=[{"a": S([None, 2])}, S([], tf.int32)])
    def f(d, n=3):
        return d["a"] * float(n)

    np.testing.assert_array_equal(f({"a": [[1.0, 2.0]]}), [[3.0, 6.0]])
    np.testing.assert_array_equal(f({"a": np.ones((1, 2))}, 2), [[2.0, 2.0]])
    np.testing.assert_array_equal(f(n=2, d={"a": tf.Variable([[1.0, 2.0]])}), [[2.0, 4.0]])
    for wrong in (
        ({"a": tf.ones((2, 3))},),
        ({"a": tf.ones(2)},),
        ({"a": tf.ones((2, 2), tf.float64)},),
        ({"a": tf.ones((2, 2))}, 1.5),
        ({"a": "text"},),
        ({"a": tf.ones((2, 2))}, 1, 2),
        (),
    ):
        with pytest.raises(TypeError):
            f(*wrong)
    with pytest.raises(TypeError, match="not 3"):
        tf.function(lambda x: x, input_signature=[3])
    two = tf.function(lambda x: x, input_signature=[S([]), S([])])
    with pytest.raises(TypeError, match="takes 2 arguments"):
        two(1.0)


def test_get_concrete_function():
    @tf.function
    def f(x, n, y=1.0):
        return x * n + y

    concrete = f.get_concrete_function(S([None]), 3, y=S([]))
    np.testing.assert_array_equal(concrete(tf.constant([1.0, 2.0]), tf.constant(1.0)), [4.0, 7.0])
    np.testing.assert_array_equal(concrete(y=1.0, x=[2.0]), [7.0])
    np.testing.assert_array_equal(f.get_concrete_function(tf.ones(2), 2)(tf.ones(2)), [3.0, 3.0])
    for args in ((tf.ones(2),), (tf.ones(2), 1.0, 2.0), (tf.ones(2, tf.float64), 1.0)):
        with pytest.raises(TypeError):
            concrete(*args)
    with pytest.raises(TypeError):
        f.get_concrete_function()
    signed = tf.function(lambda x: x * 2.0, input_signature=[S([None])])
    np.testing.assert_array_equal(signed.get_concrete_function()([1.0]), [2.0])


def test_a_sparse_argument_has_the_dtype_and_rank_of_its_signature():
    spec = tf.SparseTensorSpec([None, None], tf.float32)
    f = tf.function(tf.sparse.to_dense, input_signature=[spec])
    np.testing.assert_array_equal(f(tf.sparse.from_dense(tf.eye(2))), np.eye(2))
    for wrong in (tf.eye(2), tf.sparse.from_dense(np.eye(2)), tf.sparse.from_dense(tf.ones(2))):
        with pytest.raises(TypeError, match="tensor of shape .* does not fit SparseTensorSpec"):
            f(wrong)


def test_a_concrete_function_of_any_number_of_arguments():
    @tf.function
    def f(x, *args, **kwargs):
        return x * 2.0 + sum(args) + sum(kwargs.values())

    concrete = f.get_concrete_function(S([None]), S([None]), S([]), y=S([]))
    np.testing.assert_array_equal(concrete(tf.ones(2), tf.ones(2), 3.0, y=4.0), [10.0, 10.0])
    np.testing.assert_array_equal(concrete([1.0], args_1=3.0, y=4.0, args_0=[1.0]), [10.0])
    with pytest.raises(TypeError, match=r"takes \['x', 'args_0', 'args_1', 'y'\], got 1"):
        concrete(tf.ones(2))


def test_a_concrete_function_is_the_same_for_the_same_arguments():
    class Scale(tf.Module):
        @tf.function
        def by(self, x, factor=2):
            return x * factor

    f = Scale().by
    one = f.get_concrete_function(tf.constant([1.0, 2.0]))
    for args in ((tf.zeros(2),), (S([2]),), (S([2], name="x"), 2)):
        assert f.get_concrete_function(*args) is one
    for args in ((tf.zeros(3),), (S([None]),), (S(None),), (S([2], tf.int32),), (S([2]), 2.0)):
        assert f.get_concrete_function(*args) is f.get_concrete_function(*args) is not one
    assert Scale().by.get_concrete_function(S([2])) is not one
    signed = tf.function(lambda x: x * 2.0, input_signature=[S([None])])
    assert signed.get_concrete_function(tf.ones(3)) is signed.get_concrete_function()
    with pytest.raises(TypeError):
        signed.get_concrete_function(tf.ones((3, 1)))


def test_a_concrete_function_takes_its_python_values_again():
    f = tf.function(lambda x, y, z: x["a"] * y[0] + y[1] + z)
    concrete = f.get_concrete_function({"a": S([])}, (S([]), 4.0), 2.0)
    three = {"a": tf.constant(3.0)}
    for found in (
        concrete(three, (tf.constant(5.0), 4.0)),
        concrete(three, (5.0, 4.0), 2.0),
        concrete(z=2.0, y=(5.0, 4.0), x=three),
    ):
        assert float(found) == 21
    for args in ((three, (5.0, 7.0)), (three, (5.0, 4.0), 1.0), (three, (5.0, 4.0), 2.0, 1.0)):
        with pytest.raises(TypeError):
            concrete(*args)


@pytest.mark.parametrize("signature", [None, [S([], tf.string)]])
def test_texts_of_a_dataset_make_no_program(signature):
    @tf.function(input_signature=signature)
    def size(text):
        return tf.strings.length(text) + 1

    texts = [b"\xff" * number for number in range(100)]
    with warnings.catch_warnings(action="error"):
        found = tf.data.Dataset.from_tensor_slices(texts).map(size)
        assert [int(n) for n in found] == [*range(1, 101)]
        assert [int(size(text=text)) for text in tf.data.Dataset.from_tensor_slices(["a"])] == [2]
    assert size.experimental_get_tracing_count() == 0


def test_errors_are_the_functions_own():
    @tf.function
    def f(x):
        raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        f(tf.constant(1.0))


def test_tensor_spec():
    spec = S([2, None], tf.int32, name="n")
    assert spec.shape == (2, None) and spec.dtype == tf.int32 and spec.name == "n"
    assert repr(spec) == "TensorSpec(shape=(2, None), dtype=tf.int32, name='n')"
    assert S(None).shape == tf.TensorShape(None) and "<unknown>" in repr(S(None))
    assert S([2]) == S((2,), "float32") != S([3]) and S([2]) != S([2], name="a") and S([2]) != 2
    assert len({S([2]), S([2]), S([2], tf.int32)}) == 2
    assert S.from_tensor(tf.ones((2, 3))) == S((2, 3))
    fits = S([None, 3]).is_compatible_with
    assert fits(tf.ones((2, 3))) and fits(S([5, 3])) and fits(S(None)) and fits([[1.0, 2.0, 3.0]])
    for other in (tf.ones((2, 2)), tf.ones(3), tf.ones((2, 3), tf.float64)):
        assert not fits(other)
    for bad in (([2], "float31"), ("ab",), ([1.5],)):
        with pytest.raises(TypeError):
            S(*bad)
