"""Models that are written once, and built by Keras 3 and by distgrad: ``keras`` is either.

``tests/reference/make_model_reference.py`` saves what Keras makes of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def data(name: str) -> tuple[Any, Any]:
    """Inputs and targets of 6 samples for the model of that name."""
    rng = np.random.default_rng(sum(map(ord, name)))

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    if name == "sequential":
        # Each word once: Keras's Adam squares the gradients of a word's places before it adds them.
        ids = rng.permutation(np.arange(1, 50))[:42].reshape(6, 7)
        ids[::2, 4:] = 0  # padding
        return ids.astype(np.int32), normal(6, 2)
    if name == "functional":
        return [normal(6, 8, 8, 2), normal(6, 5)], [normal(6, 3), normal(6, 1)]
    if name == "nested":
        return normal(6, 5, 4), normal(6, 2)
    return normal(6, 4), normal(6, 2)  # the models of the optimizers


def sequential(keras: Any) -> Any:
    """Masks, recurrent layers with cells in them, wrappers."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((7,), dtype="int32"),
            layers.Embedding(50, 4, mask_zero=True),
            layers.LSTM(5, return_sequences=True),
            layers.Bidirectional(layers.GRU(3)),
            layers.Dropout(0.0),
            layers.LayerNormalization(),
            layers.Dense(2, activation="tanh", kernel_regularizer="l2"),
        ],
        name="words",
    )


def functional(keras: Any) -> Any:
    """Two inputs and outputs, a shared layer, operators, a nested model."""
    layers = keras.layers
    image = keras.Input((8, 8, 2), name="image")
    numbers = keras.Input((5,), name="numbers")
    x = layers.Conv2D(4, 3, activation="relu")(image)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    inner_input = keras.Input((36,))
    inner = keras.Model(inner_input, layers.Dense(5, activation="tanh")(inner_input), name="inner")
    shared = layers.Dense(5, activation="sigmoid", name="shared")
    joined = layers.Concatenate()([shared(inner(x)), shared(numbers)])
    mixed = joined[:, 1:] * 2.0 - 0.5 + joined[:, :1]
    first = layers.Dense(3, name="first")(mixed)
    second = layers.Dense(1, name="second")(1.0 - first / 4.0)
    return keras.Model([image, numbers], [first, second], name="two")


def nested(keras: Any) -> Any:
    """Subclassed: layers in lists and dicts, a weight of its own, a Sequential inside."""
    layers = keras.layers

    class Block(layers.Layer):
        def __init__(self, units: int) -> None:
            super().__init__()
            self.units = units
            self.parts = [layers.Dense(units, activation="relu"), layers.Dense(units)]
            self.by_name = {"norm": layers.LayerNormalization(), "out": layers.Dense(units)}
            self.attention = layers.MultiHeadAttention(2, 3)

        def build(self, input_shape: Any) -> None:
            self.shift = self.add_weight(shape=(self.units,), initializer="ones", name="shift")

        def call(self, x: Any) -> Any:
            y = self.attention(x, x)
            for part in self.parts:
                y = part(y)
            return self.by_name["out"](self.by_name["norm"](x + y + self.shift))

    class Nested(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="nested")
            self.block = Block(4)
            self.head = keras.Sequential([layers.Flatten(), layers.Dense(3), layers.Dense(2)])

        def call(self, x: Any) -> Any:
            return self.head(self.block(x))

    return Nested()


MODELS = {"sequential": sequential, "functional": functional, "nested": nested}

# One for each order in which Keras 3 keeps the state of an optimizer.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Adadelta": {"learning_rate": 0.5},
    "Adagrad": {"learning_rate": 0.1},
    "Adam": {"amsgrad": True, "use_ema": True},
    "Adamax": {},
    "AdamW": {},
    "Ftrl": {"learning_rate": 0.1},
    "Lion": {},
    "Nadam": {},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "SGD": {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True},
}


def small(keras: Any) -> Any:
    """A model for an optimizer."""
    layers = keras.layers
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh"), layers.Dense(2)])


def compiled(keras: Any, model: Any, optimizer: Any) -> Any:
    model.compile(optimizer, loss="mse")
    return model


def steps(model: Any, name: str, count: int) -> None:
    """That many updates on the whole of the data."""
    x, y = data(name)
    model.fit(x, y, batch_size=6, epochs=count, shuffle=False, verbose=0)


def predictions(model: Any, name: str) -> list[np.ndarray]:
    x, _ = data(name)
    outputs = model.predict(x, verbose=0)
    return [np.asarray(each) for each in outputs] if isinstance(outputs, list) else [outputs]
