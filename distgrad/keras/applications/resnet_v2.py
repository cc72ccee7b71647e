"""ResNet V2. Source: He et al., "Identity Mappings in Deep Residual Networks"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad.keras import layers
from distgrad.keras.applications import imagenet_utils
from distgrad.keras.applications.building import Network, application
from distgrad.keras.applications.imagenet_utils import decode_predictions
from distgrad.keras.applications.resnet import normalized, resnet
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.models.functional import Functional

__all__ = ["ResNet50V2", "ResNet101V2", "ResNet152V2", "decode_predictions", "preprocess_input"]


def _stacks(x: KerasTensor, depths: Sequence[int]) -> KerasTensor:
    for i, depth in enumerate(depths):
        for j in range(depth):
            stride = 2 if i + 1 < len(depths) and j + 1 == depth else 1
            x = _block(x, 64 * 2**i, stride, j == 0, f"conv{i + 2}_block{j + 1}")
    return x


def _block(x: KerasTensor, filters: int, stride: int, widens: bool, name: str) -> KerasTensor:
    active = normalized(x, f"{name}_preact_bn", f"{name}_preact_relu")
    if widens:
        shortcut = layers.Conv2D(4 * filters, 1, strides=stride, name=f"{name}_0_conv")(active)
    else:
        shortcut = layers.MaxPooling2D(1, strides=stride)(x) if stride > 1 else x
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_1_conv")(active)
    x = normalized(x, f"{name}_1_bn", f"{name}_1_relu")
    x = layers.ZeroPadding2D(1, name=f"{name}_2_pad")(x)
    x = layers.Conv2D(filters, 3, strides=stride, use_bias=False, name=f"{name}_2_conv")(x)
    x = normalized(x, f"{name}_2_bn", f"{name}_2_relu")
    x = layers.Conv2D(4 * filters, 1, name=f"{name}_3_conv")(x)
    return layers.Add(name=f"{name}_out")([shortcut, x])


@application("resnet50v2")
def ResNet50V2(network: Network) -> Functional:
    """ResNet V2 of 50 layers, for images of 224 x 224; they are at least of 32 x 32."""
    return resnet(network, "resnet50v2", _stacks, (3, 4, 6, 3), preact=True)


@application("resnet101v2")
def ResNet101V2(network: Network) -> Functional:
    """ResNet V2 of 101 layers, for images of 224 x 224; they are at least of 32 x 32."""
    return resnet(network, "resnet101v2", _stacks, (3, 4, 23, 3), preact=True)


@application("resnet152v2")
def ResNet152V2(network: Network) -> Functional:
    """ResNet V2 of 152 layers, for images of 224 x 224; they are at least of 32 x 32."""
    return resnet(network, "resnet152v2", _stacks, (3, 8, 36, 3), preact=True)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Pixels from 0 to 255 as these networks take them; see ``imagenet_utils``."""
    return imagenet_utils.preprocess_input(x, data_format, "tf")
