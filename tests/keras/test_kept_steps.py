"""What is captured in one fit runs in the next: where nothing that it depends on has changed."""

import numpy as np
import pytest

import distgrad as tf
from distgrad.training import shard_program

keras = tf.keras
X = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 24)


@pytest.fixture
def made(monkeypatch):
    """The shapes for which programs were made."""
    found = []
    first = shard_program.ShardProgram.__init__

    def noted(self, made_by, arrays, part):
        found.append(arrays[0].shape if hasattr(arrays[0], "shape") else None)
        first(self, made_by, arrays, part)

    monkeypatch.setattr(shard_program.ShardProgram, "__init__", noted)
    return found


def model():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(5, "relu"), keras.layers.Dropout(0.5)]
    made = keras.Sequential([*layers, keras.layers.Dense(3, "softmax")])
    made.compile("adam", "sparse_categorical_crossentropy")
    return made


def fit(model, **options):
    return model.fit(X, Y, **{"batch_size": 8, "verbose": 0, **options}).history["loss"]


def test_a_second_fit_captures_nothing(made):
    net = model()
    losses = fit(net) + fit(net, epochs=2, validation_split=0.0)
    assert len(made) == 1
    assert len(set(losses)) == 3


def test_it_has_the_bits_of_one_that_captures_anew(made):
    found = []
    for forget in (False, True):
        net = model()
        for _ in range(3):
            fit(net)
            if forget:
                net._kept_step = None, None
        found.append([w.tobytes() for w in net.get_weights()])
    assert len(made) == 4 and found[0] == found[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.compile("sgd", "sparse_categorical_crossentropy"),
        lambda net: setattr(net.layers[0], "trainable", False),
        lambda net: setattr(net, "run_eagerly", True),
        lambda net: net.add(keras.layers.Activation("softmax")),
    ],
)
def test_what_a_step_depends_on_makes_a_new_one(change, made):
    net = model()
    fit(net)
    before = net._kept_step[1]
    change(net)
    fit(net)
    assert net._kept_step[1] is not before


def test_other_batches_and_class_weights_make_a_new_one(made):
    net = model()
    fit(net)
    fit(net, batch_size=6)
    fit(net, batch_size=6, class_weight={0: 2.0, 1: 1.0, 2: 1.0})
    assert len(made) == 3


def test_a_fit_that_fails_leaves_no_step(made):
    class Failing(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError("stop")

    net = model()
    with pytest.raises(RuntimeError, match="stop"):
        fit(net, callbacks=[Failing()])
    assert net._kept_step == (None, None)
    fit(net)
    assert len(made) == 2


def test_a_fit_that_was_stopped_goes_on_in_the_next(made):
    class Stopping(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    net = model()
    fit(net, callbacks=[Stopping()], epochs=3)
    assert len(fit(net, epochs=2)) == 2
    assert len(made) == 1


def test_a_layer_in_the_place_of_another_makes_a_new_one(made):
    net = model()
    for rate in (0.1, 0.2, 0.3):
        net.add(keras.layers.Dropout(rate))  # which may lie where the last one was
        fit(net)
        net.pop()
    assert len(made) == 3
