"""NASNet. Source: Zoph et al., "Learning Transferable Architectures for Scalable Recognition"."""

from __future__ import annotations

from typing import Any

from distgrad.keras import layers
from distgrad.keras.applications import imagenet_utils
from distgrad.keras.applications.building import STORAGE, Network, want_channels_last
from distgrad.keras.applications.imagenet_utils import correct_pad, decode_predictions
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.models.functional import Functional

__all__ = ["NASNetLarge", "NASNetMobile", "decode_predictions", "preprocess_input"]

# The hashes of the weights, with and without the classes.
_HASHES = {
    "mobile": ("020fb642bf7360b370c678b08e0adf61", "1ed92395b5b598bdda52abe5c0dbfd63"),
    "large": ("11577c9a518f0070763c2b964a382f17", "d81d89dc07e6e56530c4e77faddd61b5"),
}


def NASNetMobile(
    input_shape: Any = None,
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "nasnet_mobile",
) -> Functional:
    """The small NASNet-A, for images of 224 x 224; they are at least of 32 x 32."""
    if not include_top and input_shape is None:
        input_shape = (224, 224, 3)
    asked = (include_top, weights, input_tensor, input_shape, pooling, classes)
    network = Network(*asked, classifier_activation, name)
    return _nasnet(network, "mobile", 224, blocks=4, stem=32, filters=44, skips=False)


def NASNetLarge(
    input_shape: Any = None,
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "nasnet_large",
) -> Functional:
    """The large NASNet-A, for images of 331 x 331; they are at least of 32 x 32."""
    asked = (include_top, weights, input_tensor, input_shape, pooling, classes)
    network = Network(*asked, classifier_activation, name)
    return _nasnet(network, "large", 331, blocks=6, stem=96, filters=168, skips=True)


def _nasnet(
    network: Network, key: str, size: int, blocks: int, stem: int, filters: int, skips: bool
) -> Functional:
    """Three times as many ``blocks``, with ``filters`` and twice and four times as many.

    With ``skips`` the cells after a smaller image look back beyond that.
    """
    want_channels_last("NASNet")
    if network.pretrained and None in (network.input_shape or ()):
        raise ValueError(
            "When specifying the input shape of a NASNet and loading `ImageNet` weights, the "
            f"input_shape argument must be static. Received: input_shape={network.input_shape}"
        )
    x = network.begin(size)
    x = layers.Conv2D(
        stem, 3, strides=2, use_bias=False, kernel_initializer="he_normal", name="stem_conv1"
    )(x)
    x = _normalized(x, "stem_bn1")
    last: KerasTensor | None = None  # the input of the cell before
    x, last = _smaller(x, last, filters // 4, "stem_1")
    x, last = _smaller(x, last, filters // 2, "stem_2")
    for stage in range(3):
        width, first = filters * 2**stage, stage * blocks + (stage > 0)
        if stage:
            x, before = _smaller(x, last, width, f"reduce_{stage * blocks}")
            last = last if skips else before
        for i in range(blocks):
            x, last = _normal(x, last, width, str(first + i))
    x = _relu(x)
    x = network.end(x, pool=None)
    url = f"{STORAGE}nasnet/NASNet-{key}{network.choose('', '-no-top')}.h5"
    fname = f"nasnet_{key}{network.choose('', '_no_top')}.h5"
    return network.model(x, url, network.choose(*_HASHES[key]), fname)


Cell = tuple[KerasTensor, KerasTensor]


def _normal(x: KerasTensor, last: KerasTensor | None, filters: int, name: str) -> Cell:
    """A cell whose images are as large as ``x``, and ``x``."""
    p = _adjusted(last, x, filters, name)
    h = _pointwise(_relu(x), filters, f"normal_conv_1_{name}")
    h = _normalized(h, f"normal_bn_1_{name}")

    def add(one: KerasTensor, other: KerasTensor, part: int) -> KerasTensor:
        return layers.Add(name=f"normal_add_{part}_{name}")([one, other])

    def mean(x: KerasTensor, side: str) -> KerasTensor:
        pool = layers.AveragePooling2D(3, 1, "same", name=f"normal_{side}_{name}")
        return pool(x)

    def separable(x: KerasTensor, size: int, side: str) -> KerasTensor:
        return _separable(x, filters, size, 1, f"normal_{side}_{name}")

    first = add(separable(h, 5, "left1"), separable(p, 3, "right1"), 1)
    second = add(separable(p, 5, "left2"), separable(p, 3, "right2"), 2)
    third = add(mean(h, "left3"), p, 3)
    fourth = add(mean(p, "left4"), mean(p, "right4"), 4)
    fifth = add(separable(h, 3, "left5"), h, 5)
    parts = [p, first, second, third, fourth, fifth]
    return layers.Concatenate(name=f"normal_concat_{name}")(parts), x


def _smaller(x: KerasTensor, last: KerasTensor | None, filters: int, name: str) -> Cell:
    """A cell whose images have half the size of ``x``, and ``x``."""
    p = _adjusted(last, x, filters, name)
    h = _pointwise(_relu(x), filters, f"reduction_conv_1_{name}")
    h = _normalized(h, f"reduction_bn_1_{name}")
    padded = layers.ZeroPadding2D(correct_pad(h, 3), name=f"reduction_pad_1_{name}")(h)

    def separable(x: KerasTensor, size: int, side: str) -> KerasTensor:
        return _separable(x, filters, size, 2, f"reduction_{side}_{name}")

    def add(one: KerasTensor, other: KerasTensor, part: str | None) -> KerasTensor:
        return layers.Add(name=part and f"reduction_{part}_{name}")([one, other])

    def largest(side: str) -> KerasTensor:
        return layers.MaxPooling2D(3, 2, name=f"reduction_{side}_{name}")(padded)

    first = add(separable(h, 5, "left1"), separable(p, 7, "right1"), "add_1")
    second = add(largest("left2"), separable(p, 7, "right2"), "add_2")
    mean = layers.AveragePooling2D(3, 2, name=f"reduction_left3_{name}")(padded)
    third = add(mean, separable(p, 5, "right3"), "add3")
    mean = layers.AveragePooling2D(3, 1, "same", name=f"reduction_left4_{name}")(first)
    fourth = add(second, mean, None)
    fifth = _separable(first, filters, 3, 1, f"reduction_left4_{name}")
    fifth = add(fifth, largest("right5"), "add4")
    parts = [second, third, fourth, fifth]
    return layers.Concatenate(name=f"reduction_concat_{name}")(parts), x


def _adjusted(p: KerasTensor | None, x: KerasTensor, filters: int, name: str) -> KerasTensor:
    """The input of the cell before in the size and with the filters of this cell."""
    if p is None:
        return x
    if p.shape[-2] != x.shape[-2]:
        p = _relu(p, f"adjust_relu_1_{name}")
        pool = layers.AveragePooling2D(1, 2, name=f"adjust_avg_pool_1_{name}")
        one = _pointwise(pool(p), filters // 2, f"adjust_conv_1_{name}")
        moved = layers.ZeroPadding2D(((0, 1), (0, 1)))(p)
        moved = layers.Cropping2D(((1, 0), (1, 0)))(moved)
        pool = layers.AveragePooling2D(1, 2, name=f"adjust_avg_pool_2_{name}")
        other = _pointwise(pool(moved), filters // 2, f"adjust_conv_2_{name}")
        p = layers.Concatenate()([one, other])
    elif p.shape[-1] != filters:
        p = _pointwise(_relu(p), filters, f"adjust_conv_projection_{name}")
    else:
        return p
    return _normalized(p, f"adjust_bn_{name}")


def _separable(x: KerasTensor, filters: int, size: int, stride: int, name: str) -> KerasTensor:
    x, padding = _relu(x), "same"
    if stride == 2:
        pad = layers.ZeroPadding2D(correct_pad(x, size), name=f"separable_conv_1_pad_{name}")
        x, padding = pad(x), "valid"
    for i in (1, 2):
        part = f"separable_conv_{i}"
        x = layers.SeparableConv2D(
            filters, size, stride, padding, use_bias=False, name=f"{part}_{name}"
        )(x)
        x = _normalized(x, f"{part}_bn_{name}")
        if i == 1:
            x, stride, padding = _relu(x), 1, "same"
    return x


def _pointwise(x: KerasTensor, filters: int, name: str) -> KerasTensor:
    return layers.Conv2D(
        filters, 1, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)


def _normalized(x: KerasTensor, name: str) -> KerasTensor:
    return layers.BatchNormalization(axis=-1, momentum=0.9997, epsilon=1e-3, name=name)(x)


def _relu(x: KerasTensor, name: str | None = None) -> KerasTensor:
    return layers.Activation("relu", name=name)(x)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Pixels from 0 to 255 as these networks take them; see ``imagenet_utils``."""
    return imagenet_utils.preprocess_input(x, data_format, "tf")
