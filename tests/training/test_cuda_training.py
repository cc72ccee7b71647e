"""Training steps captured on a GPU: beside eager ones, and at any world size.

Captured steps sum rows, and multiply matrices, in another order than eager ones: their losses agree
to 1e-5, and to 1e-2 in half precision. Between captured runs every bit is the same.
"""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm.tree import worker_shards
from distgrad.compile import cupy_exec
from distgrad.data.loader import cut
from distgrad.testing.thread_world import run_world
from distgrad.training import world
from distgrad.training.programs import executor_for
from distgrad.training.step import TrainStep

from .models import IMAGES, LABELS, MODELS

L, O = tf.keras.layers, tf.keras.optimizers
pytestmark = pytest.mark.usefixtures("on_gpu")


class Run:
    """A model and its training step, from weights that are always the same."""

    def __init__(self, model, executor, communicator=None, policy="float32", scale=None, **options):
        communicator = communicator or world.communicator()
        stack, self.x = MODELS[model](policy)
        self.net = tf.keras.Sequential(stack)
        rate = O.schedules.CosineDecay(0.05, 10, warmup_steps=2, warmup_target=0.1)
        self.optimizer = O.Adam(rate, global_clipnorm=0.5)
        if scale is not None:
            self.optimizer = O.LossScaleOptimizer(self.optimizer, scale, dynamic_growth_steps=2)
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.net.compile(self.optimizer, loss, metrics=["accuracy"])
        self.net.prepare((self.x, LABELS))
        rng = np.random.default_rng(1)
        for variable in self.net.trainable_variables:
            variable.assign(rng.normal(size=variable.shape).astype(np.float32) * 0.3)
        self.own = worker_shards(4, communicator.rank, communicator.world_size)
        self.make = lambda: TrainStep.of(
            self.net,
            communicator,
            4,
            5,
            stop_on_nan=False,
            executor=executor,
            strict=executor != "eager",
            **options,
        )
        self.step = self.make()

    def __call__(self, steps):
        """Losses and metric sums; every third batch is a short one, of uneven shards."""
        found = []
        for number in steps:
            stop = 37 if number % 3 == 2 else 40
            batch = cut(0, stop, 4, self.own, lambda a, b: (self.x[a:b], LABELS[a:b]))
            result = self.step(number, batch)
            found.append((result.loss, result.sums.tolist()))
        return found

    def weights(self):
        state = [v.numpy().tobytes() for v in self.net.variables]
        return state, {name: float(v.numpy()) for name, v in self.optimizer.scalars.items()}


def test_a_gpu_runs_graphs():
    assert executor_for("auto") == executor_for("strict") == "cuda"
    assert executor_for("off") == executor_for("numpy") == "eager"


@pytest.mark.parametrize("model", MODELS)
def test_losses_are_those_of_eager_steps(model):
    eager, captured = Run(model, "eager"), Run(model, "cuda")
    steps = range(5)
    for (a, sums), (b, found) in zip(eager(steps), captured(steps), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5)
        assert found == sums
    assert captured.weights()[1] == eager.weights()[1]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_half_precision_under_a_loss_scale_that_adapts(model):
    options = {"policy": "mixed_float16", "scale": 2.0**22}
    eager, captured = Run(model, "eager", **options), Run(model, "cuda", **options)
    pairs = zip(eager(range(5)), captured(range(5)), strict=True)
    for (a, _), (b, _) in pairs:
        np.testing.assert_allclose(b, a, rtol=1e-2)
    assert captured.weights()[1] == eager.weights()[1]
    assert eager.weights()[1]["iterations"] < 5


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
@pytest.mark.parametrize("model", MODELS)
def test_bfloat16(model, policy):
    eager, captured = Run(model, "eager", policy=policy), Run(model, "cuda", policy=policy)
    for (a, _), (b, _) in zip(eager(range(5)), captured(range(5)), strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-2)
    assert captured.weights()[1] == eager.weights()[1]


@pytest.mark.parametrize("model", ["image", "transformer"])
@pytest.mark.parametrize(
    "options",
    [{}, {"shard_optimizer": True, "overlap": True}, {"policy": "mixed_bfloat16"}],
    ids=str,
)
def test_the_same_bits_for_any_number_of_workers(model, options):
    """Four shards on one worker, up to one on each of four, which share the device."""

    def rank(communicator=None):
        run = Run(model, "cuda", communicator, bucket_bytes=256, **options)
        return run(range(4)), run.weights()

    alone = rank()
    for size in (2, 3, 4):
        assert all(found == alone for found in run_world(size, rank))


def test_the_same_bits_without_graphs(monkeypatch):
    found = []
    for on in (True, False):
        monkeypatch.setattr(cupy_exec, "graphs", on)
        run = Run("transformer", "cuda")
        found.append((run(range(4)), run.weights()))
    assert found[0] == found[1]


def test_the_same_bits_when_programs_are_made_anew():
    """As a run that is resumed makes them, in the middle."""
    whole, resumed = Run("image", "cuda"), Run("image", "cuda")
    expected = whole(range(5))
    first = resumed(range(2))
    resumed.step = resumed.make()
    assert first + resumed(range(2, 5)) == expected
    assert resumed.weights() == whole.weights()


def test_fit_captures_by_itself():
    tf.keras.utils.set_random_seed(1)
    model = tf.keras.Sequential([L.Dense(8, activation="tanh"), L.Dropout(0.2), L.Dense(4)])
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=True)
    history = model.fit(IMAGES[:, 0, :, 0], LABELS, batch_size=16, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
