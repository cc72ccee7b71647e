"""Functional models full of ``keras.ops``, built by Keras 3 and by distgrad: ``keras`` is either.

Most follow Keras's guides and examples. ``make_operation_reference.py`` keeps what Keras makes of
them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

MODELS: dict[str, Callable[[Any, Any, Any], tuple[Any, list[Any]]]] = {}


def built(keras: Any, name: str) -> tuple[Any, list[np.ndarray]]:
    """The model, and its inputs."""
    return MODELS[name](keras, keras.layers, keras.ops)


def _model(function: Any) -> Any:
    MODELS[function.__name__] = function
    return function


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _words(*shape: int, many: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, many, shape).astype(np.int32)


@_model
def dense_and_relu(keras, layers, ops):
    x = given = keras.Input((20,), name="img")
    x = ops.relu(layers.Dense(16)(x))
    x = ops.dot(x, np.eye(16, dtype=np.float32))
    return keras.Model(given, ops.softmax(layers.Dense(5)(x))), [_normal(3, 20)]


@_model
def toy_resnet(keras, layers, ops):
    given = keras.Input((16, 16, 3))
    first = layers.MaxPooling2D(3)(layers.Conv2D(8, 3, activation="relu")(given))
    x = ops.relu(layers.Conv2D(8, 3, padding="same")(first))
    second = ops.relu(x + first)
    x = layers.Conv2D(8, 3, activation="relu", padding="same")(second)
    x = ops.mean(ops.add(x, second), axis=[1, 2])
    return keras.Model(given, layers.Dense(4)(x)), [_normal(2, 16, 16, 3)]


@_model
def tickets(keras, layers, ops):
    title = keras.Input((None,), name="title", dtype="int32")
    body = keras.Input((None,), name="body", dtype="int32")
    tags = keras.Input((12,), name="tags")
    of_title = ops.max(layers.Embedding(50, 8)(title), axis=1)
    of_body = ops.mean(layers.Embedding(50, 8)(body), axis=1)
    x = ops.concatenate([of_title, of_body, tags], axis=-1)
    outputs = [layers.Dense(1, name="priority")(x), layers.Dense(4, name="department")(x)]
    values = [_words(3, 7, many=50), _words(3, 5, many=50, seed=1), _normal(3, 12)]
    return keras.Model([title, body, tags], outputs), values


@_model
def transformer(keras, layers, ops):
    given = keras.Input((12,), dtype="int32")
    x = ops.multiply(layers.Embedding(40, 16)(given), 4.0) + _normal(12, 16, seed=3)
    x = layers.LayerNormalization()(ops.add(x, layers.MultiHeadAttention(2, 8)(x, x)))
    hidden = ops.gelu(layers.Dense(32)(x), approximate=False)
    x = layers.LayerNormalization()(x + layers.Dense(16)(hidden))
    return keras.Model(given, layers.Dense(40)(x)[:, -1]), [_words(2, 12, many=40)]


@_model
def attention_by_hand(keras, layers, ops):
    given = keras.Input((10, 16))

    def heads(name):
        x = ops.reshape(layers.Dense(16, name=name)(given), (-1, 10, 2, 8))
        return ops.transpose(x, (0, 2, 1, 3))

    q, k, v = map(heads, ("query", "key", "value"))
    scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / 8**0.5
    scores = ops.where(np.tril(np.ones((10, 10), bool)), scores, -1e9)
    weights = ops.softmax(scores, axis=-1)
    x = ops.transpose(ops.einsum("bhts,bhsd->bhtd", weights, v), [0, 2, 1, 3])
    return keras.Model(given, [ops.reshape(x, (-1, 10, 16)), weights]), [_normal(2, 10, 16)]


@_model
def siamese(keras, layers, ops):
    x = inner = keras.Input((6, 6, 1))
    x = layers.Dense(8, activation="tanh")(layers.Flatten()(x))
    embed = keras.Model(inner, x, name="embedding")
    left, right = keras.Input((6, 6, 1), name="left"), keras.Input((6, 6, 1), name="right")
    squares = ops.sum(ops.square(embed(left) - embed(right)), axis=1, keepdims=True)
    distance = ops.sqrt(ops.maximum(squares, keras.backend.epsilon()))
    cosine = ops.norm(embed(left), axis=-1) * ops.norm(embed(right), axis=-1)
    outputs = [layers.Dense(1, activation="sigmoid")(distance), cosine]
    return keras.Model([left, right], outputs), [_normal(4, 6, 6, 1), _normal(4, 6, 6, 1, seed=9)]


@_model
def triplet(keras, layers, ops):
    given, dense = keras.Input((3, 5)), layers.Dense(4)
    anchor, near, far = (ops.normalize(dense(x), axis=-1) for x in ops.unstack(given, axis=1))
    close, wide = (ops.sum(ops.square(anchor - x), -1) for x in (near, far))
    return keras.Model(given, ops.maximum(close - wide + 0.5, 0.0)), [_normal(6, 3, 5)]


@_model
def vae_encoder(keras, layers, ops):
    given, noise = keras.Input((8, 8, 1)), keras.Input((2,), name="noise")
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(given)
    x = layers.Flatten()(x)
    mean, log_var = layers.Dense(2, name="z_mean")(x), layers.Dense(2, name="z_log_var")(x)
    z = mean + ops.exp(0.5 * log_var) * noise
    divergence = -0.5 * (1 + log_var - ops.square(mean) - ops.exp(log_var))
    divergence = ops.mean(ops.sum(divergence, axis=1, keepdims=True), axis=1)
    outputs = [mean, log_var, z, divergence]
    return keras.Model([given, noise], outputs), [_normal(3, 8, 8, 1), _normal(3, 2, seed=5)]


@_model
def attention_pooling(keras, layers, ops):
    given = keras.Input((None, 6))
    scores = layers.Dense(1)(layers.Dense(8, activation="tanh")(given))
    weights = ops.swapaxes(ops.softmax(scores, axis=1), 1, 2)
    return keras.Model(given, ops.squeeze(ops.matmul(weights, given), axis=1)), [_normal(2, 7, 6)]


@_model
def gated(keras, layers, ops):
    given = keras.Input((8,))
    value, gate = ops.split(layers.Dense(12)(given), 2, axis=-1)
    x = value * ops.sigmoid(gate)
    mean, variance = ops.moments(x, axes=[-1], keepdims=True)
    return keras.Model(given, (x - mean) * ops.rsqrt(variance + 1e-5)), [_normal(5, 8)]


@_model
def router(keras, layers, ops):
    given = keras.Input((6,))
    logits = layers.Dense(5)(given)
    values, indices = ops.top_k(logits, k=2)
    weights = ops.expand_dims(ops.softmax(values), -1)
    x = ops.sum(ops.one_hot(indices, 5) * weights, axis=1)
    return keras.Model(given, [x, ops.argmax(logits, axis=-1), indices]), [_normal(4, 6)]


@_model
def nested_autoencoder(keras, layers, ops):
    wide, narrow, given = keras.Input((12,)), keras.Input((4,)), keras.Input((12,))
    encoder = keras.Model(wide, ops.tanh(layers.Dense(4)(wide)), name="encoder")
    decoder = keras.Model(narrow, ops.clip(layers.Dense(12)(narrow), -1.0, 1.0), name="decoder")
    return keras.Model(given, [decoder(encoder(given)), encoder(given)]), [_normal(3, 12)]


@_model
def ensemble(keras, layers, ops):
    members = []
    for i in range(3):
        x = keras.Input((5,))
        members.append(keras.Model(x, layers.Dense(2)(x), name=f"member{i}"))
    given = keras.Input((5,))
    votes = [member(given) for member in members]
    outputs = [ops.mean(ops.stack(votes, axis=0), axis=0), layers.average(votes)]
    return keras.Model(given, outputs), [_normal(3, 5)]


@_model
def patches(keras, layers, ops):
    given = keras.Input((8, 8, 3))
    x = ops.transpose(ops.reshape(given, (-1, 2, 4, 2, 4, 3)), (0, 1, 3, 2, 4, 5))
    x = layers.Dense(6)(ops.reshape(x, (-1, 4, 48)))
    x = ops.concatenate([ops.zeros_like(x[:, :1]), x], axis=1)
    x = ops.pad(x, [[0, 0], [0, 1], [0, 0]])
    return keras.Model(given, ops.flip(x, axis=1)), [_normal(2, 8, 8, 3)]


@_model
def rotations(keras, layers, ops):
    given = keras.Input((6, 8))
    x = given * ops.rsqrt(ops.mean(ops.square(given), axis=-1, keepdims=True) + 1e-6)
    a, b = x[..., :4], x[..., 4:]
    cos, sin = np.cos(_normal(6, 4)), np.sin(_normal(6, 4))
    x = ops.concatenate([a * cos - b * sin, a * sin + b * cos], -1)
    return keras.Model(given, x), [_normal(2, 6, 8)]


@_model
def padding_masked_by_hand(keras, layers, ops):
    given = keras.Input((5,), dtype="int32")
    mask = ops.expand_dims(ops.cast(ops.not_equal(given, 0), "float32"), axis=-1)
    x = layers.Embedding(9, 4)(given)
    x = ops.sum(x=x * mask, axis=1) / ops.maximum(ops.sum(mask, axis=1), 1.0)
    return keras.Model(given, x), [np.array([[1, 2, 0, 0, 3], [0] * 5, [4, 5, 6, 7, 8]], np.int32)]


@_model
def elementwise(keras, layers, ops):
    a, b = keras.Input((4,)), keras.Input((4,))
    p = ops.abs(a) + 1
    outputs = [
        *(a + b, a - 2, 3 - a, a * b, a / p, a // p, a % p, p**b, -a, abs(a), a > b, a <= 0),
        *((a > 0) & (b > 0), (a > 0) | (b > 0), ~(a > 0), (a > 0) ^ (b > 0), a != b),
        *(ops.exp(a), ops.log(p), ops.log1p(p), ops.tanh(a), ops.erf(a), ops.sign(a)),
        *(ops.floor(a), ops.logaddexp(a, b), ops.leaky_relu(a, 0.1), ops.elu(a), ops.silu(a)),
        *(ops.swish(a), ops.softplus(a), ops.relu6(a), ops.log_softmax(a), ops.hard_sigmoid(a)),
        *(ops.arctan2(a, b), ops.nan_to_num(a), ops.isnan(a), ops.round(a, decimals=1)),
        *(ops.reciprocal(p), ops.where(a > b, a, b), ops.minimum(a, b)),
    ]
    return keras.Model([a, b], outputs), [_normal(3, 4), _normal(3, 4, seed=8)]


@_model
def shapes(keras, layers, ops):
    x = keras.Input((3, 4))
    matrix = ops.matmul(x, ops.swapaxes(x, 1, 2)) + 10 * np.eye(3, dtype=np.float32)
    outputs = [
        *(ops.tile(x, (1, 2, 1)), ops.repeat(x, 2, axis=1), ops.roll(x, 1, axis=-1)),
        *(ops.moveaxis(x, 1, 2), ops.take(x, np.array([0, 2]), axis=1), ops.take(x, [1], axis=-1)),
        *(ops.argmin(x, axis=-1), ops.sort(x, axis=-1), ops.argsort(x, axis=-1)),
        *(ops.cumsum(x, axis=1), ops.var(x, axis=1), ops.std(x, axis=[1, 2])),
        *(ops.prod(x, axis=-1), ops.min(x, axis=1, keepdims=True), ops.any(x > 0, axis=1)),
        *(ops.all(x > -9, axis=1), ops.logsumexp(x, axis=-1), x[:, None], x[..., 0]),
        *(x[:, ::2, 1:3], ops.full_like(x, 2.0), ops.ones_like(x), ops.tril(x)),
        *(ops.diagonal(x, axis1=1, axis2=2), ops.trace(x, axis1=1, axis2=2)),
        *(ops.tensordot(x, np.ones((4, 2), np.float32), axes=1), ops.hstack([x, x])),
        *(ops.median(x, axis=1), ops.average(x, axis=1), ops.count_nonzero(x, axis=1)),
        *(ops.meshgrid(x[0, 0], x[0, 1])[0], ops.stop_gradient(x), ops.vstack([x, x])),
        *(ops.outer(x[0, 0], x[0, 1]), ops.inv(matrix), ops.slice(x, [0, 1, 0], [2, 2, 4])),
    ]
    return keras.Model(x, outputs), [_normal(2, 3, 4)]


@_model
def norms_and_windows(keras, layers, ops):
    x, line = keras.Input((3, 4)), np.linspace(0.5, 2, 4).astype(np.float32)
    head = x[:, :, None]
    outputs = [
        *(ops.layer_normalization(x, line, line), ops.rms_normalization(x, line)),
        *(ops.dot_product_attention(head, head, head, is_causal=True), ops.average_pool(x, 2)),
        *(ops.categorical_crossentropy(ops.softmax(x), ops.softmax(x[:, ::-1])),),
        *(ops.conv(x, np.ones((2, 4, 3), np.float32)), ops.norm(x, ord=1, axis=1)),
        *(ops.pad(x, [[0, 0], [1, 0], [0, 0]], constant_values=2.0),),
    ]
    return keras.Model(x, outputs), [_normal(2, 3, 4)]
