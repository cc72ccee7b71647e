"""MobileNetV2. Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks"."""

from __future__ import annotations

from typing import Any

from distgrad.keras import layers
from distgrad.keras.applications import imagenet_utils
from distgrad.keras.applications.building import (
    STORAGE,
    Network,
    channel_axis,
    divisible,
    space_of,
)
from distgrad.keras.applications.imagenet_utils import correct_pad, decode_predictions
from distgrad.keras.applications.mobilenet import check_alpha, pretrained_size, size_of
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.models.functional import Functional

__all__ = ["MobileNetV2", "decode_predictions", "preprocess_input"]

# How often, with how many filters, and with which first stride a block comes.
_BLOCKS = (
    (1, 16, 1), (2, 24, 2), (3, 32, 2), (4, 64, 2), (3, 96, 1), (3, 160, 2), (1, 320, 1),
)  # fmt: skip
_SIZES = (96, 128, 160, 192, 224)  # of the images for which there are weights of ImageNet
_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)


def MobileNetV2(
    input_shape: Any = None,
    alpha: float = 1.0,
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str | None = None,
) -> Functional:
    """MobileNetV2 with ``alpha`` times the filters, for images of 224 x 224, at least of 32 x 32.

    Raises ValueError for weights of ImageNet with an ``alpha`` that has none, and where
    ``input_shape`` is not that of the ``input_tensor``.
    """
    asked = (include_top, weights, input_tensor, input_shape, pooling, classes)
    network = Network(*asked, classifier_activation)
    check_tensor(network)
    given = input_shape if input_tensor is None or input_shape else input_tensor.shape
    x = network.begin(size_of(given, _SIZES))
    rows = space_of(network.input_shape)[0]
    if network.pretrained:
        check_alpha(alpha, _ALPHAS)
        rows = pretrained_size(network.input_shape, _SIZES)
    network.name = f"mobilenetv2_{alpha:0.2f}_{rows}" if name is None else name
    x = layers.Conv2D(
        divisible(32 * alpha), 3, strides=2, padding="same", use_bias=False, name="Conv1"
    )(x)
    x = layers.ReLU(6.0, name="Conv1_relu")(normalized(x, "bn_Conv1"))
    i = 0
    for repeats, filters, first in _BLOCKS:
        for j in range(repeats):
            x = _block(x, divisible(int(filters * alpha)), first if j == 0 else 1, i)
            i += 1
    last = divisible(1280 * alpha) if alpha > 1 else 1280
    x = layers.Conv2D(last, 1, use_bias=False, name="Conv_1")(x)
    x = layers.ReLU(6.0, name="out_relu")(normalized(x, "Conv_1_bn"))
    x = network.end(x, pool=None)
    stem = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels"
    kind = network.choose("", "_no_top")
    return network.model(x, f"{STORAGE}mobilenet_v2/{stem}_{float(alpha)}_{rows}{kind}.h5")


def check_tensor(network: Network) -> None:
    """Raises ValueError where the given shape is not that of the given tensor, or that is none."""
    shape, tensor = network.input_shape, network.input_tensor
    if tensor is None:
        return
    columns = space_of(network.source().shape)[1]
    if shape is not None and space_of(shape)[1] != columns:
        raise ValueError(
            f"input_tensor and input_shape are of unlike width. Received: input_tensor.shape="
            f"{tensor.shape}, input_shape={shape}"
        )


def normalized(x: KerasTensor, name: str) -> KerasTensor:
    """Batch normalization as MobileNetV2 and V3 have it."""
    axis = channel_axis(-1)
    return layers.BatchNormalization(axis=axis, momentum=0.999, epsilon=0.001, name=name)(x)


def _block(x: KerasTensor, filters: int, stride: int, i: int) -> KerasTensor:
    prefix = f"block_{i}_" if i else "expanded_conv_"
    inputs, channels = x, x.shape[channel_axis(-1)] or 0
    if i:
        name = f"{prefix}expand"
        x = layers.Conv2D(6 * channels, 1, padding="same", use_bias=False, name=name)(x)
        x = layers.ReLU(6.0, name=f"{name}_relu")(normalized(x, f"{name}_BN"))
    if stride == 2:
        x = layers.ZeroPadding2D(correct_pad(x, 3), name=f"{prefix}pad")(x)
    name, padding = f"{prefix}depthwise", "valid" if stride == 2 else "same"
    x = layers.DepthwiseConv2D(3, stride, padding, use_bias=False, name=name)(x)
    x = layers.ReLU(6.0, name=f"{name}_relu")(normalized(x, f"{name}_BN"))
    name = f"{prefix}project"
    x = layers.Conv2D(filters, 1, padding="same", use_bias=False, name=name)(x)
    x = normalized(x, f"{name}_BN")
    if stride == 1 and channels == filters:
        return layers.Add(name=f"{prefix}add")([inputs, x])
    return x


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Pixels from 0 to 255 as this network takes them; see ``imagenet_utils``."""
    return imagenet_utils.preprocess_input(x, data_format, "tf")
