"""``tf.test``: what scripts ask about the machine, and what tests of users are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distgrad.core import devices
from distgrad.core.dispatch import as_tensor
from distgrad.core.later import later
from distgrad.core.tape import GradientTape

if TYPE_CHECKING:
    from distgrad.cases import TestCase


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


def is_built_with_gpu_support() -> bool:
    """Whether CuPy is installed."""
    return is_built_with_cuda()


def is_built_with_rocm() -> bool:
    """False: GPUs are NVIDIA's."""
    return False


def is_built_with_xla() -> bool:
    """False: programs are compiled by llvmlite, or by CUDA."""
    return False


def main(argv: list[str] | None = None) -> None:
    """Runs the tests of the script, and ends it."""
    import unittest

    unittest.main(argv=argv)


def compute_gradient(
    f: Callable[..., Any], x: Sequence[Any], delta: float | None = None
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """The Jacobians of ``f(*x)``, ``[outputs, inputs]`` for each of ``x``: by the tape, and by
    central differences of ``delta`` (1/1024).

    Raises ValueError unless ``x`` is a list or a tuple.
    """
    if not isinstance(x, (list, tuple)):
        raise ValueError(f"compute_gradient takes a list of arguments, not {x!r}")
    step, tensors = 1 / 1024 if delta is None else float(delta), [as_tensor(v) for v in x]
    with GradientTape(persistent=True) as tape:
        tape.watch(tensors)
        y = as_tensor(f(*tensors))
    exact, numeric = [], []
    for place, tensor in enumerate(tensors):
        size = y._data.size, tensor._data.size
        found = tape.jacobian(y, tensor, unconnected_gradients="zero")
        exact.append(np.asarray(found).reshape(size))
        base, columns = np.array(tensor.numpy()), []
        for at in np.ndindex(*base.shape):
            ends = []
            for sign in (1, -1):
                moved = base.copy()
                moved[at] += base.dtype.type(sign * step)
                ends.append(
                    np.asarray(f(*[*tensors[:place], as_tensor(moved), *tensors[place + 1 :]]))
                )
            columns.append((ends[0] - ends[1]).reshape(-1) / (2 * step))
        numeric.append(np.stack(columns, 1) if columns else np.zeros(size))
    return tuple(exact), tuple(numeric)


_LATER = {"TestCase": "distgrad.cases"}
__all__ = [
    "TestCase",
    "compute_gradient",
    "gpu_device_name",
    "is_built_with_cuda",
    "is_built_with_gpu_support",
    "is_built_with_rocm",
    "is_built_with_xla",
    "is_gpu_available",
    "main",
]
__getattr__, __dir__ = later(__name__, globals(), _LATER)
