"""The data-parallel step: the same bits for any number of workers, and the right numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import worker_shards
from distgrad.core.errors import DivergedError, UsageError
from distgrad.data.loader import Loader
from distgrad.data.source import ArraySource
from distgrad.testing.thread_world import run_world
from distgrad.training.evaluation import evaluate
from distgrad.training.reduction import ShardResult
from distgrad.training.step import TrainStep

from .models import bits, network, samples

SEED = 11


def loader(source: ArraySource, c: Communicator, batch: int, shards: int, **how) -> Loader:
    own = worker_shards(shards, c.rank, c.world_size)
    return Loader(source, batch, shards, own, SEED, **how)


def train(world_size: int, source: ArraySource, batch: int, shards: int) -> tuple:
    """Two epochs on a world of threads: what every rank has at the end, which must be equal."""
    # Made here: the global random stream belongs to all threads.
    models = [network() for _ in range(world_size)]

    def work(c: Communicator) -> tuple:
        model = models[c.rank]
        step = TrainStep.of(model, c, shards, SEED)
        batches = loader(source, c, batch, shards)
        results, number = [], 0
        for epoch in range(2):
            for part in batches.epoch(epoch):
                results.append(step(number, part))
                number += 1
        losses = [(result.loss, result.sums.tobytes()) for result in results]
        held_out = loader(source, c, batch, shards, shuffle=False).epoch(0)
        tested, sums = evaluate(model.compute, model.sums_size, held_out, c, shards)
        state = [*model.trainable_variables, *model.optimizer.variables]
        return bits(state), losses, tested, sums.tobytes()

    ranks = run_world(world_size, work, time_limit=100)
    assert all(rank == ranks[0] for rank in ranks)
    return ranks[0]


@pytest.mark.parametrize("shards", [4, 5, 6, 7])
@pytest.mark.parametrize(
    ("count", "batch"),
    [
        (53, 20),  # a short last batch of 13
        (42, 20),  # a last batch of 2 samples: most shards are empty
    ],
)
def test_equal_bits_for_1_2_3_and_4_workers(shards: int, count: int, batch: int) -> None:
    source = ArraySource(*samples(count))
    alone = train(1, source, batch, shards)
    assert len(alone[1]) == 2 * math.ceil(count / batch)
    for world_size in (2, 3, 4):
        assert train(world_size, source, batch, shards) == alone, f"{world_size} workers"


def test_other_shards_are_other_bits() -> None:
    """The comparison above can fail: dropout and the order of the sum depend on the shards."""
    source = ArraySource(*samples(53))
    assert train(1, source, 20, 4)[0] != train(1, source, 20, 5)[0]


def test_more_workers_than_shards() -> None:
    with pytest.raises(UsageError, match="4 workers cannot share 3 virtual shards"):
        train(4, ArraySource(*samples(20)), 10, 3)


# Numbers by hand.


class Descent(tf.keras.optimizers.SGD):
    """Subtracts the gradient itself: what a step has summed is then easy to see."""

    def __init__(self) -> None:
        super().__init__(1.0)


def run_steps(
    world_size: int,
    make: Callable[[], list[tf.Variable]],
    compute: Callable[..., tuple],
    source: ArraySource,
    *,
    shards: int,
    batch: int,
    steps: int = 1,
    optimizer: Callable = Descent,
    **options,
) -> tuple[list[np.ndarray], list, list[np.ndarray]]:
    """The variables, the results of the steps and the optimizer's state, by rank 0."""
    groups = [make() for _ in range(world_size)]

    def work(c: Communicator) -> tuple:
        variables, chosen = groups[c.rank], optimizer()
        step = TrainStep(
            lambda arrays, training: ShardResult(*compute(variables, arrays)),
            0,
            variables,
            chosen,
            c,
            shards,
            SEED,
            **options,
        )
        parts = list(loader(source, c, batch, shards, shuffle=False).epoch(0))
        results = [step(number, parts[number % len(parts)]) for number in range(steps)]
        losses = np.array([result.loss for result in results])
        equal.append(bits([*variables, *chosen.variables]) + losses.tobytes())
        values = [np.array(variable.numpy()) for variable in variables]
        return values, results, [np.array(variable.numpy()) for variable in chosen.variables]

    equal: list[bytes] = []
    ranks = run_world(world_size, work)
    assert len(equal) == world_size and len(set(equal)) == 1
    return ranks[0]


X = np.array([1, 2, 4, 8, 16, 32, 64], np.float64)  # 7 samples: 3 shards of 2, 2 and 3
NOTHING = np.zeros(0)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("mean_loss", [True, False])
def test_mean_and_sum_losses_weigh_uneven_shards_rightly(world_size: int, mean_loss: bool) -> None:
    def compute(variables, arrays):
        losses = variables[0] * arrays[0]
        return (tf.reduce_mean if mean_loss else tf.reduce_sum)(losses), NOTHING

    values, (result,), _ = run_steps(
        world_size,
        lambda: [tf.Variable(3.0, dtype="float64")],
        compute,
        ArraySource(X),
        shards=3,
        batch=7,
        mean_loss=mean_loss,
    )
    gradient = X.mean() if mean_loss else X.sum()
    assert values[0] == pytest.approx(3 - gradient, rel=1e-14)
    assert result.loss == pytest.approx(3 * gradient, rel=1e-14)
    assert result.stop is False


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:no gradient for")
def test_a_variable_without_a_gradient_is_left_alone_while_others_are_updated(
    world_size: int,
) -> None:
    """Momentum does not move it either; nor do its neighbours in the arena."""

    def make() -> list[tf.Variable]:
        # Two dtypes, so that there are two arenas; the ones that pause lie between the others.
        return [
            tf.Variable(np.full(5, 1.0), dtype="float32", name="always"),
            tf.Variable(np.full(5, 2.0), dtype="float32", name="at first"),
            tf.Variable(np.full(3, 3.0), dtype="float64", name="at first, in float64"),
            tf.Variable(np.full(5, 4.0), dtype="float32", name="always, too"),
            tf.Variable(np.full(5, 5.0), dtype="float32", name="never"),
        ]

    def compute(variables, arrays):
        always, first, first64, too, _ = map(tf.reduce_mean, variables)
        loss = always + 2.0 * too
        if arrays[0].min() > 0:
            loss = loss + first + tf.cast(first64, "float32")
        return loss, NOTHING

    def after(steps: int) -> tuple:
        values, _, (iterations, _, *slots) = run_steps(
            world_size,
            make,
            compute,
            ArraySource(np.concatenate([X, -X])),
            shards=4,
            batch=7,
            steps=steps,
            optimizer=lambda: tf.keras.optimizers.Adam(0.1),
        )
        assert iterations == steps
        return values, slots[::2], slots[1::2]

    one, two = after(1), after(2)  # the second batch is negative
    for before, now in zip(one, two, strict=True):  # values, momentum, velocity
        for pausing in (1, 2, 4):
            np.testing.assert_array_equal(now[pausing], before[pausing])
        for moving in (0, 3):
            assert (now[moving] != before[moving]).all()
    # Adam's first steps have the length of the learning rate, whatever the gradient.
    np.testing.assert_allclose(two[0][0], 1 - 0.2, rtol=1e-5)
    np.testing.assert_allclose(two[0][1], 2 - 0.1, rtol=1e-5)
    np.testing.assert_allclose(two[0][2], 3 - 0.1, rtol=1e-5)
    np.testing.assert_allclose(two[0][3], 4 - 0.2, rtol=1e-5)
    np.testing.assert_array_equal(two[0][4], np.full(5, 5, np.float32))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_a_gradient_on_some_shards_only_counts_as_zero_elsewhere(world_size: int) -> None:
    """A branch that depends on the data: one shard of four uses the second variable."""

    def compute(variables, arrays):
        loss = variables[0] * 1.0
        if arrays[0].max() >= 64:
            loss = loss + variables[1] * 6.0
        return loss, NOTHING

    values, _, _ = run_steps(
        world_size,
        lambda: [tf.Variable(0.0, dtype="float64"), tf.Variable(0.0, dtype="float64")],
        compute,
        ArraySource(np.array([1.0, 2, 3, 64])),
        shards=4,
        batch=4,
    )
    assert (values[0], values[1]) == (-1, -6 / 4)


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_loss_that_is_no_number_changes_nothing(world_size: int) -> None:
    groups: list[list[tf.Variable]] = []

    def make() -> list[tf.Variable]:
        groups.append([tf.Variable(5.0, dtype="float64")])
        return groups[-1]

    def compute(variables, arrays):
        return tf.reduce_mean(variables[0] * arrays[0]), NOTHING

    bad = np.where(X == 64, np.nan, X)  # on one shard, so on one worker
    how = {"shards": 3, "batch": 7}
    with pytest.raises(DivergedError, match="the loss is nan at step 0") as caught:
        run_steps(world_size, make, compute, ArraySource(bad), **how)
    assert caught.value.exit_code == 5
    assert [float(group[0]) for group in groups] == [5.0] * world_size

    values, (result,), _ = run_steps(
        world_size, make, compute, ArraySource(bad), stop_on_nan=False, **how
    )
    assert math.isnan(result.loss) and np.isnan(values[0])


@pytest.mark.parametrize("asked", [0, 2])
def test_one_rank_that_is_asked_to_stop_stops_all(asked: int) -> None:
    source = ArraySource(X)
    variables = [[tf.Variable(1.0, dtype="float64")] for _ in range(3)]

    def work(c: Communicator) -> list[bool]:
        (mine,) = variables[c.rank]

        def compute(arrays, training):
            return ShardResult(tf.reduce_mean(mine * arrays[0]), NOTHING)

        step = TrainStep(compute, 0, [mine], Descent(), c, 3, SEED)
        (batch,) = loader(source, c, 7, 3, shuffle=False).epoch(0)
        before = step(0, batch).stop
        step.stop_requested = c.rank == asked
        return [before, step(1, batch).stop]

    assert run_world(3, work) == [[False, True]] * 3


def test_a_tensor_borrowed_before_a_step_keeps_its_value() -> None:
    variable = tf.Variable([1.0, 2.0])
    step = TrainStep(
        lambda arrays, training: ShardResult(tf.reduce_sum(variable * variable), NOTHING),
        0,
        [variable],
        Descent(),
        Communicator(),
        1,
        SEED,
        mean_loss=False,
    )
    before, first = variable.value(), variable[0]
    (batch,) = loader(ArraySource(X), Communicator(), 7, 1).epoch(0)
    step(0, batch)
    np.testing.assert_array_equal(before.numpy(), [1, 2])
    assert float(first) == 1
    np.testing.assert_array_equal(variable.numpy(), [-1, -2])


def test_evaluating_an_empty_source_is_no_number() -> None:
    loss, sums = evaluate(lambda arrays, training: None, 2, [], Communicator(), 1)
    assert math.isnan(loss) and sums.tolist() == [0, 0]
