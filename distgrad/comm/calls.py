"""Calls: what every rank must be in at once, and the header of each message that says so."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from distgrad.comm.transport import Deadline
from distgrad.core.errors import OutOfStepError, PeerLostError

# In the order of their numbers in a header.
DTYPES = (
    *("float32", "float64", "int32", "int64", "bfloat16", "float16", "bool", "complex64"),
    *("complex128", "int8", "int16", "uint8", "uint16", "uint32", "uint64"),
)

# One place in the header tells operations apart, so the reduction is part of the name.
_OPERATIONS = (
    "barrier",
    "broadcast",
    "broadcast_object",
    "allgather_object",
    "allreduce(sum)",
    "allreduce(max)",
    "allreduce(min)",
    "reduce_tree",
    "leave",
    "reduce_scatter_tree",
    "allgather",
    "settle",
)
_OPERATION_CODES = {name: code for code, name in enumerate(_OPERATIONS)}


class _Codes(dict[Any, int]):
    """The numbers of dtypes in a header; there is no bfloat16 before ml_dtypes has made it."""

    def __missing__(self, dtype: np.dtype[Any]) -> int:
        code = self[dtype] = DTYPES.index(dtype.name) + 1
        return code


DTYPE_CODES = _Codes({None: 0})


def takes(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of a dtype can be sent: also the bytes must lie as every rank reads them."""
    return dtype in DTYPE_CODES or (dtype.name in DTYPES and dtype.isnative)


# sequence number, operation, dtype (0: none), tag, bytes
_HEADER = struct.Struct("<IBBHQ")
HEADER_BYTES = _HEADER.size
_OPERATION_AT, _LEAVE = 4, _OPERATION_CODES["leave"]


class Call:
    """One exchange of rank ``rank``: its header, which every peer's must equal, and its deadline.

    ``sequence`` counts the calls, ``tag`` and ``nbytes`` must agree as well.
    """

    def __init__(
        self,
        rank: int,
        operation: str,
        sequence: int,
        deadline: Deadline,
        dtype: np.dtype[Any] | None = None,
        tag: int = 0,
        nbytes: int = 0,
    ) -> None:
        self.rank = rank
        self.deadline = deadline
        self.header = _HEADER.pack(
            sequence & 0xFFFFFFFF,
            _OPERATION_CODES[operation],
            DTYPE_CODES[dtype],
            tag & 0xFFFF,
            nbytes,
        )
        # Pickles differ in length from rank to rank.
        self._checked = 8 if operation.endswith("_object") else HEADER_BYTES

    def check(self, peer: int, header: bytes) -> int:
        """Checks a peer's header against ours; returns the bytes that it announces.

        Raises OutOfStepError where the peer is in another call, PeerLostError where it stops.
        """
        if header[: self._checked] != self.header[: self._checked]:
            stops = _LEAVE in (header[_OPERATION_AT], self.header[_OPERATION_AT])
            raise (PeerLostError if stops else OutOfStepError)(
                f"ranks {self.rank} and {peer} are not in the same call: rank {self.rank} is "
                f"in {_describe(self.header)}, rank {peer} in {_describe(header)}. Every rank "
                "must make the same collective calls in the same order."
            )
        nbytes: int = _HEADER.unpack(header)[4]
        return nbytes


def _describe(header: bytes) -> str:
    sequence, operation, dtype, tag, nbytes = _HEADER.unpack(header)
    if operation >= len(_OPERATIONS) or dtype > len(DTYPES):
        return f"no known operation (header {header.hex()})"
    name = _OPERATIONS[operation]
    if name == "leave":
        return f"call {sequence}: stopping with exit code {tag}"
    if name in ("barrier", "settle"):
        return f"call {sequence}: {name}"
    if name == "broadcast_object" or name == "allgather_object":
        return f"call {sequence}: {name}" + (f" from rank {tag}" if "broad" in name else "")
    shards = "shards and bucket"
    labels = {"broadcast": "root", "reduce_tree": shards, "reduce_scatter_tree": shards}
    label = labels.get(name, "bucket")
    return f"call {sequence}: {name} of {nbytes} bytes {DTYPES[dtype - 1]}, {label} {tag}"
