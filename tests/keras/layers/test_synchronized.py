"""Batch normalisation over all shards of a step: the numbers of one shard, whoever runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as tf
from distgrad import distribute
from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import worker_shards
from distgrad.compile.captured import CaptureError
from distgrad.data.loader import cut
from distgrad.distribute import loop
from distgrad.keras import layers
from distgrad.testing.thread_world import run_world
from distgrad.training import world
from distgrad.training.step import TrainStep

RNG = np.random.default_rng(8)
X = 2 * RNG.normal(size=(26, 5)) + 1
Y = RNG.normal(size=(26, 1))


def network(**options: Any) -> tf.keras.Sequential:
    """In float64, with a normalised hidden layer, and of the same weights at each call."""
    keep = np.random.default_rng(1)
    model = tf.keras.Sequential(
        [
            layers.Dense(4, dtype="float64"),
            layers.BatchNormalization(momentum=0.75, dtype="float64", **options),
            layers.Dense(1, dtype="float64"),
        ]
    )
    model.build((None, 5))
    model.set_weights([keep.normal(size=w.shape) ** 2 for w in model.get_weights()])
    return model


def trained(model: Any, communicator: Communicator, shards: int) -> list[np.ndarray]:
    """The weights after three steps, the last one of 6 samples."""
    model.compile(tf.keras.optimizers.SGD(0.05), "mse")
    model.prepare((X, Y), of_arrays=False)
    step = model._make_training_step(communicator, shards, 0)
    own = worker_shards(shards, communicator.rank, communicator.world_size)
    for number, (first, last) in enumerate([(0, 10), (10, 20), (20, 26)]):

        def rows(start: int, stop: int, first: int = first) -> tuple[np.ndarray, np.ndarray]:
            return X[first + start : first + stop], Y[first + start : first + stop]

        step(number, cut(0, last - first, shards, own, rows))
    return model.get_weights()


class OwnStep(tf.keras.Model):
    """The same as ``fit`` does, spelled out."""

    def __init__(self, model: Any) -> None:
        super().__init__(dtype="float64")
        self.model = model

    def call(self, x, training=False):
        return self.model(x, training=training)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return {"loss": loss}


def workers(number: int, shards: int, wrap: Any, **options: Any) -> list[np.ndarray]:
    """What several workers, who agree on all bits, make of a model."""
    models = [wrap(network(**options)) for _ in range(number)]
    for model in models:
        model.build((None, 5))
    ranks = run_world(number, lambda c: trained(models[c.rank], c, shards), time_limit=60)
    for found in ranks:
        assert [w.tobytes() for w in found] == [w.tobytes() for w in ranks[0]]
    return ranks[0]


def alone(shards: int, train: Callable[[Any], list[np.ndarray]], make: Any = network) -> Any:
    """What ``train`` makes of a model in a script of one process."""
    with pytest.MonkeyPatch.context() as patch, world.use(Communicator()):
        patch.setenv("DISTGRAD_VIRTUAL_SHARDS", str(shards))
        return train(make(synchronized=True))


def close(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-11, atol=1e-12)


def by_gradients(model: Any) -> list[np.ndarray]:
    optimizer = tf.keras.optimizers.SGD(0.05)

    def loss_fn(batch):
        x, y = batch
        return tf.reduce_mean((model(x, training=True) - y) ** 2)

    for first in (0, 10, 20):
        batch = (X[first : first + 10], Y[first : first + 10])
        optimizer.apply_gradients(distribute.gradients(loss_fn, batch))
    return model.get_weights()


@pytest.fixture(autouse=True)
def fresh_loop(monkeypatch):
    monkeypatch.setattr(loop, "_loop", loop._Loop())


@pytest.mark.filterwarnings("ignore:the training step runs eagerly")
@pytest.mark.parametrize("wrap", [lambda model: model, OwnStep], ids=["fit", "own step"])
def test_shards_of_any_number_give_the_numbers_of_one(wrap):
    """Of 10 samples four shards have 3, 3, 2 and 2; 6 leave the last of seven shards empty."""
    expected = workers(1, 1, lambda model: model)
    for shards in (2, 4, 7):
        close(workers(1, shards, wrap, synchronized=True), expected)
    assert abs(workers(1, 4, wrap)[0] - expected[0]).max() > 1e-4


def test_one_shard_has_the_bits_of_a_layer_that_is_not_synchronized():
    for mine, other in zip(
        workers(1, 1, lambda model: model, synchronized=True),
        workers(1, 1, lambda model: model),
        strict=True,
    ):
        assert mine.tobytes() == other.tobytes()


@pytest.mark.filterwarnings("ignore:the training step runs eagerly")
@pytest.mark.parametrize("wrap", [lambda model: model, OwnStep], ids=["fit", "own step"])
def test_any_number_of_workers_gives_the_same_bits(wrap):
    one = workers(1, 7, wrap, synchronized=True)
    for number in (2, 3, 7):
        for mine, other in zip(workers(number, 7, wrap, synchronized=True), one, strict=True):
            assert mine.tobytes() == other.tobytes(), f"{number} workers"


def test_gradients_of_a_custom_loop():
    close(alone(4, by_gradients), alone(1, by_gradients))

    def pairs(model: Any) -> list[np.ndarray]:
        def loss_fn(batch):
            return tf.reduce_mean(model(batch[0], training=True) ** 2)

        with pytest.raises(RuntimeError, match="without state= or variables="):
            distribute.gradients(loss_fn, (X,), model.trainable_variables, [])
        return []

    alone(4, pairs)


def test_a_strategy():
    def train(model: Any) -> list[np.ndarray]:
        strategy = tf.distribute.MirroredStrategy()
        with strategy.scope():
            inside = network(synchronized=True)
            optimizer = tf.keras.optimizers.SGD(0.05)

        def step(x, y):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum((inside(x, training=True) - y) ** 2) / 10.0
            variables = inside.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

        data = tf.data.Dataset.from_tensor_slices((X[:20], Y[:20])).batch(10)
        for x, y in strategy.experimental_distribute_dataset(data):
            strategy.run(step, args=(x, y))
        return inside.get_weights()

    close(alone(4, train), alone(1, train))


@pytest.mark.filterwarnings("ignore:the training step runs eagerly")
@pytest.mark.parametrize("what", ["masks", "losses"])
def test_masks_and_losses_of_layers_stay_with_their_shard(what):
    """The loss counts the steps that are there; each shard's layers add losses of their own."""
    there = np.arange(4) < np.random.default_rng(3).integers(1, 5, (12, 1))
    x = (there * RNG.normal(size=(12, 4)))[..., None]
    y = RNG.normal(size=(12, 4, 1))

    def make(synchronized: bool) -> tf.keras.Sequential:
        regularizer = "l2" if what == "losses" else None
        model = tf.keras.Sequential(
            [
                layers.Masking(0.0 if what == "masks" else 7.0, dtype="float64"),
                layers.Dense(3, dtype="float64", activity_regularizer=regularizer),
                layers.BatchNormalization(dtype="float64", synchronized=synchronized),
                layers.Dense(1, dtype="float64"),
            ]
        )
        model.build((None, 4, 1))
        keep = np.random.default_rng(2)
        model.set_weights([keep.normal(size=w.shape) ** 2 for w in model.get_weights()])
        return model

    def train(model: Any) -> list[np.ndarray]:
        model.compile(tf.keras.optimizers.SGD(0.05), "mse")
        history = model.fit(x, y, batch_size=12, epochs=2, shuffle=False, verbose=0).history
        return [*model.get_weights(), np.array(history["loss"])]

    expected = alone(1, train, make)
    close(alone(4, train, make), expected)
    close(alone(3, train, make), expected)


def test_a_captured_step_is_told_why_it_is_eager():
    with pytest.warns(UserWarning, match="runs eagerly: its shards add up numbers"):
        workers(1, 2, lambda model: model, synchronized=True)
    model = network(synchronized=True)
    model.compile("sgd", "mse")
    with pytest.raises(CaptureError, match="its shards add up numbers"):
        TrainStep.of(model, Communicator(), 2, 0, executor="numpy", strict=True)


def test_second_derivatives_go_through_the_sums():
    """Of the squares of the gradients of S**2 in each of V replicas, with S the sum of x w."""
    x = np.array([0.5, 2.0, -1.0, 1.5])

    def train(_: Any) -> list[np.ndarray]:
        strategy = tf.distribute.MirroredStrategy()
        with strategy.scope():
            w = tf.Variable(0.5, dtype="float64")
            descent = tf.keras.optimizers.SGD(1.0)

        def step(part):
            with tf.GradientTape() as outer:
                with tf.GradientTape() as tape:
                    own = tf.reduce_sum(part * w)
                    total = tf.distribute.get_replica_context().all_reduce("SUM", own)
                    loss = total**2
                penalty = tape.gradient(loss, w) ** 2
            descent.apply_gradients([(outer.gradient(penalty, w), w)])

        (whole,) = strategy.experimental_distribute_dataset([x])
        strategy.run(step, args=(whole,))
        return [w.numpy()]

    total = 0.5 * x.sum()
    expected = 0.5 - 8 * 4**2 * total * x.sum() * (x**2).sum()
    close(alone(4, train), [np.array(expected)])


class Centred(layers.Layer):
    """A user's own layer, as written for TensorFlow: it subtracts the mean over all replicas."""

    meets = True

    def call(self, x, training=False):
        if not training:
            return x
        replica = tf.distribute.get_replica_context()
        mean = replica.all_reduce("MEAN", tf.reduce_mean(x, 0))
        return x - mean


@pytest.mark.filterwarnings("ignore:the training step runs eagerly")
@pytest.mark.parametrize("meets", [True, False])
def test_a_layer_of_a_users_own(meets, monkeypatch):
    def make(synchronized: bool) -> tf.keras.Sequential:
        model = network()
        return tf.keras.Sequential([model.layers[0], Centred(dtype="float64"), model.layers[2]])

    def train(model: Any) -> list[np.ndarray]:
        model.compile(tf.keras.optimizers.SGD(0.05), "mse")
        model.fit(X[:24], Y[:24], batch_size=12, shuffle=False, verbose=0)
        return model.get_weights()

    monkeypatch.setattr(Centred, "meets", meets)
    if meets:
        close(alone(4, train, make), alone(1, train, make))
    else:
        with pytest.raises(RuntimeError, match="needs meets = True"):
            alone(4, train, make)
