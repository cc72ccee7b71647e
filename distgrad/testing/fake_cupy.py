"""A module ``cupy`` without a GPU, for tests: arrays of the strict stand-in, kernels through g++.

``with fake_cupy.installed(): ...`` lets the whole of distgrad run its path for GPUs on the CPU.
What it lets through is what CuPy documents, as far as it knows; it says nothing about speed.
Streams are those of `fake_streams`, graphs of `fake_graphs`, cuBLAS, cuDNN and NCCL those of
`fake_cublas`, `fake_cudnn` and `fake_nccl`.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from distgrad.core import dispatch
from distgrad.testing import cuda_on_cpu, fake_cublas, fake_cudnn, fake_nccl, fake_streams, standin
from distgrad.testing.fake_streams import CUDARuntimeError, Device
from distgrad.testing.standin import Array, plain_of


class CUDADriverError(RuntimeError):
    """As ``cupy.cuda.driver.CUDADriverError``."""


class OutOfMemoryError(MemoryError):
    """As ``cupy.cuda.memory.OutOfMemoryError``."""


class RawModule:
    """Kernels of a CUDA source, run on the CPU."""

    def __init__(self, *, code: str, options: tuple[str, ...] = ()) -> None:
        self._code = code

    def get_function(self, name: str) -> Any:
        def kernel(blocks: tuple[int, ...], threads: tuple[int, ...], args: tuple) -> None:
            for value in args:
                if not isinstance(value, (Array, np.generic)):
                    raise TypeError(f"a kernel takes no {type(value).__name__}")
            (grid,), (block,) = blocks, threads
            if not 0 < block <= 1024 or not 0 < grid < 2**31:
                raise CUDARuntimeError("cudaErrorInvalidConfiguration: invalid configuration")
            given = [plain_of(a) for a in args]
            # Memory that is named by its address alone is not used for anything else before.
            tables = [a for a in given if isinstance(a, np.ndarray) and a.dtype == np.int64]
            kept = [fake_streams.held(at) for table in tables for at in table.flat]

            def run() -> None:
                cuda_on_cpu.launch(self._code, name, grid, block, given)
                kept.clear()

            standin.order.later(run)

        return kernel


class ElementwiseKernel:
    """One loop over broadcast arrays; every parameter is a ``T``."""

    def __init__(
        self, in_params: str, out_params: str, operation: str, name: str, options: tuple = ()
    ) -> None:
        self._inputs = re.findall(r"T (\w+)", in_params)
        assert out_params == "T result" and len(self._inputs) == in_params.count(",") + 1
        self._operation, self._name = operation, name

    def __call__(self, *args: Any) -> Array:
        assert len(args) == len(self._inputs)
        (dtype,) = {a.dtype for a in args if isinstance(a, Array)}
        given = np.broadcast_arrays(*(np.asarray(plain_of(a), dtype) for a in args))
        standin.order.allocates()
        out = np.empty(given[0].shape, dtype)
        names = [f"distgrad_{n}" for n in self._inputs]
        loads = "".join(f"const T {i} = {n}[at];" for i, n in zip(self._inputs, names, strict=True))
        code = (
            f"typedef {'float' if dtype == np.float32 else 'double'} T;\n"
            f'extern "C" __global__ void {self._name}({", ".join(f"const T *{n}" for n in names)}, '
            f"T *out, long long size) {{ for (long long at = 0; at < size; at++) {{ {loads} "
            f"T result; {self._operation} out[at] = result; }} }}"
        )

        def run() -> None:
            arrays = [np.array(a, order="C") for a in given]
            cuda_on_cpu.launch(code, self._name, 1, 1, [*arrays, out, np.int64(out.size)])

        standin.order.later(run)
        return Array(out)


def _solve_triangular(matrix: Any, rhs: Any, trans: int = 0, lower: bool = False) -> Any:
    standin.order.wait()
    transpose = bool(trans)
    return standin.backend.solve_triangular(matrix, rhs, lower=lower, transpose=transpose)


def _dirty(name: str) -> Any:
    """A function that makes arrays whose values are anything: none, for floats."""

    def make(*args: Any, **kwargs: Any) -> Array:
        made: Array = getattr(standin.backend.xp, name)(*args, **kwargs)
        if not standin.order.noting:
            made._data.fill(np.nan if made._data.dtype.kind in "fc" else 37)
        return made

    return make


class _Errors(threading.local):
    """What ``cupyx.seterr`` sets, for each thread: CuPy ignores errors until it is told."""

    linalg = "ignore"


_errors = _Errors()


def _seterr(*, linalg: str) -> None:
    _errors.linalg = linalg


class _Linalg:
    """``cupy.linalg``: what has no result is nan, unless errors are to be raised."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(standin.backend.xp.linalg, name)

        def called(x: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return function(x, *args, **kwargs)
            except np.linalg.LinAlgError:
                if _errors.linalg == "raise":
                    raise
                shape = args[0].shape if args else x.shape
                return Array(np.full(shape, np.nan, x.dtype))

        return called


class _Cupy(ModuleType):
    """The functions of the stand-in, and what CuPy has beside them."""

    linalg = _Linalg()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(standin.backend.xp, name)


def modules(count: int = 2, driver: int = 12090) -> dict[str, ModuleType]:
    """The modules by name, for a machine with ``count`` GPUs and a driver for that CUDA."""
    cupy, cuda, scipy = _Cupy("cupy"), ModuleType("cupy.cuda"), ModuleType("cupyx.scipy")

    def get_device_count() -> int:
        if driver < 12000:
            raise CUDARuntimeError("cudaErrorInsufficientDriver: driver version is insufficient")
        if not count:
            raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return count

    runtime = SimpleNamespace(
        getDeviceCount=get_device_count,
        runtimeGetVersion=lambda: 12090,
        driverGetVersion=lambda: driver,
        getDeviceProperties=lambda number: {"name": b"Stand-in", "uuid": f"GPU-{number}"},
        CUDARuntimeError=CUDARuntimeError,
        getDevice=lambda: fake_streams.here.device,
        memGetInfo=lambda: (1 << 33, 1 << 34),
        memcpyAsync=fake_streams.memcpy_async,
        memcpyHostToDevice=1,
        memcpyDeviceToHost=2,
        memcpyDeviceToDevice=3,
    )
    vars(cuda).update(
        Device=Device,
        Stream=fake_streams.Stream,
        Event=fake_streams.Event,
        get_current_stream=fake_streams.get_current_stream,
        MemoryPool=fake_streams.MemoryPool,
        alloc=fake_streams.alloc,
        alloc_pinned_memory=fake_streams.PinnedMemory,
        using_allocator=fake_streams.using_allocator,
        runtime=runtime,
        driver=SimpleNamespace(CUDADriverError=CUDADriverError),
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    )
    added = {
        "ndarray": Array,
        "array": standin.asarray,
        "empty": _dirty("empty"),
        "empty_like": _dirty("empty_like"),
        "RawModule": RawModule,
        "ElementwiseKernel": ElementwiseKernel,
        "get_default_memory_pool": lambda: SimpleNamespace(free_bytes=lambda: 0),
        "cuda": cuda,
        "__version__": "14.0.0",
    }
    vars(cupy).update(added)
    special, linalg = ModuleType("cupyx.scipy.special"), ModuleType("cupyx.scipy.linalg")
    special.__getattr__ = standin.backend.special.__getattr__  # type: ignore[method-assign]
    linalg.solve_triangular = _solve_triangular  # type: ignore[attr-defined]
    scipy.special, scipy.linalg = special, linalg  # type: ignore[attr-defined]
    cupyx = ModuleType("cupyx")
    cupyx.seterr = _seterr  # type: ignore[attr-defined]
    cupyx.scipy, cupyx.empty_pinned = scipy, fake_streams.empty_pinned  # type: ignore[attr-defined]
    found = {"cupyx": cupyx, "cupyx.scipy": scipy, "cupy": cupy, "cupy.cuda": cuda}
    found["cupy.cuda.nccl"] = fake_nccl.module()
    found["cudnn"] = fake_cudnn.module()
    return {**found, "cupyx.scipy.special": special, "cupyx.scipy.linalg": linalg}


@contextmanager
def installed(count: int = 2, driver: int = 12090) -> Iterator[None]:
    """Context in which ``import cupy`` gives the module of this file."""
    from distgrad.backend import cublas
    from distgrad.backend import cupy as backend

    made = modules(count, driver)
    saved = {name: sys.modules.get(name) for name in made}
    state = dispatch.default, dispatch.in_force.backend
    sys.modules.update(made)
    order, standin.order = standin.order, fake_streams.Streams()
    devices, fake_streams.devices = fake_streams.devices, count
    lent, fake_streams.Pointer.lent = fake_streams.Pointer.lent, {}  # whose memory goes with it
    Array.device = property(lambda self: Device(0))  # type: ignore[attr-defined]
    Array.data = property(lambda self: fake_streams.Pointer(self._data))  # type: ignore[attr-defined]
    Array.set = fake_streams.set_array  # type: ignore[attr-defined]
    backend.load.cache_clear()
    load, cublas.load = cublas.load, lambda cupy: fake_cublas.Library()
    workspace, cublas.WORKSPACE = cublas.WORKSPACE, 1 << 12  # each backend has its own
    try:
        yield
    finally:
        cublas.load, cublas.WORKSPACE = load, workspace
        fake_streams.reset()
        fake_streams.Pointer.lent = lent
        standin.order, fake_streams.devices = order, devices
        backend.load.cache_clear()
        dispatch.forget(Array)
        dispatch.default, dispatch.in_force.backend = state
        for name, module in saved.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


@contextmanager
def own_gpu(number: int) -> Iterator[Any]:
    """Context in which this thread, as the process of a rank, has a GPU of its own."""
    from distgrad.backend import cupy as backend

    loaded = backend.load()
    if dispatch.backends.get(Array) is None:
        dispatch.register(loaded)
    own = backend.CupyBackend(loaded.xp, loaded.count)
    own.select(number)
    before, dispatch.in_force.backend = dispatch.in_force.backend, own
    try:
        yield own
    finally:
        dispatch.in_force.backend = before
        loaded.enter_thread()


if __name__ == "__main__":  # the command line, in a process that has this module for CuPy
    from distgrad.cli import main
    from distgrad.testing import fake_cupy

    # One GPU that all ranks share: the stand-in for NCCL joins only threads of one process.
    with fake_cupy.installed(count=1):
        sys.exit(main())
