"""``tf.test``: what scripts ask it about the machine."""

from __future__ import annotations

from typing import Any

from distgrad.core import devices

__all__ = ["gpu_device_name", "is_built_with_cuda", "is_gpu_available"]


def is_gpu_available(cuda_only: bool = False, min_cuda_compute_capability: Any = None) -> bool:
    """Whether there is a GPU that CuPy can use."""
    return devices.count_gpus() > 0


def gpu_device_name() -> str:
    """The name of the first GPU for ``tf.device``; empty where there is none."""
    return "/device:GPU:0" if devices.count_gpus() else ""


def is_built_with_cuda() -> bool:
    """Whether CuPy is installed."""
    from distgrad.backend import cupy

    return bool(cupy.distributions())
