"""What ranks compare in fit, evaluate and train_on_batch, in a world of threads."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm.communicator import Communicator
from distgrad.core.errors import DesyncError, JobError, UsageError
from distgrad.keras.described import described, of_model
from distgrad.testing.thread_world import run_world
from distgrad.training import world

keras, layers = tf.keras, tf.keras.layers
adam, sgd = keras.optimizers.Adam, keras.optimizers.SGD
X = np.random.default_rng(0).normal(size=(24, 4)).astype("f")
Y = X[:, :1] - X[:, 1:2]
FIT = {"batch_size": 8, "verbose": 0}


class Scaled(layers.Layer):
    """A layer of a user's, with what only this process knows."""

    def __init__(self, log: str, **options: Any) -> None:
        super().__init__(**options)
        self.log, self.rank_of_log = log, hash(log)

    def call(self, x):
        return x * 2.0


def made(rank: int, activation: str = "relu", rate: float = 0.1, **options: Any) -> Any:
    keras.utils.set_random_seed(1)
    stack = [layers.Dense(3, activation), layers.Dropout(rate, seed=rank), layers.Dense(1)]
    model = keras.Sequential(stack)
    given = {"optimizer": adam(0.01), "loss": "mse", "metrics": ["mae"], **options}
    model.compile(**given)
    return model


@pytest.fixture
def on_ranks(monkeypatch) -> Callable[..., list[str | None]]:
    """Calls a function on two ranks: what each raises, as text with its notes, or None."""
    here = threading.local()
    monkeypatch.setattr(world, "communicator", lambda: here.c)
    makes = threading.Lock()

    def play(work: Callable[[int, Any], object], c: Communicator) -> str | None:
        here.c = c
        with makes:  # a seed is one for all threads
            model = made(c.rank)
        try:
            work(c.rank, model)
        except JobError as error:
            told = " ".join([str(error), *getattr(error, "__notes__", [])])
            return f"{type(error).__name__}: {told}"
        return None

    return lambda work: run_world(2, functools.partial(play, work), time_limit=30)


def told(found: list[str | None], kind: type[JobError], text: str) -> None:
    """Both ranks say the same."""
    assert found[0] is not None and found[0] == found[1]
    assert found[0].startswith(f"{kind.__name__}: {text}"), found[0]


def differing(**options: Any) -> Callable[[int, Any], object]:
    """Compiles with what each rank has of each option, and trains."""

    def work(rank: int, model: Any) -> None:
        model.compile(**{"loss": "mse", **{name: each[rank] for name, each in options.items()}})
        model.fit(X, Y, **FIT)

    return work


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"optimizer": lambda: [adam(0.01), adam(0.02)]}, "optimizer.learning_rate is 0.02 on ra"),
        ({"optimizer": lambda: [adam(), adam(beta_1=0.8)]}, "optimizer.beta_1 is 0.8 on rank 1 an"),
        ({"optimizer": lambda: [adam(), sgd()]}, "optimizer.class is SGD on rank 1 and Adam on ra"),
        (
            {"optimizer": lambda: [sgd(weight_decay=w) for w in (None, 0.1)]},
            "optimizer.weight_decay is 0.1 on rank 1 and None on rank 0: every worker must",
        ),
        (
            {
                "optimizer": lambda: [
                    adam(keras.optimizers.schedules.ExponentialDecay(0.1, n, 0.5)) for n in (2, 3)
                ]
            },
            "optimizer.learning_rate.decay_steps is 3 on rank 1 and 2 on rank 0",
        ),
        ({"loss": lambda: ["mse", "mae"]}, "loss is mae on rank 1 and mse on rank 0"),
        (
            {"loss": lambda: [lambda a, b: b - a, lambda a, b: a + b]},
            "loss is <lambda> #",
        ),
        ({"metrics": lambda: [["mae"], ["mse"]]}, "metrics.0 is mse on rank 1 and mae on rank 0"),
        ({"jit_compile": lambda: ["auto", False]}, "jit_compile is off on rank 1 and auto on ran"),
    ],
)
def test_what_was_compiled_otherwise_is_named(on_ranks, options, text) -> None:
    given = {name: make() for name, make in options.items()}
    told(on_ranks(differing(**given)), UsageError, text)


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("epochs", (1, 2), "epochs is 2 on rank 1 and 1 on rank 0: every worker must give fit"),
        ("initial_epoch", (0, 1), "initial_epoch is 1"),
        ("batch_size", (8, 4), "x.batch_size is 4"),
        ("shuffle", (True, False), "shuffle is False"),
        ("class_weight", (None, {0: 2.0}), "class_weight is {'0': 2.0} on rank 1 and None on"),
        ("validation_split", (0.25, 0.5), "validation_split is 0.5"),
        ("validation_data", (None, (X, Y)), "validation_data is {'batch_size': 8"),
        ("sample_weight", (None, np.ones(24)), "x.arrays is ["),
    ],
)
def test_what_fit_was_given_otherwise_is_named(on_ranks, name, values, text) -> None:
    def work(rank: int, model: Any) -> None:
        model.fit(X, Y, **{**FIT, name: values[rank]})

    told(on_ranks(work), UsageError, text)


def test_another_model_is_named(on_ranks) -> None:
    models = [made(0), made(1, rate=0.3)], [made(0), made(1, "tanh")], [made(0), made(1)]
    models[2][1].layers[0].trainable = False
    texts = ("1.rate is 0.3", "0.activation is tanh", "0.trainable is False")
    for each, text in zip(models, texts, strict=True):
        found = on_ranks(lambda rank, _, each=each: each[rank].fit(X, Y, **FIT))
        told(found, UsageError, f"layers.{text}")


class TwoOptimizers(keras.Model):
    """A step of its own, with an optimizer that compile does not know."""

    def __init__(self, own: Any) -> None:
        super().__init__()
        self.layer, self.own = layers.Dense(1), own

    def call(self, x):
        return self.layer(x)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.own.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


def test_another_optimizer_of_a_step_of_ones_own_is_named(on_ranks) -> None:
    def work(rank: int, _: Any) -> None:
        model = TwoOptimizers(adam(beta_1=0.9 - 0.1 * rank))
        model.compile(adam(), "mse")
        model.fit(X, Y, **FIT)

    told(on_ranks(work), UsageError, "optimizer.beta_1 is 0.8 on rank 1 and 0.9 on rank 0: every")


def test_what_may_differ_is_let_be(on_ranks) -> None:
    """Names, seeds, initial values, verbosity, what only a user's class knows, and state that one
    rank has restored: those of rank 0 are given to all."""
    weights = [[], []]

    def work(rank: int, _: Any) -> None:
        stack = [
            layers.Dense(3, kernel_initializer=["zeros", "ones"][rank]),
            Scaled(f"log_{rank}"),
            layers.Lambda(lambda x: x + 0.0),
            layers.Dense(1),
        ]
        model = keras.Sequential(stack, name=f"of_{rank}")
        metric = keras.metrics.MeanAbsoluteError(name=f"metric_{rank}")
        model.compile(adam(0.01, name=f"adam_{rank}"), "mse", metrics=[metric])
        model.fit(X, Y, batch_size=8, verbose=0)
        if rank == 0:
            model.optimizer.iterations.assign(100)
            model.optimizer.learning_rate = 0.5
        model.fit(X, Y, batch_size=8, verbose=0)
        assert float(model.optimizer.learning_rate.numpy()) == 0.5
        weights[rank] = [w.tolist() for w in model.get_weights()]

    assert on_ranks(work) == [None, None]
    assert weights[0] == weights[1]


class Does(keras.callbacks.Callback):
    def __init__(self, what: Callable[[Any], object], at: str, mine: bool) -> None:
        super().__init__()
        self.what, self.at, self.mine = what, at, mine

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.mine and self.at == "batch":
            self.what(self.model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.mine and self.at == "epoch":
            self.what(self.model)


def on_rank_1(what: Callable[[Any], object], at: str) -> Callable[[int, Any], object]:
    return lambda rank, model: model.fit(X, Y, callbacks=[Does(what, at, rank == 1)], **FIT)


def test_what_a_callback_changes_on_one_rank_alone_is_named_in_a_short_fit(on_ranks) -> None:
    def rate(model: Any) -> None:
        model.optimizer.learning_rate = 0.5

    found = on_ranks(on_rank_1(rate, "epoch"))
    told(found, DesyncError, "the ranks no longer have the same weights after step 1: dense/ker")
    assert found[0].endswith(
        "in that step. optimizer.learning_rate is 0.5 on rank 1 and 0.01 on rank 0."
    )

    def weight(model: Any) -> None:
        model.layers[0].bias.assign_add(np.ones(3, "f"))

    told(on_ranks(on_rank_1(weight, "batch")), DesyncError, "the ranks no longer have the same wei")


def test_one_rank_that_stops_within_an_epoch_is_told_of(on_ranks) -> None:
    def stop(model: Any) -> None:
        model.stop_training = True

    assert "(model.stop_training)" in " ".join(map(str, on_ranks(on_rank_1(stop, "batch"))))


def test_batches_of_other_lengths_are_named(on_ranks) -> None:
    def work(rank: int, model: Any, sizes: Any) -> None:
        model.fit(((X[:n], Y[:n]) for n in sizes[rank]), verbose=0)

    first = functools.partial(work, sizes=[(8, 8), (6, 8)])
    told(on_ranks(first), UsageError, "x.first_batch.0 is 6 rows on rank 1 and 8 rows on rank 0")
    later = functools.partial(work, sizes=[(8, 8), (8, 6)])
    told(on_ranks(later), UsageError, "rank 1 was given 14 samples in epoch 1, rank 0 16: every")


def test_batches_of_other_lengths_in_a_step_of_ones_own_are_named_at_once(on_ranks) -> None:
    def work(rank: int, _: Any) -> None:
        model = TwoOptimizers(adam())
        model.compile(adam(), "mse")
        model.fit(((X[:n], Y[:n]) for n in (8, 8 - 2 * rank)), verbose=0)

    told(on_ranks(work), UsageError, "rank 1 was given a batch of 6, rank 0 one of 8: every worker")


def test_train_on_batch_compares_weights_after_its_first_steps(on_ranks) -> None:
    def work(rank: int, model: Any) -> None:
        model.compile(sgd(lambda: 0.1 + rank), "mse")
        model.train_on_batch(X, Y)

    told(on_ranks(work), DesyncError, "the ranks no longer have the same weights after step 1")


def test_evaluate_and_train_on_batch_compare_what_they_were_given(on_ranks) -> None:
    tried = [
        (lambda r, m: m.evaluate(X[r:], Y[r:], verbose=0), "x.arrays.0 is [23, 4] float32 on rank"),
        (lambda r, m: m.evaluate(X + r, Y, verbose=0), "rank 1 was given other data than rank 0"),
        (lambda r, m: m.evaluate(X, Y, 8 - r, verbose=0), "x.batch_size is 7 on rank 1"),
        (lambda r, m: m.train_on_batch(X[r:], Y[r:]), "x.batch_size is 23 on rank 1 and 24"),
    ]
    for work, text in tried:
        told(on_ranks(work), UsageError, text)


def test_evaluate_begins_with_the_weights_of_rank_0(on_ranks) -> None:
    results: dict[int, Any] = {}

    def work(rank: int, model: Any) -> None:
        model.build((None, 4))
        model.set_weights([w + rank for w in model.get_weights()])
        results[rank] = *model.evaluate(X, Y, verbose=0), np.mean(np.square(model(X) - Y))

    with pytest.warns(UserWarning, match="other weights: .*kernel differs between rank 0 and rank"):
        assert on_ranks(work) == [None, None]
    assert results[0] == results[1]
    assert results[0][0] == pytest.approx(results[0][2])


def test_values_are_described_alike_wherever_they_lie() -> None:
    assert described(float("nan")) == "nan"
    assert described([np.float32(0.5), np.int64(3), (1, {2: None})]) == [0.5, 3, [1, {"2": None}]]
    assert described(object()) == described(object()) == {"class": "object"}
    assert described(np.ones(3)) == described(tf.ones([3], "float64")) != described(np.zeros(3))
    assert described(keras.losses.mse) == described(keras.losses.mse)
    models = [made(rank) for rank in range(2)]
    assert of_model(models[0]) == of_model(models[1])
    assert of_model(models[0])["layers"][1] == {
        "class": "Dropout",
        "trainable": True,
        "dtype": "float32",
        "rate": 0.1,
        "noise_shape": None,
    }
