"""First and second derivatives of normalizing, recurrent and attention layers, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as tf
from distgrad.keras import layers
from distgrad.keras.layers.base import Layer, Weight
from distgrad.testing.gradients import check_gradients

KEEP = np.array([[True, True, True], [True, True, False]])
SPARSE = np.array([[[1, 0, 1], [0, 1, 1], [1, 1, 1]]] * 2, dtype=bool)


def check(layer: Layer, *inputs: np.ndarray, call: Callable[..., Any]) -> None:
    """Varies the inputs and all trainable weights, which stand in the layer as tensors."""
    call(layer, *inputs)
    rng = np.random.default_rng(0)
    places = [
        (owner, name, rng.normal(size=value.shape))
        for owner in layer._layers_below()
        for name, value in list(vars(owner).items())
        if isinstance(value, Weight) and value.trainable
    ]
    assert len(places) == len(layer.trainable_variables)

    def fn(*varied: Any) -> Any:
        for (owner, name, _), value in zip(places, varied[len(inputs) :], strict=True):
            setattr(owner, name, value)
        return call(layer, *varied[: len(inputs)])

    check_gradients(fn, [*inputs, *(value for _, _, value in places)], rtol=2e-6)


def x(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape)


full = {"return_sequences": True, "return_state": True, "dtype": "float64"}


@pytest.mark.parametrize(
    "layer",
    [
        layers.SimpleRNN(2, **full),
        layers.LSTM(2, **full),
        layers.LSTM(2, go_backwards=True, zero_output_for_mask=True, **full),
        layers.GRU(2, **full),
        layers.GRU(2, reset_after=False, **full),
        layers.Bidirectional(layers.GRU(2, dtype="float64"), dtype="float64"),
    ],
    ids=lambda layer: layer.name,
)
@pytest.mark.parametrize("mask", [None, KEEP], ids=["all", "masked"])
def test_recurrent(layer: Layer, mask: Any) -> None:
    layer = type(layer).from_config(layer.get_config())
    check(layer, x(2, 3, 2), call=lambda layer, x: layer(x, mask=mask))


@pytest.mark.parametrize("mask", [None, SPARSE], ids=["all", "masked"])
def test_multi_head_attention(mask: Any) -> None:
    layer = layers.MultiHeadAttention(2, 2, dtype="float64")
    check(
        layer,
        x(2, 3, 3),
        x(2, 3, 2),
        call=lambda layer, q, v: layer(q, v, attention_mask=mask, return_attention_scores=True),
    )


@pytest.mark.parametrize("mode", ["dot", "concat"])
def test_attention(mode: str) -> None:
    layer = layers.Attention(use_scale=True, score_mode=mode, dtype="float64")
    check(layer, x(2, 3, 2), x(2, 4, 2), call=lambda layer, q, v: layer([q, v]))


@pytest.mark.parametrize("mask", [None, KEEP], ids=["all", "masked"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_batch_normalization(axis: int, mask: Any) -> None:
    for training in (True, False):
        layer = layers.BatchNormalization(axis=axis, dtype="float64")
        check(layer, x(2, 3, 4), call=lambda layer, x, t=training: layer(x, training=t, mask=mask))


@pytest.mark.parametrize(
    "layer",
    [
        layers.LayerNormalization(dtype="float64"),
        layers.LayerNormalization(axis=[1, 2], dtype="float64"),
        layers.RMSNormalization(dtype="float64"),
        layers.GroupNormalization(2, dtype="float64"),
    ],
    ids=lambda layer: layer.name,
)
def test_normalization_of_samples(layer: Layer) -> None:
    layer = type(layer).from_config(layer.get_config())
    check(layer, x(2, 3, 4), call=lambda layer, x: layer(x))


def test_no_gradient_passes_through_moving_averages() -> None:
    layer = layers.BatchNormalization(momentum=0.5)
    values = tf.constant(x(5, 2), dtype="float32")
    with tf.GradientTape() as tape:
        tape.watch(values)
        layer(values, training=True)
        total = tf.reduce_sum(layer.moving_mean + layer.moving_variance)
    assert tape.gradient(total, values) is None
