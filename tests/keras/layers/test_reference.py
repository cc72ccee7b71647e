"""Layers against the stored numbers of Keras 3.

The file with them is made by tests/reference/make_layer_reference.py, which says what is in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad as tf

with np.load(Path(__file__).parents[2] / "reference" / "layers.npz") as _file:
    STORED = {name: _file[name] for name in _file.files}

# Float32: sums of up to some hundred products of numbers around 1, in another order than Keras's.
CLOSE = {"rtol": 1e-5, "atol": 5e-6}
LEARNING_RATE, STEPS = 0.01, 5


class KerasCase:
    """One layer with its config, inputs, weights, and what Keras made of them."""

    def __init__(self, index: int) -> None:
        self._index = index
        self.about = json.loads(str(STORED["cases"][index]))
        self.name, self.config = self.about["class"], self.about["config"]

    def __str__(self) -> str:
        settings = "-".join(f"{k}={v}" for k, v in self.config.items())
        return f"{self.name}-{settings}-{self._index}"

    def stored(self, name: str) -> Any:
        """The array of that name; None if the case has none."""
        return STORED.get(f"{self._index}/{name}")

    def several(self, name: str, count: int) -> list[np.ndarray]:
        return [self.stored(f"{name}{j}") for j in range(count)]

    def layer(self, **kwargs: Any) -> Any:
        """Our layer with Keras's weights (or adapted to its data)."""
        layer = getattr(tf.keras.layers, self.name)(**self.config, **kwargs)
        self.prepare(layer)
        return layer

    def prepare(self, layer: Any) -> None:
        weights = self.several("weight", self.about["weights"])
        if self.stored("adapt") is not None:
            layer.adapt(self.stored("adapt"))
            for found, expected in zip(layer.get_weights()[:2], weights, strict=False):
                np.testing.assert_allclose(found, expected, **CLOSE)
        elif weights:
            layer.build((None, *self.stored("input0").shape[1:]))
            layer.set_weights(weights)

    def inputs(self) -> list[Any]:
        tensors = [tf.constant(x) for x in self.several("input", self.about["inputs"])]
        for j, tensor in enumerate(tensors):
            if self.stored(f"mask{j}") is not None:
                tensor._keras_mask = tf.constant(self.stored(f"mask{j}"))
        return tensors

    def gradients(self, layer: Any, inputs: list[Any]) -> tuple[Any, list[Any], list[Any]]:
        """The output, and the gradients of its sum with the cotangent."""
        varied = [x for x in inputs if x.dtype.is_floating]
        with tf.GradientTape() as tape:
            tape.watch(varied)
            output = layer(inputs if len(inputs) > 1 else inputs[0])
            loss = tf.reduce_sum(output * self.stored("cotangent"))
        found = tape.gradient(loss, [*varied, *layer.trainable_variables])
        return output, found[: len(varied)], found[len(varied) :]

    def check(self) -> None:
        """Output, mask, gradients, and the weights after five steps of Adam."""
        layer, inputs = self.layer(), self.inputs()
        output, of_inputs, of_weights = self.gradients(layer, inputs)
        assert output.dtype == tf.float32
        np.testing.assert_allclose(output.numpy(), self.stored("output"), **CLOSE)
        mask = getattr(output, "_keras_mask", None)
        expected = self.stored("output_mask")
        assert (mask is None) == (expected is None)
        if mask is not None:
            np.testing.assert_array_equal(mask.numpy(), expected)
        for j, gradient in enumerate(of_inputs):
            expected = self.stored(f"input_gradient{j}")
            if expected is None:
                continue  # TensorFlow's is not one: test_augmentation.py looks at ours
            np.testing.assert_allclose(gradient.numpy(), expected, **CLOSE)
        assert len(of_weights) == self.about["trainable"]
        for j, gradient in enumerate(of_weights):
            dense = tf.convert_to_tensor(gradient).numpy()
            np.testing.assert_allclose(dense, self.stored(f"weight_gradient{j}"), **CLOSE)
        if of_weights:
            self._check_steps(layer, inputs)

    def _check_steps(self, layer: Any, inputs: list[Any]) -> None:
        optimizer = tf.keras.optimizers.Adam(LEARNING_RATE)
        for _ in range(STEPS):
            _, _, gradients = self.gradients(layer, inputs)
            optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))
        for j, found in enumerate(layer.get_weights()):
            np.testing.assert_allclose(found, self.stored(f"stepped{j}"), **CLOSE)

    def check_shape(self) -> None:
        """The shape of the outputs is known before there is data, for batches of any size."""
        inputs = [(None, *shape[1:]) for shape in (x.shape for x in self.inputs())]
        if self.stored("adapt") is None:
            layer = getattr(tf.keras.layers, self.name)(**self.config)
        else:
            layer = self.layer()
        found = layer.compute_output_shape(inputs if len(inputs) > 1 else inputs[0])
        assert tuple(found) == (None, *self.stored("output").shape[1:])

    def check_dtypes(self) -> None:
        """Half precision gives half precision near Keras's numbers; float64 is nearer to them."""
        expected = self.stored("output")
        for policy, digits in (("mixed_float16", 1e-2), ("float64", 1e-5)):
            layer, inputs = self.layer(dtype=policy), self.inputs()
            output = layer(inputs if len(inputs) > 1 else inputs[0])
            integers = not inputs[0].dtype.is_floating
            if not integers or layer.weights or layer.casts_inputs:
                assert output.dtype == ("float64" if policy == "float64" else "float16")
            with np.errstate(over="ignore"):
                wanted = expected.astype(output.dtype.numpy_dtype)  # inf beyond 65504 in float16
            np.testing.assert_allclose(output.numpy(), wanted, rtol=digits, atol=digits)

    def check_config(self) -> None:
        """A layer made of the config, by way of JSON, has the same config and outputs."""
        layer, inputs = self.layer(), self.inputs()
        config = json.loads(json.dumps(layer.get_config()))
        again = type(layer).from_config(config)
        assert json.loads(json.dumps(again.get_config())) == config
        self.prepare(again)
        given = inputs if len(inputs) > 1 else inputs[0]
        np.testing.assert_array_equal(again(given).numpy(), layer(given).numpy())


CASES = [KerasCase(index) for index in range(len(STORED["cases"]))]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@every_case
def test_numbers_are_those_of_keras(case):
    case.check()


@every_case
def test_config_makes_an_equal_layer(case):
    case.check_config()


@every_case
def test_output_shape_without_data(case):
    case.check_shape()


@every_case
def test_other_dtypes(case):
    case.check_dtypes()
