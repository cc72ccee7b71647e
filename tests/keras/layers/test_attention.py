"""Attention: masks, dropout, half precision, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as tf
from distgrad import keras
from distgrad.keras import layers

RNG = np.random.default_rng(8)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-5, atol=1e-6)


def test_weights_of_every_query_add_up_to_one() -> None:
    layer = layers.MultiHeadAttention(2, 3)
    _, weights = layer(normal(3, 4, 5), normal(3, 6, 5), return_attention_scores=True)
    assert weights.shape == (3, 2, 4, 6)
    close(np.sum(weights, -1), np.ones((3, 2, 4)))


def test_what_is_masked_does_not_matter() -> None:
    layer = layers.MultiHeadAttention(2, 3)
    q, v = normal(2, 3, 4), normal(2, 5, 4)
    keep = np.arange(5)[None] < np.array([[5], [2]])
    before = layer(q, v, value_mask=keep)
    v[~keep] = 1e4
    np.testing.assert_array_equal(layer(q, v, value_mask=keep), before)
    close(layer(q[1:], v[1:, :2]), before[1:])


def test_masks_that_tensors_carry() -> None:
    """Padding is left out without a word, and the query's mask goes on."""
    x = normal(2, 4, 3)
    x[0, 2:] = x[1, 3:] = 0
    masked = layers.Masking()(x)
    mask = masked._keras_mask
    layer = layers.MultiHeadAttention(2, 3)
    y = layer(masked, masked)
    np.testing.assert_array_equal(y._keras_mask, mask)
    close(y[0, :2], layer(x[:1, :2], x[:1, :2])[0])
    close(y[1, :3], layer(x[1:, :3], x[1:, :3])[0])
    simple, masked = layers.Attention(), layers.Masking()(x)
    y = simple([masked, masked])
    np.testing.assert_array_equal(y._keras_mask, masked._keras_mask)
    close(y[0, :2], simple([x[:1, :2], x[:1, :2]])[0])
    assert not np.any(y[0, 2:])


def test_attention_takes_the_masks_off_what_it_is_given() -> None:
    """So the sum with its query has none, and a loss counts padding, as in Keras 3.15.1."""
    tokens = np.array([[3, 4, 0, 0], [5, 0, 0, 0], [1, 2, 3, 4]])
    inputs = keras.Input((4,), dtype="int32")
    x = layers.Embedding(6, 2, mask_zero=True)(inputs)
    outputs = layers.Add()([x, layers.MultiHeadAttention(1, 2)(x, value=x)])
    model = keras.Model(inputs, outputs)
    weights = np.random.RandomState(7)
    for w in model.trainable_weights:
        w.assign(weights.randn(*w.shape) * 0.5)
    model.compile(loss="mse")
    loss = model.evaluate(tokens, np.zeros((3, 4, 2)), verbose=0)
    np.testing.assert_allclose(loss, 0.49572560, rtol=1e-5)  # over the tokens alone: 0.79933137
    np.testing.assert_allclose(np.mean(model.predict(tokens, verbose=0) ** 2), loss, rtol=1e-6)


def test_a_causal_query_does_not_look_ahead() -> None:
    x = normal(1, 5, 4)
    for layer in (
        layers.MultiHeadAttention(2, 3),
        layers.MultiHeadAttention(2, 3, dropout=0.3),
    ):
        before = layer(x, x, use_causal_mask=True).numpy()
        later = x.copy()
        later[:, 3:] += 1
        after = layer(later, later, use_causal_mask=True).numpy()
        np.testing.assert_array_equal(after[:, :3], before[:, :3])
        assert not np.allclose(after[:, 3:], before[:, 3:])


def test_a_query_that_sees_nothing_gets_zeros() -> None:
    layer = layers.MultiHeadAttention(1, 2)
    mask = np.array([[[True, False], [False, False]]])
    y, weights = layer(
        normal(1, 2, 3), normal(1, 2, 3), attention_mask=mask, return_attention_scores=True
    )
    np.testing.assert_array_equal(weights[0, 0], [[1, 0], [0, 0]])
    np.testing.assert_array_equal(y[0, 1], np.zeros(3))  # the bias of the output is 0 yet


def test_a_query_that_sees_nothing_gets_the_mean_of_all_values_without_weights() -> None:
    mask = np.array([[[True, False], [False, False]]])
    x = normal(1, 2, 4)
    for layer in (layers.MultiHeadAttention(1, 2), layers.GroupQueryAttention(2, 2, 1)):
        y = layer(x, x, attention_mask=mask)
        alone = layer(x, x[:, :1]), layer(x, x[:, 1:])
        close(y[0, 0], alone[0][0, 0])
        close(y[0, 1], (alone[0] + alone[1])[0, 1] / 2)
    both = layers.Attention()([x, x], mask=[None, np.array([[False, False]])])
    np.testing.assert_allclose(both[0, 0], x.mean(1)[0], rtol=1e-6)


def test_a_window_leaves_out_what_is_far_away() -> None:
    x = normal(1, 5, 4)
    layer = layers.MultiHeadAttention(1, 3, sliding_window=2)
    _, weights = layer(x, x, return_attention_scores=True)
    rows, columns = np.indices((5, 5))
    np.testing.assert_array_equal(weights[0, 0] > 0, abs(rows - columns) < 2)
    with pytest.raises(ValueError, match="sliding_window"):
        layers.MultiHeadAttention(1, 3, sliding_window=0)


def test_a_gate_multiplies_the_heads() -> None:
    x = normal(1, 3, 4)
    layer = layers.MultiHeadAttention(2, 3, use_gate=True)
    gated = layer(x, x).numpy()
    assert [w.path.split("/")[-2] for w in layer.weights[::2]] == [
        "query", "key", "gate", "value", "attention_output"
    ]  # fmt: skip
    plain = layers.MultiHeadAttention(2, 3)
    plain.build(x.shape, x.shape)
    plain.set_weights([w for i, w in enumerate(layer.get_weights()) if i not in (4, 5)])
    kernel = layer.get_weights()[4]
    kernel[:] = 0  # a gate of one half
    layer.set_weights([kernel if i == 4 else w for i, w in enumerate(layer.get_weights())])
    np.testing.assert_allclose(layer(x, x), plain(x, x) / 2, rtol=1e-5, atol=1e-7)
    assert not np.allclose(gated, plain(x, x))
    again = layers.MultiHeadAttention.from_config(layer.get_config())
    assert again.use_gate and again.sliding_window is None


@pytest.mark.parametrize(
    "layer",
    [layers.MultiHeadAttention(2, 3, dropout=0.5), layers.Attention(dropout=0.5)],
    ids=lambda layer: layer.name,
)
def test_dropout_in_training_only(layer: Any) -> None:
    x = normal(2, 4, 3)

    def call(**how: Any) -> np.ndarray:
        both = (x, x) if isinstance(layer, layers.MultiHeadAttention) else ([x, x],)
        return layer(*both, **how).numpy()

    np.testing.assert_array_equal(call(), call())
    tf.random.set_seed(3)
    one = call(training=True)
    assert not np.array_equal(one, call(training=True))
    tf.random.set_seed(3)
    np.testing.assert_array_equal(one, call(training=True))


def test_mixed_precision() -> None:
    x = normal(2, 4, 3)
    layer = layers.MultiHeadAttention(2, 3, dtype="mixed_float16")
    with tf.GradientTape() as tape:
        y = layer(x, x, use_causal_mask=True)
        total = tf.reduce_sum(y)
    assert y.dtype == tf.float16
    gradients = tape.gradient(total, layer.trainable_variables)
    assert {g.dtype for g in gradients} == {tf.float32}
    full = layers.MultiHeadAttention(2, 3)
    full(x, x)
    full.set_weights(layer.get_weights())
    expected = full(x, x, use_causal_mask=True)
    np.testing.assert_allclose(y, expected, atol=4e-3)  # float16 has 11 bits


def test_shapes_of_weights_as_in_keras() -> None:
    layer = layers.MultiHeadAttention(4, 3, value_dim=5, output_shape=7)
    layer.build((None, 6, 8), (None, 9, 2))
    found = {weight.path: tuple(weight.shape) for weight in layer.weights}
    assert found == {
        "multi_head_attention/query/kernel": (8, 4, 3),
        "multi_head_attention/query/bias": (4, 3),
        "multi_head_attention/key/kernel": (2, 4, 3),
        "multi_head_attention/key/bias": (4, 3),
        "multi_head_attention/value/kernel": (2, 4, 5),
        "multi_head_attention/value/bias": (4, 5),
        "multi_head_attention/attention_output/kernel": (4, 5, 7),
        "multi_head_attention/attention_output/bias": (7,),
    }


@pytest.mark.parametrize(
    "layer",
    [tf.keras.layers.MultiHeadAttention(4, 32), tf.keras.layers.GroupQueryAttention(32, 4, 2)],
)
def test_kernels_begin_as_those_of_their_inputs_and_outputs(layer: Any) -> None:
    """The fans of Glorot are features, and heads times their size, as in Keras 3."""
    x = tf.random.normal((2, 5, 64))
    layer(x, x)
    for kernel in (w.numpy() for w in layer.weights if w.ndim == 3):
        limit = np.sqrt(6 / (64 + kernel.size // 64))
        assert 0.99 * limit < np.abs(kernel).max() <= limit


def test_in_a_model_that_is_described() -> None:
    inputs = tf.keras.Input((None, 4))
    x = layers.MultiHeadAttention(2, 2)(inputs, inputs)
    x = layers.LayerNormalization()(x + inputs)
    x = layers.Attention()([x, inputs])
    model = tf.keras.Model(inputs, layers.LSTM(3)(x))
    assert model(normal(2, 5, 4)).shape == (2, 3)
    assert model(normal(3, 7, 4)).shape == (3, 3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: layers.MultiHeadAttention(0, 2), "num_heads must be a positive int, not 0"),
        (lambda: layers.MultiHeadAttention(2, 2.0), "key_dim .* 2.0"),
        (lambda: layers.MultiHeadAttention(2, 2, value_dim=-1), "value_dim .* -1"),
        (lambda: layers.MultiHeadAttention(2, 2, dropout=1.0), "dropout must lie between"),
        (lambda: layers.MultiHeadAttention(2, 2, output_shape="x"), "output_shape .* 'x'"),
        (
            lambda: layers.MultiHeadAttention(2, 2)(
                normal(1, 2, 3), normal(1, 4, 3), normal(1, 5, 3)
            ),
            "value and key have the same shape",
        ),
        (lambda: layers.Attention(score_mode="sum"), "'dot' or 'concat', not 'sum'"),
        (lambda: layers.Attention()(normal(2, 3, 4)), "list of tensors"),
        (lambda: layers.Attention()([normal(2, 3, 4)]), "query, value"),
        (
            lambda: layers.Attention()([normal(2, 3, 4)] * 2, mask=[None]),
            "mask is a list",
        ),
    ],
)
def test_errors(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_scores_that_are_returned_are_those_that_dropout_leaves() -> None:
    for layer in (layers.Attention(dropout=0.5), layers.AdditiveAttention(dropout=0.5)):
        given = [normal(2, 20, 3), normal(2, 30, 3)]
        output, scores = layer(given, return_attention_scores=True, training=True)
        close(output, scores.numpy() @ given[1])
        assert (scores.numpy() == 0).any()


@pytest.mark.filterwarnings("error")  # none of a mask that is lost
@pytest.mark.parametrize(
    "layer", [layers.MultiHeadAttention(2, 2), layers.GroupQueryAttention(2, 2, 1)], ids=str
)
def test_inputs_given_by_name_hand_on_the_mask_of_the_query(layer: Any) -> None:
    query, mask = tf.constant(normal(2, 3, 4)), np.array([[1, 1, 0], [1, 0, 0]], bool)
    query._keras_mask = tf.constant(mask)
    output = layer(query=query, value=normal(2, 5, 4))
    assert output._keras_mask.numpy().tolist() == mask.tolist()


def test_shapes_are_told_without_a_key_and_by_name() -> None:
    layer = layers.MultiHeadAttention(2, 2, output_shape=(3, 1))
    for shape in (
        layer.compute_output_shape((7, 4, 8), [7, 2, 8], None),
        layer.compute_output_shape(query_shape=(7, 4, 8), value_shape=(7, 2, 8)),
    ):
        assert shape == (7, 4, 3, 1)
    shapes = [(2, 3, 4), (2, 5, 6), (2, 5, 4)]
    assert layers.Attention().compute_output_shape(input_shape=shapes) == (2, 3, 6)


def test_projections_take_lora(tmp_path: Any) -> None:
    layer = layers.MultiHeadAttention(2, 3, use_bias=False)
    given = tf.keras.Input((4, 5))
    model = tf.keras.Model(given, layer(given, given))
    layer.query_dense.enable_lora(2)
    assert len(layer.trainable_variables) == 5 and len(layer.non_trainable_variables) == 1
    layer.query_dense.lora_kernel_b.assign(normal(2, 3))
    model.save(tmp_path / "m.keras")
    x = normal(2, 4, 5)
    close(tf.keras.models.load_model(tmp_path / "m.keras")(x), model(x))


def test_the_mask_of_attention_is_that_of_the_query() -> None:
    inputs, mask = [normal(2, 3, 4), normal(2, 5, 4)], np.ones((2, 3), bool)
    assert layers.Attention().compute_mask(inputs, mask=[mask, None]) is mask
    assert layers.Attention().compute_mask(inputs=inputs, mask=None) is None


class Sharper(layers.MultiHeadAttention):
    """Weighs with a temperature that it learns, as subclasses of Keras's layer do."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tau = tf.Variable(self._key_dim**0.5)

    def _compute_attention(
        self, query: Any, key: Any, value: Any, attention_mask: Any = None, training: Any = None
    ) -> Any:
        scores = tf.einsum(self._dot_product_equation, key, query / self.tau)
        weights = self._masked_softmax(scores, attention_mask)
        used = self._dropout_layer(weights, training=training)
        return tf.einsum(self._combine_equation, used, value), weights


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 5, 4)], ids=str)
def test_a_subclass_computes_attention_in_its_own_way(shape: tuple[int, ...]) -> None:
    own, plain = (kind(num_heads=2, key_dim=4) for kind in (Sharper, layers.MultiHeadAttention))
    x, mask = normal(*shape), np.tril(np.ones((1, 3, 3), bool)) if len(shape) == 3 else None
    with tf.GradientTape() as tape:
        found = own(x, x, attention_mask=mask)
    plain.build(shape, shape)
    plain.set_weights([w.numpy() for w in own.weights if w is not own.tau])
    close(found, plain(x, x, attention_mask=mask))
    assert tape.gradient(found, own.tau) is not None
    own.tau.assign(0.1)
    assert not np.allclose(own(x, x, attention_mask=mask), found)
