"""Passes over data that end by themselves: streams, endless sequences, and what callbacks stop."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.keras.callbacks import progress_line

keras = tf.keras
X, Y = np.ones((2, 3), np.float32), np.ones((2, 1), np.float32)


def model():
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    made.compile("sgd", "mse")
    return made


def stream(batches: int | None = None):
    while batches is None or batches > 0:
        yield X, Y
        batches = batches and batches - 1


def test_the_line_of_an_epoch_tells_the_batches_that_a_stream_gave(capsys):
    model().fit(stream(3))
    assert capsys.readouterr().out.startswith("3/3 - ")
    assert progress_line(1, None, 0.5, {}).startswith("1/Unknown - ")


@pytest.mark.parametrize(
    "run, event, flag",
    [
        ("fit", "on_train_batch_end", "stop_training"),
        ("evaluate", "on_test_batch_end", "stop_evaluating"),
        ("predict", "on_predict_batch_end", "stop_predicting"),
    ],
)
def test_a_callback_ends_an_endless_pass(run, event, flag):
    made, seen = model(), []

    def stop(batch, logs=None):
        seen.append(batch)
        setattr(made, flag, batch == 2)

    callback = keras.callbacks.LambdaCallback(**{event: stop})
    for _ in range(2):  # the flag of the pass before is forgotten
        getattr(made, run)(stream(), callbacks=[callback], verbose=0)
    assert seen == [0, 1, 2] * 2
