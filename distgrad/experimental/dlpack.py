"""``tf.experimental.dlpack``: tensors for other libraries, and theirs as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Tensor

__all__ = ["from_dlpack", "to_dlpack"]


def to_dlpack(tf_tensor: Any) -> Any:
    """A capsule that holds a copy of the tensor. Libraries of today take the tensor as it is."""
    return as_tensor(tf_tensor).__dlpack__()


def from_dlpack(dlcapsule: Any) -> Tensor:
    """A tensor, on the host, of what a capsule or an array of another library holds: a copy.

    Raises InvalidArgumentError for anything else, and for what lies on a GPU.
    """
    held = dlcapsule if hasattr(dlcapsule, "__dlpack__") else _Held(dlcapsule)
    try:
        return Tensor(np.array(np.from_dlpack(held)))
    except (TypeError, ValueError, AttributeError, BufferError, RuntimeError) as error:
        raise InvalidArgumentError(f"from_dlpack takes a DLPack capsule: {error}") from None


class _Held:
    """A capsule as NumPy takes it: in the hands of an array on the host."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0
