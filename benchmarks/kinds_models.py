"""One small model for each kind of layer, under the Keras names: the layer twice, then ten logits.

Layers that draw random numbers are not among them: frameworks draw others, and losses are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from networks import KERAS, keras_model
from workloads import INPUTS, PARAMETERS, WORKLOADS, Workload

Shape = tuple[int, ...]


class Kind(NamedTuple):
    """The batch's shape, and a function of ``keras.layers`` that makes what is put in twice."""

    shape: Shape
    make: Callable[[Any], Callable]
    times: int = 2
    words: int = 0  # of whole numbers below that


def _own(function: Callable[[Any, Any], Any]) -> Callable[[Any], Callable]:
    """A model's part that is written in calls of layers: a function of them and a tensor."""
    return lambda layers: lambda x: function(layers, x)


def _squeezed(L: Any, x: Any) -> Any:
    s = L.GlobalAveragePooling2D(keepdims=True)(x)
    s = L.Conv2D(x.shape[-1], 1, activation="sigmoid")(L.Conv2D(8, 1, activation="relu")(s))
    return L.Multiply()([x, s])


def _inception(L: Any, x: Any) -> Any:
    def conv(x: Any, channels: int, size: int) -> Any:
        return L.Conv2D(channels, size, padding="same", activation="relu")(x)

    pooled = L.MaxPooling2D(3, 1, padding="same")(x)
    parts = [conv(x, 16, 1), conv(conv(x, 16, 1), 24, 3), conv(conv(x, 8, 1), 8, 5)]
    return L.Concatenate()([*parts, conv(pooled, 8, 1)])


def _attended(L: Any, x: Any) -> Any:
    return L.MultiHeadAttention(4, x.shape[-1] // 4)(x, x)


def _encoder(L: Any, x: Any) -> Any:
    x = L.LayerNormalization()(L.Add()([x, _attended(L, x)]))
    y = L.Dense(x.shape[-1])(L.Dense(4 * x.shape[-1], activation="gelu")(x))
    return L.LayerNormalization()(L.Add()([x, y]))


def _inverted(L: Any, x: Any) -> Any:
    y = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(4 * x.shape[-1], 1, use_bias=False)(x)))
    y = L.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
    y = L.ReLU(6.0)(L.BatchNormalization()(y))
    y = L.BatchNormalization()(L.Conv2D(x.shape[-1], 1, use_bias=False)(y))
    return L.Add()([x, y])


def _wave(L: Any, x: Any) -> Any:
    def conv(activation: str) -> Any:
        return L.Conv1D(32, 2, dilation_rate=8, padding="causal", activation=activation)(x)

    return L.Add()([x, L.Conv1D(32, 1)(L.Multiply()([conv("tanh"), conv("sigmoid")]))])


IMAGES, WIDE, LINES = (16, 32, 32, 32), (16, 32, 32, 64), (16, 128, 64)
STEPS, VOLUMES = (32, 32, 64), (4, 16, 16, 16, 16)

KINDS: dict[str, Kind] = {
    "conv 1x1": Kind(WIDE, lambda L: L.Conv2D(64, 1, activation="relu")),
    "conv 3x3": Kind(IMAGES, lambda L: L.Conv2D(32, 3, padding="same", activation="relu")),
    "conv 3x3 of 256": Kind((8, 8, 8, 256), lambda L: L.Conv2D(256, 3, padding="same")),
    "conv 3x3 / 2": Kind(IMAGES, lambda L: L.Conv2D(64, 3, 2, padding="same")),
    "conv 3x3 of rgb": Kind((16, 64, 64, 3), lambda L: L.Conv2D(32, 3, padding="same"), 1),
    "conv 5x5": Kind(IMAGES, lambda L: L.Conv2D(32, 5, padding="same", activation="relu")),
    "conv 7x7 / 2 of rgb": Kind((16, 64, 64, 3), lambda L: L.Conv2D(32, 7, 2), 1),
    "conv dilated": Kind(IMAGES, lambda L: L.Conv2D(32, 3, padding="same", dilation_rate=2)),
    "conv transposed": Kind(
        (8, 16, 16, 64), lambda L: L.Conv2DTranspose(32, 4, 2, padding="same", activation="relu")
    ),
    "depthwise 3x3": Kind(WIDE, lambda L: L.DepthwiseConv2D(3, padding="same")),
    "depthwise 5x5 / 2": Kind(WIDE, lambda L: L.DepthwiseConv2D(5, 2, padding="same")),
    "depthwise, two each": Kind(
        IMAGES, lambda L: L.DepthwiseConv2D(3, padding="same", depth_multiplier=2), 1
    ),
    "separable": Kind(WIDE, lambda L: L.SeparableConv2D(64, 3, padding="same")),
    "conv 1d": Kind(LINES, lambda L: L.Conv1D(64, 5, padding="same", activation="relu")),
    "conv 1d causal": Kind((8, 256, 32), _own(_wave)),
    "conv 3d": Kind(VOLUMES, lambda L: L.Conv3D(16, 3, padding="same", activation="relu")),
    "max pooling": Kind(IMAGES, lambda L: L.MaxPooling2D()),
    "max pooling 3x3 / 2": Kind(IMAGES, lambda L: L.MaxPooling2D(3, 2, padding="same")),
    "max pooling 3d": Kind(VOLUMES, lambda L: L.MaxPooling3D(2)),
    "mean pooling": Kind(IMAGES, lambda L: L.AveragePooling2D(2)),
    "mean pooling 3x3 / 1": Kind(IMAGES, lambda L: L.AveragePooling2D(3, 1, padding="same")),
    "upsampling": Kind((16, 16, 16, 32), lambda L: L.UpSampling2D()),
    "upsampling, bilinear": Kind(
        (16, 16, 16, 32), lambda L: L.UpSampling2D(interpolation="bilinear")
    ),
    "batch normalisation": Kind(WIDE, lambda L: L.BatchNormalization()),
    "layer normalisation": Kind(WIDE, lambda L: L.LayerNormalization()),
    "group normalisation": Kind(WIDE, lambda L: L.GroupNormalization(8)),
    "rms normalisation": Kind(WIDE, lambda L: L.RMSNormalization()),
    **{
        f"{name}": Kind(WIDE, lambda L, name=name: L.Activation(name))
        for name in (
            *("relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "softplus"),
            *("sigmoid", "tanh", "hard_sigmoid", "softsign", "softmax"),
        )
    },
    "prelu": Kind(WIDE, lambda L: L.PReLU(shared_axes=[1, 2])),
    "squeeze and excite": Kind(IMAGES, _own(_squeezed)),
    "inception": Kind(IMAGES, _own(_inception)),
    "inverted residual": Kind((16, 16, 16, 24), _own(_inverted)),
    "dense in time": Kind(STEPS, lambda L: L.TimeDistributed(L.Dense(128, activation="relu"))),
    "lstm": Kind(STEPS, lambda L: L.LSTM(64, return_sequences=True)),
    "gru": Kind(STEPS, lambda L: L.GRU(64, return_sequences=True)),
    "simple rnn": Kind(STEPS, lambda L: L.SimpleRNN(64, return_sequences=True)),
    "lstm, both ways": Kind(STEPS, lambda L: L.Bidirectional(L.LSTM(64, return_sequences=True)), 1),
    "attention": Kind((16, 64, 64), _own(_attended)),
    "attention over 256": Kind((2, 256, 64), _own(_attended)),
    "transformer encoder": Kind((16, 64, 128), _own(_encoder), 1),
    "embedding": Kind((32, 64), lambda L: L.Embedding(20000, 64), 1, 20000),
    "embedding, masked": Kind(
        (32, 32), _own(lambda L, x: L.LSTM(64)(L.Embedding(1000, 64, mask_zero=True)(x))), 1, 1000
    ),
}


def _of(workload: Workload) -> Kind:
    return KINDS[workload.sizes["kind"]]


def _model(tf: Any, keras: Any, layer: Callable, x: Any, sizes: dict) -> Any:
    kind = KINDS[sizes["kind"]]
    for _ in range(kind.times):
        x = kind.make(keras.layers)(x)
    if len(x.shape) > 2:
        mean = getattr(keras.layers, f"GlobalAveragePooling{len(x.shape) - 2}D")
        x = mean()(x)
    return keras.layers.Dense(10)(x)


def _inputs(rng: np.random.Generator, sizes: dict, batch: int) -> np.ndarray:
    kind = KINDS[sizes["kind"]]
    if kind.words:
        found = rng.integers(1, kind.words, kind.shape)
        found[:, kind.shape[1] // 2 :] *= rng.random((len(found), 1)) < 0.5  # masked, or words
        return found
    return rng.normal(size=kind.shape)


def _parameters(rng: np.random.Generator, sizes: dict) -> Iterator[tuple[str, np.ndarray]]:
    """The initial weights of distgrad's model, which the others are given."""
    import distgrad as tf

    tf.keras.utils.set_random_seed(0)
    _, variables = keras_model(WORKLOADS[slug_of(sizes["kind"])], tf, tf.keras)
    for variable in variables:
        yield "vector", variable.numpy()


def slug_of(kind: str) -> str:
    return Workload(f"layer {kind}", "layer", 0).slug


def register() -> list[Workload]:
    """Adds a workload for each kind to those of ``workloads``."""
    KERAS["layer"], INPUTS["layer"], PARAMETERS["layer"] = _model, _inputs, _parameters
    made = [
        Workload(f"layer {name}", "layer", kind.shape[0], {"kind": name}, captured=1.0, rate=1e-3)
        for name, kind in KINDS.items()
    ]
    WORKLOADS.update({workload.slug: workload for workload in made})
    return made
