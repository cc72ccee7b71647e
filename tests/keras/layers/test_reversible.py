"""ReversibleEmbedding and Pipeline."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.keras import layers

IDS = np.array([[0, 2, 3], [4, 0, 1]])


@pytest.mark.parametrize("tied", [True, False])
def test_the_way_back_is_a_product_with_the_table(tied: bool) -> None:
    layer = layers.ReversibleEmbedding(5, 3, tie_weights=tied, mask_zero=True)
    there = layer(IDS)
    np.testing.assert_array_equal(there._keras_mask, IDS != 0)
    table = layer.embeddings.numpy().T if tied else layer.reverse_embeddings.numpy()
    back = layer(there, reverse=True)
    assert not hasattr(back, "_keras_mask") or back._keras_mask is None
    np.testing.assert_allclose(back, there.numpy() @ table, rtol=1e-5)
    assert [w.name for w in layer.weights] == ["embeddings", "reverse_embeddings"][: 2 - tied]


def test_scores_are_capped_and_of_another_dtype() -> None:
    layer = layers.ReversibleEmbedding(5, 3, logit_soft_cap=0.01, reverse_dtype="float16")
    scores = layer(100 * layer(IDS), reverse=True)
    assert scores.dtype == tf.float16 and np.abs(scores).max() <= 0.0101
    again = layers.ReversibleEmbedding.from_config(layer.get_config())
    assert again.logit_soft_cap == 0.01 and again.tie_weights


def test_in_a_functional_model() -> None:
    ids = tf.keras.Input((3,), dtype="int32")
    layer = layers.ReversibleEmbedding(5, 3)
    model = tf.keras.Model(ids, layer(layers.Dense(3)(layer(ids)), reverse=True))
    assert model.output_shape == (None, 3, 5)
    assert model(IDS).shape == (2, 3, 5) and len(model.weights) == 3


def test_a_pipeline_calls_its_layers_in_turn(tmp_path) -> None:
    steps = [layers.Rescaling(0.5), layers.Dropout(0.5, seed=1)]
    pipe = layers.Pipeline(steps, name="before")
    x = np.ones((2, 8), np.float32)
    np.testing.assert_array_equal(pipe(x, training=False), x / 2)
    assert set(np.unique(pipe(x))) == {0, 1}, "it trains unless told otherwise"
    data = tf.data.Dataset.from_tensor_slices(x).batch(2).map(layers.Pipeline(steps[:1]))
    np.testing.assert_array_equal(next(iter(data)), x / 2)
    config = pipe.get_config()
    assert sorted(config) == ["layers", "name"]
    again = layers.Pipeline.from_config(config)
    assert [type(each) for each in again.layers] == [layers.Rescaling, layers.Dropout]
    model = tf.keras.Sequential([tf.keras.Input((8,)), layers.Pipeline([layers.Rescaling(2.0)])])
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(tf.keras.models.load_model(tmp_path / "m.keras")(x), 2 * x)
    with pytest.raises(ValueError, match="layers"):
        layers.Pipeline([3])  # type: ignore[list-item]
