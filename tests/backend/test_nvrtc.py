"""What is generated for a GPU beside the compiler of CUDA and the names of CuPy itself."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

import distgrad as tf
from distgrad.backend.cuda_launch import OPTIONS
from distgrad.compile.capture import trace
from distgrad.compile.cupy_exec import cuda_executor
from distgrad.testing import process

pytestmark = pytest.mark.usefixtures("on_gpu")

COMPILE = """
import sys
from cupy_backends.cuda.libs import nvrtc
program = nvrtc.createProgram(open(sys.argv[1]).read(), "program.cu", (), ())
try:
    nvrtc.compileProgram(program, [*sys.argv[2:], "-arch=compute_80"])
except Exception:
    sys.exit(nvrtc.getProgramLog(program))
print(nvrtc.getPTX(program).decode())
"""


@pytest.mark.skipif(importlib.util.find_spec("cupy_backends") is None, reason="no NVRTC")
def test_nvrtc_compiles_what_is_generated(tmp_path):
    """In a process of its own, where CuPy's bindings of it do not meet the stand-in."""

    def f(x, y, labels):
        z = tf.nn.softmax(tf.nn.gelu(x) + y * 0.5)
        half = tf.cast(x, tf.float16) * 2.0
        brain = tf.nn.softmax(tf.cast(x, tf.bfloat16)) * 0.1
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, z)
        return (
            z,
            half,
            brain,
            loss,
            tf.reduce_max(half, -1),
            tf.transpose(x) + 1.0,
            tf.cast(y, tf.int64),
        )

    x, y = np.random.default_rng(0).normal(size=(2, 4, 5)).astype(np.float32)
    arrays = x, y, np.array([0, 1, 2, 3])
    executor = cuda_executor(trace(f, arrays).program, arrays)
    path = tmp_path / "program.cu"
    path.write_text(executor.plan.source)
    done = process.run([sys.executable, "-c", COMPILE, str(path), *OPTIONS], timeout=60)
    assert done.returncode == 0, done.stderr
    names = [kernel.name for kernel in executor.plan.kernels]
    assert names and all(f".entry {name}(" in done.stdout for name in names)


NAMES_OF_CUPY = """
import cupy
cuda = cupy.cuda
print([cuda.Stream.begin_capture, cuda.Stream.end_capture, cuda.Stream.record, cuda.Graph.launch])
print([cuda.Stream.wait_event, cuda.Event.synchronize, cuda.MemoryPool.malloc, cuda.alloc])
print([cuda.using_allocator, cuda.alloc_pinned_memory, cuda.get_current_stream, cupy.RawModule])
print([cuda.runtime.memcpyAsync, cuda.runtime.memcpyHostToDevice, cuda.runtime.memcpyDeviceToHost])
print([cuda.runtime.getDevice, cuda.device.get_cublas_handle, cuda.runtime.runtimeGetVersion])
print([cuda.runtime.memcpyDeviceToDevice, cupy.zeros_like, cupy.add, cupy.ndarray.view])
print([cupy.ndarray.take, cupy.ndarray.set, cupy.ndarray.strides])
"""


@pytest.mark.skipif(importlib.util.find_spec("cupy_backends") is None, reason="no CuPy")
def test_cupy_has_the_names(tmp_path):
    done = process.run([sys.executable, "-c", NAMES_OF_CUPY], timeout=60)
    assert done.returncode == 0, done.stderr
