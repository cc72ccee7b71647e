"""TensorFlow's strategies over distgrad's workers: a replica is a virtual shard.

Every process runs the whole script; ``run`` calls a function for each replica of this worker, and
the gradients that the replicas apply are summed over all of them in one fixed order. So a script
for ``MirroredStrategy`` or ``MultiWorkerMirroredStrategy`` gives the same bits at any number of
workers. Where ``DISTGRAD_VIRTUAL_SHARDS`` is not set, each process is one replica.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np

from distgrad.core import tree
from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.distribute.inputs import DatasetOfEach, DistributedDataset, InputContext, ValueContext
from distgrad.distribute.replica import ReduceOp, merges
from distgrad.distribute.world import rank, world_size
from distgrad.training import turns
from distgrad.training import world as _world
from distgrad.training.meeting import in_order, ordered_sum
from distgrad.training.replicas import PerReplica, Replicas, part_of


class Strategy:
    """Trains replicas of one model on parts of each batch (``tf.distribute.Strategy``)."""

    def __init__(self) -> None:
        self._joined: Replicas | None = None

    @property
    def _replicas(self) -> Replicas:
        if self._joined is None:
            self._joined = Replicas(_world.communicator(), _world.virtual_shards())
        return self._joined

    @property
    def num_replicas_in_sync(self) -> int:
        """How many replicas share a batch: the virtual shards."""
        return self._replicas.virtual_shards

    @contextmanager
    def scope(self) -> Iterator[Strategy]:
        """Context in which to make variables, models, optimizers and metrics.

        Before the first ``run`` all workers are given the values of rank 0. Raises RuntimeError
        within the scope of another strategy.
        """
        with self._replicas.watching(), self._in_force():
            yield self

    @contextmanager
    def _in_force(self) -> Iterator[None]:
        """Context in which this is the strategy; that which stands for none leaves all as it is."""
        if self in _default:
            yield
            return
        if _scopes and _scopes[-1] is not self:
            raise RuntimeError(
                f"this is within the scope of another strategy, {_scopes[-1]!r}: make one strategy "
                "and use it throughout"
            )
        _scopes.append(self)
        try:
            yield
        finally:
            _scopes.remove(self)

    cluster_resolver: Any = None  # there are no clusters of TensorFlow's

    def run(self, fn: Callable[..., Any], args: Any = (), kwargs: Any = None, options: Any = None):
        """What ``fn`` returns for each replica's part of the arguments, a nest of values of each.

        Optimizers that it calls apply the sum of the gradients of all replicas. The first call of a
        function runs it once more beforehand, for the variables that it makes. Raises ValueError
        for variables that were not made within ``scope``; the strategy that stands for none, with
        one replica, just calls ``fn``.
        """
        if self in _default and self.num_replicas_in_sync == 1:
            args, kwargs = part_of((tuple(args), dict(kwargs or {})), 0)
            return fn(*args, **kwargs)
        with self._in_force():
            return self._replicas.call(fn, tuple(args), dict(kwargs or {}))

    def reduce(self, reduce_op: Any, value: Any, axis: int | tuple[int, ...] | None = None) -> Any:
        """The sum or mean of a nest over all replicas and, where they are given, over axes."""
        op = ReduceOp.of(reduce_op)
        return tree.map_structure(lambda leaf: self._reduced(op, leaf, axis), value)

    def _reduced(self, op: ReduceOp, leaf: Any, axis: int | tuple[int, ...] | None) -> Tensor:
        if not isinstance(leaf, PerReplica):
            if op is ReduceOp.SUM and self.num_replicas_in_sync > 1:
                raise ValueError(
                    f"a value that is no replica's cannot be summed over them: {leaf!r}; reduce "
                    "what strategy.run returned"
                )
            leaf = PerReplica({0: leaf}, self._replicas.batch_of(()))
        own = {index: _with_count(value, axis) for index, value in leaf.own.items()}
        total, count = ordered_sum(self._replicas.communicator.allgather_object(own))
        return as_tensor(total if op is ReduceOp.SUM else (total / count).astype(total.dtype))

    def gather(self, value: Any, axis: int) -> Any:
        """The values of all replicas side by side along an axis, in their order."""

        def gathered(leaf: Any) -> Tensor:
            if not isinstance(leaf, PerReplica):
                return as_tensor(leaf)
            own = {index: as_tensor(each)._host() for index, each in leaf.own.items()}
            arrays = in_order(self._replicas.communicator.allgather_object(own))
            return as_tensor(np.concatenate(arrays, axis))

        return tree.map_structure(gathered, value)

    def experimental_local_results(self, value: Any) -> tuple[Any, ...]:
        """The values of this worker's replicas."""
        return value.values if isinstance(value, PerReplica) else (value,)

    def experimental_distribute_dataset(
        self, dataset: Iterable[Any], options: Any = None
    ) -> DistributedDataset:
        """A dataset of whole batches, the same on every worker, cut for the replicas."""
        return DistributedDataset(dataset, self._replicas)

    def distribute_datasets_from_function(
        self, dataset_fn: Callable[[InputContext], Iterable[Any]], options: Any = None
    ) -> DatasetOfEach:
        """A dataset for each replica, whose batches are the replica's alone."""
        return DatasetOfEach(dataset_fn, self._replicas)

    experimental_distribute_datasets_from_function = distribute_datasets_from_function

    def experimental_distribute_values_from_function(
        self, value_fn: Callable[[ValueContext], Any]
    ) -> PerReplica:
        """A value for each replica."""
        number = self.num_replicas_in_sync
        own = {index: value_fn(ValueContext(index, number)) for index in self._replicas.own}
        return PerReplica(own, self._replicas.batch_of(()), next(iter(own.values())))


class CrossDeviceOps:
    """How TensorFlow would add up; here the workers' own transport does, and this is not asked."""

    def __init__(self, num_packs: int = 1, **options: Any) -> None:
        pass


class NcclAllReduce(CrossDeviceOps):
    """A name of TensorFlow's: see `CrossDeviceOps`."""


class HierarchicalCopyAllReduce(CrossDeviceOps):
    """A name of TensorFlow's: see `CrossDeviceOps`."""


class ReductionToOneDevice(CrossDeviceOps):
    """A name of TensorFlow's: see `CrossDeviceOps`."""


class InputOptions:
    """TensorFlow's settings of how batches come to devices, which scripts may give: none is asked
    for here."""

    def __init__(self, **settings: Any) -> None:
        vars(self).update(settings)


class RunOptions(InputOptions):
    """TensorFlow's settings of ``run``: see `InputOptions`."""


class MirroredStrategy(Strategy):
    """TensorFlow's name for the replicas of one machine; they are all there are here."""

    def __init__(self, devices: Any = None, cross_device_ops: Any = None) -> None:
        super().__init__()


class MultiWorkerMirroredStrategy(Strategy):
    """TensorFlow's name for the replicas of several machines; TF_CONFIG is not needed."""

    def __init__(self, cluster_resolver: Any = None, communication_options: Any = None) -> None:
        super().__init__()

    @property
    def cluster_resolver(self) -> Any:
        """Has ``task_type``, always "worker", ``task_id``, this process's rank, and
        ``cluster_spec()``, whose ``as_dict()`` has a name for each process."""
        spec = SimpleNamespace(
            as_dict=lambda: {"worker": [f"rank {i}" for i in range(world_size())]}
        )
        return SimpleNamespace(task_type="worker", task_id=rank(), cluster_spec=lambda: spec)


class OneDeviceStrategy(Strategy):
    """TensorFlow's name for one replica, on a device that the job or DISTGRAD_DEVICE chooses."""

    def __init__(self, device: Any = None) -> None:
        super().__init__()


class TPUStrategy(Strategy):
    """TensorFlow's name for the replicas of TPUs, to derive classes from and to ask by isinstance.

    To make one raises ValueError, as in TensorFlow on a machine that has none.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _no_tpu()


def _no_tpu(tpu: Any = None, *args: Any, **kwargs: Any) -> NoReturn:
    """What scripts that look for a TPU first catch; then they go on without one."""
    raise ValueError(
        "Please provide a TPU Name to connect to: there are none, as workers on CPUs and CUDA GPUs "
        "share each batch; use MirroredStrategy"
    )


cluster_resolver = SimpleNamespace(TPUClusterResolver=_no_tpu)
_scopes: list[Strategy] = []
_standing: list[AbstractContextManager] = []  # the scope that is in force for the whole script
_default: list[Strategy] = []
experimental = SimpleNamespace(
    CommunicationImplementation=SimpleNamespace(AUTO="AUTO", NCCL="NCCL", RING="RING"),
    CommunicationOptions=lambda **options: SimpleNamespace(**options),
    MultiWorkerMirroredStrategy=MultiWorkerMirroredStrategy,
    TPUStrategy=TPUStrategy,
)


def get_strategy() -> Strategy:
    """The strategy whose scope this is, or one that stands for none."""
    if _scopes:
        return _scopes[-1]
    if not _default:
        _default.append(Strategy())
    return _default[0]


def has_strategy() -> bool:
    """Whether this is within a strategy's scope."""
    return bool(_scopes)


def in_cross_replica_context() -> bool:
    """Whether this is within a strategy's scope, or ``merge_call``, and outside of its ``run``."""
    return merges() or (has_strategy() and turns.current() is None)


def experimental_set_strategy(strategy: Strategy | None) -> None:
    """Puts a strategy in force from here on, as its scope would; None: none.

    Raises RuntimeError within a scope.
    """
    if len(_scopes) > len(_standing):
        raise RuntimeError("experimental_set_strategy is not for use within a strategy's scope")
    while _standing:
        _standing.pop().__exit__(None, None, None)
    if strategy is not None:
        scope = strategy.scope()
        scope.__enter__()
        _standing.append(scope)


def _with_count(value: Any, axis: int | tuple[int, ...] | None) -> list[np.ndarray]:
    array = as_tensor(value)._host()
    if axis is None:
        return [array, np.asarray(1)]
    axes = axis if isinstance(axis, tuple) else (axis,)
    total = array.sum(axes, dtype=array.dtype)  # or a ValueError for axes that there are not
    return [total, np.asarray(math.prod(array.shape[each] for each in axes))]
