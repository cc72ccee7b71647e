"""Shapes that are told by rule: they are those of trying the layer out, and cost nothing."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest

import distgrad as tf
from distgrad.keras.layers import shaping, symbolic
from distgrad.keras.layers.symbolic import KerasTensor

keras = tf.keras
layers = keras.layers
first = functools.partial(dict, data_format="channels_first")

IMAGES = (None, 9, 8, 4)
OPEN = (None, None, 8, 4)
CASES = {
    "conv": (lambda: layers.Conv2D(3, (3, 2), strides=2), IMAGES),
    "conv same": (lambda: layers.Conv2D(3, 3, strides=2, padding="same"), OPEN),
    "conv dilated": (lambda: layers.Conv2D(3, 3, dilation_rate=2, activation="relu"), IMAGES),
    "conv first": (lambda: layers.Conv2D(3, 2, **first()), IMAGES),
    "conv of time": (lambda: layers.Conv1D(3, 3, padding="causal", strides=2), (2, 7, 4)),
    "conv of volumes": (lambda: layers.Conv3D(2, 2), (None, 4, None, 5, 1)),
    "grouped": (lambda: layers.Conv2D(4, 3, groups=2, dtype="mixed_bfloat16"), IMAGES),
    "depthwise": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), IMAGES),
    "separable": (lambda: layers.SeparableConv2D(5, 3, strides=3, padding="same"), IMAGES),
    "transposed": (lambda: layers.Conv2DTranspose(5, 3, strides=2), OPEN),
    "max": (lambda: layers.MaxPooling2D(3, 2, "same"), IMAGES),
    "mean first": (lambda: layers.AveragePooling2D(2, **first()), OPEN),
    "all": (lambda: layers.GlobalAveragePooling2D(), OPEN),
    "all kept": (lambda: layers.GlobalMaxPooling2D(keepdims=True, **first()), IMAGES),
    "padding": (lambda: layers.ZeroPadding2D(((0, 1), (2, 3))), OPEN),
    "cropping": (lambda: layers.Cropping2D(((0, 1), (1, 2)), **first()), IMAGES),
    "flat": (lambda: layers.Flatten(), IMAGES),
    "dense": (lambda: layers.Dense(5, "softmax"), IMAGES),
    "activation": (lambda: layers.Activation("swish", dtype="float64"), OPEN),
    "relu": (lambda: layers.ReLU(6.0), OPEN),
    "dropout": (lambda: layers.Dropout(0.5, (None, 1, 1, 1)), OPEN),
    "batch": (lambda: layers.BatchNormalization(axis=2), OPEN),
    "layer": (lambda: layers.LayerNormalization(axis=(-1, -2)), OPEN),
    "rescaled": (lambda: layers.Rescaling(1 / 255), OPEN),
    "normalized": (lambda: layers.Normalization(axis=2), OPEN),
    "sum": (lambda: layers.Add(), [IMAGES, (None, 1, 8, 1)]),
    "product": (lambda: layers.Multiply(), [OPEN, OPEN]),
    "joined": (lambda: layers.Concatenate(axis=1), [IMAGES, (None, 2, 8, 4)]),
}


def seeded(run):
    tf.random.set_seed(0)
    return run()


@pytest.mark.parametrize("name", CASES)
def test_they_are_those_of_a_trial_and_so_are_the_weights(name):
    make, shape = CASES[name]
    layer = make()
    other, inputs = copy.deepcopy(layer), symbolic.of_shapes(shape)
    found = seeded(lambda: shaping.told(layer, (inputs,), {}))
    expected = seeded(lambda: symbolic.infer(other, (inputs,), {}))
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert layer.built and len(layer.weights) == len(other.weights)
    for weight, expected in zip(layer.weights, other.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)
        assert weight.path == expected.path


class Doubled(layers.Conv2D):
    def call(self, x):
        return tf.concat([super().call(x)] * 2, axis=-1)


LEFT = {
    "users": (lambda: Doubled(3, 1), IMAGES),
    "lambda": (lambda: layers.Activation(lambda x: x[:, :1]), IMAGES),
    "glu": (lambda: layers.Dense(4, "glu"), IMAGES),
    "open": (lambda: layers.Flatten(), OPEN),
    "small": (lambda: layers.Conv2D(3, 9), IMAGES),
    "flat": (lambda: layers.Conv2D(3, 1), (None, 4)),
    "scaled": (lambda: layers.Rescaling([1.0, 2.0, 3.0]), (None, 4, 4, 1)),
    "unlike": (lambda: layers.Add(), [OPEN, IMAGES]),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_no_rule_is_for_is_tried_out(name):
    make, shape = LEFT[name]
    assert shaping.told(make(), (symbolic.of_shapes(shape),), {}) is None


def test_integers_and_masks_are_tried_out():
    layer = layers.Activation("relu")
    assert shaping.told(layer, (KerasTensor((None, 3), "int32"),), {}) is None
    masked = KerasTensor((None, 3, 2))
    masked._keras_mask = KerasTensor((None, 3), "bool")
    assert shaping.told(layer, (masked,), {}) is None
    assert layer(masked)._keras_mask.shape == (None, 3)


def base():
    images = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, padding="same")(images)
    return keras.Model(images, layers.Add()([x, layers.Conv2D(4, 1)(x)]))


def head():
    return keras.Sequential([layers.Conv2D(2, 3), layers.GlobalMaxPooling2D(), layers.Dense(1)])


@pytest.mark.parametrize("make", [base, head, lambda: keras.Sequential([base(), head()])])
@pytest.mark.parametrize("shape", [(None, 9, 8, 3), (None, None, None, 3), (5, 9, None, 3)])
def test_models_in_models(make, shape):
    def shape_and_sums(run):
        model = make()
        output = run(model)
        return output.shape, output.dtype, [float(np.sum(w)) for w in model.weights]

    x = KerasTensor(shape)
    told = seeded(lambda: shape_and_sums(lambda model: model.compute_output_spec(x)))
    tried = seeded(lambda: shape_and_sums(lambda model: symbolic.infer(model, (x,), {})))
    assert told == tried


def test_a_sequential_is_built_for_images_of_any_size():
    images = keras.Input((None, None, 3))
    inner = head()
    keras.Model(images, inner(images))
    assert inner.input_shape == (None, None, None, 3)
    assert inner(np.zeros((1, 40, 4, 3), np.float32)).shape == (1, 1)


def test_nothing_is_computed(monkeypatch):
    def call(self, x):
        raise AssertionError("it was called")

    monkeypatch.setattr(layers.Conv2D.__mro__[2], "call", call)
    images = keras.Input((4000, 4000, 3))
    x = layers.Conv2D(64, 7, strides=2)(images)
    model = keras.Model(images, x)
    assert model(keras.Input((4000, 4000, 3)), training=False).shape == (None, 1997, 1997, 64)
    with pytest.raises(ValueError, match="has shape"):
        model(keras.Input((40, 40, 3)))
