"""InceptionV3. Source: Szegedy et al., "Rethinking the Inception Architecture"."""

from __future__ import annotations

from typing import Any

from distgrad.keras import layers
from distgrad.keras.applications import imagenet_utils
from distgrad.keras.applications.building import Network, application, channel_axis
from distgrad.keras.applications.imagenet_utils import decode_predictions
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.models.functional import Functional

__all__ = ["InceptionV3", "decode_predictions", "preprocess_input"]

_HASHES = ("9a0d58056eeedaa3f26cb7ebd46da564", "bcbd6486424b2319ff4ef7d526e38f63")

# A convolution: filters, rows and columns of its windows, padding and stride unless "same" and 1.
Conv = tuple[Any, ...]


@application("inception_v3")
def InceptionV3(network: Network) -> Functional:
    """InceptionV3, for images of 299 x 299; they are at least of 75 x 75."""
    x = network.begin(299, 75)
    x = _convs(x, (32, 3, 3, "valid", 2), (32, 3, 3, "valid"), (64, 3, 3))
    x = layers.MaxPooling2D(3, strides=2)(x)
    x = _convs(x, (80, 1, 1, "valid"), (192, 3, 3, "valid"))
    x = layers.MaxPooling2D(3, strides=2)(x)
    for i, filters in enumerate((32, 64, 64)):
        ways: list[list[Conv]] = [
            [(64, 1, 1)],
            [(48, 1, 1), (64, 5, 5)],
            [(64, 1, 1), (96, 3, 3), (96, 3, 3)],
        ]
        x = _mixed([*(_convs(x, *way) for way in ways), _pooled(x, filters)], f"mixed{i}")
    ways = [[(384, 3, 3, "valid", 2)], [(64, 1, 1), (96, 3, 3), (96, 3, 3, "valid", 2)]]
    x = _smaller(x, ways, "mixed3")
    for i, n in enumerate((128, 160, 160, 192), 4):
        ways = [
            [(192, 1, 1)],
            [(n, 1, 1), (n, 1, 7), (192, 7, 1)],
            [(n, 1, 1), (n, 7, 1), (n, 1, 7), (n, 7, 1), (192, 1, 7)],
        ]
        x = _mixed([*(_convs(x, *way) for way in ways), _pooled(x, 192)], f"mixed{i}")
    ways = [
        [(192, 1, 1), (320, 3, 3, "valid", 2)],
        [(192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3, "valid", 2)],
    ]
    x = _smaller(x, ways, "mixed8")
    for i in range(2):
        first = _convs(x, (320, 1, 1))
        second = _forked(_convs(x, (384, 1, 1)), f"mixed9_{i}")
        third = _forked(_convs(x, (448, 1, 1), (384, 3, 3)))
        x = _mixed([first, second, third, _pooled(x, 192)], f"mixed{9 + i}")
    x = network.end(x)
    url = network.kernels("inception_v3", "inception_v3")
    return network.model(x, url, network.choose(*_HASHES))


def _convs(x: KerasTensor, *convs: Conv) -> KerasTensor:
    """Convolutions one after the other, each normalized."""
    for conv in convs:
        x = _conv(x, *conv)
    return x


def _conv(
    x: KerasTensor, filters: int, rows: int, columns: int, padding: str = "same", stride: int = 1
) -> KerasTensor:
    x = layers.Conv2D(filters, (rows, columns), stride, padding, use_bias=False)(x)
    x = layers.BatchNormalization(axis=channel_axis(), scale=False)(x)
    return layers.Activation("relu")(x)


def _mixed(branches: list[KerasTensor], name: str | None = None) -> KerasTensor:
    return layers.Concatenate(axis=channel_axis(), name=name)(branches)


def _pooled(x: KerasTensor, filters: int) -> KerasTensor:
    x = layers.AveragePooling2D(3, strides=1, padding="same")(x)
    return _convs(x, (filters, 1, 1))


def _smaller(x: KerasTensor, ways: list[list[Conv]], name: str) -> KerasTensor:
    """Images of half the size: by convolutions with a stride, and by pooling."""
    return _mixed([*(_convs(x, *way) for way in ways), layers.MaxPooling2D(3, strides=2)(x)], name)


def _forked(x: KerasTensor, name: str | None = None) -> KerasTensor:
    return _mixed([_convs(x, (384, 1, 3)), _convs(x, (384, 3, 1))], name)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Pixels from 0 to 255 as this network takes them; see ``imagenet_utils``."""
    return imagenet_utils.preprocess_input(x, data_format, "tf")
