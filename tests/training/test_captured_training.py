"""Everything that changes from step to step, captured: beside eager steps, and at any world size.

On the NumPy executor the weights are those of eager steps bit by bit. Generated kernels round exp
and its like otherwise: each loss lies within 4 units in the last place of the eager one (float32),
and what the optimizer decides from values (loss scale, skipped steps, learning rate) is the same.
"""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm.tree import worker_shards
from distgrad.compile import eager
from distgrad.compile.llvm import engine
from distgrad.data.loader import cut
from distgrad.testing.thread_world import run_world
from distgrad.training import world
from distgrad.training.step import TrainStep

from .models import LABELS, MODELS, TOKENS

pytestmark = pytest.mark.cpu

L, O = tf.keras.layers, tf.keras.optimizers
EXECUTORS = ["numpy", *(["generated"] if engine.available() else [])]


def warm_up():
    rate = O.schedules.CosineDecay(0.05, 10, warmup_steps=2, warmup_target=0.1)
    return O.SGD(rate, momentum=0.9)


OPTIMIZERS = {
    "schedule": warm_up,
    "clipnorm": lambda: O.Adam(0.01, clipnorm=0.05),
    "global_clipnorm": lambda: O.AdamW(0.01, global_clipnorm=0.05, weight_decay=0.1),
    "clipvalue": lambda: O.Adam(0.01, clipvalue=0.001),
    "average": lambda: O.Adam(0.01, use_ema=True, ema_overwrite_frequency=2),
}


def train(
    model,
    optimizer,
    executor,
    communicator=None,
    *,
    policy="float32",
    scale=None,
    steps=4,
    **options,
):
    """Losses, metric sums, all weights, and the optimizer's scalars after a few steps."""
    communicator = communicator or world.communicator()
    stack, x = MODELS[model](policy)
    net, made = tf.keras.Sequential(stack), OPTIMIZERS[optimizer]()
    if scale is not None:
        made = O.LossScaleOptimizer(made, initial_scale=scale, dynamic_growth_steps=2)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(made, loss, metrics=["accuracy"])
    net.prepare((x, LABELS))
    rng = np.random.default_rng(1)
    for variable in net.trainable_variables:
        variable.assign(rng.normal(size=variable.shape).astype(np.float32) * 0.3)
    step = TrainStep.of(
        net,
        communicator,
        4,
        5,
        stop_on_nan=False,
        executor=executor,
        strict=executor != "eager",
        **options,
    )
    own = worker_shards(4, communicator.rank, communicator.world_size)
    losses, sums = [], []
    for number in range(steps):
        batch = cut(0, 40, 4, own, lambda a, b: (x[a:b], LABELS[a:b]))
        result = step(number, batch)
        losses.append(result.loss)
        sums.append(result.sums.tolist())
    weights = [v.numpy().tobytes() for v in net.variables]
    scalars = {name: float(v.numpy()) for name, v in made.scalars.items()}
    return losses, sums, weights, scalars


def train_eagerly(executor, *args, **options):
    """By the kernels of the executor."""
    usual = eager.used()
    eager.use(executor)
    try:
        return train(*args, "eager", **options)
    finally:
        eager.use(usual)


def compare(plain, captured, executor, ulps=4):
    if executor == "numpy":
        assert captured == plain
    assert captured[3] == plain[3]
    for a, b in zip(plain[0], captured[0], strict=True):
        assert abs(a - b) <= ulps * np.spacing(np.float32(abs(a)))


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_an_optimizer_does_to_gradients(optimizer, executor):
    model = "image" if optimizer in ("schedule", "clipnorm") else "transformer"
    plain = train_eagerly(executor, model, optimizer)
    compare(plain, train(model, optimizer, executor), executor)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_half_precision_under_a_loss_scale_that_adapts(model, executor):
    """The first scale is too large for float16: steps are left out until it has come down.

    The rounding of float16, 2**-11, makes a difference of a few units in float32 a larger one at
    times: 256 units here.
    """
    scale = 2.0**19 if model == "image" else 2.0**22
    options = {"policy": "mixed_float16", "scale": scale, "steps": 6}
    plain = train_eagerly(executor, model, "clipnorm", **options)
    assert 0 < plain[3]["iterations"] < 6
    compare(plain, train(model, "clipnorm", executor, **options), executor, ulps=256)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
@pytest.mark.parametrize("model", MODELS)
def test_bfloat16(model, policy, executor):
    """A last bit of float32 may turn a rounding to bfloat16, 2**-8, of something that adds up."""
    plain = train_eagerly(executor, model, "clipnorm", policy=policy)
    captured = train(model, "clipnorm", executor, policy=policy)
    compare(plain, captured, executor, ulps=2**14)
    assert plain[3]["iterations"] == 4


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("model", ["image", "transformer"])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
@pytest.mark.parametrize("options", [{}, {"shard_optimizer": True, "overlap": True}])
def test_the_same_bits_for_any_number_of_workers(model, executor, policy, options):
    """Four shards on one worker, which accumulates them, up to one on each of four."""
    half = {"policy": policy, "bucket_bytes": 256}
    if policy == "mixed_float16":
        half["scale"] = 2.0**10

    def rank(communicator=None):
        return train(model, "global_clipnorm", executor, communicator, **half, **options)

    alone = rank()
    for size in (2, 3, 4):
        assert all(found == alone for found in run_world(size, rank))


class Shrinking(L.Layer):
    """Assigns a weight that is trained, as the layer of a user may."""

    def build(self, shape):
        self.scale = self.add_weight(shape[-1:], "ones", name="scale")

    def call(self, x, training=False):
        if training:
            self.scale.assign(self.scale * 0.75 + 0.01 * tf.reduce_mean(x, [0, 1]))
        return x * self.scale


def tag(executor, communicator=None):
    """The weights after two steps whose loss counts the places that are there."""
    communicator = communicator or world.communicator()
    optimizer = O.SGD(0.1)
    net = tf.keras.Sequential(
        [
            L.Embedding(9, 5, mask_zero=True),
            L.BatchNormalization(momentum=0.5),
            Shrinking(),
            L.Dense(9),
        ]
    )
    net.compile(optimizer, tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    net.prepare((TOKENS, TOKENS))
    rng = np.random.default_rng(1)
    for variable in net.trainable_variables:
        variable.assign(rng.normal(size=variable.shape).astype(np.float32) * 0.3)
    strict = executor != "eager"
    step = TrainStep.of(net, communicator, 4, 5, executor=executor, strict=strict)
    own = worker_shards(4, communicator.rank, communicator.world_size)
    for number in range(2):
        step(number, cut(0, 40, 4, own, lambda a, b: (TOKENS[a:b], TOKENS[a:b])))
    return [v.numpy() for v in net.variables]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_what_layers_assign_is_assigned_once(executor):
    """Also where the loss is a mean over what a mask keeps, which is counted beforehand."""
    for mine, plain in zip(tag(executor), tag("eager"), strict=True):
        np.testing.assert_allclose(mine, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("executor", ["eager", *EXECUTORS])
def test_a_trained_weight_that_a_layer_assigns(executor):
    """It becomes the mean over the shards, whoever runs them."""

    def rank(communicator=None):
        return [weight.tobytes() for weight in tag(executor, communicator)]

    alone = rank()
    for size in (2, 4):
        assert all(found == alone for found in run_world(size, rank))
    assert np.frombuffer(alone[3], np.float32).max() < 0.4  # twice three quarters of it
