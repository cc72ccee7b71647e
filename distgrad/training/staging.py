"""How arrays of a device take part in collectives: by NCCL, or through copies on the hosts."""

from __future__ import annotations

import sys
from typing import Any
from weakref import WeakKeyDictionary

from distgrad.backend.base import Backend
from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import TreeSum
from distgrad.core import dispatch
from distgrad.launcher import environ

# By the communicator of the hosts, once its ranks have looked at each other's GPUs; None where NCCL
# cannot link them.
_linked: WeakKeyDictionary[Communicator, Communicator | None] = WeakKeyDictionary()


class Staged:
    """The collectives of a step for arrays of a device, through copies on the host."""

    on_devices = False

    def __init__(self, communicator: Communicator, backend: Backend) -> None:
        self._communicator, self._backend = communicator, backend

    def reduce_tree(self, tree_sum: TreeSum, out: Any, **how: Any) -> None:
        """`Communicator.reduce_tree`."""
        to_host = self._backend.to_numpy
        total = to_host(out)  # a scatter leaves a part of it as it was
        self._communicator.reduce_tree(tree_sum.on_host(to_host), total, **how)
        tree_sum.reset()
        out[...] = self._backend.asarray(total)

    def allgather(self, array: Any, **how: Any) -> None:
        """`Communicator.allgather`."""
        whole = self._backend.to_numpy(array)
        self._communicator.allgather(whole, **how)
        array[...] = self._backend.asarray(whole)

    def settle(self) -> None:
        """`Communicator.settle`."""


Carrier = Communicator | Staged


def carrier(communicator: Communicator, backend: Backend) -> Carrier:
    """What moves the arrays of a backend between the ranks of a communicator."""
    if backend is dispatch.numpy_backend:
        return communicator
    return _linked.get(communicator) or Staged(communicator, backend)


def link(communicator: Communicator, *, deterministic: bool = True) -> None:
    """Lets NCCL move the arrays of GPUs, where each rank has one of its own; all ranks call it.

    Without ``deterministic`` NCCL may add in the order that is fastest, where a rank has one shard.
    Elsewhere arrays go through the hosts. Raises PeerLostError where NCCL cannot start.
    """
    if communicator.world_size == 1 or communicator in _linked:
        return
    backend: Any = dispatch.current()
    own = None
    if backend is not dispatch.numpy_backend and environ.use_nccl():
        own = (*backend.identity(), backend.nccl() is not None)
    everyone = communicator.allgather_object(own)
    if None in everyone:
        return
    _linked[communicator] = None
    numbers, places, installed = zip(*everyone, strict=True)
    if not all(installed):
        if communicator.rank == 0:
            print(
                "warning: CuPy finds no NCCL, so that the sums of several GPUs go through the "
                "hosts: pip install nvidia-nccl-cu12 (or -cu13).",
                file=sys.stderr,
                flush=True,
            )
        return
    known = [number for number in numbers if number]
    if len(set(places)) < len(places) or len(set(known)) < len(known):
        return  # NCCL refuses two ranks on a GPU
    from distgrad.comm.nccl import DeviceCommunicator

    _linked[communicator] = DeviceCommunicator(
        communicator, backend.xp, backend.nccl(), plain=not deterministic
    )
