"""What the side-by-side benchmarks train: sizes, initial weights and a batch, the same for all.

Everything here is NumPy with a fixed seed; ``networks.py`` has the forward passes, ``peers`` the
frameworks. Parameters come in the order in which a forward pass uses them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

# Of Adam; the other numbers are its defaults. torch adds it after the bias correction, the others
# before it: so small, that makes no difference.
EPSILON = 1e-8
NORM_EPSILON = 1e-3  # of layer and batch normalisation
MOMENTUM = 0.99  # of moving averages
CLASSES = 10
THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))  # of a framework that is told by a call


class Parameter(NamedTuple):
    """An initial weight; the kind tells a framework how to lay it out.

    dense: (inputs, units); conv: (height, width, inputs, channels); lstm: (inputs, 4 * units),
    gates in the order input, forget, cell, output; table: (rows, width); vector: anything else.
    """

    kind: str
    value: np.ndarray


class Trainer(NamedTuple):
    """One workload in one framework.

    ``ready(x, y)`` makes a batch of arrays the framework's own; ``run(batch, count)`` does that
    many training steps on it and gives the loss of the last (of its forward pass).
    """

    ready: Callable[[np.ndarray, np.ndarray], Any]
    run: Callable[[Any, int], float]


@dataclass(frozen=True)
class Workload:
    """A model by its kind and sizes, and targets for the ratio of our step to the best peer's.

    ``dtype`` is what activations and products are computed in; weights and Adam are of float32.
    """

    name: str
    kind: str
    batch: int
    sizes: dict[str, Any] = field(default_factory=dict)
    captured: float | None = None
    eager: float | None = None
    eager_peer: str = ""  # whom the eager target compares with; the best if empty
    rate: float = 1e-4
    dtype: str = "float32"

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")

    def parameters(self) -> list[Parameter]:
        rng = np.random.default_rng(0)
        made = PARAMETERS[self.kind](rng, self.sizes)
        return [Parameter(kind, value.astype(np.float32)) for kind, value in made]

    def samples(self) -> tuple[np.ndarray, np.ndarray]:
        """One batch: inputs, and integer labels."""
        rng = np.random.default_rng(1)
        x = INPUTS[self.kind](rng, self.sizes, self.batch)
        if x.dtype == np.float64:
            x = x.astype(np.float32)
        if self.kind == "transformer":
            return x, rng.integers(0, self.sizes["letters"], x.shape)
        return x, rng.integers(0, CLASSES, self.batch)


def mlp(name: str, *layers: int, batch: int, **options: Any) -> Workload:
    return Workload(name, "mlp", batch, {"layers": layers}, **options)


def cnn(name: str, *channels: int, padding: str, batch: int, **options: Any) -> Workload:
    sizes = {"channels": channels, "padding": padding, "image": (28, 28, 1), "units": 128}
    return Workload(name, "cnn", batch, sizes, **options)


def transformer(name: str, layers: int, width: int, length: int, heads: int, batch: int, **options):
    sizes = {"layers": layers, "width": width, "length": length, "heads": heads, "letters": 64}
    return Workload(name, "transformer", batch, sizes, **options)


MNIST = {"captured": 0.85, "eager": 1.1}
WIDE = {"captured": 0.99, "eager": 1.05}
CNN = {"captured": 0.65, "eager": 1.2}
CHAR = {"captured": 0.9, "eager": 1.15}
ADAM = {"captured": 0.9, "eager": 0.9}
CHAIN = {"captured": 0.5, "eager": 0.5, "eager_peer": "torch eager"}

WORKLOADS: dict[str, Workload] = {
    workload.slug: workload
    for workload in [
        mlp("MNIST MLP", 784, 128, 10, batch=128, **MNIST),
        mlp("MLP 784-192-96-10", 784, 192, 96, 10, batch=96, **MNIST),
        mlp("MNIST MLP batch 1", 784, 128, 10, batch=1, **MNIST),
        mlp("MNIST MLP batch 4096", 784, 128, 10, batch=4096, **MNIST),
        mlp("digits MLP", 64, 128, 10, batch=64, **MNIST),
        mlp("deep narrow MLP", *[32] * 33, 10, batch=32, **MNIST),
        mlp("wide MLP", 784, 1024, 1024, 10, batch=256, **WIDE),
        mlp("MLP 784-512-512-10", 784, 512, 512, 10, batch=192, **WIDE),
        cnn("CNN", 32, 64, padding="valid", batch=64, **CNN),
        cnn("CNN 48-96 same", 48, 96, padding="same", batch=32, **CNN),
        Workload("ResNet", "resnet", 32, {"channels": (16, 32, 64), "image": (32, 32, 3)}),
        transformer("char transformer", 4, 128, 64, 4, 16, **CHAR),
        transformer("transformer 2 layers d 192", 2, 192, 48, 6, 24, **CHAR),
        Workload("LSTM", "lstm", 32, {"length": 32, "inputs": 64, "units": 128}),
        Workload("LSTM 96 units", "lstm", 24, {"length": 20, "inputs": 32, "units": 96}),
        Workload(
            "embeddings", "embedding", 64, {"rows": 20000, "width": 64, "length": 32, "units": 64}
        ),
        Workload("Adam 10M", "adam", 0, {"shapes": [(1000, 1000)] * 10}, **ADAM, rate=1e-3),
        Workload("Adam 1M in 100", "adam", 0, {"shapes": [(100, 100)] * 100}, **ADAM, rate=1e-3),
        Workload("chain 16", "chain", 0, {"size": 16, "length": 50}, **CHAIN),
        Workload("chain 4096", "chain", 0, {"size": 4096, "length": 50}),
    ]
}

# Step time with 8 virtual shards on one worker over that with one, at most.
SHARDED = {"digits_mlp": 1.3, "mnist_mlp": 1.15, "wide_mlp": 1.15, "mlp_784_512_512_10": 1.15}


# Initial weights


Made = Iterator[tuple[str, np.ndarray]]
Rng = np.random.Generator


def _dense(rng: Rng, inputs: int, units: int, gain: float = 1.0) -> Made:
    yield "dense", rng.normal(0, (gain / inputs) ** 0.5, (inputs, units))
    yield "vector", np.zeros(units)


def _conv(rng: Rng, size: int, inputs: int, channels: int) -> tuple[str, np.ndarray]:
    scale = (2 / (size * size * inputs)) ** 0.5
    return "conv", rng.normal(0, scale, (size, size, inputs, channels))


def _norm(width: int) -> Made:
    yield "vector", np.ones(width)
    yield "vector", np.zeros(width)


def _mlp(rng: Rng, sizes: dict) -> Made:
    for inputs, units in pairwise(sizes["layers"]):
        yield from _dense(rng, inputs, units, 2.0)  # else a deep one of relu dies out


def _cnn(rng: Rng, sizes: dict) -> Made:
    height, width, inputs = sizes["image"]
    lost = 2 if sizes["padding"] == "valid" else 0
    for channels in sizes["channels"]:
        yield _conv(rng, 3, inputs, channels)
        yield "vector", np.zeros(channels)
        height, width, inputs = (height - lost) // 2, (width - lost) // 2, channels
    yield from _dense(rng, height * width * inputs, sizes["units"])
    yield from _dense(rng, sizes["units"], CLASSES)


def _resnet(rng: Rng, sizes: dict) -> Made:
    inputs = sizes["channels"][0]
    yield _conv(rng, 3, sizes["image"][2], inputs)
    yield from _norm(inputs)
    for number, channels in enumerate(sizes["channels"]):
        yield _conv(rng, 2 if number else 3, inputs, channels)
        yield from _norm(channels)
        yield _conv(rng, 3, channels, channels)
        yield from _norm(channels)
        if number:
            yield _conv(rng, 1, inputs, channels)
            yield from _norm(channels)
        inputs = channels
    yield from _dense(rng, inputs, CLASSES)


def _transformer(rng: Rng, sizes: dict) -> Made:
    width = sizes["width"]
    yield "table", rng.normal(0, 0.02, (sizes["letters"], width))
    yield "table", rng.normal(0, 0.02, (sizes["length"], width))
    for _ in range(sizes["layers"]):
        yield from _norm(width)
        yield from _dense(rng, width, 3 * width)
        yield from _dense(rng, width, width)
        yield from _norm(width)
        yield from _dense(rng, width, 4 * width)
        yield from _dense(rng, 4 * width, width)
    yield from _norm(width)
    yield from _dense(rng, width, sizes["letters"])


def _lstm(rng: Rng, sizes: dict) -> Made:
    units = sizes["units"]
    for inputs in (sizes["inputs"], units):
        yield "lstm", rng.normal(0, inputs**-0.5, (inputs, 4 * units))
    yield "vector", np.zeros(4 * units)
    yield from _dense(rng, units, CLASSES)


def _embedding(rng: Rng, sizes: dict) -> Made:
    yield "table", rng.normal(0, 0.3, (sizes["rows"], sizes["width"]))
    yield from _dense(rng, sizes["width"], sizes["units"])
    yield from _dense(rng, sizes["units"], CLASSES)


def _adam(rng: Rng, sizes: dict) -> Made:
    """The weights, then a gradient for each; all are positive, so that each step can be seen."""
    for _ in range(2):
        for shape in sizes["shapes"]:
            yield "vector", 0.5 + rng.random(shape)


def _chain(rng: Rng, sizes: dict) -> Made:
    yield "vector", np.linspace(-1, 1, sizes["size"])
    yield "vector", np.linspace(0.5, 1, sizes["size"])


PARAMETERS: dict[str, Callable[[Rng, dict], Made]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "resnet": _resnet,
    "transformer": _transformer,
    "lstm": _lstm,
    "embedding": _embedding,
    "adam": _adam,
    "chain": _chain,
}


def moving_sizes(workload: Workload) -> list[int]:
    """The widths of the batch normalisations, in the order of the forward pass."""
    if workload.kind != "resnet":
        return []
    first, *rest = workload.sizes["channels"]
    return [first] * 3 + [c for channels in rest for c in [channels] * 3]


# Batches

_image: Callable = lambda rng, sizes, batch: rng.random((batch, *sizes["image"]))  # noqa: E731
_nothing: Callable = lambda rng, sizes, batch: np.zeros(1)  # noqa: E731

INPUTS: dict[str, Callable[[Rng, dict, int], np.ndarray]] = {
    "mlp": lambda rng, sizes, batch: rng.normal(size=(batch, sizes["layers"][0])),
    "cnn": _image,
    "resnet": _image,
    "transformer": lambda rng, s, batch: rng.integers(0, s["letters"], (batch, s["length"])),
    "lstm": lambda rng, s, batch: rng.normal(size=(batch, s["length"], s["inputs"])),
    "embedding": lambda rng, s, batch: rng.integers(0, s["rows"], (batch, s["length"])),
    "adam": _nothing,
    "chain": _nothing,
}
