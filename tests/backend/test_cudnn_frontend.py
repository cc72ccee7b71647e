"""The names, and the arguments, of the front end of cuDNN itself."""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

import distgrad as tf
from distgrad.testing import process

GRAPHS = """
import sys
import ml_dtypes
import numpy as np
import cudnn as front_end
from distgrad.backend import cudnn
from distgrad.backend.cudnn import Layout
from distgrad.ops.windows import Geometry

print(front_end.__version__, front_end.backend_version())
print([front_end.create_handle, front_end.set_stream, front_end.cudnnGraphNotSupportedError])
print([front_end.heur_mode.A, front_end.heur_mode.FALLBACK])
for name in ("NONDETERMINISTIC", "REDUCED_PRECISION_REDUCTION", "DOWN_CONVERT_INPUTS",
             "TENSOR_CORE"):
    print(getattr(front_end.numerical_note, name))
for name in ("build_operation_graph", "create_execution_plans", "deselect_numeric_notes",
             "deselect_workspace_greater_than", "check_support", "build_plans",
             "get_workspace_size", "execute"):
    print(getattr(front_end.pygraph, name))
geometry = Geometry((3, 3), (2, 2), ((0, 1), (0, 1)), (1, 1))
x, w, y = (8, 56, 56, 64), (3, 3, 64, 32), (8, 28, 28, 32)
jobs = [
    cudnn.convolution(name, a, b, np.dtype(dtype), {"shape": x, "geometry": geometry}).job
    for dtype in ("float32", "float16", "bfloat16")
    for name, a, b in (("convolve", x, w), ("convolve_grad_x", y, w), ("convolve_grad_w", x, y))
]
for dtype in ("float16", "bfloat16"):
    q, k = (Layout.steps_first((2, 4, n, 64), dtype) for n in (128, 192))
    bias = Layout((1, 4, 128, 192), (4 * 128 * 192, 128 * 192, 192, 1), dtype)
    for causal, b in ((True, None), (False, bias)):
        jobs.append(cudnn.attention([q, k, k], b, scale=0.5, causal=causal))
        jobs.append(cudnn.attention_grad([q, q, k, k, q], b, scale=0.5, causal=causal))
    beside = Layout(q.shape, (128 * 3 * 4 * 64, 64, 3 * 4 * 64, 1), dtype)
    given, made = [q, beside, beside, beside, q], [beside] * 3
    jobs.append(cudnn.attention_grad(given, None, made, scale=0.5, causal=True))
for job in jobs:
    try:
        graph, tensors = cudnn.graph_of(front_end, job)
        graph.validate()
    except Exception as error:  # it looks for the device at the end of it
        if not any(said in str(error) for said in ("cuda_get_device", "NVIDIA driver")):
            raise
    print(job.operation, [tensor.get_stride() for tensor in tensors])
"""


@pytest.mark.skipif(
    PathFinder.find_spec("cudnn") is None,  # the real one, whatever stands in for it here
    reason="no front end of cuDNN (distgrad[cuda12])",
)
def test_the_front_end_has_the_names_and_takes_the_graphs():
    path = os.pathsep.join([str(Path(tf.__path__[0]).parent), *sys.path])
    done = process.run([sys.executable, "-c", GRAPHS], timeout=60, env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sdpa_backward") == 6 and done.stdout.count("conv_wgrad") == 3
