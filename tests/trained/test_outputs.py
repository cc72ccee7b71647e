"""What the outputs of a model mean, read from its loss and its last layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad import keras
from distgrad.data.preparation import Preparation
from distgrad.trained.outputs import Outputs


def outputs(units: int, activation: str | None, loss: Any, **how: Any) -> Outputs:
    layers = [keras.Input((3,)), keras.layers.Dense(units, activation=activation)]
    model = keras.Sequential(layers)
    model.compile(loss=loss)
    kind = how.pop("kind", "arrays")
    return Outputs.of(model, Preparation(kind, (3,), "float32", (), "int32", **how))


LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    ("units", "activation", "loss", "logits"),
    [
        (3, "softmax", "sparse_categorical_crossentropy", False),
        (3, "softmax", "categorical_crossentropy", False),
        (3, None, LOGITS, True),
        (3, "softmax", LOGITS, False),  # the loss itself goes back before the softmax
    ],
)
def test_classes(units: int, activation: str | None, loss: Any, logits: bool) -> None:
    found = outputs(units, activation, loss, classes=("cat", "dog"))
    assert found.classes == ("cat", "dog", "2") and not found.two
    given = np.array([[0.2, 0.5, 0.3]], np.float32)
    p = found.probabilities(given)
    softmax = np.exp(given) / np.exp(given).sum()
    np.testing.assert_allclose(p, softmax if logits else given, rtol=1e-6)
    assert p.dtype == np.float32


def test_one_number_for_two_classes() -> None:
    sure = outputs(1, "sigmoid", "binary_crossentropy", classes=("no", "yes"))
    assert sure.classes == ("no", "yes")
    np.testing.assert_allclose(sure.probabilities(np.array([[0.25]])), [[0.75, 0.25]])
    scored = outputs(1, None, keras.losses.BinaryCrossentropy(from_logits=True))
    assert scored.classes == ("0", "1")
    np.testing.assert_allclose(scored.probabilities(np.array([[0.0]])), [[0.5, 0.5]])
    with np.errstate(over="raise"):
        far = scored.probabilities(np.array([[-800.0], [800.0]], np.float32))
    assert far.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(("units", "loss"), [(1, "mse"), (3, "mae"), (3, "binary_crossentropy")])
def test_values_are_left_as_they_are(units: int, loss: str) -> None:
    assert outputs(units, None, loss).classes == ()


def test_characters_are_named_so_that_they_can_be_seen() -> None:
    alphabet = ("", "\n", " ", "a")
    loss = "sparse_categorical_crossentropy"
    found = outputs(5, "softmax", loss, kind="text", alphabet=alphabet)
    assert found.classes == ("(other)", "'\\n'", "' '", "a", "4")
