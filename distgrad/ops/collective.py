"""Operations that talk to the other processes, eager and in a captured function.

A program calls them anew at each replay. While one is made nothing leaves the process, but at the
first call of a function, which all processes make together: a retrace of one of them must not
wait for the others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distgrad.core import recording
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.ops.host import host_values


def collective(fn: Callable[[np.ndarray], np.ndarray], x: Tensor) -> Tensor:
    """``fn`` of a copy of the array on the host: of its shape and dtype. No gradient."""

    def run(array: np.ndarray) -> np.ndarray:
        if recording.per_thread.rehearsing:
            recording.per_thread.left_out = True
            return array.copy()
        return fn(array.copy())

    if recording.per_thread.capture is None:
        with recording.suspended():
            return Tensor(run(x._host()))
    return bind(host_values, x, fn=run)
