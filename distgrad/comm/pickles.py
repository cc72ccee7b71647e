"""Objects of any kind among ranks: pickles, whose lengths differ from rank to rank."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.comm.calls import HEADER_BYTES, Call
from distgrad.comm.transport import Transport

NOTHING = np.empty(0, np.uint8)


def pickled(obj: Any) -> np.ndarray:
    """The bytes of an object."""
    return np.frombuffer(pickle.dumps(obj, pickle.HIGHEST_PROTOCOL), np.uint8)


def exchange(
    transport: Transport | None,
    call: Call,
    mine: np.ndarray,
    dests: Sequence[int],
    sources: Sequence[int],
) -> dict[int, Any]:
    """Sends the pickle ``mine`` to ``dests``; returns the objects of ``sources``."""
    if transport is None:
        return {}
    requests = transport.post(call.header, {p: [mine] for p in dests})
    headers = [transport.irecv(p, np.empty(HEADER_BYTES, np.uint8)) for p in sources]
    transport.wait(headers, call.deadline)
    found = {}
    for request in headers:
        length = call.check(request.peer, request.buffer.tobytes())
        found[request.peer] = np.empty(length, np.uint8)
    requests += [transport.irecv(p, data) for p, data in found.items()]
    transport.wait(requests, call.deadline)
    return {p: pickle.loads(data.data) for p, data in found.items()}
