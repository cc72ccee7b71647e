"""Every layer of the stored cases of Keras, for batches of any size, beside the model itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad as tf
from distgrad.core.errors import ExportError
from distgrad.export.model import to_onnx
from distgrad.keras import activations

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

keras = tf.keras
REFERENCE = Path(__file__).parents[1] / "reference"
CLOSE = 1e-5  # to outputs around 1


with np.load(REFERENCE / "layers.npz") as _file:
    PLAIN = {name: _file[name] for name in _file.files}
with np.load(REFERENCE / "sequence_layers.npz") as _file:
    SEQUENCES = {name: _file[name] for name in _file.files}


def plain_cases() -> list[Any]:
    described = [json.loads(str(case)) for case in PLAIN["cases"]]
    return [pytest.param(i, c, id=f"{c['class']}-{i}") for i, c in enumerate(described)]


def sequence_cases() -> list[Any]:
    described = json.loads(str(SEQUENCES["cases"]))["cases"]
    return [pytest.param(c, id=f"{c['layer']['class']}-{i}") for i, c in enumerate(described)]


def varied(layer: Any, seed: int) -> None:
    """Weights that no two of are equal; variances, too, stay above 0."""
    rng = np.random.default_rng(seed)
    layer.set_weights(
        [rng.uniform(0.05, 0.4, w.shape).astype(w.dtype) for w in layer.get_weights()]
    )


@pytest.mark.parametrize(("index", "case"), plain_cases())
def test_plain(index: int, case: dict) -> None:
    layer = getattr(keras.layers, case["class"])(**case["config"])
    if f"{index}/adapt" in PLAIN:
        layer.adapt(PLAIN[f"{index}/adapt"])
    given = [PLAIN[f"{index}/input{j}"] for j in range(case["inputs"])]
    inputs = [keras.Input(x.shape[1:], dtype=x.dtype) for x in given]
    model = keras.Model(inputs, layer(inputs if len(inputs) > 1 else inputs[0]))
    if f"{index}/adapt" not in PLAIN:
        varied(layer, index)
    made = to_onnx(model)
    assert made.batches == (1, 5) and made.difference <= CLOSE


class Called(keras.Model):
    """A layer with everything it is called with: arrays as inputs, and options."""

    def __init__(self, layer: Any, options: dict) -> None:
        super().__init__()
        self.layer, self.options = layer, options

    def call(self, given: dict) -> Any:
        given = dict(given)
        return self.layer(*given.pop("args"), **given, **self.options)


def of_names(nest: Any) -> Any:
    """The stored arrays in place of their names."""
    if isinstance(nest, list):
        return [of_names(item) for item in nest]
    return SEQUENCES[nest[1:]] if isinstance(nest, str) and nest.startswith("@") else nest


def layer_of(spec: Any) -> Any:
    if not isinstance(spec, dict):
        return spec
    config = {key: layer_of(value) for key, value in spec["config"].items()}
    return getattr(keras.layers, spec["class"])(*map(layer_of, spec["args"]), **config)


@pytest.mark.parametrize("case", sequence_cases())
def test_sequence(case: dict) -> None:
    """Recurrent, normalizing and attention layers, with masks and states as inputs."""
    keywords = {key: of_names(value) for key, value in case["keywords"].items()}
    keywords.pop("training", None)
    options = {k: v for k, v in keywords.items() if isinstance(v, (bool, int))}
    arrays = {k: v for k, v in keywords.items() if k not in options}
    given = {"args": of_names(case["inputs"]), **arrays}
    model = Called(layer_of(case["layer"]), options)
    model(tf.nest.map_structure(tf.constant, given))
    varied(model, len(case["weights"]))
    spec = tf.nest.map_structure(lambda x: keras.Input(x.shape[1:], dtype=x.dtype), given)
    assert to_onnx(model, [spec]).difference <= CLOSE


OTHERS = {
    "Resizing": (keras.layers.Resizing(5, 7), (4, 6, 3)),
    "Resizing-nearest": (keras.layers.Resizing(3, 9, interpolation="nearest"), (4, 6, 3)),
    "TimeDistributed": (keras.layers.TimeDistributed(keras.layers.Conv1D(3, 2)), (4, 6, 2)),
    "TransformerBlock": (keras.layers.TransformerBlock(8, 2), (5, 4)),
    "Lambda": (keras.layers.Lambda(lambda x: tf.math.reduce_logsumexp(x, axis=1)), (5, 4)),
    "ThresholdedReLU": (keras.layers.ThresholdedReLU(0.5), (4,)),
    "GaussianNoise": (keras.layers.GaussianNoise(1.0), (4,)),
    "GaussianDropout": (keras.layers.GaussianDropout(0.5), (4,)),
    "Dropout": (keras.layers.Dropout(0.5), (4,)),
    "SpatialDropout1D": (keras.layers.SpatialDropout1D(0.5), (3, 4)),
    "SpatialDropout2D": (keras.layers.SpatialDropout2D(0.5), (3, 3, 4)),
    "SpatialDropout3D": (keras.layers.SpatialDropout3D(0.5), (3, 3, 2, 4)),
    "RandomFlip": (keras.layers.RandomFlip(), (3, 3, 4)),
    "RandomCrop": (keras.layers.RandomCrop(2, 4), (3, 3, 4)),
    "RandomElasticTransform": (keras.layers.RandomElasticTransform(), (3, 3, 3)),
    "RandomPerspective": (keras.layers.RandomPerspective(), (3, 3, 3)),
    "RandAugment": (keras.layers.RandAugment(), (3, 3, 3)),
    "CutMix": (keras.layers.CutMix(), (3, 3, 3)),
    "MixUp": (keras.layers.MixUp(), (3, 3, 3)),
    "Equalization": (keras.layers.Equalization(), (3, 3, 3)),
    "AutoContrast": (keras.layers.AutoContrast((0, 1)), (3, 3, 3)),
    "AugMix": (keras.layers.AugMix(num_chains=1, chain_depth=1), (3, 3, 3)),
    "AdaptiveAveragePooling1D": (keras.layers.AdaptiveAveragePooling1D(2), (5, 3)),
    "AdaptiveAveragePooling2D": (keras.layers.AdaptiveAveragePooling2D(2), (5, 4, 2)),
    "AdaptiveAveragePooling3D": (keras.layers.AdaptiveAveragePooling3D(2), (5, 4, 3, 2)),
    "AdaptiveMaxPooling1D": (keras.layers.AdaptiveMaxPooling1D(2), (5, 3)),
    "AdaptiveMaxPooling2D": (keras.layers.AdaptiveMaxPooling2D((2, 3)), (5, 4, 2)),
    "AdaptiveMaxPooling3D": (keras.layers.AdaptiveMaxPooling3D(2), (5, 4, 3, 2)),
    "Solarization": (keras.layers.Solarization(), (3, 3, 3)),
    "RandomPosterization": (keras.layers.RandomPosterization(3), (3, 3, 3)),
    "RandomInvert": (keras.layers.RandomInvert(), (3, 3, 3)),
    "RandomShear": (keras.layers.RandomShear(0.1), (3, 3, 3)),
    "RandomErasing": (keras.layers.RandomErasing(), (3, 3, 3)),
    "RandomSharpness": (keras.layers.RandomSharpness(0.1), (3, 3, 3)),
    "RandomGaussianBlur": (keras.layers.RandomGaussianBlur(), (3, 3, 3)),
    "RandomHue": (keras.layers.RandomHue(0.1), (3, 3, 3)),
    "RandomSaturation": (keras.layers.RandomSaturation(0.1), (3, 3, 3)),
    "RandomColorDegeneration": (keras.layers.RandomColorDegeneration(0.1), (3, 3, 3)),
    "RandomGrayscale": (keras.layers.RandomGrayscale(), (3, 3, 3)),
    "RandomColorJitter": (keras.layers.RandomColorJitter(), (3, 3, 3)),
    "Discretization": (keras.layers.Discretization([0.0, 0.5]), (4,)),
    "Discretization-count": (keras.layers.Discretization([0.0], output_mode="count"), (4,)),
    "CategoryEncoding": (keras.layers.CategoryEncoding(5), (4,)),
    "ActivityRegularization": (keras.layers.ActivityRegularization(l2=0.1), (4,)),
    "AlphaDropout": (keras.layers.AlphaDropout(0.5), (4,)),
    "ConvLSTM1D": (keras.layers.ConvLSTM1D(3, 2), (3, 5, 2)),
    "ConvLSTM2D": (keras.layers.ConvLSTM2D(2, 2, padding="same"), (3, 4, 5, 2)),
    "ConvLSTM3D": (keras.layers.ConvLSTM3D(2, 2), (2, 3, 4, 3, 2)),
    "EinsumDense": (keras.layers.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d"), (3, 4)),
    "STFTSpectrogram": (keras.layers.STFTSpectrogram(frame_length=8), (20, 2)),
    "SpectralNormalization": (keras.layers.SpectralNormalization(keras.layers.Dense(3)), (4,)),
    "StackedRNNCells": (
        keras.layers.RNN(
            keras.layers.StackedRNNCells([keras.layers.GRUCell(3), keras.layers.LSTMCell(2)])
        ),
        (4, 5),
    ),
    "UnitNormalization": (keras.layers.UnitNormalization(), (4,)),
    "CategoryEncoding-one_hot": (keras.layers.CategoryEncoding(5, "one_hot"), (1,)),
    **{
        f"Adaptive{kind}Pooling{rank}D": (
            getattr(keras.layers, f"Adaptive{kind}Pooling{rank}D")(2),
            (*(5, 4, 3)[:rank], 2),
        )
        for kind in ("Average", "Max")
        for rank in (1, 2, 3)
    },
    "Pipeline": (keras.layers.Pipeline([keras.layers.Rescaling(2.0)]), (4,)),
}
# What stands before a model, or looks things up on the host.
NOT_IN_ONNX = {"HashedCrossing", "Hashing", "IntegerLookup", "StringLookup", "TextVectorization"}
NOT_IN_ONNX.add("ContrastLimitedAdaptiveHistogramEqualization")  # a histogram has no converter
NOT_IN_ONNX.add("MelSpectrogram")  # nor has a Fourier transform


@pytest.mark.parametrize("name", OTHERS)
def test_other(name: str) -> None:
    layer, shape = OTHERS[name]
    assert to_onnx(keras.Sequential([keras.Input(shape), layer])).difference <= CLOSE


def test_attention_of_groups() -> None:
    query, value = keras.Input((4, 6)), keras.Input((5, 6))
    layer = keras.layers.GroupQueryAttention(head_dim=3, num_query_heads=4, num_key_value_heads=2)
    made = to_onnx(keras.Model([query, value], layer(query, value)))
    assert made.difference <= CLOSE


def test_token_and_position_embedding_and_a_mask_of_the_tokens() -> None:
    tokens = keras.Input((6,), dtype="int32")
    x = keras.layers.TokenAndPositionEmbedding(20, 6, 8)(tokens)
    both = keras.layers.Embedding(12, 8, mask_zero=True)(tokens)
    outputs = keras.layers.LSTM(4)(keras.layers.Add()([x, both]))
    made = to_onnx(keras.Model(tokens, outputs))
    assert made.difference <= CLOSE


def test_an_embedding_there_and_back() -> None:
    tokens = keras.Input((6,), dtype="int32")
    layer = keras.layers.ReversibleEmbedding(20, 6, logit_soft_cap=2.0)
    made = to_onnx(keras.Model(tokens, layer(layer(tokens) * 2.0, reverse=True)))
    assert made.difference <= CLOSE


def test_what_looks_things_up_on_the_host_is_named() -> None:
    looked = keras.layers.IntegerLookup(vocabulary=[3, 5], name="looked")
    with pytest.raises(ExportError, match="host_values, of .*looked, has no converter"):
        to_onnx(keras.Sequential([keras.Input((2,), dtype="int64"), looked]))


# Of a sort, and one whose arguments have no defaults.
NOT_ALONE = {"sparsemax", "threshold"}


@pytest.mark.parametrize("name", sorted(set(activations._KNOWN) - NOT_ALONE))
def test_activation(name: str) -> None:
    model = keras.Sequential([keras.Input((4, 6)), keras.layers.Activation(name)])
    assert to_onnx(model).difference <= CLOSE


def test_all_layers_are_among_these() -> None:
    met = {json.loads(str(case))["class"] for case in PLAIN["cases"]}
    met |= {c["layer"]["class"] for c in json.loads(str(SEQUENCES["cases"]))["cases"]}
    met |= {name.partition("-")[0] for name in OTHERS}
    met |= {"TokenAndPositionEmbedding", "GroupedQueryAttention", "InputLayer", *NOT_IN_ONNX}
    met |= {"ReversibleEmbedding", "MaxNumBoundingBoxes"}
    met |= {"InputSpec", "Layer", "Wrapper"}  # which give nothing by themselves
    layers = {
        getattr(keras.layers, name).__name__  # of those with two names one
        for name in keras.layers.__all__
        if isinstance(getattr(keras.layers, name), type) and getattr(keras.layers, name)
    }
    assert layers - met == set()
