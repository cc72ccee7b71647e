"""torch: eager or compiled forward and backward, and its fused Adam.

Convolutions run in channels_last, bfloat16 under autocast. Where Adam is all there is, "compile"
compiles its foreach form.
Further forms are modes of ``torch.compile``; ``gpu.py`` sets DEVICE. Forms that end in TF32 let a
GPU round the factors of products and convolutions to it; the others do not.

"max-autotune" leaves out what takes minutes: descent by coordinates, whose candidates are compiled
one after the other, and, in float32, products and convolutions by Triton.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import networks
import numpy as np
import torch
import torch.nn.functional as F
from workloads import (
    EPSILON,
    MOMENTUM,
    NORM_EPSILON,
    THREADS,
    Parameter,
    Trainer,
    Workload,
    moving_sizes,
)

FORMS = ("eager", "compile")
DEVICE = "cpu"
torch.set_num_threads(THREADS)


class Op:
    relu, gelu, tanh = staticmethod(F.relu), staticmethod(F.gelu), staticmethod(torch.tanh)
    linear, mean = staticmethod(F.linear), staticmethod(torch.mean)

    def take(table, rows):
        return F.embedding(rows, table)

    def conv(x, w, b, stride, padding):
        """Images go through as (n, channels, height, width) in channels_last memory."""
        y = F.conv2d(x.permute(0, 3, 1, 2), w, b, stride, padding)
        return y.permute(0, 2, 3, 1)

    def max_pool(x):
        return F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)

    def flatten(x):
        return x.flatten(1)

    def layer_norm(x, scale, offset):
        return F.layer_norm(x, x.shape[-1:], scale, offset, NORM_EPSILON)

    def batch_norm(x, scale, offset, moving):
        y = F.batch_norm(
            x.permute(0, 3, 1, 2), *moving, scale, offset, True, 1 - MOMENTUM, NORM_EPSILON
        )
        return y.permute(0, 2, 3, 1), moving

    def attention(x, heads):
        n, length, width = x.shape
        q, k, v = x.view(n, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed.transpose(1, 2).reshape(n, length, width // 3)

    @torch.compiler.disable  # inductor has no fused recurrence for CPUs: the eager one is better
    def lstm(x, w, u, b):
        start = x.new_zeros(1, len(x), u.shape[1])
        weights = [w, u, b, torch.zeros_like(b)]  # the second bias is not trained: there is one
        return torch.lstm(x, (start, start), weights, True, 1, 0.0, True, False, True)[0][:, -1]


def laid_out(parameter: Parameter) -> torch.Tensor:
    value = torch.from_numpy(parameter.value.copy()).to(DEVICE)
    if parameter.kind in ("dense", "lstm"):
        return value.T.contiguous()
    if parameter.kind == "conv":
        return value.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    return value


def make(workload: Workload, parameters: Sequence[Parameter], form: str) -> Trainer | None:
    """The trainer of that form, which rounds as it should in every run: that is global here."""
    trainer = _made(workload, parameters, form.removesuffix(" TF32"))
    if trainer is None:
        return None
    rough = form.endswith("TF32")

    def run(batch: Any, steps: int) -> float:
        torch.set_float32_matmul_precision("high" if rough else "highest")
        torch.backends.cudnn.allow_tf32 = rough
        return trainer.run(batch, steps)

    return Trainer(trainer.ready, run)


def _made(workload: Workload, parameters: Sequence[Parameter], form: str) -> Trainer | None:
    compiled: Any = lambda f: f  # noqa: E731
    if form != "eager":
        compiled = partial(torch.compile, mode=None if form == "compile" else form)
        if form == "max-autotune":
            compiled = partial(torch.compile, options=_tuned(workload))
        torch._dynamo.reset()
    values = [laid_out(p) for p in parameters]
    if workload.kind == "adam":
        return _adam(workload, values, form != "eager") if form != "max-autotune" else None
    if workload.kind == "chain":
        return _chain(workload, values, compiled)
    weights = [value.requires_grad_() for value in values]
    sizes = moving_sizes(workload)
    moving = [(torch.zeros(n, device=DEVICE), torch.ones(n, device=DEVICE)) for n in sizes]
    optimizer = torch.optim.Adam(weights, workload.rate, eps=EPSILON, fused=True)

    half = torch.autocast(DEVICE, torch.bfloat16, enabled=workload.dtype == "bfloat16")

    @compiled
    def value(x, y):
        with half:
            logits, _ = networks.logits(workload, Op, weights, moving, x)
            return F.cross_entropy(logits.flatten(0, -2), y.flatten())

    def step(x, y):
        optimizer.zero_grad()
        loss = value(x, y)
        loss.backward()
        optimizer.step()
        return loss

    def run(batch: Any, steps: int) -> float:
        for _ in range(steps):
            loss = step(*batch)
        return float(loss)

    def ready(x: np.ndarray, y: np.ndarray) -> Any:
        return torch.from_numpy(x).to(DEVICE), torch.from_numpy(y).to(DEVICE)

    return Trainer(ready, run)


def _tuned(workload: Workload) -> dict[str, Any]:
    """What torch's mode max-autotune stands for, but for descent by coordinates."""
    kernels = "ATEN" if workload.dtype == "float32" else "ATEN,TRITON"
    return {
        "max_autotune": True,
        "triton.cudagraphs": True,
        "max_autotune_gemm_backends": kernels,
        "max_autotune_conv_backends": kernels,
    }


def _adam(workload: Workload, values: list[torch.Tensor], foreach: bool) -> Trainer:
    half = len(values) // 2
    weights = [value.requires_grad_() for value in values[:half]]
    for weight, gradient in zip(weights, values[half:], strict=True):
        weight.grad = gradient
    form = {"foreach": True} if foreach else {"fused": True}
    optimizer = torch.optim.Adam(weights, workload.rate, eps=EPSILON, **form)
    step = torch.compile(optimizer.step) if foreach else optimizer.step

    def run(batch: Any, steps: int) -> float:
        for _ in range(steps):
            step()
        return float(weights[0][0].detach().mean())

    return Trainer(lambda x, y: None, run)


def _chain(workload: Workload, values: list[torch.Tensor], compiled: Any) -> Trainer:
    x, w = (value.requires_grad_() for value in values)
    forward = compiled(lambda x, w: networks.chain(Op, x, w, workload.sizes["length"]))
    ones = torch.ones_like(x)

    def run(batch: Any, steps: int) -> float:
        for _ in range(steps):
            dx, dw = torch.autograd.grad(forward(x, w), [x, w], ones)
            result = (dx * dx + dw * dw).sum()
        return float(result)

    return Trainer(lambda x, y: None, run)


def version() -> str:
    return f"torch {torch.__version__}, NumPy {np.__version__}"
