"""keras.utils, and names that TensorFlow has beside Keras."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras


def test_pad_sequences():
    """The values of Keras's guide to masking, and its options."""
    raw = [[711, 632, 71], [73, 8, 3215, 55], [83]]
    padded = keras.utils.pad_sequences(raw, padding="post")
    assert padded.dtype == np.int32
    assert padded.tolist() == [[711, 632, 71, 0], [73, 8, 3215, 55], [83, 0, 0, 0]]
    cut = keras.utils.pad_sequences(raw, maxlen=2, value=-1)
    assert cut.tolist() == [[632, 71], [3215, 55], [-1, 83]]
    cut = keras.utils.pad_sequences(raw, maxlen=2, truncating="post", dtype="float32")
    assert cut.tolist() == [[711, 632], [73, 8], [0, 83]]
    vectors = keras.utils.pad_sequences([np.ones((1, 2)), np.ones((2, 2)), []])
    assert vectors.shape == (3, 2, 2) and vectors.sum() == 6
    with pytest.raises(ValueError, match="middle"):
        keras.utils.pad_sequences(raw, padding="middle")
    with pytest.raises(ValueError, match="shapes"):
        keras.utils.pad_sequences([np.ones((1, 2)), np.ones((1, 3))])
    with pytest.raises(ValueError, match=r"sequences, not \[1, 2\]"):
        keras.utils.pad_sequences([1, 2])
    with pytest.raises(ValueError, match="1.5"):
        keras.utils.set_random_seed(1.5)
    assert tf.keras.preprocessing.sequence.pad_sequences is keras.utils.pad_sequences


def test_names_that_tensorflow_has_twice():
    assert tf.optimizers is keras.optimizers and tf.losses is keras.losses
    assert tf.metrics is keras.metrics and tf.initializers is keras.initializers
    start = tf.random_normal_initializer(mean=1.0, stddev=0.0)
    np.testing.assert_array_equal(start(shape=(2, 2), dtype="float32"), np.ones((2, 2)))
    np.testing.assert_array_equal(tf.zeros_initializer()(shape=(2,)), [0, 0])
    assert float(tf.random_uniform_initializer(1.0, 1.5)(())) >= 1.0
    assert issubclass(tf.keras.Variable, tf.Variable)


def test_what_variables_and_symbols_look_like():
    """The texts of Keras, which scripts print."""
    v = tf.keras.Variable([1.0, 2.0], name="v")
    assert repr(v) == str(v) == "<Variable path=v, shape=(2,), dtype=float32, value=[1. 2.]>"
    layer = tf.keras.layers.Dense(1, kernel_initializer="ones", name="d")
    layer.build((None, 2))
    kernel = "<Variable path=d/kernel, shape=(2, 1), dtype=float32, value=[[1.]\n [1.]]>"
    assert repr(layer.kernel) == kernel
    text = "<KerasTensor shape=(None, 3), dtype=int32, sparse=False, ragged=False, name=x>"
    assert repr(tf.keras.Input((3,), dtype="int32", name="x")) == text


def test_categories_of_tensors_are_tensors():
    found = tf.keras.utils.to_categorical(tf.constant([[1], [0]]), 3)
    assert found.dtype == tf.float32 and found.numpy().tolist() == [[0, 1, 0], [1, 0, 0]]
    data = tf.data.Dataset.from_tensor_slices([2, 0]).map(
        lambda y: tf.keras.utils.to_categorical(y, 3)
    )
    assert [row.numpy().tolist() for row in data] == [[0, 0, 1], [1, 0, 0]]
    assert tf.keras.utils.to_categorical([1, 0]).dtype == np.float64


def test_the_inputs_of_which_a_tensor_is_made():
    first, second, other = (keras.Input((3,)) for _ in range(3))
    inner = keras.layers.Dense(3)(first)
    found = keras.utils.get_source_inputs(keras.layers.Concatenate()([inner + second, first]))
    assert len(found) == 2 and found[0] is first and found[1] is second
    assert keras.utils.get_source_inputs(other)[0] is other
    assert keras.utils.get_source_inputs(3) == 3


def test_named_values_are_attributes_and_entries():
    config = keras.utils.Config(rate=0.1, depth=3)
    config.seed, config["name"] = 5, "a"
    assert config.rate == config["rate"] == 0.1 and config.as_dict()["seed"] == 5
    assert list(config) == sorted(config.keys()) and len(config) == 4 and "name" in config
    assert config.to_json() == '{"rate": 0.1, "depth": 3, "seed": 5, "name": "a"}'
    with pytest.raises(AttributeError, match="Did you mean 'depth'"):
        config.dephts  # noqa: B018
    config.freeze()
    for change in (lambda: setattr(config, "rate", 1), lambda: config.update(rate=1)):
        with pytest.raises(ValueError, match="frozen"):
            change()
    config.unfreeze()
    assert config.pop("depth") == 3 and config.get("depth", 7) == 7
    assert repr(keras.utils.Config(a=1)) == "<Config {'a': 1}>"
