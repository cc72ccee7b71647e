"""ConvNeXt. Source: Liu et al., "A ConvNet for the 2020s"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras import layers
from distgrad.keras.applications.building import STORAGE, Network, want_channels_last
from distgrad.keras.applications.imagenet_utils import DEVIATIONS, MEANS, decode_predictions
from distgrad.keras.initializers import Constant
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.models import Sequential
from distgrad.keras.models.functional import Functional

__all__ = [
    *(f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large", "XLarge")),
    "decode_predictions",
    "preprocess_input",
]

_SCALE = 1e-6  # with which the last layer of each block begins


class LayerScale(layers.Layer):
    """Each of ``projection_dim`` channels times a weight that begins at ``init_values``."""

    _keras_module = "keras.src.applications.convnext"

    def __init__(self, init_values: float, projection_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init_values = init_values
        self.projection_dim = projection_dim

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.gamma = self.add_weight((self.projection_dim,), Constant(self.init_values))

    def _told_shape(self, shape: Any) -> Any:
        return shape if shape[-1] == self.projection_dim else None

    def call(self, x: Tensor) -> Tensor:
        return x * self.gamma


def _variant(
    size: str, depths: Sequence[int], width: int, *hashes: str
) -> Callable[..., Functional]:
    """The function that builds the network of this name: ``width`` is that of the first stage."""
    default = f"convnext_{size.lower()}"

    def make(
        include_top: bool = True,
        include_preprocessing: bool = True,
        weights: Any = "imagenet",
        input_tensor: Any = None,
        input_shape: Any = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: Any = "softmax",
        name: str = default,
    ) -> Functional:
        want_channels_last("ConvNeXt")
        asked = (include_top, weights, input_tensor, input_shape, pooling, classes)
        network = Network(*asked, classifier_activation, name)
        x = network.begin(224)
        if include_preprocessing and network.channels == 3:
            x = layers.Normalization(
                mean=[255 * mean for mean in MEANS],
                variance=[(255 * deviation) ** 2 for deviation in DEVIATIONS],
                name=f"{name}_prestem_normalization",
            )(x)
        x = _stages(x, depths, width, name)
        if include_top:
            x = layers.GlobalAveragePooling2D(name=f"{name}_head_gap")(x)
            x = _normalized(f"{name}_head_layernorm")(x)
            x = layers.Dense(classes, classifier_activation, name=f"{name}_head_dense")(x)
        else:
            x = _normalized()(network.pooled(x))
        url = f"{STORAGE}convnext/{default}{network.choose('', '_notop')}.h5"
        return network.model(x, url, network.choose(*hashes))

    make.__name__ = make.__qualname__ = f"ConvNeXt{size}"
    make.__doc__ = f"""The {size.lower()} ConvNeXt, for images of 224 x 224; they are at least of
    32 x 32, of pixels from 0 to 255 unless ``include_preprocessing`` is False."""
    return make


def _stages(x: Any, depths: Sequence[int], width: int, name: str) -> KerasTensor:
    for i, depth in enumerate(depths):
        filters = width * 2**i
        if i == 0:
            conv = layers.Conv2D(filters, 4, strides=4, name=f"{name}_stem_conv")
            stem = [conv, _normalized(f"{name}_stem_layernorm")]
            x = Sequential(stem, name=f"{name}_stem")(x)
        else:
            norm = _normalized(f"{name}_downsampling_layernorm_{i - 1}")
            conv = layers.Conv2D(filters, 2, strides=2, name=f"{name}_downsampling_conv_{i - 1}")
            x = Sequential([norm, conv], name=f"{name}_downsampling_block_{i - 1}")(x)
        for j in range(depth):
            x = x + _branch(x, filters, f"{name}_stage_{i}_block_{j}")
    return x


def _branch(x: KerasTensor, filters: int, name: str) -> KerasTensor:
    """What a block adds to ``x``."""
    x = layers.Conv2D(filters, 7, padding="same", groups=filters, name=f"{name}_depthwise_conv")(x)
    x = _normalized(f"{name}_layernorm")(x)
    x = layers.Dense(4 * filters, name=f"{name}_pointwise_conv_1")(x)
    x = layers.Activation("gelu", name=f"{name}_gelu")(x)
    x = layers.Dense(filters, name=f"{name}_pointwise_conv_2")(x)
    x = LayerScale(_SCALE, filters, name=f"{name}_layer_scale")(x)
    return layers.Activation("linear", name=f"{name}_identity")(x)


def _normalized(name: str | None = None) -> layers.LayerNormalization:
    return layers.LayerNormalization(epsilon=1e-6, name=name)


# The hashes are those of the weights, with and without the classes.
ConvNeXtTiny = _variant(
    *("Tiny", (3, 3, 9, 3), 96),
    "8ae6e78ce2933352b1ef4008e6dd2f17bc40771563877d156bc6426c7cf503ff",
    "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
)
ConvNeXtSmall = _variant(
    *("Small", (3, 3, 27, 3), 96),
    "ce1277d8f1ee5a0ef0e171469089c18f5233860ceaf9b168049cb9263fd7483c",
    "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab",
)
ConvNeXtBase = _variant(
    *("Base", (3, 3, 27, 3), 128),
    "52cbb006d3dadd03f6e095a8ca1aca47aecdd75acb4bc74bce1f5c695d0086e6",
    "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45",
)
ConvNeXtLarge = _variant(
    *("Large", (3, 3, 27, 3), 192),
    "070c5ed9ed289581e477741d3b34beffa920db8cf590899d6d2c67fba2a198a6",
    "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd",
)
ConvNeXtXLarge = _variant(
    *("XLarge", (3, 3, 27, 3), 256),
    "c1f5ccab661354fc3a79a10fa99af82f0fbf10ec65cb894a3ae0815f17a889ee",
    "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05",
)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """``x`` as it is: the first layer of these networks scales pixels from 0 to 255."""
    return x
