"""The canonical sum: virtual shards are added in one fixed binary tree, whoever holds them.

Floating point addition depends on its order. Here the order is that of a binary tree over the
virtual shards, so that a sum has the same bits for every division of the shards among workers.
Node ``(level, index)`` stands for the shards ``[index * 2**level, (index + 1) * 2**level)``.
A missing leaf (an empty shard, or an index past the last one) is skipped, not added as zeros:
a node with one child that exists is that child.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from distgrad.comm.additions import Addition, run_additions
from distgrad.core.errors import InvalidArgumentError, UsageError

Node = tuple[int, int]
Array = np.ndarray


def worker_shards(virtual_shards: int, rank: int, world_size: int) -> range:
    """The contiguous, balanced range of virtual shards that one worker runs.

    Raises:
        UsageError: there are more workers than virtual shards.
    """
    if world_size > virtual_shards:
        raise UsageError(
            f"{world_size} workers cannot share {virtual_shards} virtual shards: "
            f"use at most {virtual_shards} workers, or raise parallel.virtual_shards."
        )
    start, stop = (virtual_shards * r // world_size for r in (rank, rank + 1))
    return range(start, stop)


class ShardTree:
    """The shape of one sum: the tree over ``virtual_shards`` leaves of which some are present.

    Args:
        virtual_shards: number of leaves, V.
        present: indices of the shards that take part, the same on every rank.
    """

    def __init__(self, virtual_shards: int, present: Iterable[int]) -> None:
        self.virtual_shards = virtual_shards
        self.present = tuple(sorted(set(present)))
        if not self.present:
            raise InvalidArgumentError("no virtual shard is present: there is nothing to add.")
        if self.present[0] < 0 or self.present[-1] >= virtual_shards:
            raise InvalidArgumentError(
                f"present shards {self.present} must lie in [0, {virtual_shards})."
            )
        self.root: Node = ((virtual_shards - 1).bit_length(), 0)
        self._leaves = _bits(self.present)
        self._maximal: dict[range, tuple[Node, ...]] = {}
        self._merges: dict[Node, tuple[int, ...]] = {}
        self._parts: dict[range, tuple[tuple[Node, tuple[int, ...]], ...]] = {}
        self._existing: dict[Node, list[Node]] = {}  # children, of nodes that were added up
        self._fingerprint = zlib.crc32(repr((virtual_shards, self.present)).encode()) & 0xFFFF

    def exists(self, node: Node) -> bool:
        """Whether any shard under ``node`` is present."""
        return self.under(node) != 0

    def under(self, node: Node) -> int:
        """The present shards under a node, as bits."""
        level, index = node
        if index < 0 or index << level >= self.virtual_shards:
            return 0
        own = (1 << (1 << level)) - 1
        return self._leaves & (own << (index << level))

    def maximal(self, shards: range) -> tuple[Node, ...]:
        """The largest subtrees that a worker with these shards can add alone, in tree order.

        A node is complete for a worker when every *present* shard under it is the worker's (and
        there is one); it is maximal when its parent is not complete. Missing shards belong to
        nobody and never stand in the way.
        """
        if shards not in self._maximal:
            own = _bits(shards)
            self._maximal[shards] = tuple(self._collect(self.root, own))
        return self._maximal[shards]

    def parts(self, shards: range) -> tuple[tuple[Node, tuple[int, ...]], ...]:
        """The ``maximal`` subtrees of some shards, each with the order of its sum."""
        if shards not in self._parts:
            self._parts[shards] = tuple((n, self.merges(n)) for n in self.maximal(shards))
        return self._parts[shards]

    def merges(self, node: Node) -> tuple[int, ...]:
        """The order of the sum under a node: after each present shard, in order, how many of the
        sums that wait are added to it, the last one first.
        """
        if node not in self._merges:
            if node[0] == 0:
                self._merges[node] = (0,)
            else:
                first, *second = [self.merges(n) for n in _children(node) if self.exists(n)]
                for other in second:
                    first = (*first, *other[:-1], other[-1] + 1)
                self._merges[node] = first
        return self._merges[node]

    def combine(self, partials: Mapping[Node, Array], out: Array, xp: Any = np) -> None:
        """Adds the partials of all ranks in tree order into ``out``, arrays of the library ``xp``.

        The partials are used as scratch memory; ``out`` must be none of them. Together they must
        cover every present shard once, as the ``maximal`` nodes of all ranks do.
        """
        run_additions(self.additions(partials, out), xp)

    def additions(self, partials: Mapping[Node, Array], out: Array) -> list[Addition]:
        """What ``combine`` does, in order."""
        found: list[Addition] = []
        self._sum(self.root, partials, out, found)
        return found

    def fingerprint(self) -> int:
        """16 bits that tell this tree from one over other shards."""
        return self._fingerprint

    def _collect(self, node: Node, own: int) -> list[Node]:
        present = self.under(node)
        mine = present & own
        if not mine:
            return []
        if mine == present:
            return [node]
        left, right = _children(node)
        return self._collect(left, own) + self._collect(right, own)

    def _sum(
        self, node: Node, partials: Mapping[Node, Array], out: Array | None, found: list[Addition]
    ) -> Array:
        """Where the sum under ``node`` will lie: in ``out``, where one is given."""
        if node in partials:
            if out is None:
                return partials[node]
            found.append((partials[node], None, out))
            return out
        if node[0] == 0:
            raise InvalidArgumentError(f"no partial sum holds virtual shard {node[1]}.")
        known = self._existing.get(node)
        if known is None:
            known = self._existing[node] = [n for n in _children(node) if self.exists(n)]
        if len(known) == 1:
            return self._sum(known[0], partials, out, found)
        a = self._sum(known[0], partials, None, found)
        b = self._sum(known[1], partials, None, found)
        total = a if out is None else out
        found.append((a, b, total))
        return total


@lru_cache(maxsize=64)
def shard_tree(virtual_shards: int, present: tuple[int, ...]) -> ShardTree:
    """The ShardTree of these shards; kept, since nearly every step has the same one."""
    return ShardTree(virtual_shards, present)


class TreeSum:
    """One worker's part of a sum over virtual shards: arrays go in, complete subtrees come out.

    ``start(present)``; then per shard ``buffer()``, fill it, ``push(shard, array)``; then
    ``Communicator.reduce_tree``, which leaves the TreeSum empty again. A pushed shard is merged
    at once with every sibling subtree that is complete, so that shards pushed in order need
    O(log V) arrays. They are allocated at first use and kept. Without ``start`` all shards count
    as present.

    Args:
        virtual_shards: number of leaves of the tree, V.
        size: number of elements of each vector.
        dtype: element type of the vectors.
        out: an array that the owner lends: filled with the first present shard and pushed, it ends
            up with the sum of a worker that has all shards. It is never handed out as a buffer.
        xp: the array library of ``out``, whose ``zeros`` and ``add`` are used.
    """

    def __init__(
        self,
        virtual_shards: int,
        size: int,
        dtype: Any = np.float32,
        out: Array | None = None,
        xp: Any = np,
    ) -> None:
        self.virtual_shards = virtual_shards
        self.size = size
        self.dtype = np.dtype(dtype)
        self.tree = shard_tree(virtual_shards, tuple(range(virtual_shards)))
        self.out = out
        self.xp = xp
        self.allocated = 0
        self._free: list[Array] = []
        self._held: dict[Node, Array] = {}
        self._pushed = 0  # a bit for each shard
        self._started: list[int] | None = None

    def start(self, present_shards: Iterable[int]) -> None:
        """Begins a new sum over the shards present in the whole world, not only this worker's.

        Every rank must give the same shards: they decide which nodes of the tree exist.
        """
        self.reset()
        if present_shards != self._started:  # nearly every step has the same ones
            self.tree = shard_tree(self.virtual_shards, tuple(sorted(set(present_shards))))
            self._started = list(self.tree.present)

    def buffer(self) -> Array:
        """A free array, ``(size,)``, to be filled and pushed; what is never filled stays zero."""
        if self._free:
            return self._free.pop()
        self.allocated += 1
        return self.xp.zeros(self.size, self.dtype)

    def push(self, shard_index: int, array: Array) -> None:
        """Takes over ``array`` as the value of one shard and merges what is complete.

        Raises:
            InvalidArgumentError: the shard is not present or was pushed before, or the array is
                not a contiguous ``(size,)`` array of this dtype.
        """
        self.push_tree((0, shard_index), array)

    def push_tree(self, node: Node, array: Array) -> None:
        """``push`` for the sum of all present shards under a node, added up in tree order."""
        shards = self.tree.under(node)
        if not shards:
            raise InvalidArgumentError(
                f"shard {node[1] << node[0]} is not among the present ones {self.tree.present}."
            )
        if shards & self._pushed:
            twice = (shards & self._pushed).bit_length() - 1
            raise InvalidArgumentError(f"shard {twice} was pushed twice.")
        if array is not self.out and not self._fits(array):
            raise InvalidArgumentError(
                f"push takes a contiguous ({self.size},) array of {self.dtype}, "
                f"got {array.shape} of {array.dtype}."
            )
        self._pushed |= shards
        while node != self.tree.root:
            level, index = node
            sibling = (level, index ^ 1)
            if self.tree.exists(sibling):
                if sibling not in self._held:
                    break
                other = self._held.pop(sibling)
                left, right = (other, array) if index % 2 else (array, other)
                array = self.xp.add(left, right, out=left)
                self._free.append(right)
            node = (level + 1, index // 2)
        self._held[node] = array

    def _fits(self, array: Array) -> bool:
        size, dtype = (self.size,), self.dtype
        return array.shape == size and array.dtype == dtype and array.flags.c_contiguous

    def partials(self) -> dict[Node, Array]:
        """The maximal complete subtrees of the shards pushed so far."""
        return dict(self._held)

    def partials_of(self, nodes: Sequence[Node]) -> list[Array] | None:
        """The partials of these nodes, in their order; None if there are others, or fewer."""
        held = self._held
        if len(held) != len(nodes):
            return None
        try:
            return [held[node] for node in nodes]
        except KeyError:
            return None

    def on_host(self, to_host: Callable[[Any], Array]) -> TreeSum:
        """The same sum over copies of its partials, for a device that no transport reaches."""
        twin = TreeSum(self.virtual_shards, self.size, self.dtype)
        twin.tree, twin._pushed = self.tree, self._pushed
        twin._held = {node: to_host(array) for node, array in self._held.items()}
        return twin

    def take(self) -> Array:
        """The sum over all present shards, where this worker has pushed them all.

        The array is the first present shard's; unless that is ``out``, the caller now owns it.
        """
        array = self._whole()
        self._held.clear()
        self._pushed = 0
        return array

    def move(self, out: Array) -> None:
        """``take``, into an array of the caller's."""
        out[...] = self._whole()
        self.reset()

    def _whole(self) -> Array:
        array = self._held.get(self.tree.root)
        if array is None:
            raise InvalidArgumentError(
                f"take needs every present shard of {list(self.tree.present)}, and only "
                f"{[i for i in self.tree.present if self._pushed >> i & 1]} were pushed."
            )
        return array

    def reset(self) -> None:
        """Forgets every shard and takes the arrays back for the next sum."""
        if self._held:
            self._free.extend([a for a in self._held.values() if a is not self.out])
            self._held.clear()
        self._pushed = 0


def _children(node: Node) -> tuple[Node, Node]:
    level, index = node
    return (level - 1, 2 * index), (level - 1, 2 * index + 1)


def _bits(indices: Iterable[int]) -> int:
    mask = 0
    for index in indices:
        mask |= 1 << index
    return mask
