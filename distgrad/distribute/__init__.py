"""What a script sees of the world it runs in, and how it trains data-parallel.

The same script runs alone, as ``mpirun -n 4 python script.py``, or as
``distgrad launch -n 4 script.py``; a notebook calls ``distgrad.launch``. A custom loop calls
``gradients``; scripts written for TensorFlow's strategies run as they are.
"""

from distgrad.core.later import absent as _absent
from distgrad.distribute.inputs import DistributedDataset, InputContext, ValueContext
from distgrad.distribute.loop import Gradients, gradients
from distgrad.distribute.replica import ReduceOp, ReplicaContext, get_replica_context
from distgrad.distribute.strategy import (
    CrossDeviceOps,
    HierarchicalCopyAllReduce,
    InputOptions,
    MirroredStrategy,
    MultiWorkerMirroredStrategy,
    NcclAllReduce,
    OneDeviceStrategy,
    ReductionToOneDevice,
    RunOptions,
    Strategy,
    TPUStrategy,
    cluster_resolver,
    experimental,
    experimental_set_strategy,
    get_strategy,
    has_strategy,
    in_cross_replica_context,
)
from distgrad.distribute.world import (
    World,
    allgather_object,
    barrier,
    broadcast,
    broadcast_object,
    is_chief,
    mean,
    mean_by_count,
    rank,
    virtual_shards,
    world,
    world_size,
)
from distgrad.training.replicas import PerReplica as DistributedValues

__getattr__ = _absent(__name__)
