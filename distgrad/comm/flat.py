"""Flat arrays: what can be sent, and how it is cut into parts of ranks, and those into rounds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from distgrad.comm import calls
from distgrad.comm.transport import Rounds
from distgrad.core.errors import InvalidArgumentError


def flat_of(operation: str, array: Any, kind: Any) -> Any:
    """The array in one dimension. Raises InvalidArgumentError unless it can be sent and received.

    ``kind`` is the class of its library, NumPy or CuPy.
    """
    if not isinstance(array, kind):
        library = "NumPy" if kind is np.ndarray else "CuPy"
        raise InvalidArgumentError(
            f"{operation} takes a {library} array, got {type(array).__name__}; "
            "allgather_object and broadcast_object take any object."
        )
    if not calls.takes(array.dtype):
        names = ", ".join(calls.DTYPES)
        raise InvalidArgumentError(f"{operation} takes {names}, got {array.dtype}.")
    writeable = getattr(array.flags, "writeable", True)  # CuPy's always are
    if not array.flags.c_contiguous or not writeable:
        raise InvalidArgumentError(
            f"{operation} works in place on a C-contiguous, writeable array; "
            f"got shape {array.shape} with strides {array.strides}."
        )
    return array if array.ndim == 1 else array.reshape(-1)


def parts(size: int, world_size: int) -> list[slice]:
    """The part of each rank: as equal as they can be, one after the other."""
    bounds = [size * rank // world_size for rank in range(world_size + 1)]
    return [slice(a, b) for a, b in pairwise(bounds)]


def in_rounds(parts: Sequence[slice], itemsize: int, rounds: Rounds | None) -> list[list[slice]]:
    """The slice of each rank, for each of the exchanges in which an array is reduced.

    All slices of a rank together are its part, so that where it is cut changes no bit.
    """
    nbytes = parts[-1].stop * itemsize
    if rounds is None or nbytes > (rounds.most or nbytes):
        return [list(parts)]
    step = max(1, rounds.nbytes // (itemsize * len(parts)))
    starts = range(0, max(1, *(p.stop - p.start for p in parts)), step)
    return [
        [slice(min(p.start + at, p.stop), min(p.start + at + step, p.stop)) for p in parts]
        for at in starts
    ]
