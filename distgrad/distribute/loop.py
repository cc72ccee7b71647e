"""How a custom loop trains data-parallel, with the same bits at any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from distgrad.comm.tree import worker_shards
from distgrad.core import recording, timeline, tree
from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import UsageError
from distgrad.core.tape import TrainingTape
from distgrad.core.tensor import Tensor
from distgrad.core.undone import undone
from distgrad.core.variable import Variable
from distgrad.data import loader
from distgrad.distribute.world import virtual_shards
from distgrad.ops import random
from distgrad.training import applied
from distgrad.training import world as _world
from distgrad.training.digest import DesyncAlarm
from distgrad.training.handshake import (
    check_data,
    check_kernels,
    check_variables,
    checksum,
    give,
)
from distgrad.training.meeting import asked
from distgrad.training.reduction import GradientSum, ShardResult
from distgrad.training.staging import link


class Gradients(list):
    """Pairs of (gradient, variable), as ``apply_gradients`` takes them; ``loss`` of the batch."""

    loss: float


class _Sum:
    """What the calls of ``gradients`` for the same variables share."""

    def __init__(self, gradients: GradientSum, alarm: DesyncAlarm) -> None:
        self.gradients = gradients
        self.alarm = alarm
        self.calls = 0


class _Used(NamedTuple):
    """What a function does: the trainable variables that it reads, those that it assigns, and
    whether its shards add up numbers among each other."""

    read: list[Variable]
    assigned: list[Variable]
    meets: bool


class _Loop:
    """What all calls of ``gradients`` share."""

    def __init__(self) -> None:
        self.steps = 0
        self.seed = 0
        self.used: dict[Any, _Used] = {}  # by function, which is thereby kept alive
        self.sums: dict[tuple[int, ...], _Sum] = {}


_loop = _Loop()
_KEPT = 8  # functions, and sets of variables


def gradients(
    loss_fn: Callable[..., Any],
    batch: Any,
    variables: Sequence[Variable] | None = None,
    state: Sequence[Variable] | None = None,
    *,
    step: int | None = None,
    check_every: int = 100,
) -> Gradients:
    """Gradients of a mean loss over a batch: the same bits at any number of processes.

    ``batch`` is a nest of arrays, or ragged tensors, with one first dimension: the whole batch, the
    same on every process. ``loss_fn`` takes such a nest and returns the mean loss over it, a
    scalar; it is called once for each virtual shard of this process, under a tape, with random
    numbers of the shard's own. Without ``variables`` they are the trainable ones that ``loss_fn``
    reads; ``state`` are those that it assigns (moving averages), of which the mean over the shards
    is kept. Unless both are given, one more call finds them out for each new function. All
    processes begin with the values of rank 0. Use the result as
    ``optimizer.apply_gradients(result)``; ``result.loss`` is the loss of the batch.

    Random numbers (dropout) are drawn by the seed and ``step``, the number of the call. A loop
    that goes on from a checkpoint gives its own number, for the bits of an undisturbed one, and
    calls ``tf.random.set_seed`` first, as that did.

    After the first two calls, and every ``check_every`` ones (0: never), the bits of the variables
    are compared over all processes, before anything else; in the first calls the settings of the
    optimizer that is given the result, too.

    Raises ValueError where the arrays differ in length, or ``loss_fn`` reads no variable;
    DesyncError where a process has other values, naming it and the variable; UsageError where a
    process has another optimizer or a batch of another length. The first call warns where it has
    another batch.
    """
    recording.refuse("distribute.gradients")
    communicator, shards = _world.communicator(), virtual_shards()
    own = worker_shards(shards, communicator.rank, communicator.world_size)
    nest = tree.map_structure(_array, batch)
    arrays = tree.flatten(nest)
    sizes = sorted({array.shape[0] for array in arrays if array.shape})
    if len(sizes) != 1 or not all(array.shape for array in arrays):
        raise ValueError(f"the arrays of a batch need one first dimension; they have {sizes}")

    def rows(first: int, last: int) -> tuple[Any, ...]:
        return (tree.map_structure(lambda array: array[first:last], nest),)

    part = loader.cut(0, sizes[0], shards, own, rows)
    meets = False
    if variables is None or state is None:
        sample = part.shards[0][1] if part.shards else part.spare
        used = _used_by(loss_fn, sample[0])
        variables = used.read if variables is None else variables
        state = used.assigned if state is None else state
        meets = used.meets
    if not variables:
        raise ValueError("loss_fn reads no trainable variable: give variables=[...]")
    key = (shards, meets, id(communicator), *map(id, variables), *map(id, state))
    found = _loop.sums.get(key)
    if found is None:
        drawn = random.drawn_seed()
        if not _loop.sums:
            _loop.seed = communicator.broadcast_object(drawn)
        check_kernels(communicator)
        if communicator.world_size > 1:
            check_data(communicator, sizes, strict=True)
            check_data(communicator, [checksum(array) for array in arrays], strict=False)
        link(communicator, deterministic=_world.is_deterministic())
        named = {f"{i}: {v.name}": v for i, v in enumerate((*variables, *state))}
        check_variables(named, communicator)
        give(named.values(), communicator)
        found = _Sum(
            GradientSum(
                _no_loss,
                1,
                variables,
                communicator,
                shards,
                _loop.seed,
                state=state,
                meets=meets,
            ),
            DesyncAlarm([*variables, *state], communicator, paths=named, first=2),
        )
        _keep(_loop.sums, key, found)
    if communicator.world_size > 1:
        applied.compare(communicator)
    if found.calls:  # what the loop has made of the gradients of the calls before
        found.alarm.every = check_every
        found.alarm.after(found.calls)
    found.calls += 1
    total = found.gradients

    def compute(inputs: tuple, training: bool) -> ShardResult:
        size = tree.flatten(inputs[0])[0].shape[0]
        return ShardResult(as_tensor(loss_fn(inputs[0])), np.array([float(size)]))

    total.compute = compute
    if step is not None:
        _loop.steps = int(step)
    with timeline.span(f"gradients of step {_loop.steps}"):
        reduced = total(_loop.steps, part)
    if reduced.sums[0] != sizes[0]:
        raise UsageError(
            f"rank {communicator.rank} was given a batch of {sizes[0]}, of which all have taken "
            f"{reduced.sums[0]:g}: every worker needs the whole batch, and takes its own part."
        )
    _loop.steps += 1
    arrays = [None if g is None else Tensor(g.copy()) for g in total.gradients]
    result = Gradients(zip(arrays, variables, strict=True))
    result.loss = reduced.loss
    if communicator.world_size > 1:
        applied.brought(arrays)
    return result


def _array(value: Any) -> Any:
    return value if isinstance(value, Composite) else np.asarray(value)


def _no_loss(arrays: tuple, training: bool) -> ShardResult:
    raise AssertionError("gradients() puts its function in this place")


def _used_by(loss_fn: Callable[..., Any], sample: Any) -> _Used:
    """The variables of a function, by a call of it that changes none of them."""
    if loss_fn not in _loop.used:
        with undone() as written, asked() as others, TrainingTape() as tape:
            loss_fn(sample)
        read = list(tape.watched_variables())
        _keep(_loop.used, loss_fn, _Used(read, written.written, others.found))
    return _loop.used[loss_fn]


def _keep(cache: dict, key: Any, value: Any) -> None:
    cache[key] = value
    if len(cache) > _KEPT:
        del cache[next(iter(cache))]
