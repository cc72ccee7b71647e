"""Sums of small arrays over the ranks: everyone gets all partial sums, and adds them up itself.

Training has the same arrays at every step, for which the exchange is prepared once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distgrad.comm.transport import Check, Deadline, Prepared, Transport
from distgrad.comm.tree import Node, ShardTree

_KEPT = 32  # exchanges; arrays that are new each time would fill any number

# Where a sum goes, and this rank's partials of it.
OwnSum = tuple[np.ndarray, dict[Node, np.ndarray]]


class _Known(NamedTuple):
    exchange: Prepared
    received: list[dict[Node, np.ndarray]]  # for each sum
    keep: object  # whose ids are the key


class WholeSums:
    """The sums of one rank with its ``peers``, through ``transport``."""

    def __init__(self, transport: Transport | None, peers: Sequence[int]) -> None:
        self._transport = transport
        self._peers = peers
        self._known: dict[tuple, _Known] = {}

    def __call__(
        self,
        tree: ShardTree,
        nodes: Sequence[Sequence[Node]],
        sums: Sequence[OwnSum],
        header: bytes,
        check: Check,
        deadline: Deadline,
    ) -> None:
        """Adds up; ``nodes`` are those of each rank. The partials are used as scratch memory."""
        key: tuple = (id(tree),)
        for out, own in sums:  # a rank may have no partials
            key = *key, out.size, out.dtype.num, *map(id, own.values())
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._prepare(tree, nodes, sums, len(header))
        known.exchange(header, check, deadline)
        for (out, own), received in zip(sums, known.received, strict=True):
            tree.combine({**own, **received}, out)

    def _prepare(
        self,
        tree: ShardTree,
        nodes: Sequence[Sequence[Node]],
        sums: Sequence[OwnSum],
        header_bytes: int,
    ) -> _Known:
        assert self._transport is not None
        if len(self._known) >= _KEPT:
            self._known.clear()
        received = [
            {node: np.empty_like(out) for peer in self._peers for node in nodes[peer]}
            for out, _ in sums
        ]
        own = [array for _, partials in sums for array in partials.values()]
        exchange = self._transport.prepare(
            header_bytes,
            dict.fromkeys(self._peers, own),
            {p: [each[node] for each in received for node in nodes[p]] for p in self._peers},
        )
        return _Known(exchange, received, (tree, own))
