"""DenseNet. Source: Huang et al., "Densely Connected Convolutional Networks"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad.keras import layers
from distgrad.keras.applications import imagenet_utils
from distgrad.keras.applications.building import Network, application, want_channels_last
from distgrad.keras.applications.imagenet_utils import decode_predictions
from distgrad.keras.applications.resnet import normalized
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.models.functional import Functional

__all__ = ["DenseNet121", "DenseNet169", "DenseNet201", "decode_predictions", "preprocess_input"]

_GROWTH = 32  # channels that each block adds


def _densenet(
    network: Network, key: str, depths: Sequence[int], hashes: tuple[str, str]
) -> Functional:
    want_channels_last("DenseNet")
    x = network.begin(224)
    x = layers.ZeroPadding2D(3)(x)
    x = layers.Conv2D(64, 7, strides=2, use_bias=False, name="conv1_conv")(x)
    x = normalized(x, "conv1_bn", "conv1_relu")
    x = layers.ZeroPadding2D(1)(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    for i, depth in enumerate(depths, 2):
        for j in range(1, depth + 1):
            x = _block(x, f"conv{i}_block{j}")
        if i < len(depths) + 1:
            x = _transition(x, f"pool{i}")
    x = normalized(x, "bn", "relu")
    x = network.end(x, pooled=("avg_pool", "max_pool"))
    return network.model(x, network.kernels("densenet", key), network.choose(*hashes))


def _block(x: KerasTensor, name: str) -> KerasTensor:
    """What there is, and ``_GROWTH`` more channels."""
    y = normalized(x, f"{name}_0_bn", f"{name}_0_relu")
    y = layers.Conv2D(4 * _GROWTH, 1, use_bias=False, name=f"{name}_1_conv")(y)
    y = normalized(y, f"{name}_1_bn", f"{name}_1_relu")
    y = layers.Conv2D(_GROWTH, 3, padding="same", use_bias=False, name=f"{name}_2_conv")(y)
    return layers.Concatenate(axis=3, name=f"{name}_concat")([x, y])


def _transition(x: KerasTensor, name: str) -> KerasTensor:
    """Half the channels, and half the size."""
    x = normalized(x, f"{name}_bn", f"{name}_relu")
    x = layers.Conv2D((x.shape[3] or 0) // 2, 1, use_bias=False, name=f"{name}_conv")(x)
    return layers.AveragePooling2D(2, strides=2, name=f"{name}_pool")(x)


@application("densenet121")
def DenseNet121(network: Network) -> Functional:
    """DenseNet of 121 layers, for images of 224 x 224; they are at least of 32 x 32."""
    hashes = ("9d60b8095a5708f2dcce2bca79d332c7", "30ee3e1110167f948a6b9946edeeb738")
    return _densenet(network, "densenet121", (6, 12, 24, 16), hashes)


@application("densenet169")
def DenseNet169(network: Network) -> Functional:
    """DenseNet of 169 layers, for images of 224 x 224; they are at least of 32 x 32."""
    hashes = ("d699b8f76981ab1b30698df4c175e90b", "b8c4d4c20dd625c148057b9ff1c1176b")
    return _densenet(network, "densenet169", (6, 12, 32, 32), hashes)


@application("densenet201")
def DenseNet201(network: Network) -> Functional:
    """DenseNet of 201 layers, for images of 224 x 224; they are at least of 32 x 32."""
    hashes = ("1ceb130c1ea1b78c3bf6114dbdfd8807", "c13680b51ded0fb44dff2d8f86ac8bb1")
    return _densenet(network, "densenet201", (6, 12, 48, 32), hashes)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Pixels from 0 to 255 as these networks take them; see ``imagenet_utils``."""
    return imagenet_utils.preprocess_input(x, data_format, "torch")
