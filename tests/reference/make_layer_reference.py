"""Writes the numbers of Keras 3's layers that tests/keras/layers compares with: layers.npz.

    python tests/reference/make_layer_reference.py

It needs keras and tensorflow; the tests do not. The array ``cases`` holds one JSON text per case:
the layer's class and config, and how many inputs and weights there are. The arrays of case i are
called ``i/input0``, ``i/weight0``, ``i/output`` and so on: see ``store``. All floats are float32.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend import get_keras_mask, set_keras_mask

HERE = Path(__file__).parent
RNG = np.random.default_rng(11)
ARRAYS: dict[str, np.ndarray] = {}
CASES: list[str] = []
STEPS = 5
LEARNING_RATE = 0.01
# TensorFlow's gradient of these reads by the inverse map, which is near the gradient, and not it.
INVERTED = {"RandomRotation", "RandomTranslation", "RandomZoom"}


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def mask(*shape: int) -> np.ndarray:
    return RNG.uniform(size=shape) < 0.6


FIRST = {"data_format": "channels_first"}


def plain_layers() -> Iterator[tuple[str, dict, list]]:
    """(class, config, inputs)."""
    yield "Dense", {"units": 4, "activation": "tanh"}, [normal(3, 5)]
    yield "Dense", {"units": 2, "use_bias": False}, [normal(2, 3, 5)]
    yield "Identity", {}, [normal(2, 3)]
    for name in ("relu", "softmax", "gelu", "silu"):
        yield "Activation", {"activation": name}, [normal(3, 5)]
    x = normal(3, 5) * 2
    yield "ReLU", {}, [x]
    yield "ReLU", {"max_value": 1.0}, [x]
    yield "ReLU", {"negative_slope": 0.2}, [x]
    yield "ReLU", {"max_value": 1.5, "negative_slope": 0.1, "threshold": 0.3}, [x]
    yield "LeakyReLU", {}, [x]
    yield "LeakyReLU", {"negative_slope": 0.1}, [x]
    yield "ELU", {}, [x]
    yield "ELU", {"alpha": 0.5}, [x]
    yield "PReLU", {}, [x]
    yield "PReLU", {"shared_axes": [1, 2]}, [normal(2, 3, 2, 4)]
    yield "Softmax", {}, [x]
    yield "Softmax", {"axis": 1}, [normal(2, 3, 4)]
    yield "Softmax", {"axis": [1, 2]}, [normal(2, 3, 4)]
    yield "Flatten", {}, [normal(2, 3, 4)]
    yield "Flatten", FIRST, [normal(2, 3, 2, 2)]
    yield "Flatten", {}, [normal(4)]
    yield "Reshape", {"target_shape": [3, 4]}, [normal(2, 12)]
    yield "Reshape", {"target_shape": [-1, 2]}, [normal(2, 3, 4)]
    yield "Permute", {"dims": [2, 1]}, [normal(2, 3, 4)]
    yield "Permute", {"dims": [3, 1, 2]}, [normal(2, 3, 4, 2)]
    yield "RepeatVector", {"n": 3}, [normal(2, 4)]
    yield "ZeroPadding1D", {"padding": 2}, [normal(2, 3, 2)]
    yield "ZeroPadding1D", {"padding": [1, 2]}, [normal(2, 3, 2)]
    image = normal(2, 4, 5, 2)
    yield "ZeroPadding2D", {}, [image]
    yield "ZeroPadding2D", {"padding": [1, 2]}, [image]
    yield "ZeroPadding2D", {"padding": [[1, 0], [0, 2]], **FIRST}, [image]
    yield "Cropping1D", {}, [normal(2, 5, 2)]
    yield "Cropping1D", {"cropping": [0, 3]}, [normal(2, 5, 2)]
    yield "Cropping2D", {"cropping": 1}, [image]
    yield "Cropping2D", {"cropping": [[1, 0], [0, 2]]}, [image]
    yield "Cropping2D", {"cropping": [1, 0], **FIRST}, [image]
    yield "UpSampling1D", {"size": 3}, [normal(2, 3, 2)]
    yield "UpSampling2D", {}, [image]
    yield "UpSampling2D", {"size": [1, 3], **FIRST}, [image]
    yield "UpSampling2D", {"size": [3, 2], "interpolation": "bilinear"}, [image]
    yield "Rescaling", {"scale": 0.5, "offset": -1.0}, [x]
    yield "Rescaling", {"scale": 1 / 255}, [RNG.integers(0, 256, (2, 3, 4)).astype(np.uint8)]
    yield "Rescaling", {"scale": [1.0, 2.0, 3.0], "offset": [0.5, 0.0, -1.0]}, [normal(2, 3)]
    given = {"mean": [0.5, -1.0, 2.0], "variance": [0.25, 4.0, 1e-20]}
    yield "Normalization", given, [normal(4, 3)]
    yield "Normalization", {**given, "axis": 1, "invert": True}, [normal(2, 3, 2)]
    yield "Normalization", {"axis": None, "mean": 3.0, "variance": 2.0}, [normal(4, 3)]


def volumes() -> Iterator[tuple[str, dict, list]]:
    """Three axes of space."""
    space = normal(2, 4, 5, 3, 2)
    base: dict[str, Any] = {"filters": 3, "kernel_size": 2}
    yield "Conv3D", base, [space]
    yield "Conv3D", {**base, "strides": [2, 1, 2], "padding": "same", "activation": "tanh"}, [space]
    yield "Conv3D", {**base, "kernel_size": [3, 1, 2], "use_bias": False}, [space]
    yield "Conv3DTranspose", base, [normal(2, 2, 3, 2, 2)]
    settings = {"strides": [2, 1, 2], "padding": "same", "kernel_size": 3}
    yield "Conv3DTranspose", {**base, **settings}, [normal(2, 2, 3, 2, 2)]
    for kind in ("Max", "Average"):
        yield f"{kind}Pooling3D", {"pool_size": 2}, [space]
        yield f"{kind}Pooling3D", {"pool_size": [2, 3, 1], "strides": [1, 2, 1]}, [space]
        yield f"{kind}Pooling3D", {"pool_size": 3, "strides": 2, "padding": "same"}, [space]
        for config in ({}, {"keepdims": True}, FIRST):
            yield f"Global{kind}Pooling3D", config, [space]
    yield "ZeroPadding3D", {}, [space]
    yield "ZeroPadding3D", {"padding": [[1, 0], [0, 2], [1, 1]], **FIRST}, [space]
    yield "Cropping3D", {}, [space]
    yield "Cropping3D", {"cropping": [[1, 0], [0, 2], [1, 0]]}, [space]
    yield "Cropping3D", {"cropping": [1, 0, 0], **FIRST}, [normal(1, 2, 4, 3, 3)]
    yield "UpSampling3D", {}, [normal(1, 2, 3, 1, 2)]
    yield "UpSampling3D", {"size": [1, 3, 2], **FIRST}, [normal(1, 2, 2, 3, 1)]
    yield "UpSampling1D", {}, [normal(2, 3, 2)]


def augmentations() -> Iterator[tuple[str, dict, list]]:
    """Random layers whose range is one number: what they make of it is known."""
    image = normal(2, 6, 7, 3)
    for fill in ("reflect", "wrap", "constant", "nearest"):
        settings = {"fill_mode": fill, "fill_value": 0.5}
        yield "RandomRotation", {"factor": [0.1, 0.1], **settings}, [image]
        factors = {"height_factor": [0.3, 0.3], "width_factor": [-0.45, -0.45]}
        yield "RandomTranslation", {**factors, **settings}, [image]
        yield "RandomZoom", {**factors, **settings}, [image]
    yield "RandomRotation", {"factor": [-0.3, -0.3], "interpolation": "nearest"}, [image]
    yield "RandomRotation", {"factor": [0.05, 0.05], **FIRST}, [normal(2, 3, 6, 5)]
    yield "RandomZoom", {"height_factor": [0.5, 0.5]}, [image]
    yield "RandomBrightness", {"factor": [0.3, 0.3], "value_range": [-1, 1]}, [image]
    yield "RandomContrast", {"factor": 0.0, "value_range": [-1, 1]}, [image]
    yield "RandomCrop", {"height": 6, "width": 7}, [image]
    yield "CenterCrop", {"height": 3, "width": 4}, [image]
    yield "CenterCrop", {"height": 8, "width": 3}, [image]
    yield "CenterCrop", {"height": 5, "width": 2, **FIRST}, [normal(2, 3, 6, 5)]
    for method in ("bilinear", "nearest", "lanczos3"):
        yield "Resizing", {"height": 3, "width": 9, "interpolation": method}, [image]
    yield "Resizing", {"height": 3, "width": 4, "antialias": True}, [image]
    yield "Resizing", {"height": 3, "width": 4, "crop_to_aspect_ratio": True}, [image]
    yield "Resizing", {"height": 8, "width": 2, **FIRST}, [normal(2, 3, 6, 5)]


def convolutions() -> Iterator[tuple[str, dict, list]]:
    line, image = normal(2, 8, 4), normal(2, 6, 7, 3)
    base: dict[str, Any] = {"filters": 4, "kernel_size": 3}
    name = "Conv1D"
    yield name, base, [line]
    yield name, {**base, "padding": "same", "strides": 2, "activation": "tanh"}, [line]
    yield name, {**base, "padding": "same", "kernel_size": 4}, [line]
    yield name, {**base, "padding": "causal"}, [line]
    yield name, {**base, "padding": "causal", "dilation_rate": 2}, [line]
    yield name, {**base, "padding": "causal", "strides": 2}, [line]
    yield name, {**base, "padding": "same", "dilation_rate": 3}, [line]
    yield name, {**base, "groups": 2, "use_bias": False}, [line]
    # Not 4 filters: Keras adds the bias along the last axis where that is as long as it is.
    yield name, {**base, **FIRST, "filters": 5, "padding": "causal"}, [line]
    name = "Conv2D"
    yield name, base, [image]
    yield name, {**base, "padding": "same", "strides": [2, 3], "activation": "relu"}, [image]
    yield name, {**base, "kernel_size": [2, 1], "padding": "same", "use_bias": False}, [image]
    yield name, {**base, "dilation_rate": [2, 1]}, [image]
    yield name, {**base, "padding": "same", "dilation_rate": 2}, [image]
    yield name, {**base, "filters": 6, "groups": 3, "padding": "same"}, [image]
    yield name, {**base, "groups": 2, "strides": 2}, [normal(2, 5, 5, 4)]
    # Softmax over the last axis, the width: a bias of a channel would have no gradient.
    settings = {"padding": "same", "activation": "softmax", "use_bias": False}
    yield name, {**base, **FIRST, **settings}, [image]
    base = {"kernel_size": 3}
    yield "DepthwiseConv1D", base, [line]
    yield "DepthwiseConv1D", {**base, "depth_multiplier": 2, "padding": "same"}, [line]
    name = "DepthwiseConv2D"
    yield name, base, [image]
    yield name, {**base, "depth_multiplier": 2, "padding": "same", "strides": 2}, [image]
    yield name, {**base, "dilation_rate": 2, "padding": "same", "use_bias": False}, [image]
    yield name, {**base, **FIRST, "kernel_size": 2}, [image]
    yield name, {**base, "depth_multiplier": 3}, [normal(2, 4, 4, 1)]
    base = {"filters": 5, "kernel_size": 3}
    yield "SeparableConv1D", base, [line]
    yield "SeparableConv2D", base, [image]
    settings = {"depth_multiplier": 2, "padding": "same", "strides": 2, "activation": "tanh"}
    yield "SeparableConv2D", {**base, **settings}, [image]
    yield "SeparableConv2D", {**base, "dilation_rate": 2, "use_bias": False}, [image]
    line, image = normal(2, 4, 3), normal(2, 3, 4, 2)
    base = {"filters": 2, "kernel_size": 3}
    name = "Conv1DTranspose"
    for padding in ("valid", "same"):
        yield name, {**base, "padding": padding}, [line]
        yield name, {**base, "padding": padding, "strides": 2}, [line]
        yield name, {**base, "padding": padding, "strides": 3, "kernel_size": 2}, [line]
        yield name, {**base, "padding": padding, "dilation_rate": 2}, [line]
        yield name, {**base, "padding": padding, "strides": 2, "output_padding": 1}, [line]
    yield name, {**base, "padding": "same", "strides": 2, "output_padding": 0}, [line]
    yield name, {**base, **FIRST, "strides": 2}, [line]
    name = "Conv2DTranspose"
    yield name, base, [image]
    yield name, {**base, "padding": "same", "strides": 2, "activation": "tanh"}, [image]
    yield name, {**base, "kernel_size": [2, 3], "strides": [3, 1], "use_bias": False}, [image]
    yield name, {**base, "strides": 2, "output_padding": [1, 0]}, [image]
    yield name, {**base, **FIRST, "filters": 3, "padding": "same"}, [image]


def pools() -> Iterator[tuple[str, dict, list]]:
    for kind in ("Max", "Average"):
        line, image = normal(2, 7, 2), normal(2, 5, 6, 2)
        yield f"{kind}Pooling1D", {"pool_size": 2}, [line]
        yield f"{kind}Pooling1D", {"pool_size": 3, "strides": 2, "padding": "same"}, [line]
        yield f"{kind}Pooling1D", {"pool_size": 2, **FIRST}, [line.swapaxes(1, 2)]
        yield f"{kind}Pooling2D", {"pool_size": [2, 2]}, [image]
        yield f"{kind}Pooling2D", {"pool_size": 3, "strides": 2, "padding": "same"}, [image]
        yield f"{kind}Pooling2D", {"pool_size": [2, 3], "strides": 1}, [image]
        yield f"{kind}Pooling2D", {"pool_size": 2, **FIRST}, [image.transpose(0, 3, 1, 2)]
        for rank, x in ((1, line), (2, image)):
            for config in ({}, {"keepdims": True}, FIRST):
                yield f"Global{kind}Pooling{rank}D", config, [x]


def merges() -> Iterator[tuple[str, dict, list]]:
    for name in ("Add", "Multiply", "Average", "Maximum", "Minimum"):
        yield name, {}, [normal(2, 3), normal(2, 3), normal(2, 3)]
        yield name, {}, [normal(2, 3, 4), normal(2, 4)]
        yield name, {}, [normal(2, 3, 1), normal(2, 1, 4)]
    yield "Subtract", {}, [normal(2, 3), normal(2, 3)]
    yield "Concatenate", {}, [normal(2, 3), normal(2, 1), normal(2, 2)]
    yield "Concatenate", {"axis": 1}, [normal(2, 3, 2), normal(2, 1, 2)]
    yield "Dot", {"axes": 1}, [normal(3, 4), normal(3, 4)]
    yield "Dot", {"axes": -1, "normalize": True}, [normal(3, 4), normal(3, 4)]
    yield "Dot", {"axes": [2, 1]}, [normal(2, 3, 4), normal(2, 4, 5)]
    yield "Dot", {"axes": 2}, [normal(2, 3, 4), normal(2, 5, 4)]
    yield "Dot", {"axes": [1, 2], "normalize": True}, [normal(2, 4), normal(2, 5, 4)]


def masked() -> Iterator[tuple[str, dict, list, list]]:
    """(class, config, inputs, masks)."""
    steps = mask(3, 4)
    yield "GlobalAveragePooling1D", {}, [normal(3, 4, 2)], [steps | (np.arange(4) == 1)]
    yield "Softmax", {}, [normal(3, 4)], [steps]
    yield "Dense", {"units": 2}, [normal(3, 4, 2)], [steps]
    yield "Activation", {"activation": "relu"}, [normal(3, 4, 2)], [steps]
    for name in ("Add", "Multiply", "Maximum", "Minimum", "Average", "Concatenate"):
        pair = [normal(3, 4, 2), normal(3, 4, 2)]
        yield name, {}, pair, [steps, mask(3, 4)]
        yield name, {}, pair, [steps, None]
        yield name, {}, pair[::-1], [None, steps]
    yield "Concatenate", {"axis": 1}, [normal(3, 4, 2), normal(3, 1, 2)], [steps, None]


def store(name: str, value: Any) -> None:
    """One array of the case in hand: inputs, masks, weights, the output and its mask, the
    cotangent that multiplies the output, gradients of the sum of both, weights after the steps."""
    array = np.asarray(value)
    ARRAYS[f"{len(CASES)}/{name}"] = (
        array.astype(np.float32) if array.dtype == np.float64 else array
    )


def case(
    name: str, config: dict, inputs: list, masks: list | None = None, adapt: Any = None
) -> None:
    layer = getattr(keras.layers, name)(**config)
    shapes = [x.shape for x in inputs]
    if adapt is not None:
        layer.adapt(adapt)
        store("adapt", adapt)
    elif not layer.built:
        layer.build(shapes if len(inputs) > 1 else shapes[0])
    if adapt is None:
        layer.set_weights([normal(*w.shape) * 0.5 for w in layer.weights])
    for j, weight in enumerate(layer.get_weights()):
        store(f"weight{j}", weight)
    for j, x in enumerate(inputs):
        store(f"input{j}", x)
        if masks and masks[j] is not None:
            store(f"mask{j}", masks[j])
    tensors = [tf.Variable(x) if x.dtype.kind == "f" else tf.constant(x) for x in inputs]
    watched = [t for t in tensors if t.dtype.is_floating]

    def forward() -> Any:
        values = [tf.convert_to_tensor(t) for t in tensors]
        for value, given in zip(values, masks or [None] * len(values), strict=True):
            if given is not None:
                set_keras_mask(value, tf.constant(given))
        return layer(values if len(values) > 1 else values[0])

    output = forward()
    store("output", output)
    if get_keras_mask(output) is not None:
        store("output_mask", get_keras_mask(output))
    cotangent = normal(*output.shape)
    store("cotangent", cotangent)
    trainable = [w.value for w in layer.trainable_variables]

    def gradients() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(forward() * cotangent)
        found = tape.gradient(loss, watched + trainable)
        return [tf.convert_to_tensor(g) for g in found]

    try:
        gradients()
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
        # TensorFlow's CPU kernels lack some gradients (dilation); XLA has them.
        gradients = tf.function(gradients, jit_compile=True)
    found = gradients()
    floats = [j for j, x in enumerate(inputs) if x.dtype.kind == "f"]
    for j, value in zip(floats if name not in INVERTED else (), found, strict=False):
        store(f"input_gradient{j}", value)
    for j, value in enumerate(found[len(watched) :]):
        store(f"weight_gradient{j}", value)
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    for _ in range(STEPS if trainable else 0):
        steps = gradients()[len(watched) :]
        optimizer.apply_gradients(zip(steps, layer.trainable_variables, strict=True))
    for j, weight in enumerate(layer.get_weights() if trainable else ()):
        store(f"stepped{j}", weight)
    CASES.append(
        json.dumps(
            {
                "class": name,
                "config": config,
                "inputs": len(inputs),
                "weights": len(layer.weights),
                "trainable": len(trainable),
            }
        )
    )


def main() -> None:
    for each in (plain_layers, convolutions, pools, merges, masked):
        for found in each():
            case(*found)
    cases_so_far = RNG.bit_generator.state
    for each in (volumes, augmentations):
        for found in each():
            case(*found)
    RNG.bit_generator.state = cases_so_far
    words = RNG.integers(0, 6, (3, 4)).astype(np.int32)
    case("Embedding", {"input_dim": 6, "output_dim": 3}, [words])
    case("Embedding", {"input_dim": 6, "output_dim": 2, "mask_zero": True}, [words])
    steps = normal(2, 4, 2)
    steps[0, 1:3] = steps[1, 3] = steps[1, 0, 1] = 0
    case("Masking", {}, [steps])
    case("Masking", {"mask_value": -1.0}, [np.where(steps == 0, -1, steps).astype(np.float32)])
    data = normal(20, 3) * np.float32([1, 5, 0]) + np.float32([0, 2, 4])
    case("Normalization", {}, [data[:4]], adapt=data)
    case("Normalization", {"axis": None}, [data[:4]], adapt=data)
    cube = normal(5, 2, 3) + 1
    case("Normalization", {"axis": [1, 2]}, [cube[:2]], adapt=cube)
    case("Normalization", {"axis": 1, "invert": True}, [cube[:2]], adapt=cube)
    about = json.dumps({"keras": keras.__version__, "tensorflow": tf.__version__})
    path = HERE / "layers.npz"
    np.savez_compressed(path, about=about, cases=np.array(CASES), **ARRAYS)
    print(f"{path.name}: {len(CASES)} cases, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
