"""Forward passes, written once for every framework whose models are functions of their weights.

``op`` is what a framework's module offers under these names: linear, relu, gelu, tanh, conv (with
``stride`` and ``padding`` "same" or "valid"; no bias where it is None), max_pool (2 x 2), flatten,
mean (over axes), take (rows of a table), layer_norm, batch_norm, attention (causal, of queries,
keys and values side by side) and lstm (the last output). Images are (n, height, width, channels).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from workloads import Workload


def logits(workload: Workload, op: Any, weights: Sequence[Any], moving: Sequence[Any], x: Any):
    """The logits, and the moving (mean, variance) of batch normalisations after this batch."""
    after: list[Any] = []
    out = FORWARD[workload.kind](
        op, iter(weights).__next__, iter(moving).__next__, after, x, workload.sizes
    )
    return out, after


def _mlp(op, take, moving, after, x, sizes):
    for _ in sizes["layers"][2:]:
        x = op.relu(op.linear(x, take(), take()))
    return op.linear(x, take(), take())


def _cnn(op, take, moving, after, x, sizes):
    for _ in sizes["channels"]:
        x = op.max_pool(op.relu(op.conv(x, take(), take(), 1, sizes["padding"])))
    x = op.relu(op.linear(op.flatten(x), take(), take()))
    return op.linear(x, take(), take())


def _resnet(op, take, moving, after, x, sizes):
    def norm(x):
        y, pair = op.batch_norm(x, take(), take(), moving())
        after.append(pair)
        return y

    x = op.relu(norm(op.conv(x, take(), None, 1, "same")))
    for number, _ in enumerate(sizes["channels"]):
        stride, padding = (2, "valid") if number else (1, "same")
        y = op.relu(norm(op.conv(x, take(), None, stride, padding)))
        y = norm(op.conv(y, take(), None, 1, "same"))
        x = op.relu(y + (norm(op.conv(x, take(), None, 2, "valid")) if number else x))
    return op.linear(op.mean(x, (1, 2)), take(), take())


def _transformer(op, take, moving, after, x, sizes):
    h = op.take(take(), x) + take()
    for _ in range(sizes["layers"]):
        a = op.layer_norm(h, take(), take())
        a = op.attention(op.linear(a, take(), take()), sizes["heads"])
        h = h + op.linear(a, take(), take())
        a = op.layer_norm(h, take(), take())
        a = op.gelu(op.linear(a, take(), take()))
        h = h + op.linear(a, take(), take())
    return op.linear(op.layer_norm(h, take(), take()), take(), take())


def _lstm(op, take, moving, after, x, sizes):
    return op.linear(op.lstm(x, take(), take(), take()), take(), take())


def _embedding(op, take, moving, after, x, sizes):
    h = op.mean(op.take(take(), x), (1,))
    return op.linear(op.relu(op.linear(h, take(), take())), take(), take())


FORWARD: dict[str, Callable] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "resnet": _resnet,
    "transformer": _transformer,
    "lstm": _lstm,
    "embedding": _embedding,
}


def chain(op: Any, x: Any, w: Any, length: int) -> Any:
    """Four small operations, over and over."""
    y = x
    for _ in range(length):
        y = op.tanh(y * w + x) * 1.01
    return y


# The same models under the Keras names, ours and Keras's own: ``tf`` goes with ``keras``.


def keras_model(workload: Workload, tf: Any, keras: Any) -> tuple[Any, list[Any]]:
    """The model, and its trainable variables in the order of the workload's parameters."""
    made: list[Any] = []

    def layer(each: Any) -> Any:
        made.append(each)
        return each

    x, _ = workload.samples()
    inputs = keras.Input(shape=x.shape[1:], dtype=str(x.dtype))
    outputs = KERAS[workload.kind](tf, keras, layer, inputs, workload.sizes)
    model = keras.Model(inputs, outputs)
    # Kinds of layers are made in calls that nest; theirs have the model's own order.
    layers = made or [model]
    return model, [variable for each in layers for variable in each.trainable_variables]


def _keras_mlp(tf, keras, layer, x, sizes):
    *hidden, last = sizes["layers"][1:]
    for units in hidden:
        x = layer(keras.layers.Dense(units, activation="relu"))(x)
    return layer(keras.layers.Dense(last))(x)


def _keras_cnn(tf, keras, layer, x, sizes):
    for channels in sizes["channels"]:
        conv = keras.layers.Conv2D(channels, 3, padding=sizes["padding"], activation="relu")
        x = keras.layers.MaxPooling2D()(layer(conv)(x))
    x = layer(keras.layers.Dense(sizes["units"], activation="relu"))(keras.layers.Flatten()(x))
    return layer(keras.layers.Dense(10))(x)


def _keras_resnet(tf, keras, layer, x, sizes):
    def normed(x, channels, size, stride, padding):
        conv = keras.layers.Conv2D(channels, size, stride, padding, use_bias=False)
        x = layer(conv)(x)
        return layer(keras.layers.BatchNormalization())(x)

    relu = lambda x: keras.layers.ReLU()(x)  # noqa: E731
    x = relu(normed(x, sizes["channels"][0], 3, 1, "same"))
    for number, channels in enumerate(sizes["channels"]):
        size, stride, padding = (2, 2, "valid") if number else (3, 1, "same")
        y = relu(normed(x, channels, size, stride, padding))
        y = normed(y, channels, 3, 1, "same")
        short = normed(x, channels, 1, 2, "valid") if number else x
        x = relu(keras.layers.Add()([y, short]))
    return layer(keras.layers.Dense(10))(keras.layers.GlobalAveragePooling2D()(x))


def _keras_transformer(tf, keras, layer, x, sizes):
    import numpy as np

    width, length, heads = sizes["width"], sizes["length"], sizes["heads"]
    deep = width // heads

    class Places(keras.layers.Layer):
        """Adds a learned vector for each place in the sequence."""

        def build(self, shape):
            self.places = self.add_weight(shape=(length, width), name="places")
            self.built = True

        def call(self, x):
            return x + self.places

    class Attention(keras.layers.Layer):
        """Causal attention of queries, keys and values side by side; no weights."""

        def call(self, x):
            parts = tf.reshape(x, (-1, length, 3, heads, deep))
            q, k, v = tf.unstack(tf.transpose(parts, (2, 0, 3, 1, 4)))
            scores = tf.matmul(q, k, transpose_b=True) * deep**-0.5
            mask = tf.constant(np.tri(length, dtype=bool))
            weights = tf.nn.softmax(tf.where(mask, scores, np.float32(-1e9)))
            mixed = tf.transpose(tf.matmul(weights, v), (0, 2, 1, 3))
            return tf.reshape(mixed, (-1, length, width))

        def compute_output_shape(self, shape):
            return (*shape[:-1], width)

    def norm(x):
        return layer(keras.layers.LayerNormalization(epsilon=1e-3))(x)

    def dense(x, units, activation=None):
        return layer(keras.layers.Dense(units, activation=activation))(x)

    h = layer(keras.layers.Embedding(sizes["letters"], width))(x)
    h = layer(Places())(h)
    for _ in range(sizes["layers"]):
        a = Attention()(dense(norm(h), 3 * width))
        h = keras.layers.Add()([h, dense(a, width)])
        a = dense(norm(h), 4 * width, "gelu")
        h = keras.layers.Add()([h, dense(a, width)])
    return dense(norm(h), sizes["letters"])


def _keras_lstm(tf, keras, layer, x, sizes):
    x = layer(keras.layers.LSTM(sizes["units"]))(x)
    return layer(keras.layers.Dense(10))(x)


def _keras_embedding(tf, keras, layer, x, sizes):
    x = layer(keras.layers.Embedding(sizes["rows"], sizes["width"]))(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    x = layer(keras.layers.Dense(sizes["units"], activation="relu"))(x)
    return layer(keras.layers.Dense(10))(x)


KERAS: dict[str, Callable] = {
    "mlp": _keras_mlp,
    "cnn": _keras_cnn,
    "resnet": _keras_resnet,
    "transformer": _keras_transformer,
    "lstm": _keras_lstm,
    "embedding": _keras_embedding,
}
