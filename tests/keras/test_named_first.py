"""Weights of scripts of Keras 2, whose add_weight has the name first."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf


class Dense(tf.keras.layers.Layer):
    """The layer of TensorFlow's tutorial on custom layers."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs

    def build(self, input_shape):
        self.kernel = self.add_weight("kernel", shape=[int(input_shape[-1]), self.num_outputs])
        self.bias = self.add_variable("bias", (self.num_outputs,), None, "ones", trainable=False)

    def call(self, inputs):
        return tf.matmul(inputs, self.kernel) + self.bias


def test_layers_take_a_name_first() -> None:
    layer = Dense(10)
    assert (layer(tf.zeros([10, 5])).numpy() == 1).all()
    assert [(v.name, tuple(v.shape)) for v in layer.weights] == [
        ("kernel", (5, 10)),
        ("bias", (10,)),
    ]
    assert [v.name for v in layer.trainable_weights] == ["kernel"]
    with pytest.raises(TypeError, match="multiple values for argument 'shape'"):
        Dense(2).add_weight("kernel", (2,), shape=(2,))


def test_metrics_take_a_name_first() -> None:
    class Total(tf.keras.metrics.Metric):
        def __init__(self) -> None:
            super().__init__(name="total")
            self.total = self.add_weight("seen", initializer="zeros")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.total.assign_add(tf.reduce_sum(y_pred))

        def result(self):
            return self.total

    metric = Total()
    metric.update_state(np.zeros(2), np.array([1.0, 2.0], np.float32))
    assert float(metric.result()) == 3 and metric.total.name == "seen"
