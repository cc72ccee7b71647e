"""MobileNet. Source: Howard et al., "MobileNets: Efficient Convolutional Neural Networks"."""

from __future__ import annotations

from typing import Any

from distgrad.core.user_line import warn
from distgrad.keras import layers
from distgrad.keras.applications import imagenet_utils
from distgrad.keras.applications.building import (
    STORAGE,
    Network,
    channel_axis,
    space_of,
)
from distgrad.keras.applications.imagenet_utils import decode_predictions
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.models.functional import Functional

__all__ = ["MobileNet", "decode_predictions", "preprocess_input"]

# Filters and strides of the blocks.
_BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)),
    *((512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1)),
)
_SIZES = (128, 160, 192, 224)  # of the images for which there are weights of ImageNet
_ALPHAS = {0.25: "2_5", 0.5: "5_0", 0.75: "7_5", 1.0: "1_0"}


def MobileNet(
    input_shape: Any = None,
    alpha: float = 1.0,
    depth_multiplier: int = 1,
    dropout: float = 0.001,
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str | None = None,
) -> Functional:
    """MobileNet with ``alpha`` times the filters, for images of 224 x 224, at least of 32 x 32.

    Raises ValueError for weights of ImageNet with an ``alpha`` or multiplier that has none.
    """
    asked = (include_top, weights, input_tensor, input_shape, pooling, classes)
    network = Network(*asked, classifier_activation)
    x = network.begin(size_of(input_shape, _SIZES))
    rows = space_of(network.input_shape)[0]
    if network.pretrained:
        if depth_multiplier != 1:
            raise ValueError(
                "If imagenet weights are being loaded, depth multiplier must be 1. Received: "
                f"depth_multiplier={depth_multiplier}"
            )
        check_alpha(alpha, tuple(_ALPHAS))
        rows = pretrained_size(network.input_shape, _SIZES)
    network.name = f"mobilenet_{alpha:0.2f}_{rows}" if name is None else name
    x = layers.Conv2D(int(32 * alpha), 3, strides=2, padding="same", use_bias=False, name="conv1")(
        x
    )
    x = _normalized(x, "conv1")
    for i, (filters, stride) in enumerate(_BLOCKS, 1):
        if stride == 2:
            x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"conv_pad_{i}")(x)
        x = layers.DepthwiseConv2D(
            3, stride, "valid" if stride == 2 else "same", depth_multiplier, use_bias=False,
            name=f"conv_dw_{i}",
        )(x)  # fmt: skip
        x = _normalized(x, f"conv_dw_{i}")
        width, pointwise = int(filters * alpha), f"conv_pw_{i}"
        x = layers.Conv2D(width, 1, padding="same", use_bias=False, name=pointwise)(x)
        x = _normalized(x, pointwise)
    if include_top:
        x = layers.GlobalAveragePooling2D(keepdims=True)(x)
        x = layers.Dropout(dropout, name="dropout")(x)
        x = layers.Conv2D(classes, 1, padding="same", name="conv_preds")(x)
        x = layers.Reshape((classes,), name="reshape_2")(x)
        x = layers.Activation(classifier_activation, name="predictions")(x)
    else:
        x = network.pooled(x)
    kind = network.choose("", "_no_top")
    file = f"mobilenet_{_ALPHAS.get(alpha)}_{rows}_tf{kind}.h5"
    return network.model(x, f"{STORAGE}mobilenet/{file}")


def _normalized(x: KerasTensor, name: str) -> KerasTensor:
    x = layers.BatchNormalization(axis=channel_axis(-1), name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def size_of(shape: Any, sizes: tuple[int, ...]) -> int:
    """The size of square images of this shape if it is one of ``sizes``, else 224."""
    rows, columns = (None, None) if shape is None else space_of(shape)
    return rows if rows == columns and rows in sizes else 224


def pretrained_size(shape: Any, sizes: tuple[int, ...]) -> int:
    """``size_of``, with a warning where the weights are those of another size."""
    rows, columns = space_of(shape)
    if rows == columns and rows in sizes:
        return rows
    warn(
        f"`input_shape` is undefined or non-square, or `rows` is not in {sizes}. Weights for "
        "input shape (224, 224) will be loaded as the default."
    )
    return 224


def check_alpha(alpha: float, alphas: tuple[float, ...]) -> None:
    """Raises ValueError for an ``alpha`` that has no weights of ImageNet."""
    if alpha not in alphas:
        known = ", ".join(map(str, alphas))
        raise ValueError(
            f"If imagenet weights are being loaded, alpha can be one of {known} only. Received: "
            f"alpha={alpha}"
        )


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Pixels from 0 to 255 as this network takes them; see ``imagenet_utils``."""
    return imagenet_utils.preprocess_input(x, data_format, "tf")
