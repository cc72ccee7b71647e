"""What a model learns of data by a call before it trains: once for data alike, else anew."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from distgrad import keras

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
Y = (np.arange(8) % 2).astype(np.float32)[:, None]


class Counted(keras.Model):
    """Counts what is asked of it; ``pair`` gives two outputs."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.dense, self.calls, self.pair = keras.layers.Dense(1), [], False

    def call(self, x):
        self.calls.append(len(x["a"]) if isinstance(x, dict) else len(x))
        out = self.dense(x["a"] if isinstance(x, dict) else x)
        return {"one": out, "two": out} if self.pair else out


def compiled(**how) -> Counted:
    model = Counted()
    model.compile("sgd", "mse", run_eagerly=True, **how)
    return model


def calls_of(model: Counted, do) -> list[int]:
    model.calls.clear()
    do()
    return list(model.calls)


def test_data_alike_are_looked_at_once() -> None:
    model = compiled()
    how = {"batch_size": 8, "verbose": 0}
    assert calls_of(model, lambda: model.fit(X, Y, **how)) == [1, 8]
    assert calls_of(model, lambda: model.fit(2 * X, Y, **how)) == [8]
    assert calls_of(model, lambda: model.evaluate(X[:4], Y[:4], **how)) == [4]
    assert calls_of(model, lambda: model.train_on_batch(X, Y)) == [8]
    assert calls_of(model, lambda: model.test_on_batch(X, Y)) == [8]
    held = {"validation_data": (X, Y), "epochs": 2}
    assert calls_of(model, lambda: model.fit(X, Y, **how, **held)) == [8] * 4


def test_other_data_are_looked_at_anew() -> None:
    model = compiled()
    how = {"batch_size": 8, "verbose": 0}
    model.fit(X, Y, **how)
    assert calls_of(model, lambda: model.evaluate(X, Y, sample_weight=Y[:, 0], **how)) == [1, 8]
    assert calls_of(model, lambda: model.evaluate(X.astype(np.float64), Y, **how))[-1] == 8
    for name in ("a", "a", "b"):
        if name == "b":
            with pytest.raises(KeyError, match="a"):
                model.evaluate({name: X}, Y, **how)
        else:
            model.evaluate({name: X}, Y, **how)
    with pytest.raises(ValueError, match="3"):
        model.fit(np.ones((8, 4), np.float32), Y, **how)


def test_a_model_that_has_changed_is_looked_at_anew() -> None:
    model = compiled()
    how = {"batch_size": 8, "verbose": 0}
    model.evaluate(X, Y, **how)
    model.pair = True
    found = model.evaluate(X, {"one": Y, "two": Y}, **how, return_dict=True)
    assert set(found) == {"loss", "one_loss", "two_loss"}
    model.pair = False
    assert model.evaluate(X, Y, **how) == pytest.approx(found["one_loss"])
    model.dense = keras.layers.Dense(1)
    assert calls_of(model, lambda: model.evaluate(X, Y, **how)) == [1, 8]
    model.compile("sgd", "mse", metrics=["mae"], run_eagerly=True)
    assert calls_of(model, lambda: model.evaluate(X, Y, **how)) == [1, 8]
    again = copy.deepcopy(model)
    assert again.evaluate(X, Y, **how) == model.evaluate(X, Y, **how)


def test_layers_are_added_between_two_passes() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse", metrics=["mae"])
    model.fit(X, np.ones((8, 2)), verbose=0)
    model.add(keras.layers.Dense(1, activation="sigmoid"))
    model.compile("sgd", "mse", metrics=["accuracy"])
    loss, accuracy = model.evaluate(X, Y, verbose=0)
    right = np.mean((model.predict(X, verbose=0) > 0.5) == Y)
    assert accuracy == pytest.approx(right) and loss > 0


def test_weights_of_classes_end_with_the_call_that_had_them() -> None:
    """The mean is over samples again, as it is before classes are weighed."""
    model = Counted()
    loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    model.compile("sgd", loss, run_eagerly=True)
    before = model.evaluate(X, Y, verbose=0)
    weights = model.get_weights()
    model.fit(X, Y, batch_size=8, class_weight={0: 1.0, 1: 5.0}, verbose=0)
    counted = model.counted
    model.set_weights(weights)
    assert model.evaluate(X, Y, verbose=0) == before
    assert counted and not model.counted
