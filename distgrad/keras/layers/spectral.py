"""Wrapper: a layer around another; and one that keeps the largest stretch of its kernel at 1."""

from __future__ import annotations

from typing import Any

from distgrad.core import recording
from distgrad.core.tensor import Tensor
from distgrad.keras.initializers import TruncatedNormal
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import whole_number
from distgrad.ops.casting import cast
from distgrad.ops.clipping import maximum
from distgrad.ops.linalg import matmul
from distgrad.ops.logic import select
from distgrad.ops.powers import rsqrt
from distgrad.ops.reduce import reduce_any, reduce_sum
from distgrad.ops.shape import reshape


class Wrapper(Layer):
    """Base of layers around a ``layer``, which it builds. ValueError for what is no layer."""

    def __init__(self, layer: Layer, **kwargs: Any) -> None:
        if not isinstance(layer, Layer):
            raise ValueError(
                f"Layer {layer} supplied to Wrapper isn't a supported layer type. Please ensure "
                "wrapped layer is a valid Keras layer."
            )
        super().__init__(**kwargs)
        self.layer = layer

    def build(self, input_shape: Any = None) -> None:
        if not self.layer.built:
            self.layer.build(input_shape)
            self.layer.built = True


class SpectralNormalization(Wrapper):
    """Divides the kernel of a layer by its largest singular value, at each training step.

    That is estimated by ``power_iterations``, each from where the last one ended. The kernel is the
    layer's ``kernel`` or ``embeddings``; ValueError for a layer without, and a number of iterations
    below 1. Source: Miyato et al., 2018.
    """

    def __init__(self, layer: Layer, power_iterations: int = 1, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.power_iterations = whole_number("power_iterations", power_iterations)

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        kernel = getattr(self.layer, "kernel", None)
        kernel = getattr(self.layer, "embeddings", None) if kernel is None else kernel
        if kernel is None:
            raise ValueError(
                f"{type(self.layer).__name__} object has no attribute 'kernel' nor 'embeddings'"
            )
        self.kernel = kernel
        self.vector_u = self.add_weight(
            (1, kernel.shape[-1]),
            TruncatedNormal(stddev=0.02),
            self.layer.variable_dtype,
            trainable=False,
            name="vector_u",
        )

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if training:
            with recording.paused():
                self._normalize()
        return cast(self.layer(inputs), inputs.dtype)

    def _normalize(self) -> None:
        shape = tuple(self.kernel.shape)
        kernel = self.kernel._read()
        rows, u = reshape(kernel, (-1, shape[-1])), self.vector_u._read()
        for _ in range(self.power_iterations):
            v = _unit(matmul(u, rows, transpose_b=True))
            u = _unit(matmul(v, rows))
        sigma = matmul(matmul(v, rows), u, transpose_b=True)
        there = reduce_any(kernel != 0)  # a kernel of zeros stays one
        self.vector_u.assign(select(there, u, self.vector_u._read()))
        self.kernel.assign(select(there, kernel / select(there, reshape(sigma, ()), 1.0), kernel))


def _unit(x: Tensor) -> Tensor:
    return x * rsqrt(maximum(reduce_sum(x * x), 1e-12))
