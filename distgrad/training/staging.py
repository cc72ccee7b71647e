"""Arrays of a device in collectives that move the memory of hosts: through a copy, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from distgrad.backend.base import Backend
from distgrad.comm.tree import TreeSum


@contextmanager
def staged(backend: Backend, out: Any, tree: TreeSum) -> Iterator[tuple[TreeSum, np.ndarray]]:
    """A tree sum and the array that takes it, on the host; on a device ``out`` is set at the end.

    On the host they are the caller's own, and nothing is copied.
    """
    if isinstance(out, np.ndarray):
        yield tree, out
        return
    total = backend.to_numpy(out)  # a scatter leaves a part of it as it was
    yield tree.on_host(backend.to_numpy), total
    tree.reset()
    out[...] = backend.asarray(total)


@contextmanager
def staged_array(backend: Backend, array: Any) -> Iterator[np.ndarray]:
    """An array on the host; one on a device is set to what it holds at the end."""
    if isinstance(array, np.ndarray):
        yield array
        return
    host = backend.to_numpy(array)
    yield host
    array[...] = backend.asarray(host)
