"""Variables of Keras beside tensors of other dtypes: they promote, and cast what is assigned."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
CASES = [  # an operator, the variable's dtype, the other operand, the result's dtype
    (operator.add, "float32", tf.constant(2), "float32"),
    (operator.mul, "float32", keras.Variable(2, dtype="int32"), "float32"),
    (operator.sub, "int32", tf.constant(2.0), "float32"),
    (operator.pow, "float16", tf.constant(2.0), "float32"),
    (operator.truediv, "int32", 2, "float32"),
    (operator.truediv, "float64", tf.constant(2.0), "float64"),
    (operator.floordiv, "int64", tf.constant(2), "int64"),
    (operator.mod, "int32", tf.constant(2, tf.int8), "int32"),
    (operator.add, "int32", np.array(0.5), "float64"),
    (operator.lt, "float32", tf.constant(2), "bool"),
    (operator.ne, "int32", tf.constant(3.5), "bool"),
    (operator.and_, "int32", 2, "bool"),
]


@pytest.mark.parametrize(("run", "dtype", "other", "expected"), CASES)
def test_operators_promote(run, dtype, other, expected):
    variable, plain = keras.Variable(3, dtype=dtype), np.asarray(other)
    found = run(variable, other)
    assert found.dtype == expected
    both = run(bool(3), bool(plain)) if run is operator.and_ else run(3.0, plain)
    np.testing.assert_allclose(found, both)
    if isinstance(other, tf.Tensor) and run not in (operator.lt, operator.ne):
        assert run(other, variable).dtype == expected  # for which TensorFlow's own would not do
        np.testing.assert_allclose(run(other, variable), run(plain, 3.0), rtol=1e-6)


def test_gradients_through_a_promotion():
    w = keras.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(w * tf.constant([3, 4]) + tf.constant([5, 6]) * w)
    np.testing.assert_array_equal(tape.gradient(y, w), [8.0, 10.0])


@pytest.mark.parametrize(
    ("dtype", "name", "value", "expected"),
    [
        ("int32", "assign", tf.constant(2.7), 2),
        ("int32", "assign", 2.7, 2),
        ("float32", "assign", keras.Variable(2, dtype="int32"), 2),
        ("int32", "assign_add", tf.constant(-0.5), 0),  # of 0.5
        ("int32", "assign_add", 4, 5),
        ("float32", "assign_sub", tf.constant(1.5, tf.float64), -0.5),
        ("float16", "assign_add", tf.constant(1), 2),
    ],
)
def test_what_is_assigned_is_cast(dtype, name, value, expected):
    variable = keras.Variable(1, dtype=dtype)
    getattr(variable, name)(value)
    assert variable.dtype == dtype and variable.numpy() == expected

    again = keras.Variable(1, dtype=dtype)
    tf.function(lambda: getattr(again, name)(value) and None)()
    assert again.numpy() == expected


def test_variables_of_metrics_and_layers_do_so_too():
    class Count(keras.metrics.Metric):
        def __init__(self):
            super().__init__(name="count")
            self.total = self.add_weight(name="total", shape=(), dtype="int32")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.total.assign_add(tf.reduce_sum(tf.cast(y_pred > 0, tf.float32)))

        def result(self):
            return self.total + 0

    count = Count()
    count.update_state(np.zeros(3), np.array([1.0, -1.0, 1.0], np.float32))
    assert count.result().numpy() == 2
    assert float(count.stateless_result([tf.constant(4.0)])) == 4
    kernel = keras.layers.Dense(1, kernel_initializer="ones")
    kernel.build((None, 1))
    assert (kernel.kernel + tf.constant([[1]])).numpy() == [[2.0]]
    with pytest.raises(tf.errors.InvalidArgumentError, match="do not mix"):
        tf.Variable(1.0) + tf.constant(1)


def test_variables_without_a_name_count_up_but_in_files(tmp_path):
    class Two(keras.layers.Layer):
        def build(self, shape):
            self.a = self.add_weight(shape=(1,), initializer="ones")
            self.b = self.add_weight(shape=(1,), initializer="ones")

        def call(self, x):
            return x * self.a + self.b

    def model():
        return keras.Sequential([keras.Input((1,)), Two(name="two")], name="model")

    keras.utils.clear_session()
    first, alone, second = model(), keras.Variable(1.0), model()
    assert [w.name for w in first.weights] == ["variable", "variable_1"]
    assert alone.name == alone.path == "variable_2"
    assert [w.path for w in second.weights] == ["model/two/variable_3", "model/two/variable_4"]
    assert list(second.variable_paths()) == ["two/variable", "two/variable_1"]
    second.set_weights([[2.0], [3.0]])
    second.save_weights(tmp_path / "weights.safetensors")
    first.load_weights(tmp_path / "weights.safetensors")
    assert [float(w[0]) for w in first.weights] == [2, 3]


def test_variables_are_rounded():
    assert float(round(tf.keras.optimizers.SGD(0.0123456).learning_rate, 4)) == np.float32(0.0123)
    assert float(round(tf.keras.Variable(2.7))) == 3
