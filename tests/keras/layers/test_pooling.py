"""Pooling over windows and over all space."""

import numpy as np
import pytest

import distgrad as tf

layers = tf.keras.layers


def x(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: layers.MaxPooling2D(0), "pool_size.*0"),
        (lambda: layers.MaxPooling2D((2, 2, 2)), "pool_size"),
        (lambda: layers.MaxPooling2D(2, strides=0), "strides.*0"),
        (lambda: layers.AveragePooling1D(2, padding="causal"), "causal"),
        (lambda: layers.AveragePooling1D(2, data_format="NWC"), "NWC"),
        (lambda: layers.MaxPooling2D()(x(2, 4, 3)), r"rank 4.*\(2, 4, 3\)"),
        (lambda: layers.GlobalMaxPooling1D()(x(2, 4, 3, 1)), "rank 3"),
        (lambda: layers.MaxPooling2D(5)(x(1, 4, 9, 3)), "not fit"),
        (lambda: layers.AveragePooling2D(5)(x(1, 2, 2, 3)), "not fit"),
        (lambda: layers.MaxPooling2D(size=2), "size"),
    ],
)
def test_wrong_use_is_a_value_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_short_names_are_the_same_classes():
    for kind, short in (("Max", "Max"), ("Average", "Avg")):
        for scope in ("", "Global"):
            for rank in (1, 2):
                short_class = getattr(layers, f"{scope}{short}Pool{rank}D")
                assert short_class is getattr(layers, f"{scope}{kind}Pooling{rank}D")


def test_the_gradient_of_a_maximum_goes_to_the_first():
    inputs = tf.constant(np.ones((1, 4, 1), np.float32))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = layers.MaxPooling1D()(inputs)
    assert tape.gradient(y, inputs).numpy().ravel().tolist() == [1, 0, 1, 0]


def test_the_mean_of_whole_numbers_is_a_float():
    whole = np.array([[[1, 2], [2, 5]]], np.int32)
    y = layers.GlobalAveragePooling1D()(whole)
    assert y.dtype == tf.float32 and y.numpy().tolist() == [[1.5, 3.5]]
    y = layers.GlobalAveragePooling1D()(whole, mask=np.array([[True, False]]))
    assert y.dtype == tf.float32 and y.numpy().tolist() == [[1, 2]]
    y = layers.GlobalAveragePooling2D()(whole[..., None])
    assert y.numpy().tolist() == [[2.5]]


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_adaptive_pooling_gives_so_many_windows(rank, data_format):
    space = (5, 4, 6)[:rank]
    x = np.random.default_rng(0).normal(size=(2, *space, 3)).astype(np.float32)
    given = x if data_format == "channels_last" else np.moveaxis(x, -1, 1)
    for name, reduce in (("Average", np.mean), ("Max", np.max)):
        layer = getattr(layers, f"Adaptive{name}Pooling{rank}D")(2, data_format=data_format)
        y = layer(given).numpy()
        y = y if data_format == "channels_last" else np.moveaxis(y, 1, -1)
        assert y.shape == (2, *(2,) * rank, 3)
        first = x[(slice(None), *(slice((n + 1) // 2) for n in space))]
        corner = reduce(first, axis=tuple(range(1, rank + 1)))
        np.testing.assert_allclose(y[(slice(None), *(0,) * rank)], corner, rtol=1e-5)
        assert type(layer).from_config(layer.get_config()).output_size == (2,) * rank
    with pytest.raises(ValueError, match="output_size"):
        layers.AdaptiveMaxPooling2D(0)
