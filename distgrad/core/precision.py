"""How products of float32 matrices are computed where a device has a faster, rougher way."""

from __future__ import annotations

from distgrad.backend import cublas


def enable_tensor_float_32_execution(enabled: bool) -> None:
    """Says whether captured steps on a GPU may round the factors of float32 products to 10 bits.

    Tensor cores then multiply them, several times as fast. It is off unless asked for, unlike in
    TensorFlow. Eager convolutions through cuDNN follow it too; eager products are CuPy's, which
    looks at ``CUPY_TF32``. All workers of a run must say the same, before its first step.
    """
    cublas.tensor_float_32 = bool(enabled)


def tensor_float_32_execution_enabled() -> bool:
    """Whether it was enabled."""
    return cublas.tensor_float_32
