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


def test_the_line_of_an_epoch_ends_with_what_callbacks_add(capsys):
    class Adding(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["a_of_mine"] = 3.0

    made = model()
    made.compile("sgd", "mse", metrics=["mae"])
    data = {"validation_data": (X, Y), "callbacks": [keras.callbacks.ReduceLROnPlateau(), Adding()]}
    made.fit(X, Y, **data)
    made.test_step = lambda data: {name: 1.0 for name in ("mae", "loss")}  # in any order
    made.evaluate(X, Y)
    fitted, evaluated = (line.split(" - ")[3:] for line in capsys.readouterr().out.splitlines())
    names = ["loss", "mae", "val_loss", "val_mae", "learning_rate", "a_of_mine"]
    assert [part.split(": ")[0] for part in fitted] == names
    assert [part.split(": ")[0] for part in evaluated] == names[:2]


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


class Numbered(keras.utils.PyDataset):
    """Batches that are told by ``num_batches`` in place of ``__len__``."""

    def __init__(self, number):
        super().__init__()
        self.number, self.events = number, ""

    @property
    def num_batches(self):
        return self.number

    def __getitem__(self, index):
        return X * index, Y

    def on_epoch_begin(self):
        self.events += "b"

    def on_epoch_end(self):
        self.events += "e"


def test_a_sequence_may_say_num_batches_and_is_told_of_epochs():
    data = Numbered(4)
    assert len(model().predict(data, verbose=0)) == 8 and data.events == "be"
    assert len(list(data)) == 4
    model().fit(data, epochs=2, verbose=0)
    assert data.events == "be" * 3
    endless = Numbered(None)
    model().fit(endless, epochs=2, steps_per_epoch=3, verbose=0)
    assert endless.events == "be" * 2
    with pytest.raises(ValueError, match="num_batches is None.*give steps_per_epoch"):
        model().fit(endless, verbose=0)
    with pytest.raises(NotImplementedError, match="PyDataset does not define __len__"):
        keras.utils.PyDataset().num_batches  # noqa: B018

    class Uncounted(keras.utils.PyDataset):
        def __getitem__(self, index):
            return index

    assert [each for each, _ in zip(Uncounted(), range(3), strict=False)] == [0, 1, 2]


def test_the_class_of_a_label_is_the_nearest_number():
    made = model()
    made.compile(keras.optimizers.SGD(0.0), "mse")
    y = np.array([[0.999999], [1.0]], np.float32)
    loss = made.evaluate(X, y, verbose=0)
    weighted = made.fit(X, y, class_weight={1: 3.0}, verbose=0).history["loss"]
    assert weighted == pytest.approx([3 * loss], rel=1e-5)
