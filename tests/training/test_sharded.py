"""Optimizer state in parts: the same bits, less memory, checkpoints without ranks in them."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import worker_shards
from distgrad.data.loader import Loader
from distgrad.data.source import ArraySource
from distgrad.testing.thread_world import run_world
from distgrad.training.reduction import ShardResult
from distgrad.training.sharded import SlotParts
from distgrad.training.step import TrainStep

optimizers = tf.keras.optimizers
SHARDS, SEED = 5, 3
SHAPES = [((7, 11), "float32"), ((), "float64"), ((23,), "float32"), ((3, 2), "float64")]


def make() -> list[tf.Variable]:
    rng = np.random.default_rng(0)
    return [
        tf.Variable(rng.normal(size=shape), dtype=dtype, name=f"w{i}")
        for i, (shape, dtype) in enumerate([*SHAPES, ((40,), "float32")])
    ]


def compute(group, arrays):
    """Every second batch leaves the third variable out; no batch reads the last but one."""
    a, b, c, _, e = group
    x = tf.cast(tf.reduce_mean(arrays[0]), "float32")
    loss = tf.reduce_sum(tf.sin(a * x)) + tf.cast(b * b, "float32") + tf.reduce_sum(e**3)
    if arrays[1][0] % 2:
        loss = loss + tf.reduce_sum(tf.exp(c * x))
    return ShardResult(loss, np.zeros(0))


def run(world_size: int, optimizer, *, steps: int = 4, start=None, **options) -> tuple:
    """Weights and whole slots after some steps, equal on all ranks; bytes of slots by rank."""
    groups = [make() for _ in range(world_size)]
    rng = np.random.default_rng(2)
    x, parity = rng.normal(size=40), np.repeat(np.arange(4), 10)

    def work(c: Communicator) -> tuple:
        group, chosen = groups[c.rank], optimizer(groups[c.rank])
        step = TrainStep(
            lambda arrays, training: compute(group, arrays),
            0,
            group,
            chosen,
            c,
            SHARDS,
            SEED,
            bucket_bytes=100,
            **options,
        )
        if start is not None:
            values, slots, count = start
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
            chosen.iterations.assign(count)
            for name, whole in slots.items():
                if name in chosen.slots:
                    for variable, value in zip(chosen.slots[name], whole, strict=True):
                        variable.assign(value)
                else:
                    step.slots.load(name, whole)
        first = 0 if start is None else start[2]
        own = worker_shards(SHARDS, c.rank, c.world_size)
        batches = list(Loader(ArraySource(x, parity), 10, SHARDS, own, SEED, False).epoch(0))
        for number in range(first, first + steps):
            step(number, batches[number % 4])
        slots = {n: [np.array(v.numpy()) for v in s] for n, s in chosen.slots.items()}
        if isinstance(step.slots, SlotParts):
            slots |= {name: step.slots.gather(name) for name in step.slots.names}
        values = [np.array(variable.numpy()) for variable in group]
        kept = step.slots.nbytes + sum(
            v._buffer.nbytes for s in chosen.slots.values() for v in s if v._buffer.base is None
        )
        return values, slots, kept

    ranks = run_world(world_size, work, time_limit=60)
    for values, _, _ in ranks[1:]:
        assert bits(values) == bits(ranks[0][0])
    return *ranks[0][:2], [kept for _, _, kept in ranks]


def bits(arrays) -> bytes:
    return b"".join(np.asarray(array).tobytes() for array in arrays)


def same(one: tuple, other: tuple) -> bool:
    (values, slots, _), (others, other_slots, _) = one, other
    return (
        bits(values) == bits(others)
        and sorted(slots) == sorted(other_slots)
        and all(bits(slots[name]) == bits(other_slots[name]) for name in slots)
    )


def decayed(group):
    chosen = optimizers.AdamW(0.01, weight_decay=0.1)
    chosen.exclude_from_weight_decay([group[0]])
    return chosen


KINDS = {
    "SGD": lambda group: optimizers.SGD(0.1),
    "momentum": lambda group: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "Adam": lambda group: optimizers.Adam(0.01),
    "amsgrad": lambda group: optimizers.Adam(0.01, amsgrad=True),
    "AdamW, one excluded": decayed,
    "RMSprop": lambda group: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "Adagrad": lambda group: optimizers.Adagrad(0.1),
    "Adadelta": lambda group: optimizers.Adadelta(0.5),
    "Adamax": lambda group: optimizers.Adamax(0.01),
    "Nadam": lambda group: optimizers.Nadam(0.01),
    "Ftrl": lambda group: optimizers.Ftrl(0.1),
    "Lion": lambda group: optimizers.Lion(0.01),
    "clipnorm": lambda group: optimizers.Adam(0.01, clipnorm=0.3),
    "global_clipnorm": lambda group: optimizers.Adam(0.01, global_clipnorm=0.3),
    "clipvalue": lambda group: optimizers.Adam(0.01, clipvalue=0.05),
    "weight_decay": lambda group: optimizers.RMSprop(0.01, weight_decay=0.1),
    "accumulated": lambda group: optimizers.Adam(
        0.01, gradient_accumulation_steps=3, weight_decay=0.1
    ),
    "averages": lambda group: optimizers.Adam(
        0.01, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=3
    ),
}


@pytest.mark.filterwarnings("ignore:no gradient for")
@pytest.mark.parametrize("kind", KINDS)
def test_equal_bits_in_parts_for_every_optimizer(kind: str) -> None:
    alone = run(1, KINDS[kind])
    assert bits(alone[0]) != bits(np.array(v.numpy()) for v in make())
    for world_size in (1, 2, 3, 4):
        assert same(run(world_size, KINDS[kind], shard_optimizer=True), alone), world_size
    assert same(run(3, KINDS[kind], shard_optimizer=True, overlap=True), alone)


@pytest.mark.filterwarnings("ignore:no gradient for")
def test_state_goes_from_any_number_of_ranks_to_any_other() -> None:
    whole = run(1, KINDS["Adam"], steps=8)
    values, slots, _ = run(3, KINDS["Adam"], steps=4, shard_optimizer=True)
    for world_size, parts in ((1, False), (2, False), (2, True), (4, True)):
        found = run(
            world_size,
            KINDS["Adam"],
            start=(values, slots, 4),
            shard_optimizer=parts,
        )
        assert same(found, whole), (world_size, parts)


@pytest.mark.filterwarnings("ignore:no gradient for")
def test_the_memory_of_a_rank_drops() -> None:
    (whole,) = run(1, KINDS["Adam"])[2]
    # Two moments of all variables: 77 + 23 + 40 of four bytes, 1 + 6 of eight, and the gaps.
    assert whole >= 2 * (140 * 4 + 7 * 8)
    assert run(2, KINDS["Adam"])[2] == [whole] * 2
    for world_size in (2, 4):
        kept = run(world_size, KINDS["Adam"], shard_optimizer=True)[2]
        assert sum(kept) == whole
        assert max(kept) <= whole / world_size * 1.1


def test_variables_without_a_gradient_are_named_once() -> None:
    with pytest.warns(UserWarning, match="no gradient for") as caught:
        run(2, KINDS["SGD"], steps=4)
    texts = [str(w.message) for w in caught if "no gradient" in str(w.message)]
    assert len(texts) == 1, "the first batch leaves out two, and no other batch another one"
    assert "no gradient for w2:0, w3:0:" in texts[0]
