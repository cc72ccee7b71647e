"""Xception. Source: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions"."""

from __future__ import annotations

from typing import Any

from distgrad.keras import layers
from distgrad.keras.applications import imagenet_utils
from distgrad.keras.applications.building import Network, application, channel_axis
from distgrad.keras.applications.imagenet_utils import decode_predictions
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.models.functional import Functional

__all__ = ["Xception", "decode_predictions", "preprocess_input"]

_HASHES = ("0a58e3b7378bc2990ea3b43d5981f1f6", "b0042744bf5b25fce3cb969f33bebb97")


@application("xception")
def Xception(network: Network) -> Functional:
    """Xception, for images of 299 x 299; they are at least of 71 x 71."""
    x = network.begin(299, 71)
    x = layers.Conv2D(32, 3, strides=2, use_bias=False, name="block1_conv1")(x)
    x = _relu(_normalized(x, "block1_conv1_bn"), "block1_conv1_act")
    x = layers.Conv2D(64, 3, use_bias=False, name="block1_conv2")(x)
    x = _relu(_normalized(x, "block1_conv2_bn"), "block1_conv2_act")
    x = _smaller(x, 2, 128, 128)
    x = _smaller(x, 3, 256, 256)
    x = _smaller(x, 4, 728, 728)
    for block in range(5, 13):
        y = x
        for i in (1, 2, 3):
            y = _separable(_relu(y, f"block{block}_sepconv{i}_act"), 728, block, i)
        x = layers.Add()([y, x])
    x = _smaller(x, 13, 728, 1024)
    for i, filters in enumerate((1536, 2048), 1):
        x = _relu(_separable(x, filters, 14, i), f"block14_sepconv{i}_act")
    x = network.end(x)
    return network.model(x, network.kernels("xception", "xception"), network.choose(*_HASHES))


def _smaller(x: KerasTensor, block: int, first: int, second: int) -> KerasTensor:
    """Two convolutions, beside a shortcut, for images of half the size."""
    shortcut = layers.Conv2D(second, 1, strides=2, padding="same", use_bias=False)(x)
    shortcut = _normalized(shortcut)
    if block > 2:
        x = _relu(x, f"block{block}_sepconv1_act")
    x = _separable(x, first, block, 1)
    x = _separable(_relu(x, f"block{block}_sepconv2_act"), second, block, 2)
    x = layers.MaxPooling2D(3, strides=2, padding="same", name=f"block{block}_pool")(x)
    return layers.Add()([x, shortcut])


def _separable(x: KerasTensor, filters: int, block: int, i: int) -> KerasTensor:
    name = f"block{block}_sepconv{i}"
    x = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False, name=name)(x)
    return _normalized(x, f"{name}_bn")


def _normalized(x: KerasTensor, name: str | None = None) -> KerasTensor:
    return layers.BatchNormalization(axis=channel_axis(-1), name=name)(x)


def _relu(x: KerasTensor, name: str) -> KerasTensor:
    return layers.Activation("relu", name=name)(x)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Pixels from 0 to 255 as this network takes them; see ``imagenet_utils``."""
    return imagenet_utils.preprocess_input(x, data_format, "tf")
