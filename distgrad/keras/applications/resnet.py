"""ResNet. Source: He et al., "Deep Residual Learning for Image Recognition"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distgrad.keras import layers
from distgrad.keras.applications import imagenet_utils
from distgrad.keras.applications.building import Network, application, channel_axis
from distgrad.keras.applications.imagenet_utils import decode_predictions
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.models.functional import Functional

__all__ = ["ResNet50", "ResNet101", "ResNet152", "decode_predictions", "preprocess_input"]

# The hashes of the weights, with and without the classes.
_HASHES = {
    "resnet50": ("2cb95161c43110f7111970584f804107", "4d473c1dd8becc155b73f8504c6f6626"),
    "resnet101": ("f1aeb4b969a6efcfb50fad2f0c20cfc5", "88cf7a10940856eca736dc7b7e228a21"),
    "resnet152": ("100835be76be38e30d865e96f2aaae62", "ee4c566cf9a93f14d82f913c2dc6dd0c"),
    "resnet50v2": ("3ef43a0b657b3be2300d5770ece849e0", "fac2f116257151a9d068a22e544a4917"),
    "resnet101v2": ("6343647c601c52e1368623803854d971", "c0ed64b8031c3730f411d2eb4eea35b5"),
    "resnet152v2": ("a49b44d1979771252814e80f8ec446f9", "ed17cf2e0169df9d443503ef94b23b33"),
}

Stacks = Callable[[KerasTensor, Sequence[int]], KerasTensor]


def normalized(x: KerasTensor, name: str, relu: str | None = None) -> KerasTensor:
    """Batch normalization, and an activation of the name ``relu``."""
    x = layers.BatchNormalization(axis=channel_axis(), epsilon=1.001e-5, name=name)(x)
    return x if relu is None else layers.Activation("relu", name=relu)(x)


def resnet(
    network: Network, key: str, stacks: Stacks, depths: Sequence[int], preact: bool = False
) -> Functional:
    """The first layers, ``stacks`` of ``depths`` blocks, and the last layers.

    With ``preact`` normalization and activation come before the convolutions.
    """
    x = network.begin(224)
    x = layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = layers.Conv2D(64, 7, strides=2, name="conv1_conv")(x)
    if not preact:
        x = normalized(x, "conv1_bn", "conv1_relu")
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    x = stacks(x, depths)
    if preact:
        x = normalized(x, "post_bn", "post_relu")
    x = network.end(x, pooled=("avg_pool", "max_pool"))
    return network.model(x, network.kernels("resnet", key), network.choose(*_HASHES[key]))


def _stacks(x: KerasTensor, depths: Sequence[int]) -> KerasTensor:
    for i, depth in enumerate(depths):
        for j in range(depth):
            stride = 2 if i > 0 and j == 0 else 1
            x = _block(x, 64 * 2**i, stride, j == 0, f"conv{i + 2}_block{j + 1}")
    return x


def _block(x: KerasTensor, filters: int, stride: int, widens: bool, name: str) -> KerasTensor:
    def conv(x: KerasTensor, filters: int, size: int, part: str, **options: Any) -> KerasTensor:
        return layers.Conv2D(filters, size, name=f"{name}_{part}_conv", **options)(x)

    shortcut = x
    if widens:
        shortcut = normalized(conv(x, 4 * filters, 1, "0", strides=stride), f"{name}_0_bn")
    x = normalized(conv(x, filters, 1, "1", strides=stride), f"{name}_1_bn", f"{name}_1_relu")
    x = normalized(conv(x, filters, 3, "2", padding="same"), f"{name}_2_bn", f"{name}_2_relu")
    x = normalized(conv(x, 4 * filters, 1, "3"), f"{name}_3_bn")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.Activation("relu", name=f"{name}_out")(x)


@application("resnet50")
def ResNet50(network: Network) -> Functional:
    """ResNet of 50 layers, for images of 224 x 224; they are at least of 32 x 32."""
    return resnet(network, "resnet50", _stacks, (3, 4, 6, 3))


@application("resnet101")
def ResNet101(network: Network) -> Functional:
    """ResNet of 101 layers, for images of 224 x 224; they are at least of 32 x 32."""
    return resnet(network, "resnet101", _stacks, (3, 4, 23, 3))


@application("resnet152")
def ResNet152(network: Network) -> Functional:
    """ResNet of 152 layers, for images of 224 x 224; they are at least of 32 x 32."""
    return resnet(network, "resnet152", _stacks, (3, 8, 36, 3))


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Pixels from 0 to 255 as these networks take them; see ``imagenet_utils``."""
    return imagenet_utils.preprocess_input(x, data_format, "caffe")
