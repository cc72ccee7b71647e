"""Inception-ResNet V2. Source: Szegedy et al., "Inception-v4, Inception-ResNet"."""

from __future__ import annotations

from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras import layers
from distgrad.keras.applications import imagenet_utils
from distgrad.keras.applications.building import STORAGE, Network, application, channel_axis
from distgrad.keras.applications.imagenet_utils import decode_predictions
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.models.functional import Functional

__all__ = ["InceptionResNetV2", "decode_predictions", "preprocess_input"]

_HASHES = ("e693bd0210a403b3192acc6073ad2e96", "d19885ff4a710c122648d3b5c3b684e4")

# A convolution: filters, windows, padding and stride unless "same" and 1.
Conv = tuple[Any, ...]

_BRANCHES: dict[str, list[list[Conv]]] = {
    "block35": [[(32, 1)], [(32, 1), (32, 3)], [(32, 1), (48, 3), (64, 3)]],
    "block17": [[(192, 1)], [(128, 1), (160, (1, 7)), (192, (7, 1))]],
    "block8": [[(192, 1)], [(192, 1), (224, (1, 3)), (256, (3, 1))]],
}


class CustomScaleLayer(layers.Layer):
    """The first of two inputs, and ``scale`` times the second."""

    _keras_module = "keras.src.applications.inception_resnet_v2"

    def __init__(self, scale: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale

    def _told_shape(self, shape: Any) -> Any:
        return shape[0] if shape[0] == shape[1] else None

    def call(self, inputs: list[Tensor]) -> Tensor:
        return inputs[0] + inputs[1] * self.scale


@application("inception_resnet_v2")
def InceptionResNetV2(network: Network) -> Functional:
    """Inception-ResNet V2, for images of 299 x 299; they are at least of 75 x 75."""
    x = network.begin(299, 75)
    x = _convs(x, (32, 3, "valid", 2), (32, 3, "valid"), (64, 3))
    x = layers.MaxPooling2D(3, strides=2)(x)
    x = _convs(x, (80, 1, "valid"), (192, 3, "valid"))
    x = layers.MaxPooling2D(3, strides=2)(x)
    ways: list[list[Conv]] = [
        [(96, 1)], [(48, 1), (64, 5)], [(64, 1), (96, 3), (96, 3)],
    ]  # fmt: skip
    branches = [_convs(x, *way) for way in ways]
    pooled = layers.AveragePooling2D(3, strides=1, padding="same")(x)
    x = _mixed([*branches, _convs(pooled, (64, 1))], "mixed_5b")
    for i in range(1, 11):
        x = _block(x, "block35", i, 0.17)
    ways = [[(384, 3, "valid", 2)], [(256, 1), (256, 3), (384, 3, "valid", 2)]]
    x = _smaller(x, ways, "mixed_6a")
    for i in range(1, 21):
        x = _block(x, "block17", i, 0.1)
    ways = [
        [(256, 1), (384, 3, "valid", 2)],
        [(256, 1), (288, 3, "valid", 2)],
        [(256, 1), (288, 3), (320, 3, "valid", 2)],
    ]
    x = _smaller(x, ways, "mixed_7a")
    for i in range(1, 11):
        x = _block(x, "block8", i, 0.2 if i < 10 else 1.0)
    x = _conv(x, 1536, 1, name="conv_7b")
    x = network.end(x)
    kind = network.choose("", "_notop")
    file = f"inception_resnet_v2_weights_tf_dim_ordering_tf_kernels{kind}.h5"
    return network.model(x, f"{STORAGE}inception_resnet_v2/{file}", network.choose(*_HASHES))


def _conv(
    x: KerasTensor,
    filters: int,
    size: Any,
    padding: str = "same",
    stride: int = 1,
    name: str | None = None,
) -> KerasTensor:
    x = layers.Conv2D(filters, size, stride, padding, use_bias=False, name=name)(x)
    norm, active = (None, None) if name is None else (f"{name}_bn", f"{name}_ac")
    x = layers.BatchNormalization(axis=channel_axis(), scale=False, name=norm)(x)
    return layers.Activation("relu", name=active)(x)


def _convs(x: KerasTensor, *convs: Conv) -> KerasTensor:
    """Convolutions one after the other, each normalized."""
    for conv in convs:
        x = _conv(x, *conv)
    return x


def _mixed(branches: list[KerasTensor], name: str) -> KerasTensor:
    return layers.Concatenate(axis=channel_axis(), name=name)(branches)


def _smaller(x: KerasTensor, ways: list[list[Conv]], name: str) -> KerasTensor:
    """Images of half the size: by convolutions with a stride, and by pooling."""
    branches = [_convs(x, *way) for way in ways]
    return _mixed([*branches, layers.MaxPooling2D(3, strides=2)(x)], name)


def _block(x: KerasTensor, kind: str, i: int, scale: float) -> KerasTensor:
    """``x``, and ``scale`` times what its branches make of it; the very last is not activated."""
    name = f"{kind}_{i}"
    y = _mixed([_convs(x, *way) for way in _BRANCHES[kind]], f"{name}_mixed")
    channels = x.shape[channel_axis()] or 0
    y = layers.Conv2D(channels, 1, padding="same", name=f"{name}_conv")(y)
    x = CustomScaleLayer(scale)([x, y])
    return x if name == "block8_10" else layers.Activation("relu", name=f"{name}_ac")(x)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Pixels from 0 to 255 as this network takes them; see ``imagenet_utils``."""
    return imagenet_utils.preprocess_input(x, data_format, "tf")
