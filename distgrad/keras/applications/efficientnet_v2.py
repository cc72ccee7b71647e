"""EfficientNetV2. Source: Tan and Le, "EfficientNetV2: Smaller Models and Faster Training"."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from distgrad.keras import layers
from distgrad.keras.applications.building import STORAGE, Network, channel_axis
from distgrad.keras.applications.efficientnet import classes as last_layers
from distgrad.keras.applications.efficientnet import conv, depthwise, excited, skipping
from distgrad.keras.applications.imagenet_utils import DEVIATIONS, MEANS, decode_predictions
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.models.functional import Functional

__all__ = [
    *(f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")),
    "decode_predictions",
    "preprocess_input",
]

# Of each stage: blocks, filters, how much a block widens, first stride. The blocks of the first
# three are fused: they have one convolution in place of two, and no excitation.
_FUSED = 3
_B = ((1, 16, 1, 1), (2, 32, 4, 2), (2, 48, 4, 2), (3, 96, 4, 2), (5, 112, 6, 1), (8, 192, 6, 2))
_S = ((2, 24, 1, 1), (4, 48, 4, 2), (4, 64, 4, 2), (6, 128, 4, 2), (9, 160, 6, 1), (15, 256, 6, 2))
_M = (
    *((3, 24, 1, 1), (5, 48, 4, 2), (5, 80, 4, 2)),
    *((7, 160, 4, 2), (14, 176, 6, 1), (18, 304, 6, 2), (5, 512, 6, 1)),
)
_L = (
    *((4, 32, 1, 1), (7, 64, 4, 2), (7, 96, 4, 2)),
    *((10, 192, 4, 2), (19, 224, 6, 1), (25, 384, 6, 2), (7, 640, 6, 1)),
)
_DROP = 0.2  # the rate at which the last block is dropped
_DROPOUT = 0.2  # before the classes
_MOMENTUM = 0.9  # of the averages of batch normalization


def _variant(
    key: str,
    stem: int,
    stages: Sequence[tuple[int, ...]],
    width: float,
    depth: float,
    size: int,
    hashes: tuple[str, str],
) -> Callable[..., Functional]:
    """The function that builds the network of this name, with this width, depth and image size."""
    default = f"efficientnetv2-{key}"

    def make(
        include_top: bool = True,
        weights: Any = "imagenet",
        input_tensor: Any = None,
        input_shape: Any = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: Any = "softmax",
        include_preprocessing: bool = True,
        name: str = default,
    ) -> Functional:
        asked = (include_top, weights, input_tensor, input_shape, pooling, classes)
        network = Network(*asked, classifier_activation, name)
        x = network.begin(size)
        if include_preprocessing:
            x = _preprocessed(x, key.startswith("b") and network.channels == 3)
        x = conv(x, _rounded(stem * width), 3, "stem_conv", strides=2)
        x = _activated(x, "stem_")
        for stage in _blocks(stages, width, depth):
            x = _block(x, *stage)
        x = _activated(conv(x, _rounded(1280 * width), 1, "top_conv"), "top_")
        x = last_layers(network, x, _DROPOUT)
        url = f"{STORAGE}efficientnet_v2/{default}{network.choose('', '_notop')}.h5"
        return network.model(x, url, network.choose(*hashes))

    make.__name__ = make.__qualname__ = f"EfficientNetV2{key.upper()}"
    make.__doc__ = f"""EfficientNetV2 of size {key.upper()}, for images of {size} x {size}; they are
    at least of 32 x 32, of pixels from 0 to 255; from -1 to 1 without ``include_preprocessing``."""
    return make


EfficientNetV2B0 = _variant(
    *("b0", 32, _B, 1.0, 1.0, 224),
    ("21ecbf6da12460d5c40bb2f29ceb2188", "893217f2bb855e2983157299931e43ff"),
)
EfficientNetV2B1 = _variant(
    *("b1", 32, _B, 1.0, 1.1, 240),
    ("069f0534ff22adf035c89e2d9547a9dc", "0e80663031ca32d657f9caa404b6ec37"),
)
EfficientNetV2B2 = _variant(
    *("b2", 32, _B, 1.1, 1.2, 260),
    ("424e49f28180edbde1e94797771950a7", "1dfe2e7a5d45b6632553a8961ea609eb"),
)
EfficientNetV2B3 = _variant(
    *("b3", 32, _B, 1.2, 1.4, 300),
    ("1f1fc43bd98a6e4fd8fdfd551e02c7a0", "f6abf7b5849ac99a89b50dd3fd532856"),
)
EfficientNetV2S = _variant(
    *("s", 24, _S, 1.0, 1.0, 384),
    ("e1d88a8495beba45748fedd0cecbe016", "af0682fb74e8c54910f2d4393339c070"),
)
EfficientNetV2M = _variant(
    *("m", 24, _M, 1.0, 1.0, 480),
    ("a3bf6aa3276309f4fc6a34aa114c95cd", "1b8dc055df72dde80d614482840fe342"),
)
EfficientNetV2L = _variant(
    *("l", 32, _L, 1.0, 1.0, 480),
    ("27e6d408b53c7ebc868fefa357689935", "b0b66b5c863aef5b46e8608fe1711615"),
)


def _preprocessed(x: KerasTensor, by_colour: bool) -> KerasTensor:
    """Pixels from 0 to 255 by the mean and deviation of their colour, or from -1 to 1."""
    if not by_colour:
        return layers.Rescaling(1 / 128, offset=-1)(x)
    x = layers.Rescaling(1 / 255)(x)
    variance = [deviation**2 for deviation in DEVIATIONS]
    return layers.Normalization(channel_axis(), list(MEANS), variance)(x)


def _blocks(
    stages: Sequence[tuple[int, ...]], width: float, depth: float
) -> list[tuple[bool, int, int, int, float, str]]:
    """The arguments of each block but the first."""
    found: list[tuple[bool, int, int, int, float, str]] = []
    total = sum(stage[0] for stage in stages)
    for i, (repeats, filters, widens, stride) in enumerate(stages):
        for j in range(math.ceil(depth * repeats)):
            rate = _DROP * len(found) / total
            step, name = stride if j == 0 else 1, f"block{i + 1}{chr(ord('a') + j)}_"
            found.append((i < _FUSED, _rounded(filters * width), widens, step, rate, name))
    return found


def _block(
    x: KerasTensor, fused: bool, filters: int, widens: int, stride: int, rate: float, name: str
) -> KerasTensor:
    inputs, channels = x, x.shape[channel_axis()] or 0
    wide, step = channels * widens, stride
    if widens != 1:
        size, strides = (3, stride) if fused else (1, 1)
        x = conv(x, wide, size, f"{name}expand_conv", strides=strides)
        x, step = _activated(x, f"{name}expand_"), 1
    if not fused:
        x = _activated(depthwise(x, 3, stride, "same", f"{name}dwconv2"), name)
        x = excited(x, wide, max(1, channels // 4), name)
    size, strides = (3, step) if fused and widens == 1 else (1, 1)
    x = conv(x, filters, size, f"{name}project_conv", strides=strides)
    x = _normalized(x, f"{name}project_")
    if fused and widens == 1:
        x = layers.Activation("swish", name=f"{name}project_activation")(x)
    return skipping(inputs, x, rate, name) if stride == 1 and channels == filters else x


def _normalized(x: KerasTensor, name: str) -> KerasTensor:
    axis = channel_axis()
    return layers.BatchNormalization(axis=axis, momentum=_MOMENTUM, name=f"{name}bn")(x)


def _activated(x: KerasTensor, name: str) -> KerasTensor:
    return layers.Activation("swish", name=f"{name}activation")(_normalized(x, name))


def _rounded(filters: float) -> int:
    return max(8, int(filters + 4) // 8 * 8)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """``x`` as it is: the first layers of these networks scale pixels from 0 to 255."""
    return x
