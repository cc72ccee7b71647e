"""TokenAndPositionEmbedding and TransformerBlock against the same formulas in NumPy."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import distgrad as tf
from distgrad.keras import layers
from distgrad.testing.gradients import check_gradients

F, H, W = 6, 2, 10  # features, heads, width of the feed-forward part


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def block(**options: Any) -> Any:
    """A block in float64 whose weights are all far from their initial zeros and ones."""
    layer = layers.TransformerBlock(W, H, **{"dtype": "float64", **options})
    layer.build((None, None, F))
    layer.set_weights([0.5 * normal(*w.shape, seed=i) for i, w in enumerate(layer.weights)])
    return layer


def norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return gamma * centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) + beta


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attend(x: np.ndarray, w: list[np.ndarray], seen: np.ndarray | None = None) -> np.ndarray:
    """One query at a time, over the positions up to its own."""
    wq, bq, wk, bk, wv, bv, wo, bo = w
    out = np.zeros_like(x)
    for n in range(x.shape[0]):
        for t in range(x.shape[1]):
            for h in range(H):
                query = x[n, t] @ wq[:, h] + bq[h]
                before = [s for s in range(t + 1) if seen is None or seen[n, s]]
                if not before:
                    continue
                keys = x[n, before] @ wk[:, h] + bk[h]
                scores = np.exp(keys @ query / math.sqrt(F // H))
                out[n, t] += scores / scores.sum() @ (x[n, before] @ wv[:, h] + bv[h]) @ wo[h]
            out[n, t] += bo
    return out


def expected(layer: Any, x: np.ndarray, seen: np.ndarray | None = None) -> np.ndarray:
    arrays = [v.numpy() for v in layer.weights]
    attention = [v.numpy() for v in layer.attention.weights]
    names = ("attention_norm", "feedforward_norm", "intermediate", "output_dense")
    n1, n2, d1, d2 = ([v.numpy() for v in getattr(layer, name).weights] for name in names)
    assert sum(map(len, (attention, n1, n2, d1, d2))) == len(arrays)

    def transform(x: np.ndarray) -> np.ndarray:
        return gelu(x @ d1[0] + d1[1]) @ d2[0] + d2[1]

    if layer.normalize_first:
        x = x + attend(norm(x, *n1), attention, seen)
        return x + transform(norm(x, *n2))
    x = norm(x + attend(x, attention, seen), *n1)
    return norm(x + transform(x), *n2)


@pytest.mark.parametrize("first", [False, True])
def test_the_formula(first: bool) -> None:
    layer, x = block(normalize_first=first), normal(2, 5, F)
    np.testing.assert_allclose(layer(x).numpy(), expected(layer, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("first", [False, True])
def test_a_mask_leaves_positions_out(first: bool) -> None:
    layer, x = block(normalize_first=first), normal(2, 4, F)
    seen = np.array([[True, True, False, True], [True, False, True, True]])
    given = tf.constant(x)
    given._keras_mask = tf.constant(seen)
    y = layer(given)
    want = expected(layer, x, seen)
    np.testing.assert_allclose(y.numpy()[seen], want[seen], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(y._keras_mask.numpy(), seen)


@pytest.mark.parametrize("first", [False, True])
def test_gradients(first: bool) -> None:
    layer, x = block(normalize_first=first), normal(2, 3, F)
    check_gradients(layer, [x], rtol=2e-6)
    scale = normal(2, 3, F, seed=9)
    for variable in layer.trainable_variables:
        value = variable.numpy().copy()
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(x) * scale)
        gradient = tape.gradient(total, variable).numpy()
        direction, step = normal(*value.shape, seed=3), 1e-5
        found = []
        for sign in (1, -1):
            variable.assign(value + sign * step * direction)
            found.append(float(tf.reduce_sum(layer(x) * scale)))
        variable.assign(value)
        slope = (found[0] - found[1]) / (2 * step)
        # Central differences: the third derivative times 1e-10, rounding of 1e-15 / 1e-5.
        assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_the_future_is_not_seen() -> None:
    layer, x = block(normalize_first=True), normal(1, 6, F)
    later = x.copy()
    later[:, 4:] += 1
    before, after = layer(x).numpy(), layer(later).numpy()
    np.testing.assert_array_equal(after[:, :4], before[:, :4])
    assert not np.allclose(after[:, 4:], before[:, 4:])


def test_dropout_in_training_only() -> None:
    layer, x = block(dropout=0.5), normal(2, 5, F)
    np.testing.assert_array_equal(layer(x), layer(x, training=False))
    tf.random.set_seed(1)
    one = layer(x, training=True).numpy()
    assert not np.allclose(one, layer(x).numpy())
    tf.random.set_seed(1)
    np.testing.assert_array_equal(one, layer(x, training=True))


def test_embedding_adds_the_place() -> None:
    layer = layers.TokenAndPositionEmbedding(7, 5, 3)
    tokens = np.array([[1, 6, 1], [0, 2, 2]], np.int32)
    y = layer(tokens).numpy()
    table, places = layer.get_weights()
    assert (table.shape, places.shape) == ((7, 3), (5, 3))
    np.testing.assert_array_equal(y, table[tokens] + places[:3])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(tokens))
    of_table, of_places = tape.gradient(total, layer.trainable_variables)
    counts = np.bincount(tokens.ravel(), minlength=7)
    np.testing.assert_array_equal(tf.convert_to_tensor(of_table)[:, 0], counts)
    np.testing.assert_array_equal(tf.convert_to_tensor(of_places)[:, 0], [2, 2, 2, 0, 0])


def test_mask_zero_goes_on_to_the_block() -> None:
    embedding = layers.TokenAndPositionEmbedding(7, 5, F, mask_zero=True, dtype="float64")
    tokens = np.array([[1, 2, 0, 0]], np.int32)
    x = embedding(tokens)
    np.testing.assert_array_equal(x._keras_mask.numpy(), tokens != 0)
    layer = block(normalize_first=True)
    seen = expected(layer, x.numpy(), tokens != 0)
    np.testing.assert_allclose(layer(x).numpy()[:, :2], seen[:, :2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "shape", "says"),
    [
        (lambda: layers.TransformerBlock(0, 2), (2, 3, 4), "intermediate_dim must be a positive"),
        (lambda: layers.TransformerBlock(8, 3), (2, 3, 4), "3 heads cannot share 4 features"),
        (lambda: layers.TransformerBlock(8, 2, dropout=1), (2, 3, 4), "dropout must lie between"),
        (lambda: layers.TransformerBlock(8, 2), (2, 4), r"takes inputs of shape \(batch, steps"),
        (lambda: layers.TokenAndPositionEmbedding(5, 2, 4), (2, 3), "places for 2 steps, and got"),
        (lambda: layers.TokenAndPositionEmbedding(5, 0, 4), (2, 3), "sequence_length must be a"),
        (lambda: layers.TokenAndPositionEmbedding(5, 3, 4), (3,), "takes tokens of shape"),
    ],
)
def test_what_does_not_fit(make: Any, shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    "layer",
    [
        layers.TransformerBlock(8, 2, 0.1, "relu", normalize_first=True, kernel_initializer="ones"),
        layers.TokenAndPositionEmbedding(9, 4, 6, mask_zero=True),
    ],
    ids=lambda layer: layer.name,
)
def test_configs_go_through_json(layer: Any) -> None:
    config = json.loads(json.dumps(layer.get_config()))
    again = type(layer).from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config


def test_a_model_of_them_saves_and_computes_in_half_precision(tmp_path: Any) -> None:
    stack = [layers.TokenAndPositionEmbedding(9, 4, 6), layers.TransformerBlock(8, 2)]
    model = tf.keras.Sequential([*stack, layers.Dense(9)])
    tokens = np.array([[1, 2, 3, 8]], np.int32)
    y = model(tokens).numpy()
    assert y.shape == (1, 4, 9)
    assert len({v.path for v in model.weights}) == len(model.weights) == 2 + 16 + 2
    model.save_weights(tmp_path / "a.weights.h5")
    other = tf.keras.Sequential.from_config(model.get_config())
    other.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_array_equal(other(tokens), y)
    half = layers.TransformerBlock(8, 2, dtype="mixed_float16")
    out = half(normal(1, 4, 6))
    assert out.dtype == tf.float16 and {v.dtype for v in half.weights} == {tf.float32}
