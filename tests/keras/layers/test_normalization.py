"""Normalizing layers: moving averages over shards, masks, half precision, errors."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import worker_shards
from distgrad.data.loader import Loader
from distgrad.data.source import ArraySource
from distgrad.keras import layers
from distgrad.testing.thread_world import run_world
from distgrad.training.reduction import ShardResult
from distgrad.training.step import TrainStep

RNG = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


# The moving averages in training: one update per step, whoever runs the shards.


def after_steps(
    world_size: int, x: np.ndarray, shards: int, steps: int, **options
) -> tuple[list[np.ndarray], list[list[int]]]:
    """Moving mean and variance after steps over the whole of ``x``; who was in which shard."""
    networks = []
    for _ in range(world_size):
        layer = layers.BatchNormalization(momentum=0.75, **options)
        layer.build((None, x.shape[1]))
        networks.append(layer)

    def work(c: Communicator) -> tuple:
        layer, seen = networks[c.rank], []

        def compute(arrays: tuple, training: bool) -> ShardResult:
            seen.append(arrays[1].tolist())
            y = layer(arrays[0], training=training)
            return ShardResult(tf.reduce_mean(tf.square(y - 1.0)), np.zeros(0))

        step = TrainStep(
            compute,
            0,
            layer.trainable_variables,
            tf.keras.optimizers.SGD(0.1),
            c,
            shards,
            11,
            state=layer.non_trainable_variables,
        )
        own = worker_shards(shards, c.rank, c.world_size)
        source = ArraySource(x, np.arange(len(x)))
        for number in range(steps):
            (batch,) = Loader(source, len(x), shards, own, 11).epoch(number)
            step(number, batch)
        return layer.get_weights(), seen

    ranks = run_world(world_size, work)
    for weights, _ in ranks:
        for mine, first in zip(weights, ranks[0][0], strict=True):
            assert mine.tobytes() == first.tobytes()
    return ranks[0][0], [rows for _, seen in ranks for rows in seen]


def test_one_update_per_step_with_the_mean_over_the_shards() -> None:
    x = 2 * normal(10, 3) + 1  # shards of 3, 3, 2, 2
    (_, _, mean, variance), seen = after_steps(1, x, 4, 1)
    assert sorted(map(len, seen)) == [2, 2, 3, 3]
    of_shards = [(len(rows) / 10, x[rows].mean(0), x[rows].var(0)) for rows in seen]
    expected = 0.25 * sum(share * m for share, m, _ in of_shards)
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)
    expected = 0.75 + 0.25 * sum(share * v for share, _, v in of_shards)
    np.testing.assert_allclose(variance, expected, rtol=1e-5)


def test_the_same_bits_at_any_number_of_workers() -> None:
    x = normal(10, 3)
    alone, _ = after_steps(1, x, 4, 3)
    for world_size in (2, 4):
        for mine, expected in zip(after_steps(world_size, x, 4, 3)[0], alone, strict=True):
            assert mine.tobytes() == expected.tobytes(), f"{world_size} workers"
    others, _ = after_steps(1, x, 2, 3)  # other shards have other moments
    assert others[2].tobytes() != alone[2].tobytes() or others[3].tobytes() != alone[3].tobytes()


def test_renormalised_steps_have_the_same_bits_at_any_number_of_workers() -> None:
    x, options = normal(10, 3), {"renorm": True, "renorm_clipping": {"rmax": 1.5, "dmax": 0.1}}
    alone, _ = after_steps(1, x, 4, 3, **options)
    for mine, expected in zip(after_steps(2, x, 4, 3, **options)[0], alone, strict=True):
        assert mine.tobytes() == expected.tobytes()


def renormalised(x: np.ndarray, state: list[np.ndarray], **clipping: float) -> np.ndarray:
    """What the paper gives, for running statistics (mean, deviation) and no scale."""
    mean, deviation = x.mean(0), np.sqrt(x.var(0) + 1e-3)
    r = np.clip(deviation / state[1], clipping.get("rmin", 0), clipping.get("rmax", np.inf))
    d = (mean - state[0]) / state[1]
    d = np.clip(d, -clipping.get("dmax", np.inf), clipping.get("dmax", np.inf))
    return (x - mean) / deviation * r + d


@pytest.mark.parametrize("clipping", [{}, {"rmax": 0.9, "dmax": 0.2}, {"rmin": 2.0}])
def test_renormalisation_goes_by_running_statistics(clipping: dict) -> None:
    layer = layers.BatchNormalization(
        renorm=True, renorm_clipping=clipping, renorm_momentum=0.5, center=False, scale=False
    )
    layer.build((None, 3))
    names = [w._name for w in layer.weights]
    assert names[2:] == ["moving_stddev", "renorm_mean", "renorm_stddev"]
    x, running = 2 * normal(6, 3) + 1, [normal(3), np.abs(normal(3)) + 0.5]
    layer.renorm_mean.assign(running[0])
    layer.renorm_stddev.assign(running[1])
    y = layer(x, training=True)
    np.testing.assert_allclose(y, renormalised(x, running, **clipping), rtol=1e-5, atol=1e-5)
    deviation = np.sqrt(x.var(0) + 1e-3)
    np.testing.assert_allclose(layer.renorm_mean, (running[0] + x.mean(0)) / 2, rtol=1e-5)
    np.testing.assert_allclose(layer.renorm_stddev, (running[1] + deviation) / 2, rtol=1e-5)
    moving = 0.99 + 0.01 * deviation
    np.testing.assert_allclose(layer.moving_stddev, moving, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, moving**2 - 1e-3, rtol=1e-5)


def test_corrections_have_no_gradient() -> None:
    """Without bounds the output is ``(x - running mean) / running deviation``; its gradient isn't
    that of it."""
    layer = layers.BatchNormalization(renorm=True, scale=False, center=False)
    x = tf.constant(normal(5, 2))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(layer(x, training=True))
    np.testing.assert_allclose(tape.gradient(y, x), np.zeros((5, 2)), atol=1e-5)


@pytest.mark.parametrize("clipping", [{"max": 1}, {"rmax": 1, "rmin": 2}, {"dmax": -1}])
def test_bounds_that_are_none(clipping: dict) -> None:
    with pytest.raises(ValueError, match="renorm_clipping"):
        layers.BatchNormalization(renorm=True, renorm_clipping=clipping)


def test_fit_moves_the_averages_and_evaluate_uses_them() -> None:
    x, y = 3 * normal(64, 4) + 5, normal(64, 1)
    model = tf.keras.Sequential([layers.BatchNormalization(momentum=0.5), layers.Dense(1)])
    model.compile(tf.keras.optimizers.SGD(0.01), "mse")
    model.fit(x, y, batch_size=64, epochs=3, verbose=0)
    norm = model.layers[0]
    np.testing.assert_allclose(norm.moving_mean.numpy(), x.mean(0) * (1 - 0.5**3), rtol=1e-6)
    expected = 0.5**3 + x.var(0) * (1 - 0.5**3)
    np.testing.assert_allclose(norm.moving_variance.numpy(), expected, rtol=1e-6)
    before = norm.get_weights()
    model.evaluate(x, y, verbose=0)
    model.predict(x, verbose=0)
    for mine, old in zip(norm.get_weights(), before, strict=True):
        assert mine.tobytes() == old.tobytes()


def test_a_frozen_layer_uses_its_averages_and_keeps_them() -> None:
    x = normal(6, 3)
    layer = layers.BatchNormalization()
    layer(x, training=True)
    before = layer.get_weights()
    layer.trainable = False
    assert layer.trainable_variables == []
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))
    for mine, old in zip(layer.get_weights(), before, strict=True):
        assert mine.tobytes() == old.tobytes()


def test_masked_positions_do_not_count() -> None:
    x = normal(4, 5, 3)
    keep = np.arange(5)[None] < np.array([[5], [3], [2], [1]])
    plain, masked = (layers.BatchNormalization(momentum=0.0) for _ in range(2))
    y = masked(x, training=True, mask=keep)
    np.testing.assert_allclose(y.numpy()[keep], plain(x[keep], training=True), atol=1e-5)
    x[~keep] = 1e6
    np.testing.assert_array_equal(
        masked(x, training=True, mask=keep).numpy()[keep], y.numpy()[keep]
    )
    np.testing.assert_allclose(masked.moving_mean, plain.moving_mean, atol=1e-6)
    np.testing.assert_allclose(masked.moving_variance, plain.moving_variance, rtol=1e-5)


def test_statistics_of_half_precision_are_taken_in_float32() -> None:
    x = (400 + normal(16, 8)).astype(np.float16)  # its squares are beyond float16
    for layer in (
        layers.BatchNormalization(dtype="mixed_float16"),
        layers.LayerNormalization(dtype="mixed_float16"),
        layers.GroupNormalization(2, dtype="mixed_float16"),
        layers.RMSNormalization(dtype="mixed_float16"),
    ):
        y = layer(x, training=True)
        assert y.dtype == tf.float16
        assert {weight.dtype for weight in layer.weights} == {tf.float32}
        full = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
        expected = full(x.astype(np.float32), training=True).numpy()
        np.testing.assert_allclose(y.numpy(), expected, atol=2e-3)  # float16 has 11 bits
        for mine, theirs in zip(layer.get_weights(), full.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_several_channels_of_one_are_their_own_groups() -> None:
    x = normal(2, 5, 4)
    y = layers.GroupNormalization(-1, epsilon=0.0)(x)
    np.testing.assert_allclose(y.numpy().mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(y.numpy().std(1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "shape", "error", "words"),
    [
        (lambda: layers.BatchNormalization(axis=3), (2, 3), ValueError, "axis .3. is out of range"),
        (lambda: layers.LayerNormalization(axis=[1, 4]), (2, 3), ValueError, "out of range"),
        (lambda: layers.LayerNormalization(axis="x"), None, TypeError, "'x'"),
        (lambda: layers.GroupNormalization(0), None, ValueError, "positive int or -1, not 0"),
        (lambda: layers.GroupNormalization(4), (2, 6), ValueError, "4 groups do not divide 6"),
    ],
)
def test_errors(make, shape, error, words) -> None:
    with pytest.raises(error, match=words):
        make()(normal(*shape))


def test_a_mask_of_another_rank_is_an_error() -> None:
    with pytest.raises(ValueError, match="one axis less"):
        layers.BatchNormalization()(normal(2, 3, 4), training=True, mask=np.ones((2, 3, 4), bool))
