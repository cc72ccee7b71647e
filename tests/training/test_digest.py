"""The desync alarm: who differs, and in what."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm.communicator import Communicator
from distgrad.core.errors import DesyncError, JobError, UsageError
from distgrad.data.loader import Loader
from distgrad.data.source import ArraySource
from distgrad.testing.thread_world import run_world
from distgrad.training.digest import DesyncAlarm, digest
from distgrad.training.handshake import check_variables
from distgrad.training.reduction import ShardResult
from distgrad.training.step import TrainStep


def group() -> list[tf.Variable]:
    return [
        tf.Variable(np.ones((2, 3), np.float32), name="kernel"),
        tf.Variable(np.zeros(3, np.float32), name="bias"),
        tf.Variable(np.zeros((0, 2), np.float32), name="empty"),
        tf.Variable(0, dtype="int64", name="count", trainable=False),
    ]


def run_ranks(world_size: int, work) -> list:
    """What each rank raises, or None."""

    def caught(c: Communicator) -> str | None:
        try:
            work(c)
        except (DesyncError, UsageError) as error:
            return str(error)
        return None

    return run_world(world_size, caught)


def test_every_bit_counts() -> None:
    variable = tf.Variable([1.0, 2.0, 3.0])
    before = digest(variable)
    assert digest(tf.Variable([1.0, 2.0, 3.0])) == before
    variable.assign([1.0, np.nextafter(np.float32(2), np.float32(3)), 3.0])
    assert digest(variable) != before
    variable.assign([2.0, 1.0, 3.0])  # the same numbers elsewhere
    assert digest(variable) != before
    assert digest(tf.Variable(0.0)) != digest(tf.Variable(-0.0))
    half = [digest(tf.Variable(value, dtype="bfloat16")) for value in (1.0, 1 + 2**-7, 1 + 2**-10)]
    assert half[0] == half[2] != half[1]


@pytest.mark.parametrize(
    ("world_size", "changed", "says"),
    [
        (2, [1], "differs between rank 0 and rank 1"),
        (3, [1], "differs on rank 1 from ranks 0, 2"),
        (4, [0, 3], "differs between ranks 0, 3 and ranks 1, 2"),
    ],
)
def test_a_weight_changed_by_hand_on_one_rank_ends_the_run(
    world_size: int, changed: list[int], says: str
) -> None:
    groups = [group() for _ in range(world_size)]
    seen: list[int] = []

    def work(c: Communicator) -> None:
        kernel, bias, *state = groups[c.rank]

        def compute(arrays, training):
            x = tf.cast(tf.reduce_mean(arrays[0]), "float32")
            return ShardResult(tf.reduce_sum(kernel * x) + tf.reduce_sum(bias), np.zeros(0))

        step = TrainStep(
            compute,
            0,
            [kernel, bias],
            tf.keras.optimizers.SGD(0.1),
            c,
            world_size,
            1,
            state=state,
            check_every=3,
            paths={"dense/kernel": kernel, "dense/bias": bias},
        )
        loader = Loader(ArraySource(np.ones(8)), 8, world_size, range(c.rank, c.rank + 1), 1)
        for number in range(9):
            (batch,) = loader.epoch(0)
            if number == 4 and c.rank in changed:
                bias.assign(bias * (1 + 1e-6) if c.rank == changed[0] else bias)
                if len(changed) > 1:
                    bias.assign(np.full(3, 7.0, np.float32))
            step(number, batch)
            if c.rank == 0:
                seen.append(number)

    texts = run_ranks(world_size, work)
    assert len(set(texts)) == 1, "every rank ends with the same words"
    assert f"after step 6: dense/bias {says}." in texts[0]
    assert seen == [0, 1, 2, 3, 4]
    assert issubclass(DesyncError, JobError) and DesyncError.exit_code == 6


def test_the_state_of_layers_is_compared_too_and_0_is_never() -> None:
    groups = [group() for _ in range(2)]
    groups[1][3].assign(5)

    def compare(c: Communicator, every: int) -> None:
        DesyncAlarm(groups[c.rank], c, every).after(4)

    texts = run_ranks(2, lambda c: compare(c, 2))
    assert texts[0] == texts[1] and "count:0 differs between rank 0 and rank 1" in texts[0]
    for every in (0, 3):
        assert run_ranks(2, lambda c, every=every: compare(c, every)) == [None, None]


def test_variables_must_be_the_same_at_the_start() -> None:
    def check(change) -> list:
        def work(c: Communicator) -> None:
            variables = {variable.name: variable for variable in group()}
            if c.rank == 1:
                change(variables)
            check_variables(variables, c)

        return run_ranks(3, work)

    assert check(lambda variables: None) == [None] * 3
    for change, says in [
        (
            lambda v: v.update({"bias:0": tf.Variable(np.zeros(4, np.float32))}),
            "bias:0 [4] float32",
        ),
        (lambda v: v.update({"bias:0": tf.Variable(np.zeros(3))}), "bias:0 [3] float64"),
        (lambda v: v.pop("count:0"), "variable 3 is missing on rank 1 and count:0 [] int64"),
        (lambda v: v.update(more=tf.Variable(0.0)), "variable 4 is more [] float32 on rank 1"),
    ]:
        texts = check(change)
        assert len(set(texts)) == 1 and says in texts[0]
