"""Captured training steps: the bits of eager ones on the NumPy executor, and what falls back."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import warnings

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm.tree import worker_shards
from distgrad.compile import eager as kernels
from distgrad.compile.captured import CaptureError
from distgrad.compile.llvm import engine
from distgrad.data.loader import cut
from distgrad.testing.thread_world import run_world
from distgrad.training import shard_program, world
from distgrad.training.reduction import ShardResult
from distgrad.training.step import TrainStep

pytestmark = pytest.mark.cpu

layers = tf.keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6, 6, 1)).astype(np.float32)
Y = RNG.integers(0, 4, 40)
WORDS = RNG.integers(0, 9, (40, 7))
WEIGHTS = RNG.uniform(0.1, 2.0, 40).astype(np.float32)

EXECUTORS = ["numpy", *(["generated"] if engine.available() else [])]


def dense():
    return [layers.Flatten(), layers.Dense(16, activation="relu"), layers.Dense(4)], X


def noisy():
    """Dropout, batch statistics and a regularizer: a key, assigned state and an extra loss."""
    return [
        layers.Conv2D(4, 3, activation="relu", kernel_regularizer="l2"),
        layers.BatchNormalization(),
        layers.MaxPooling2D(),
        layers.Dropout(0.3),
        layers.Flatten(),
        layers.Dense(4),
    ], X


def masked():
    """An embedding, whose gradient is of rows, and a mask, by which the loss is counted."""
    stack = [layers.Embedding(9, 5, mask_zero=True), layers.LSTM(6), layers.Dense(4)]
    return stack, WORDS


def recurrent():
    """Weights that are used at every time step."""
    return [layers.Reshape((6, 6)), layers.LSTM(5), layers.Dense(4)], X


MODELS = {"dense": dense, "noisy": noisy, "masked": masked, "recurrent": recurrent}


def train(
    build,
    communicator=None,
    *,
    executor="eager",
    shards=4,
    steps=3,
    size=40,
    optimizer="adam",
    weights=None,
    options=None,
):
    """Losses and metric sums of a few steps; hashes of the weights and the optimizer's state."""
    communicator = communicator or world.communicator()
    stack, x = build()
    model = tf.keras.Sequential(stack)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    arrays = (x, Y) if weights is None else (x, Y, weights)
    model.prepare(arrays)
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape).astype(np.float32) * 0.3)
    step = TrainStep.of(
        model, communicator, shards, 5, executor=executor, strict=True, **(options or {})
    )
    own = worker_shards(shards, communicator.rank, communicator.world_size)
    seen = []
    for number in range(steps):
        batch = cut(0, size, shards, own, lambda a, b: tuple(array[a:b] for array in arrays))
        result = step(number, batch)
        seen.append((result.loss, result.sums.tolist()))
    return seen, digest(model.variables), digest(model.optimizer.variables)


def digest(variables):
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in variables)).hexdigest()


@contextlib.contextmanager
def eager_on(executor):
    """Eager operations on the kernels that this executor's programs take."""
    before = kernels.used()
    kernels.use(executor)
    try:
        yield
    finally:
        kernels.use(before)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shards", [1, 3, 8])
def test_the_numpy_executor_has_the_bits_of_eager_steps(name, shards):
    """On NumPy's kernels. Uneven shards, too: 40 samples in 3."""
    with eager_on("numpy"):
        eager = train(MODELS[name], shards=shards)
    assert train(MODELS[name], shards=shards, executor="numpy") == eager


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.skipif("generated" not in EXECUTORS, reason="needs llvmlite, and a CPU with FMA")
def test_generated_kernels_are_close_to_eager_steps(name):
    """Within 64 units in the last place of the loss after a few steps."""
    eager, generated = (train(MODELS[name], executor=e)[0] for e in ("eager", "generated"))
    for (a, _), (b, _) in zip(eager, generated, strict=True):
        assert abs(a - b) <= 64 * np.spacing(np.float32(a))


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", ["noisy", "masked", "recurrent"])
@pytest.mark.parametrize("options", [{}, {"shard_optimizer": True}, {"overlap": True}])
def test_the_same_bits_for_any_number_of_workers(executor, name, options):
    alone = train(MODELS[name], executor=executor)
    small = {**options, "bucket_bytes": 64}

    def rank(communicator):
        return train(MODELS[name], communicator, executor=executor, options=small)

    for size in (2, 3, 4):
        for seen, weights, state in run_world(size, rank):
            assert (seen, weights) == alone[:2]
            assert "shard_optimizer" in options or state == alone[2]


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("size", [40, 19, 5])  # even shards, uneven ones, and empty ones
@pytest.mark.parametrize("options", [{}, {"shard_optimizer": True}, {"overlap": True}])
def test_sums_over_shards_have_the_same_bits_in_every_world(executor, size, options):
    """Where shards are added in registers, and where one of a worker's runs by itself."""
    steps = {"executor": executor, "shards": 8, "size": size}
    alone = train(dense, **steps)
    assert train(dense, **steps) == alone
    small = {**options, "bucket_bytes": 64}

    def rank(communicator):
        return train(dense, communicator, **steps, options=small)

    for workers in (2, 3, 4, 8):
        for seen, weights, state in run_world(workers, rank):
            assert (seen, weights) == alone[:2]
            assert "shard_optimizer" in options or state == alone[2]


@pytest.mark.skipif("generated" not in EXECUTORS, reason="needs llvmlite, and a CPU with FMA")
def test_gradients_of_shards_that_run_at_once_take_no_memory(monkeypatch):
    """Sums in registers need no place for each shard, however large the weights are."""
    seen = []
    kept = shard_program.ShardProgram.run

    def run(self, shards, *args):
        seen.append((len(shards), self.at_once))
        return kept(self, shards, *args)

    monkeypatch.setattr(shard_program, "_AT_ONCE", 1000)
    monkeypatch.setattr(shard_program.ShardProgram, "run", run)
    train(dense, executor="generated", shards=8)
    assert seen == [(8, 1000)] * 3


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("at_once", [1, 3, 5])
def test_how_many_shards_run_at_once_changes_no_bit(executor, at_once, monkeypatch):
    steps = {"executor": executor, "shards": 8}
    wanted = train(noisy, **steps)
    kept = shard_program.ShardProgram.__init__

    def made(self, *args):
        kept(self, *args)
        self.at_once = at_once

    monkeypatch.setattr(shard_program.ShardProgram, "__init__", made)
    assert train(noisy, **steps) == wanted


@pytest.mark.parametrize("executor", EXECUTORS)
def test_weights_of_samples_clipping_and_a_schedule(executor):
    def optimizer():
        schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5)
        return tf.keras.optimizers.SGD(schedule, momentum=0.9, global_clipnorm=0.1)

    with eager_on(executor):
        eager = train(dense, optimizer=optimizer(), weights=WEIGHTS)
    captured = train(dense, optimizer=optimizer(), weights=WEIGHTS, executor=executor)
    if executor == "numpy":
        assert captured == eager
    for (a, _), (b, _) in zip(eager[0], captured[0], strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def step_of(compute, variables, **options):
    made = TrainStep(
        compute,
        0,
        variables,
        tf.keras.optimizers.SGD(0.1),
        world.communicator(),
        2,
        0,
        **{"executor": "numpy", **options},
    )
    return lambda n, x: made(n, cut(0, len(x), 2, range(2), lambda a, b: (x[a:b],)))


def test_a_step_that_looks_at_values_runs_eagerly_after_one_warning():
    w = tf.Variable([1.0, 2.0])
    looked = []

    def compute(arrays, training):
        loss = tf.reduce_mean(w * arrays[0])
        if float(loss) > 0:  # the line to be shown
            looked.append(1)
        return ShardResult(loss, np.zeros(0))

    step = step_of(compute, [w])
    with pytest.warns(UserWarning, match=r"runs eagerly.*test_programs\.py:\d+: if float") as seen:
        for number in range(3):
            step(number, np.ones((4, 2), np.float32))
    assert len(seen) == 1
    assert len(looked) == 6  # two shards of three steps
    with pytest.raises(CaptureError, match="if float"):
        step_of(compute, [w], strict=True)(0, np.ones((4, 2), np.float32))


def test_the_short_last_batch_counts_for_nothing():
    """Any number of sizes is one shape of samples."""
    w = tf.Variable([1.0, 2.0])
    step = step_of(
        lambda arrays, training: ShardResult(tf.reduce_mean(w * arrays[0]), np.zeros(0)),
        [w],
        strict=True,
    )
    for size in range(2, 40):
        step(size, np.ones((size, 2), np.float32))


def test_too_many_shapes_of_samples_run_eagerly():
    w = tf.Variable(1.0)
    step = step_of(
        lambda arrays, training: ShardResult(tf.reduce_mean(w * arrays[0]), np.zeros(0)), [w]
    )
    with pytest.warns(UserWarning, match=r"16 shapes of samples.*pad them"):
        for size in range(1, 20):
            step(size, np.ones((4, size), np.float32))


def test_variables_that_others_hold_keep_their_old_value():
    """A tensor read from a variable before the step is a value, not a window."""
    w = tf.Variable([1.0, 2.0])
    held = w.read_value() if hasattr(w, "read_value") else tf.identity(w)
    window = w.value()
    step = step_of(
        lambda arrays, training: ShardResult(tf.reduce_mean(w * arrays[0]), np.zeros(0)), [w]
    )
    step(0, np.ones((4, 2), np.float32))
    np.testing.assert_array_equal(held, [1.0, 2.0])
    np.testing.assert_array_equal(window, [1.0, 2.0])
    assert (w.numpy() != [1.0, 2.0]).all()


def test_a_variable_without_a_gradient_is_left_as_it_is():
    w, alone = tf.Variable([1.0, 2.0]), tf.Variable([5.0])
    step = step_of(
        lambda arrays, training: ShardResult(tf.reduce_mean(w * arrays[0]), np.zeros(0)),
        [w, alone],
    )
    with pytest.warns(UserWarning, match="no gradient"):
        step(0, np.ones((4, 2), np.float32))
    np.testing.assert_array_equal(alone.numpy(), [5.0])


def test_fit_says_what_it_cannot_capture_and_keras_options_choose():
    x = RNG.normal(size=(8, 3)).astype(np.float32)

    class Looking(tf.keras.layers.Layer):
        def call(self, x):
            return x * (2.0 if float(tf.reduce_sum(x)) > 0 else 1.0)

    def fit(**options):
        model = tf.keras.Sequential([Looking(), layers.Dense(1)])
        model.compile("sgd", "mse", **options)
        model.fit(x, x[:, :1], verbose=0)

    with pytest.warns(UserWarning, match=r"runs eagerly.*float\(tf\.reduce_sum") as seen:
        fit()
    assert seen[0].filename == __file__  # that is where users look
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(jit_compile=False)
        fit(run_eagerly=True)
    with pytest.raises(CaptureError):
        fit(jit_compile=True)
    with pytest.raises(ValueError, match="both eagerly and compiled"):
        fit(jit_compile=True, run_eagerly=True)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", ["dense", "noisy", "recurrent"])
def test_shards_of_one_worker_run_at_once(executor, name, monkeypatch):
    """And give the bits that they give one by one."""
    tried = []
    kept = shard_program.ShardProgram._agrees

    def agrees(self, *args):
        tried.append(kept(self, *args))
        return tried[-1]

    monkeypatch.setattr(shard_program.ShardProgram, "_agrees", agrees)
    at_once = train(MODELS[name], executor=executor, shards=8)
    assert tried and all(tried)
    monkeypatch.setattr(shard_program.ShardProgram, "joins", lambda self, *args: False)
    assert train(MODELS[name], executor=executor, shards=8) == at_once


@pytest.mark.parametrize("executor", EXECUTORS)
def test_shards_that_lie_apart_have_the_same_bits(executor, monkeypatch):
    """Arrays of shards are laid side by side where they are no parts of one array."""
    together, before = train(dense, executor=executor, shards=8), cut

    def apart(*args):
        batch = before(*args)
        copies = [(i, tuple(array.copy() for array in shard)) for i, shard in batch.shards]
        return dataclasses.replace(batch, shards=copies)

    monkeypatch.setitem(globals(), "cut", apart)
    assert train(dense, executor=executor, shards=8) == together


def test_shards_of_one_row_have_the_same_bits_at_every_step(monkeypatch):
    """Whoever has how many of them: that they agree in the first step would not be enough."""
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", "4")
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(80, 12)).astype(np.float32), rng.integers(0, 3, 80)

    def fit():
        tf.keras.utils.set_random_seed(3)
        layers = tf.keras.layers
        stack = [layers.Dense(17, "relu"), layers.Dropout(0.3), layers.Dense(3, "softmax")]
        model = tf.keras.Sequential(stack)
        sgd = tf.keras.optimizers.SGD(0.1)
        loss = "sparse_categorical_crossentropy"
        model.compile(sgd, loss, metrics=["accuracy"], jit_compile=True)
        model.fit(x, y, batch_size=4, epochs=6, verbose=0)
        return [v.numpy().tobytes() for v in model.variables]

    given = fit()
    monkeypatch.setattr(shard_program.ShardProgram, "joins", lambda self, *args: False)
    assert fit() == given


def test_what_is_not_given_is_none():
    w = tf.Variable([1.0, 2.0])

    def compute(arrays, training):
        assert arrays[1] is None
        return ShardResult(tf.reduce_mean(w * arrays[0]), np.zeros(0))

    made = TrainStep(
        compute, 0, [w], tf.keras.optimizers.SGD(0.1), world.communicator(), 2, 0,
        executor="numpy", strict=True,
    )  # fmt: skip
    x = np.ones((4, 2), np.float32)
    made(0, cut(0, 4, 2, range(2), lambda a, b: (x[a:b], None)))
    np.testing.assert_allclose(w.numpy(), [0.95, 1.95])
