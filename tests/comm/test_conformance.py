"""Every communicator keeps what `cases` promises: over threads, TCP and MPI, and NCCL for GPUs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar

import numpy as np
import pytest

from distgrad.backend.cupy import CupyBackend
from distgrad.comm.communicator import Communicator
from distgrad.comm.nccl import DeviceCommunicator
from distgrad.comm.tree import TreeSum
from distgrad.testing import fake_cupy, standin
from distgrad.testing.process import Result
from distgrad.testing.thread_world import run_world

from . import cases


def on_gpus(c: Communicator, case: Callable[[Communicator], None]) -> None:
    with fake_cupy.own_gpu(c.rank) as gpu:
        case(OnGPU(c, gpu))


class OnGPU(Communicator):
    """The arrays of a case go through GPUs, and come back."""

    def __init__(self, host: Communicator, gpu: CupyBackend) -> None:
        super().__init__(None)
        self.rank, self.world_size, self._gpu = host.rank, host.world_size, gpu
        self._inner = DeviceCommunicator(host, gpu.xp, gpu.nccl())
        host._sequence = 0  # as if the start had made no calls
        for name in ("barrier", "broadcast_object", "allgather_object", "leave", "close"):
            setattr(self, name, getattr(self._inner, name))

    def allreduce(self, array, *args, **how):
        self._through(self._inner.allreduce, array, *args, **how)

    def broadcast(self, array, *args, **how):
        self._through(self._inner.broadcast, array, *args, **how)

    def reduce_tree(self, tree_sum, out, **how):
        twin = TreeSum(tree_sum.virtual_shards, tree_sum.size, tree_sum.dtype, xp=self._gpu.xp)
        twin.tree = tree_sum.tree
        twin._held = {node: standin.asarray(a) for node, a in tree_sum._held.items()}
        self._through(lambda array: self._inner.reduce_tree(twin, array, **how), out)
        tree_sum.reset()

    def _through(self, collective, array, *args, **how):
        if not isinstance(array, np.ndarray):
            collective(array)
        there = standin.asarray(array)
        self._inner._whole_bytes = self._whole_bytes
        collective(there, *args, **how)
        self._inner.settle()
        array[...] = there.get()


# One looks at NumPy's memory, one is about transports.
_OF_HOSTS = {"reduce_tree_keeps_its_memory", "rounds_change_no_bit"}
_CASES = {**cases.HEALTHY, **cases.BROKEN}


def runs(names: Iterable[str], *sizes: int) -> list:
    """Every case in a world of each kind and size."""
    found = []
    for kind in ("threads", "nccl", "tcp", "mpi"):
        for size in sizes:
            marks = []
            if kind == "mpi":
                marks.append(pytest.mark.mpi)
            if kind == "nccl":
                marks.append(pytest.mark.cpu)  # it installs the other module itself
            elif kind != "threads":
                marks.append(pytest.mark.timeout_s(120))
                if size == 8:
                    marks.append(pytest.mark.slow)  # on two cores
            found += [
                pytest.param(kind, size, name, id=f"{kind}-{size}-{name}", marks=marks)
                for name in names
                if kind != "nccl" or name not in _OF_HOSTS
            ]
    return found


class TestConformance:
    """Every case in every world; one start of each kind and size goes through all cases."""

    done: ClassVar[dict[tuple[str, int], Result]] = {}

    @pytest.mark.parametrize(("kind", "size", "case"), runs(cases.HEALTHY, 1, 2, 3, 4, 8))
    def test_healthy(self, kind: str, size: int, case: str, request) -> None:
        self.run(kind, size, case, request)

    @pytest.mark.parametrize(("kind", "size", "case"), runs(cases.BROKEN, 2, 3, 4, 8))
    def test_broken(self, kind: str, size: int, case: str, request) -> None:
        self.run(kind, size, case, request)

    def run(self, kind: str, size: int, case: str, request) -> None:
        if kind == "threads":
            run_world(size, _CASES[case])
            return
        if kind == "nccl":
            with fake_cupy.installed(size):
                run_world(size, partial(on_gpus, case=_CASES[case]))
            return
        if kind == "mpi" and importlib.util.find_spec("mpi4py") is None:
            pytest.skip("no mpi4py: pip install 'distgrad[mpich]'")
        if (kind, size) not in self.done:
            if kind == "mpi":
                done = request.getfixturevalue("run_mpi")(size, cases.__file__, timeout=110)
            else:
                run_cli = request.getfixturevalue("run_cli")
                done = run_cli("launch", "-n", size, cases.__file__, timeout=110)
            self.done[kind, size] = done
        done = self.done[kind, size]
        passed = done.stdout.split().count(case)
        assert passed == size, f"{passed} of {size} ranks passed\n{done.stdout}\n{done.stderr}"
        assert not done.orphans
