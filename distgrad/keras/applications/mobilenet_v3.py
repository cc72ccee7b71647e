"""MobileNetV3. Source: Howard et al., "Searching for MobileNetV3"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distgrad.keras import layers
from distgrad.keras.applications.building import (
    STORAGE,
    Network,
    channel_axis,
    divisible,
    images_of,
    space_of,
)
from distgrad.keras.applications.imagenet_utils import correct_pad, decode_predictions
from distgrad.keras.applications.mobilenet import pretrained_size
from distgrad.keras.applications.mobilenet_v2 import check_tensor, normalized
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.models.functional import Functional

__all__ = ["decode_predictions", "preprocess_input"]

# Of each block: how much it widens, its filters, the size of its windows (0: of those that
# ``minimalistic`` makes small), its stride, whether it excites, and whether by hard swish.
_SMALL = (
    (1, 16, 3, 2, True, False),
    (72 / 16, 24, 3, 2, False, False),
    (88 / 24, 24, 3, 1, False, False),
    (4, 40, 0, 2, True, True),
    *((6, 40, 0, 1, True, True),) * 2,
    *((3, 48, 0, 1, True, True),) * 2,
    (6, 96, 0, 2, True, True),
    *((6, 96, 0, 1, True, True),) * 2,
)
_LARGE = (
    (1, 16, 3, 1, False, False),
    (4, 24, 3, 2, False, False),
    (3, 24, 3, 1, False, False),
    (3, 40, 0, 2, True, False),
    *((3, 40, 0, 1, True, False),) * 2,
    (6, 80, 3, 2, False, True),
    (2.5, 80, 3, 1, False, True),
    *((2.3, 80, 3, 1, False, True),) * 2,
    *((6, 112, 3, 1, True, True),) * 2,
    (6, 160, 0, 2, True, True),
    *((6, 160, 0, 1, True, True),) * 2,
)
# The hashes of the weights, with and without the classes.
_HASHES = {
    "large_224_0.75_float": (
        "765b44a33ad4005b3ac83185abf1d0eb",
        "40af19a13ebea4e2ee0c676887f69a2e",
    ),
    "large_224_1.0_float": ("59e551e166be033d707958cf9e29a6a7", "07fb09a5933dd0c8eaafa16978110389"),
    "large_minimalistic_224_1.0_float": (
        "675e7b876c45c57e9e63e6d90a36599c",
        "ec5221f64a2f6d1ef965a614bdae7973",
    ),
    "small_224_0.75_float": (
        "cb65d4e5be93758266aa0a7f2c6708b7",
        "ebdb5cc8e0b497cd13a7c275d475c819",
    ),
    "small_224_1.0_float": ("8768d4c2e7dee89b9d02b2d03d65d862", "d3e8ec802a04aa4fc771ee12a9a9b836"),
    "small_minimalistic_224_1.0_float": (
        "99cd97fb2fcdad2bf028eb838de69e37",
        "cde8136e733e811080d9fcd8a252f7e4",
    ),
}


def MobileNetV3Small(
    input_shape: Any = None,
    alpha: float = 1.0,
    minimalistic: bool = False,
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    classes: int = 1000,
    pooling: str | None = None,
    dropout_rate: float = 0.2,
    classifier_activation: Any = "softmax",
    include_preprocessing: bool = True,
    name: str = "MobileNetV3Small",
) -> Functional:
    """The small MobileNetV3 with ``alpha`` times the filters, for images of at least 32 x 32.

    ``minimalistic`` goes without large windows, excitation and hard swish. Raises ValueError for
    weights of ImageNet with an ``alpha`` that has none, and where ``input_shape`` is not that of
    the ``input_tensor``.
    """
    asked = (include_top, weights, input_tensor, input_shape, pooling, classes)
    network = Network(*asked, classifier_activation, name)
    options = (alpha, minimalistic, dropout_rate, include_preprocessing)
    return _mobilenet(network, "small", _SMALL, 1024, *options)


def MobileNetV3Large(
    input_shape: Any = None,
    alpha: float = 1.0,
    minimalistic: bool = False,
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    classes: int = 1000,
    pooling: str | None = None,
    dropout_rate: float = 0.2,
    classifier_activation: Any = "softmax",
    include_preprocessing: bool = True,
    name: str = "MobileNetV3Large",
) -> Functional:
    """The large MobileNetV3 with ``alpha`` times the filters, for images of at least 32 x 32.

    ``minimalistic`` goes without large windows, excitation and hard swish. Raises ValueError for
    weights of ImageNet with an ``alpha`` that has none, and where ``input_shape`` is not that of
    the ``input_tensor``.
    """
    asked = (include_top, weights, input_tensor, input_shape, pooling, classes)
    network = Network(*asked, classifier_activation, name)
    options = (alpha, minimalistic, dropout_rate, include_preprocessing)
    return _mobilenet(network, "large", _LARGE, 1280, *options)


def _mobilenet(
    network: Network,
    kind: str,
    blocks: tuple[Any, ...],
    last: int,
    alpha: float,
    minimalistic: bool,
    dropout: float,
    preprocessing: bool,
) -> Functional:
    x = _begin(network)
    if network.pretrained:
        known = (1.0,) if minimalistic else (0.75, 1.0)
        if alpha not in known:
            raise ValueError(
                "If imagenet weights are being loaded, alpha can be one of `0.75`, `1.0` for non "
                f"minimalistic or `1.0` for minimalistic only. Received: alpha={alpha}"
            )
        pretrained_size(network.input_shape, (224,))
    swish = _relu if minimalistic else _hard_swish
    if preprocessing:
        x = layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="conv")(x)
    x = swish(normalized(x, "conv_bn"))
    for i, (widens, filters, size, stride, excites, swishes) in enumerate(blocks):
        windows = size or (3 if minimalistic else 5)
        activation = swish if swishes else _relu
        excited = excites and not minimalistic
        x = _block(x, widens, divisible(filters * alpha), windows, stride, excited, activation, i)
    width = divisible((x.shape[channel_axis(-1)] or 0) * 6)
    x = layers.Conv2D(width, 1, padding="same", use_bias=False, name="conv_1")(x)
    x = swish(normalized(x, "conv_1_bn"))
    if network.include_top:
        last = divisible(last * alpha) if alpha > 1 else last
        x = layers.GlobalAveragePooling2D(keepdims=True)(x)
        x = swish(layers.Conv2D(last, 1, padding="same", name="conv_2")(x))
        if dropout > 0:
            x = layers.Dropout(dropout)(x)
        x = layers.Conv2D(network.classes, 1, padding="same", name="logits")(x)
        x = layers.Flatten()(x)
        x = layers.Activation(network.classifier_activation, name="predictions")(x)
    else:
        x = network.pooled(x, "avg_pool", "max_pool")
    key = f"{kind}{'_minimalistic' if minimalistic else ''}_224_{float(alpha)}_float"
    file = f"weights_mobilenet_v3_{key}{network.choose('', '_no_top_v2')}.h5"
    digest = network.choose(*_HASHES.get(key, (None, None)))
    return network.model(x, f"{STORAGE}mobilenet_v3/{file}", digest)


def _begin(network: Network) -> KerasTensor:
    check_tensor(network)
    tensor = network.input_tensor
    if network.input_shape is None:
        rows, columns = (None, None) if tensor is None else space_of(tensor.shape)
        network.input_shape = images_of(rows, columns, 3)
    rows, columns = space_of(network.input_shape)
    if rows and columns and min(rows, columns) < 32:
        raise ValueError(
            f"Input size must be at least 32x32; Received `input_shape={network.input_shape}`"
        )
    return network.source()


def _relu(x: KerasTensor) -> KerasTensor:
    return layers.ReLU()(x)


def _hard_swish(x: KerasTensor) -> KerasTensor:
    return layers.Activation("hard_swish")(x)


def _block(
    x: KerasTensor,
    widens: float,
    filters: int,
    size: int,
    stride: int,
    excites: bool,
    activation: Callable[[KerasTensor], KerasTensor],
    i: int,
) -> KerasTensor:
    prefix = f"expanded_conv_{i}_" if i else "expanded_conv_"
    inputs, channels = x, x.shape[channel_axis(-1)] or 0
    wide = divisible(channels * widens)
    if i:
        name = f"{prefix}expand"
        x = layers.Conv2D(wide, 1, padding="same", use_bias=False, name=name)(x)
        x = activation(normalized(x, f"{name}_bn"))
    if stride == 2:
        x = layers.ZeroPadding2D(correct_pad(x, size), name=f"{prefix}depthwise_pad")(x)
    name, padding = f"{prefix}depthwise", "valid" if stride == 2 else "same"
    x = layers.DepthwiseConv2D(size, stride, padding, use_bias=False, name=name)(x)
    x = activation(normalized(x, f"{name}_bn"))
    if excites:
        x = _excited(x, wide, f"{prefix}squeeze_excite")
    name = f"{prefix}project"
    x = layers.Conv2D(filters, 1, padding="same", use_bias=False, name=name)(x)
    x = normalized(x, f"{name}_bn")
    if stride == 1 and channels == filters:
        x = layers.Add(name=f"{prefix}add")([inputs, x])
    return x


def _excited(x: Any, channels: int, name: str) -> KerasTensor:
    """Each channel times a weight that follows from the means of all."""
    y = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_avg_pool")(x)
    y = layers.Conv2D(divisible(channels / 4), 1, padding="same", name=f"{name}_conv")(y)
    y = layers.ReLU(name=f"{name}_relu")(y)
    y = layers.Conv2D(channels, 1, padding="same", name=f"{name}_conv_1")(y)
    y = layers.ReLU(6.0)(y + 3.0) * (1 / 6)
    return layers.Multiply(name=f"{name}_mul")([x, y])


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """``x`` as it is: the first layer of the network scales pixels from 0 to 255."""
    return x
