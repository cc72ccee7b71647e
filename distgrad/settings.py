"""What ``tf.config`` holds in TensorFlow: which devices there are, and settings.

distgrad reads its device from DISTGRAD_DEVICE and its threads from the job, so that settings which
a TensorFlow script makes before its first operation are taken and change nothing.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

from distgrad.compile import function as compiled
from distgrad.core import devices
from distgrad.launcher import threads

__all__ = [
    "experimental",
    "LogicalDeviceConfiguration",
    "experimental_functions_run_eagerly",
    "experimental_run_functions_eagerly",
    "functions_run_eagerly",
    "get_logical_device_configuration",
    "get_soft_device_placement",
    "get_visible_devices",
    "list_logical_devices",
    "list_physical_devices",
    "optimizer",
    "run_functions_eagerly",
    "set_logical_device_configuration",
    "set_soft_device_placement",
    "set_visible_devices",
    "threading",
]


class PhysicalDevice(NamedTuple):
    """A device of this machine, as TensorFlow names it."""

    name: str
    device_type: str


class LogicalDevice(NamedTuple):
    """A device as ``tf.device`` takes it."""

    name: str
    device_type: str


def list_physical_devices(device_type: str | None = None) -> list[PhysicalDevice]:
    """The CPU, and the GPUs that CuPy sees; only those of ``device_type`` ("CPU", "GPU")."""
    found = [PhysicalDevice("/physical_device:CPU:0", "CPU")]
    if device_type != "CPU":  # the look for GPUs loads CuPy
        found += [
            PhysicalDevice(f"/physical_device:GPU:{i}", "GPU") for i in range(devices.count_gpus())
        ]
    return [each for each in found if device_type in (None, each.device_type)]


def list_logical_devices(device_type: str | None = None) -> list[LogicalDevice]:
    """The same devices by the names that ``tf.device`` takes."""
    found = list_physical_devices(device_type)
    return [LogicalDevice(name.replace("physical_", ""), kind) for name, kind in found]


def get_visible_devices(device_type: str | None = None) -> list[PhysicalDevice]:
    """All devices: none is hidden."""
    return list_physical_devices(device_type)


def set_visible_devices(devices: Any, device_type: str | None = None) -> None:
    """Does nothing: the CPU is used unless a script, a job or DISTGRAD_DEVICE asks for a GPU."""


class LogicalDeviceConfiguration(NamedTuple):
    """A part of a device, which TensorFlow makes a device of its own."""

    memory_limit: int | None = None
    experimental_priority: int | None = None
    experimental_device_ordinal: int | None = None


def set_logical_device_configuration(device: Any, logical_devices: Any) -> None:
    """Does nothing: a device is never cut into parts; start more processes in their place."""


def get_logical_device_configuration(device: Any) -> None:
    """None: a device is never cut into parts."""


def set_soft_device_placement(enabled: bool) -> None:
    """Whether ``tf.device`` takes another device for one that is not here, as it does at first."""
    devices.soft_placement = bool(enabled)


def get_soft_device_placement() -> bool:
    """What ``set_soft_device_placement`` was last told."""
    return devices.soft_placement


def run_functions_eagerly(run_eagerly: bool) -> None:
    """From now on functions of ``tf.function`` run as they are, if true, or are captured."""
    compiled.run_eagerly = bool(run_eagerly)


def functions_run_eagerly() -> bool:
    """What ``run_functions_eagerly`` was last told."""
    return compiled.run_eagerly


# Their names before TensorFlow 2.3.
experimental_run_functions_eagerly = run_functions_eagerly
experimental_functions_run_eagerly = functions_run_eagerly


def _ignored(*args: Any, **kwargs: Any) -> None:
    """A setting of TensorFlow's own runtime; does nothing."""


_intra_op = 0  # what set_intra_op_parallelism_threads was last told


def get_intra_op_parallelism_threads() -> int:
    """What ``set_intra_op_parallelism_threads`` was last told; 0 where nobody has called it."""
    return _intra_op


def set_intra_op_parallelism_threads(num_threads: int) -> None:
    """How many threads may share one operation, as OMP_NUM_THREADS says it for a process.

    0 leaves it as it is: one for each core, one in a rank. To be called before the first step:
    later there can be fewer than before, not more. Raises ValueError for a negative number.
    """
    global _intra_op
    if num_threads < 0:
        raise ValueError(f"the number of threads must be 0 or more, got {num_threads}")
    if num_threads:
        threads.limit(num_threads)
    _intra_op = num_threads


threading = SimpleNamespace(
    get_inter_op_parallelism_threads=lambda: 0,
    get_intra_op_parallelism_threads=get_intra_op_parallelism_threads,
    set_inter_op_parallelism_threads=_ignored,
    set_intra_op_parallelism_threads=set_intra_op_parallelism_threads,
)
optimizer = SimpleNamespace(  # of graphs, which there are none of
    get_experimental_options=dict,
    get_jit=lambda: "",
    set_experimental_options=_ignored,
    set_jit=_ignored,
)


def enable_tensor_float_32_execution(enabled: bool) -> None:
    """Says whether a GPU may round factors of float32 products; see `core.precision`."""
    from distgrad.core import precision

    precision.enable_tensor_float_32_execution(enabled)


def tensor_float_32_execution_enabled() -> bool:
    """Whether it was enabled."""
    from distgrad.core import precision

    return precision.tensor_float_32_execution_enabled()


experimental = SimpleNamespace(
    VirtualDeviceConfiguration=LogicalDeviceConfiguration,
    enable_op_determinism=_ignored,  # the same bits are the rule here
    enable_tensor_float_32_execution=enable_tensor_float_32_execution,
    get_memory_growth=lambda device: True,
    get_synchronous_execution=lambda: True,
    get_virtual_device_configuration=get_logical_device_configuration,
    get_visible_devices=get_visible_devices,
    list_logical_devices=list_logical_devices,
    list_physical_devices=list_physical_devices,
    set_memory_growth=_ignored,
    set_synchronous_execution=_ignored,
    set_virtual_device_configuration=set_logical_device_configuration,
    set_visible_devices=set_visible_devices,
    tensor_float_32_execution_enabled=tensor_float_32_execution_enabled,
)
