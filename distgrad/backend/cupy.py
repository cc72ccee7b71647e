"""The CuPy backend: CUDA GPUs. CuPy is imported when the first GPU is asked for, and only here."""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from distgrad.backend import cuda_source
from distgrad.backend.base import Backend, Lost, NotHere, NotInstalled, OutOfMemory
from distgrad.backend.cublas import Blas
from distgrad.backend.cuda_kernels import Kernels
from distgrad.backend.cuda_rows import Rows
from distgrad.backend.cudnn import Dnn
from distgrad.backend.numpy import backend as numpy_backend

INSTALL = "pip install 'distgrad[cuda12]' (a driver for CUDA 12) or 'distgrad[cuda13]' (for 13)"
# Bytes that go to the device by way of as much pinned memory, which CuPy takes in powers of two and
# keeps; the driver has a little of its own for what is larger.
_STAGED = 1 << 24
# Of CUDA's errors, those after which this process cannot use the device any more.
_LOST = (
    "cudaErrorDevicesUnavailable",
    "cudaErrorECCUncorrectable",
    "cudaErrorHardwareStackError",
    "cudaErrorIllegalAddress",
    "cudaErrorLaunchFailure",
    "cudaErrorLaunchTimeout",
    "cudaErrorNvlinkUncorrectable",
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_LAUNCH_FAILED",
)


class CupyBackend(Backend):
    """Arrays of CuPy. What depends on a key alone has the bits that the CPU would give."""

    name = "cupy"
    copies_ahead = True

    def __init__(self, cupy: Any, count: int) -> None:
        self.xp = cupy
        self.array_type: Any = cupy.ndarray
        self.count = count  # of GPUs that this process sees
        self.selected = 0
        self.own, self.rows = Kernels(cupy), Rows(cupy)
        self.blas, self.dnn = Blas(cupy), Dnn(cupy)
        self.kernels = {
            "dot": self.blas.dot,
            **self.own.by_primitive,
            **self.rows.by_primitive,
            **self.dnn.by_primitive,
        }
        self.each, self.bound = self.own.each, self.own.bound
        self.take_bfloat16 = {"adam_update", "dot", *self.dnn.by_primitive}
        self._fused: dict[str, Any] = {}
        self._streams: dict[tuple[int, str], Any] = {}

    def select(self, index: int) -> None:
        """Makes GPU number ``index`` the one of this process. Raises NotHere."""
        if not 0 <= index < self.count:
            seen = "one GPU" if self.count == 1 else f"{self.count} GPUs"
            raise NotHere(f"there is no device '/GPU:{index}' here: this process sees {seen}.")
        self.selected = index
        self.enter_thread()

    def enter_thread(self) -> None:
        import cupyx

        self.xp.cuda.Device(self.selected).use()
        # For this thread alone; nan would come of a matrix that has no inverse.
        cupyx.seterr(linalg="raise")

    @functools.cached_property
    def special(self) -> Any:
        import cupyx.scipy.special

        return cupyx.scipy.special

    def device_of(self, array: Any) -> str:
        return f"/GPU:{array.device.id}"

    def asarray(self, value: Any, dtype: Any = None) -> Any:
        if isinstance(value, self.array_type):
            return value.astype(value.dtype if dtype is None else dtype, copy=True)
        host = np.asarray(value, dtype=dtype)
        try:
            if host.nbytes > _STAGED and host.dtype.isbuiltin == 1:
                there = self.xp.empty(host.shape, host.dtype)
                there.set(np.ascontiguousarray(host))
                return there
            # As a vector: CuPy makes zero of a scalar that is -0.0.
            return self.xp.array(host.reshape(-1)).reshape(host.shape)
        except (RuntimeError, MemoryError) as error:
            raise self.explain("a copy to the GPU", error) or error from error

    def to_numpy(self, array: Any) -> np.ndarray:
        return array.get()

    def copy_each(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        """Those of each type of float by one launch, where they lie flat."""
        left = list(pairs)
        while left:
            dtype = left[0][0].dtype
            alike = [pair for pair in left if pair[0].dtype == dtype]
            if not self.own.copy_each(alike):
                super().copy_each(alike)
            left = [pair for pair in left if pair[0].dtype != dtype]

    # Streams

    def mark(self) -> Any:
        cuda = self.xp.cuda
        return cuda.get_current_stream().record(cuda.Event(disable_timing=True))

    def after(self, mark: Any) -> None:
        if mark is not None:
            self.xp.cuda.get_current_stream().wait_event(mark)

    def stream(self, name: str) -> Any:
        key = self.xp.cuda.Device().id, name
        if key not in self._streams:
            self._streams[key] = self.xp.cuda.Stream(non_blocking=True)
        return self._streams[key]

    def pinned(self, nbytes: int) -> np.ndarray:
        """Bytes on the host that the device copies from while the host goes on."""
        import cupyx

        found: np.ndarray = cupyx.empty_pinned(nbytes, np.uint8)
        return found

    def free(self) -> int:
        pool = self.xp.get_default_memory_pool()
        found: int = self.xp.cuda.runtime.memGetInfo()[0] + pool.free_bytes()
        return found

    # What all ranks must know of each other

    def facts(self) -> dict[str, str]:
        runtime, device = self.xp.cuda.runtime, self.xp.cuda.Device()
        nccl = self.nccl()
        return {
            "gpu": runtime.getDeviceProperties(device.id)["name"].decode(),
            "compute_capability": device.compute_capability,
            "cupy": self.xp.__version__,
            "cuda_runtime": _version(runtime.runtimeGetVersion()),
            "nccl": "none" if nccl is None else _nccl_version(nccl.get_version()),
            "cudnn": self.dnn.version(),
        }

    def identity(self) -> tuple[str, str]:
        """Names this process's GPU among those of all machines: its number, its place."""
        device = self.xp.cuda.Device()
        number = self.xp.cuda.runtime.getDeviceProperties(device.id).get("uuid", "")
        return str(number), f"{platform.node()} {device.pci_bus_id}"

    def nccl(self) -> Any:
        """The module ``cupy.cuda.nccl``; None where CuPy finds no NCCL."""
        from cupy.cuda import nccl

        return nccl if nccl.available else None

    @functools.cached_property
    def capturable(self) -> Any:
        """CuPy's namespace with products that may be captured."""
        return _Capturable(self.xp, self.blas.matmul)

    # Random numbers. Uniform ones are drawn on the device, since dropout takes as many as there
    # are activations; the others are drawn as the CPU draws them, and copied.

    def random_uniform(self, key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        return self.own.uniform(_on_host(key), shape, np.dtype(dtype))

    def random_normal(self, key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        return self.asarray(numpy_backend.random_normal(_on_host(key), shape, dtype))

    def random_integers(self, key: Any, low: int, high: int, shape: tuple, dtype: Any) -> Any:
        return self.asarray(numpy_backend.random_integers(_on_host(key), low, high, shape, dtype))

    def random_permutation(self, key: Any, n: int) -> Any:
        return self.asarray(numpy_backend.random_permutation(_on_host(key), n))

    def add_at(self, array: Any, positions: tuple[Any, ...], values: Any) -> None:
        self.rows.add_at(array, positions, values)

    def solve_triangular(self, matrix: Any, rhs: Any, *, lower: bool, transpose: bool) -> Any:
        from cupyx.scipy.linalg import solve_triangular

        if bool((self.xp.diagonal(matrix, 0, -2, -1) == 0).any()):
            raise np.linalg.LinAlgError("the matrix has a zero on its diagonal")
        x = self.xp.empty_like(rhs)
        for at in np.ndindex(matrix.shape[:-2] if x.size else (0,)):
            x[at] = solve_triangular(matrix[at], rhs[at], lower=lower, trans=int(transpose))
        return x

    def fused(self, name: str, expr: str, arguments: tuple[str, ...]) -> Any:
        try:
            operation = cuda_source.operation(expr, arguments)
        except cuda_source.Unsupported:
            return None
        return functools.partial(self._run_fused, f"distgrad_{name}", operation, arguments)

    def _run_fused(
        self,
        name: str,
        operation: str,
        names: tuple[str, ...],
        plain: Any,
        *args: Any,
        **params: Any,
    ) -> Any:
        """One kernel for floats of one dtype and shape; the one over CuPy's functions otherwise."""
        given: tuple[Any, ...] = (*args, *params.values())
        arrays = [a for a in given if isinstance(a, self.array_type)]
        kinds = {(a.dtype, a.shape) for a in arrays}
        if len(kinds) != 1 or arrays[0].dtype.char not in "fd":
            return plain(*args, **params)
        kernel = self._fused.get(name)
        if kernel is None:
            kernel = self._fused[name] = self.xp.ElementwiseKernel(
                ", ".join(f"T {n}" for n in names),
                "T result",
                operation,
                name,
                options=("--fmad=false",),
            )
        return kernel(*args, *(params[n] for n in names[len(args) :]))

    def explain(self, operation: str, error: Exception) -> Exception | None:
        cuda = self.xp.cuda
        if isinstance(error, cuda.memory.OutOfMemoryError):
            return OutOfMemory(
                f"the memory of GPU {self.selected} is used up in {operation} ({error}). A smaller "
                "train.global_batch_size takes less, and so do more parallel.virtual_shards (one "
                "shard's activations lie there at a time) and train.mixed_precision; nvidia-smi "
                "shows who else uses the GPU."
            )
        text = str(error)
        if isinstance(error, _cuda_errors(cuda)) and text.startswith(_LOST):
            return Lost(
                f"GPU {self.selected} failed in {operation} ({text}): this process cannot use it "
                "any more. nvidia-smi and dmesg (Xid) say why; start again with --resume auto."
            )
        return None


class _Capturable:
    """A namespace with another ``matmul``."""

    def __init__(self, xp: Any, matmul: Any) -> None:
        self._xp = xp
        self.matmul = matmul

    def __getattr__(self, name: str) -> Any:
        return getattr(self._xp, name)


def _on_host(key: Any) -> np.ndarray:
    return key if isinstance(key, np.ndarray) else key.get()


def _cuda_errors(cuda: Any) -> tuple[type[BaseException], ...]:
    return cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError


@functools.cache
def load() -> CupyBackend:
    """The backend. Raises NotInstalled without CuPy, NotHere where it sees no GPU."""
    found = distributions()
    if len(found) > 1:
        names = " ".join(sorted(found))
        raise NotHere(
            f"several CuPy packages are installed ({names}) and have overwritten each other's "
            f"files: pip uninstall -y {names}, then {INSTALL}."
        )
    try:
        import cupy
    except ImportError as error:
        if found:
            raise NotHere(
                f"CuPy ({', '.join(found)}) is installed but cannot be imported: {error}"
            ) from error
        raise NotInstalled(f"GPUs need CuPy: {INSTALL}.") from None
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except _cuda_errors(cupy.cuda) as error:
        raise NotHere(_why_none(runtime, str(error))) from error
    if not count:
        raise NotHere(_why_none(runtime, "cudaErrorNoDevice"))
    return CupyBackend(cupy, count)


def _why_none(runtime: Any, error: str) -> str:
    """Why there is no GPU, and what helps."""
    built, driver = _version(runtime.runtimeGetVersion()), _version(runtime.driverGetVersion())
    if "InsufficientDriver" in error and driver == "0.0":
        return (
            "there is no NVIDIA driver on this machine: install one (nvidia-smi shows it then), or "
            "compute on the CPU (device: cpu)."
        )
    if "InsufficientDriver" in error:
        return (
            f"the NVIDIA driver (for CUDA {driver}) is too old for this CuPy (CUDA {built}): "
            f"update the driver, or install the CuPy that fits it: {INSTALL}."
        )
    return (
        f"CuPy sees no GPU ({error}): nvidia-smi lists those of this machine, and "
        "CUDA_VISIBLE_DEVICES may hide them; or compute on the CPU (device: cpu)."
    )


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _nccl_version(number: int) -> str:
    return f"{number // 10000}.{number % 10000 // 100}.{number % 100}"


def distributions() -> Mapping[str, str]:
    """The installed packages that bring a module ``cupy``, and their versions."""
    names = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
