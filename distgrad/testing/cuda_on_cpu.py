"""CUDA kernels compiled for the CPU with g++: what they compute can be tested without a GPU."""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
import tempfile
import threading
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

_one_at_a_time = threading.Lock()  # which thread is at work is a global variable there
_MEETING = re.compile(r"__syncthreads|__shfl|whole(_\w+)?\b|row_max")  # threads wait for each other
_KERNEL = re.compile(r"__global__\s+void\s+(\w+)\s*\(")


def available() -> bool:
    """Whether there is a compiler."""
    return shutil.which("g++") is not None


@functools.cache
def compiled(source: str) -> ctypes.CDLL:
    """The source as a library; each kernel ``f`` of it has a ``launch_f``."""
    header = resources.files("distgrad.testing").joinpath("cuda_on_cpu.h").read_text("utf-8")
    _, *parts = _KERNEL.split(source)
    calls = "".join(
        f'extern "C" void launch_{name}(void **given, unsigned blocks, unsigned threads) '
        f"{{ launch({name}, given, blocks, threads, {int(bool(_MEETING.search(body)))}); }}\n"
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    )
    with tempfile.TemporaryDirectory() as folder:
        path, library = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        path.write_text(f"{header}\n{source}\n{calls}", encoding="utf-8")
        flags = ["-std=c++14", "-O1", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"]
        done = subprocess.run(
            ["g++", *flags, str(path), "-o", str(library)], capture_output=True, text=True
        )
        if done.returncode:
            raise ValueError(f"g++ refuses the kernels:\n{done.stderr}")
        return ctypes.CDLL(str(library))


def launch(source: str, name: str, blocks: int, threads: int, args: Any) -> None:
    """Runs a kernel on NumPy arrays (their memory) and NumPy scalars (by value)."""
    held = [np.array(a.ctypes.data) if isinstance(a, np.ndarray) else np.array(a) for a in args]
    pointers = (ctypes.c_void_p * len(held))(*(value.ctypes.data for value in held))
    with _one_at_a_time:
        getattr(compiled(source), f"launch_{name}")(pointers, blocks, threads)
