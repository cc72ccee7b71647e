"""The check of GPUs: driver, CuPy, a kernel on each, NCCL and cuDNN."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress

import numpy as np

from distgrad.backend import cupy
from distgrad.backend.base import NotHere, NotInstalled
from distgrad.doctor.finding import Finding, failed, ok, skipped, warning

_ANSWER_S = 15.0
_SIZE = 64


def gpu() -> Finding:
    """Multiplies whole numbers on every GPU that this process sees."""
    driver = _driver()
    seen = f"driver {driver}" if driver else "no NVIDIA driver answers nvidia-smi"
    try:
        backend = cupy.load()
    except NotInstalled:
        if driver is None:
            return skipped(f"no GPU is used: {seen}, no CuPy", cupy.INSTALL)
        return skipped(f"{seen}, but CuPy is not installed", cupy.INSTALL)
    except NotHere as error:
        return failed(f"{seen}: {error}")
    whole = np.arange(_SIZE * _SIZE, dtype=np.float32).reshape(_SIZE, _SIZE) % 7
    for number in range(backend.count):
        backend.select(number)
        on_gpu = backend.asarray(whole)
        product = backend.to_numpy(on_gpu @ on_gpu + backend.xp.maximum(on_gpu, 1))
        if not np.array_equal(product, whole @ whole + np.maximum(whole, 1)):
            return failed(
                f"{seen}: a product of whole numbers is wrong on GPU {number}",
                "nvidia-smi -q -d ECC; leave that GPU out by CUDA_VISIBLE_DEVICES",
            )
    facts = backend.facts()
    packages = ", ".join(f"{name} {version}" for name, version in cupy.distributions().items())
    names = (
        f"{seen}, {backend.count} x {facts['gpu']}, {packages or 'CuPy ' + facts['cupy']} "
        f"(CUDA {facts['cuda_runtime']}), NCCL {facts['nccl']}, cuDNN {facts['cudnn']}"
    )
    cuda = facts["cuda_runtime"].partition(".")[0]
    missing = [each for each in ("nccl", "cudnn") if facts[each] == "none"]
    if missing:
        return warning(
            f"{names}: works, without {' and '.join(missing)}",
            f"pip install 'distgrad[cuda{cuda}]' brings both (DISTGRAD_CUDNN=off does without)",
        )
    return ok(names)


def _driver() -> str | None:
    """The version of the driver by nvidia-smi; None where nothing answers."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    words = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(words, capture_output=True, text=True, timeout=_ANSWER_S, check=True)
        return next(iter(done.stdout.split()), None)
    return None
