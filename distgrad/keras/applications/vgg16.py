"""VGG16. Source: Simonyan and Zisserman, "Very Deep Convolutional Networks"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad.keras import layers
from distgrad.keras.applications import imagenet_utils
from distgrad.keras.applications.building import Network, application
from distgrad.keras.applications.imagenet_utils import decode_predictions
from distgrad.keras.models.functional import Functional

__all__ = ["VGG16", "decode_predictions", "preprocess_input"]

_HASHES = ("64373286793e3c8b2b4e3219cbf3544b", "6d6bbae143d832006294945121d1f1fc")


def vgg(network: Network, key: str, depths: Sequence[int], hashes: tuple[str, str]) -> Functional:
    """Five blocks of ``depths`` convolutions, each followed by pooling, and dense layers."""
    x = network.begin(224)
    for i, (filters, depth) in enumerate(zip((64, 128, 256, 512, 512), depths, strict=True), 1):
        for j in range(1, depth + 1):
            name = f"block{i}_conv{j}"
            x = layers.Conv2D(filters, 3, activation="relu", padding="same", name=name)(x)
        x = layers.MaxPooling2D(2, strides=2, name=f"block{i}_pool")(x)
    if network.include_top:
        x = layers.Flatten(name="flatten")(x)
        x = layers.Dense(4096, activation="relu", name="fc1")(x)
        x = layers.Dense(4096, activation="relu", name="fc2")(x)
        x = network.classified(x)
    else:
        x = network.pooled(x)
    return network.model(x, network.kernels(key, key), network.choose(*hashes))


@application("vgg16")
def VGG16(network: Network) -> Functional:
    """VGG of 16 layers, for images of 224 x 224; they are at least of 32 x 32."""
    return vgg(network, "vgg16", (2, 2, 3, 3, 3), _HASHES)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Pixels from 0 to 255 as these networks take them; see ``imagenet_utils``."""
    return imagenet_utils.preprocess_input(x, data_format, "caffe")
