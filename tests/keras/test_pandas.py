"""What pandas hands over: numbers in its nullable types, and texts, which no tensor holds."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.keras.models.feed import as_arrays

pandas = pytest.importorskip("pandas")


def test_nullable_numbers_are_numbers() -> None:
    frame = pandas.DataFrame({"a": [1, 2, None], "b": [0.5, None, 2.5]})
    for kinds in ("Float64", "float64[pyarrow]"):
        if "arrow" in kinds:
            pytest.importorskip("pyarrow")
        found = as_arrays(frame.astype(kinds))
        np.testing.assert_array_equal(found, frame.to_numpy())
        assert found.dtype == np.float64
    whole = pandas.Series([1, 0, 1], dtype="Int64")
    np.testing.assert_array_equal(as_arrays(whole), [1, 0, 1])


@pytest.mark.parametrize("kind", ["str", "object", "category"])
def test_columns_of_texts_are_named(kind: str) -> None:
    frame = pandas.DataFrame({"age": [1, 2], "city": pandas.Series(["Rom", "Oslo"], dtype=kind)})
    model = tf.keras.Sequential([tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    said = r"hold no numbers: 'city' \(\w+\); make numbers of texts first, with StringLookup"
    with pytest.raises(ValueError, match=said):
        model.fit(frame, [0, 1], verbose=0)
    with pytest.raises(ValueError, match=said):
        model.fit(frame[["age"]], frame.city, verbose=0)
    with pytest.raises(ValueError, match="'dense' takes numbers, not texts: make numbers"):
        model.fit(np.array([["a"], ["b"]], dtype=object), [0, 1], verbose=0)
    with pytest.raises(ValueError, match="ndarray texts; make numbers"):
        model.fit(np.ones((2, 1)), np.array(["a", "b"], dtype=object), verbose=0)


@pytest.mark.parametrize("kind", ["str", "object"])
def test_layers_of_texts_and_numbers_adapt_to_columns(kind: str) -> None:
    texts = pandas.Series(["b", "a", "b"], dtype=kind)
    lookup, vectors = tf.keras.layers.StringLookup(), tf.keras.layers.TextVectorization()
    for layer in (lookup, vectors):
        layer.adapt(texts)
        assert layer.get_vocabulary()[-2:] == ["b", "a"]
    np.testing.assert_array_equal(lookup(texts), [1, 2, 1])
    np.testing.assert_array_equal(vectors(texts), [[2], [3], [2]])
    scale = tf.keras.layers.Normalization()
    scale.adapt(pandas.DataFrame({"a": [1.0, 3.0], "b": [2.0, 2.0]}))
    np.testing.assert_allclose(scale(np.array([[3.0, 2.0]])), [[1, 0]], atol=1e-6)
    with pytest.raises(ValueError, match="1 of 3 texts are missing"):
        lookup(pandas.Series(["b", None, "b"], dtype=kind))


@pytest.mark.parametrize("kind", ["str", "object"])
def test_a_column_of_texts_is_an_input(kind: str) -> None:
    lookup = tf.keras.layers.StringLookup(vocabulary=["b", "a"])
    model = tf.keras.Sequential([tf.keras.Input((1,), dtype="string"), lookup])
    found = model.predict(pandas.Series(["b", "c", "a"], dtype=kind), verbose=0)
    np.testing.assert_array_equal(found, [[1], [0], [2]])


def test_layers_are_called_on_tables() -> None:
    frame = pandas.DataFrame({"a": [1.0, 3.0], "b": [2, 2]})
    layers = tf.keras.layers
    scale = layers.Normalization()
    scale.adapt(frame)
    np.testing.assert_allclose(scale(frame), [[-1, 0], [1, 0]], atol=1e-6)
    model = tf.keras.Sequential([layers.Dense(1, kernel_initializer="ones")])
    np.testing.assert_array_equal(model(frame), [[3], [5]])
    np.testing.assert_array_equal(model(frame), [[3], [5]])
    both = layers.Concatenate()([frame, frame])
    np.testing.assert_array_equal(both, [[1, 2, 1, 2], [3, 2, 3, 2]])
