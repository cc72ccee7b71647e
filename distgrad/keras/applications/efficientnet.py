"""EfficientNet. Source: Tan and Le, "EfficientNet: Rethinking Model Scaling"."""

from __future__ import annotations

import math
from typing import Any

from distgrad.keras import layers
from distgrad.keras.applications.building import (
    Network,
    application,
    channel_axis,
    divisible,
    images_of,
)
from distgrad.keras.applications.imagenet_utils import DEVIATIONS, correct_pad, decode_predictions
from distgrad.keras.initializers import VarianceScaling
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.models.functional import Functional

__all__ = [
    *(f"EfficientNetB{size}" for size in range(8)),
    "decode_predictions",
    "preprocess_input",
]

_STORAGE = "https://storage.googleapis.com/keras-applications/"
# Of each stage: size of the windows, blocks, filters, how much a block widens, first stride.
_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)
_DROP = 0.2  # the rate at which the last block is dropped


def conv(x: KerasTensor, filters: int, size: int, name: str, **options: Any) -> KerasTensor:
    """A convolution with the initial weights of these networks."""
    options = {"padding": "same", "use_bias": False, **options}
    kernel = VarianceScaling(2.0, "fan_out", "truncated_normal")
    return layers.Conv2D(filters, size, kernel_initializer=kernel, name=name, **options)(x)


def depthwise(x: KerasTensor, size: int, stride: int, padding: str, name: str) -> KerasTensor:
    """The same, channel by channel."""
    kernel = VarianceScaling(2.0, "fan_out", "truncated_normal")
    return layers.DepthwiseConv2D(
        size, stride, padding, use_bias=False, depthwise_initializer=kernel, name=name
    )(x)


def excited(x: Any, channels: int, squeezed: int, name: str) -> KerasTensor:
    """Each channel times a weight that follows from the means of all."""
    y = layers.GlobalAveragePooling2D(name=f"{name}se_squeeze")(x)
    y = layers.Reshape(images_of(1, 1, channels), name=f"{name}se_reshape")(y)
    y = conv(y, squeezed, 1, f"{name}se_reduce", use_bias=True, activation="swish")
    y = conv(y, channels, 1, f"{name}se_expand", use_bias=True, activation="sigmoid")
    return layers.Multiply(name=f"{name}se_excite")([x, y])


def classes(network: Network, x: KerasTensor, dropout: float) -> KerasTensor:
    """The last layers, with the initial weights of these networks."""
    kernel = VarianceScaling(1 / 3, "fan_out", "uniform")
    pooled = ("avg_pool", "max_pool")
    return network.end(x, pooled=pooled, dropout=dropout, kernel_initializer=kernel)


def _normalized(x: KerasTensor, name: str, activation: str | None = None) -> KerasTensor:
    x = layers.BatchNormalization(axis=channel_axis(), name=name)(x)
    return x if activation is None else layers.Activation("swish", name=activation)(x)


def _efficientnet(
    network: Network,
    key: str,
    width: float,
    depth: float,
    size: int,
    dropout: float,
    hashes: tuple[str, str],
) -> Functional:
    x = network.begin(size)
    x = layers.Rescaling(1 / 255)(x)
    x = layers.Normalization(axis=channel_axis())(x)
    if network.pretrained:  # with whose deviations, not their roots, that layer divides
        x = layers.Rescaling([1 / math.sqrt(deviation) for deviation in DEVIATIONS])(x)
    x = layers.ZeroPadding2D(correct_pad(x, 3), name="stem_conv_pad")(x)
    x = conv(x, divisible(32 * width), 3, "stem_conv", strides=2, padding="valid")
    x = _normalized(x, "stem_bn", "stem_activation")
    repeats = [math.ceil(depth * stage[1]) for stage in _STAGES]
    blocks = 0
    for i, (windows, _, filters, widens, stride) in enumerate(_STAGES):
        for j in range(repeats[i]):
            rate = _DROP * blocks / sum(repeats)
            step = stride if j == 0 else 1
            name = f"block{i + 1}{chr(ord('a') + j)}_"
            x = _block(x, divisible(filters * width), windows, step, widens, rate, name)
            blocks += 1
    x = conv(x, divisible(1280 * width), 1, "top_conv")
    x = _normalized(x, "top_bn", "top_activation")
    x = classes(network, x, dropout)
    url = f"{_STORAGE}efficientnet{key}{network.choose('', '_notop')}.h5"
    return network.model(x, url, network.choose(*hashes))


def _block(
    x: KerasTensor, filters: int, size: int, stride: int, widens: int, rate: float, name: str
) -> KerasTensor:
    inputs, channels = x, x.shape[channel_axis()] or 0
    wide = channels * widens
    if widens != 1:
        x = conv(x, wide, 1, f"{name}expand_conv")
        x = _normalized(x, f"{name}expand_bn", f"{name}expand_activation")
    if stride == 2:
        x = layers.ZeroPadding2D(correct_pad(x, size), name=f"{name}dwconv_pad")(x)
    x = depthwise(x, size, stride, "valid" if stride == 2 else "same", f"{name}dwconv")
    x = _normalized(x, f"{name}bn", f"{name}activation")
    x = excited(x, wide, max(1, channels // 4), name)
    x = _normalized(conv(x, filters, 1, f"{name}project_conv"), f"{name}project_bn")
    return skipping(inputs, x, rate, name) if stride == 1 and channels == filters else x


def skipping(inputs: Any, x: Any, rate: float, name: str) -> KerasTensor:
    """``inputs + x``; of some samples, in training, ``inputs`` alone."""
    if rate > 0:
        x = layers.Dropout(rate, noise_shape=(None, 1, 1, 1), name=f"{name}drop")(x)
    return layers.Add(name=f"{name}add")([x, inputs])


@application("efficientnetb0")
def EfficientNetB0(network: Network) -> Functional:
    """EfficientNet of size 0, for images of 224 x 224; they are at least of 32 x 32."""
    hashes = ("902e53a9f72be733fc0bcb005b3ebbac", "50bc09e76180e00e4465e1a485ddc09d")
    return _efficientnet(network, "b0", 1.0, 1.0, 224, 0.2, hashes)


@application("efficientnetb1")
def EfficientNetB1(network: Network) -> Functional:
    """EfficientNet of size 1, for images of 240 x 240; they are at least of 32 x 32."""
    hashes = ("1d254153d4ab51201f1646940f018540", "74c4e6b3e1f6a1eea24c589628592432")
    return _efficientnet(network, "b1", 1.0, 1.1, 240, 0.2, hashes)


@application("efficientnetb2")
def EfficientNetB2(network: Network) -> Functional:
    """EfficientNet of size 2, for images of 260 x 260; they are at least of 32 x 32."""
    hashes = ("b15cce36ff4dcbd00b6dd88e7857a6ad", "111f8e2ac8aa800a7a99e3239f7bfb39")
    return _efficientnet(network, "b2", 1.1, 1.2, 260, 0.3, hashes)


@application("efficientnetb3")
def EfficientNetB3(network: Network) -> Functional:
    """EfficientNet of size 3, for images of 300 x 300; they are at least of 32 x 32."""
    hashes = ("ffd1fdc53d0ce67064dc6a9c7960ede0", "af6d107764bb5b1abb91932881670226")
    return _efficientnet(network, "b3", 1.2, 1.4, 300, 0.3, hashes)


@application("efficientnetb4")
def EfficientNetB4(network: Network) -> Functional:
    """EfficientNet of size 4, for images of 380 x 380; they are at least of 32 x 32."""
    hashes = ("18c95ad55216b8f92d7e70b3a046e2fc", "ebc24e6d6c33eaebbd558eafbeedf1ba")
    return _efficientnet(network, "b4", 1.4, 1.8, 380, 0.4, hashes)


@application("efficientnetb5")
def EfficientNetB5(network: Network) -> Functional:
    """EfficientNet of size 5, for images of 456 x 456; they are at least of 32 x 32."""
    hashes = ("ace28f2a6363774853a83a0b21b9421a", "38879255a25d3c92d5e44e04ae6cec6f")
    return _efficientnet(network, "b5", 1.6, 2.2, 456, 0.4, hashes)


@application("efficientnetb6")
def EfficientNetB6(network: Network) -> Functional:
    """EfficientNet of size 6, for images of 528 x 528; they are at least of 32 x 32."""
    hashes = ("165f6e37dce68623721b423839de8be5", "9ecce42647a20130c1f39a5d4cb75743")
    return _efficientnet(network, "b6", 1.8, 2.6, 528, 0.5, hashes)


@application("efficientnetb7")
def EfficientNetB7(network: Network) -> Functional:
    """EfficientNet of size 7, for images of 600 x 600; they are at least of 32 x 32."""
    hashes = ("8c03f828fec3ef71311cd463b6759d99", "cbcfe4450ddf6f3ad90b1b398090fe4a")
    return _efficientnet(network, "b7", 2.0, 3.1, 600, 0.5, hashes)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """``x`` as it is: the first layers of these networks scale pixels from 0 to 255."""
    return x
