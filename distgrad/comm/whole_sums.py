"""Sums of small arrays over the ranks: everyone gets all partial sums, and adds them up itself.

Training has the same arrays at every step, for which the exchange is prepared once. They are kept,
and told by who they are: their addresses, by which a transport remembers the exchanges of arrays
that come and go, would take half as long again as the exchange itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distgrad.comm.transport import Arrays, Check, Deadline, Prepared, Transport
from distgrad.comm.tree import Node, ShardTree

_KEPT = 32  # exchanges; arrays that are new each time would fill any number

# Where a sum goes, and this rank's partials of it, in the order of their nodes.
OwnSum = tuple[np.ndarray, Sequence[np.ndarray]]


class _Known(NamedTuple):
    exchange: Prepared
    keep: object  # whose ids are the key


class WholeSums:
    """The sums of one rank with its ``peers``, through ``transport``."""

    def __init__(self, transport: Transport | None, peers: Sequence[int]) -> None:
        self._transport = transport
        self._peers = peers
        self._known: dict[tuple[int, ...], _Known] = {}

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
        key = id(tree), *[id(array) for out, own in sums for array in (out, *own)]
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._prepare(tree, nodes, sums, len(header))
        known.exchange(header, check, deadline)

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
        mine = nodes[self._transport.rank]
        partials = [dict(zip(mine, own, strict=True)) for _, own in sums]
        for (out, _), each in zip(sums, partials, strict=True):
            each.update({n: np.empty_like(out) for peer in self._peers for n in nodes[peer]})
        outgoing = [array for _, own in sums for array in own]
        pairs = zip(sums, partials, strict=True)
        arrays = Arrays(
            dict.fromkeys(self._peers, outgoing),
            {p: [each[node] for each in partials for node in nodes[p]] for p in self._peers},
            [tree.additions(each, out) for (out, _), each in pairs],
        )
        return _Known(self._transport.prepare(header_bytes, arrays), (tree, list(sums)))
