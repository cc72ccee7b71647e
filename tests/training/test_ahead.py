"""Updates that a GPU is asked for before the host knows the loss.

They run on GPUs of a stand-in, whose streams do their work as late as they may.
"""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.backend.cuda_launch import Launcher
from distgrad.comm.communicator import Communicator
from distgrad.core.errors import DivergedError
from distgrad.data.loader import Batch, cut
from distgrad.keras.optimizers.base import Optimizer
from distgrad.training.state import StateMean

from .gpus import MARKS, step_of
from .models import bits, samples

pytestmark = [*MARKS, pytest.mark.usefixtures("gpus")]
L = tf.keras.layers
CAPTURED = {"executor": "cuda", "strict": True}


@pytest.fixture
def updates(monkeypatch) -> list[str]:
    """The names of the kernels of Adam that are launched."""
    found: list[str] = []
    bound = Launcher.bound

    def made(self, name, *args):
        start = bound(self, name, *args)
        return lambda *more: (found.append(name), start(*more))

    monkeypatch.setattr(Launcher, "bound", made)
    return found


def model_of(*more: L.Layer, **how) -> tf.keras.Sequential:
    tf.keras.utils.set_random_seed(1)
    layers = [L.Dense(9, activation="relu"), L.Dropout(0.2), *more, L.Dense(3)]
    model = tf.keras.Sequential(layers)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.Adam(0.01, **how), loss, metrics=["accuracy"])
    model.build((None, 6))
    return model


def batch_of(shards: int, step: int, bad: float = 0.0) -> Batch:
    x, y = samples(20)
    x = x + np.float32(step)
    x[-1, 0] += np.float32(bad)  # of the last shard
    return cut(step, 20, shards, range(shards), lambda a, b: (x[a:b], y[a:b]))


def trained(model: tf.keras.Sequential, shards: int, steps: int = 5, **options) -> tuple:
    step = step_of(model, Communicator(), shards, **CAPTURED, **options)
    losses = [step(number, batch_of(shards, number)).loss for number in range(steps)]
    return losses, bits(model.variables), bits(model.optimizer.variables)


@pytest.mark.parametrize("shards", [1, 4])
def test_the_bits_are_those_of_an_update_that_waits(shards, updates, monkeypatch) -> None:
    early = trained(model_of(), shards)
    assert updates == ["adam_where_finite"] * 4  # in the first step arrays are looked up
    monkeypatch.setattr(Optimizer, "only_updates", False)
    updates.clear()
    assert trained(model_of(), shards) == early
    assert updates == ["adam"] * 4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("shards", [1, 4])
def test_a_loss_that_is_not_finite_changes_nothing(shards, bad, updates) -> None:
    model = model_of()
    step = step_of(model, Communicator(), shards, **CAPTURED)
    for number in range(5):
        step(number, batch_of(shards, number))
        if number == 2:
            before = bits(model.variables), bits(model.optimizer.variables)
            with pytest.raises(DivergedError, match="at step 3, which was not taken"):
                step(3, batch_of(shards, 3, bad))
            assert (bits(model.variables), bits(model.optimizer.variables)) == before
    assert updates == ["adam_where_finite"] * 5
    assert (bits(model.variables), bits(model.optimizer.variables)) == trained(model_of(), shards)[
        1:
    ]


def test_without_a_look_at_the_loss_any_update_is_taken(updates) -> None:
    model = model_of()
    step = step_of(model, Communicator(), 1, stop_on_nan=False, **CAPTURED)
    for number, bad in enumerate((0.0, 0.0, np.nan)):
        loss = step(number, batch_of(1, number, bad)).loss
    assert np.isnan(loss) and updates == ["adam"] * 2
    assert all(np.isnan(v.numpy()).any() for v in model.trainable_variables)


@pytest.mark.parametrize(
    "how",
    [{"clipnorm": 0.1}, {"weight_decay": 0.1}, {"use_ema": True}, {"amsgrad": True}],
    ids=lambda how: next(iter(how)),
)
def test_what_does_more_than_its_rule_waits(how, updates) -> None:
    for shards in (1, 4):
        trained(model_of(**how), shards)
    assert "adam_where_finite" not in updates


def test_the_mean_of_what_several_shards_assign_waits_for_the_host(updates) -> None:
    trained(model_of(L.BatchNormalization()), 2)
    assert updates == ["adam"] * 4


def test_what_one_shard_assigns_stays_on_the_device(updates, monkeypatch) -> None:
    """Nothing of it is brought to the host; with an update that waits the bits are the same."""

    def model() -> tf.keras.Sequential:
        return model_of(*(L.BatchNormalization() for _ in range(4)))

    early = trained(model(), 1)
    assert updates == ["adam_where_finite"] * 4
    monkeypatch.setattr(Optimizer, "only_updates", False)
    assert trained(model(), 1) == early
    fetched = []
    monkeypatch.setattr(StateMean, "take", lambda self, own: fetched.extend(own))
    other = trained(model(), 1)
    assert len(fetched) == 5 * 8 and other[1] != early[1]


def test_a_loss_that_is_not_finite_leaves_what_layers_assign(updates) -> None:
    model = model_of(L.BatchNormalization(), L.BatchNormalization())
    step = step_of(model, Communicator(), 1, **CAPTURED)
    step(0, batch_of(1, 0))
    before = bits(model.variables)
    with pytest.raises(DivergedError):
        step(1, batch_of(1, 1, np.nan))
    assert bits(model.variables) == before


def test_layers_that_assign_what_is_trained_wait_for_the_host(updates) -> None:
    class Drifts(L.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

        def call(self, x, training=None):
            if training:
                self.scale.assign(self.scale * 0.5)
            return x * self.scale

    model = model_of(Drifts())
    trained(model, 1)
    assert updates == ["adam"] * 4
    assert np.all(np.abs(model.layers[2].scale.numpy()) < 0.1)
