"""Collectives: broadcast, allgather, allreduce, barrier and the canonical tree sum.

Every algorithm is written once over a transport and fixes its own order of additions, so that a
result does not depend on the transport. The law of names: ``allreduce(array)`` moves buffers,
``*_object`` pickles; nothing is guessed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from distgrad.comm import pickles
from distgrad.comm.additions import Addition, run_additions
from distgrad.comm.calls import Call
from distgrad.comm.flat import flat_of, in_rounds, parts
from distgrad.comm.transport import Arrays, Deadline, Rounds, Transport
from distgrad.comm.tree import Node, ShardTree, TreeSum, worker_shards
from distgrad.comm.whole_sums import OwnSum, WholeSums
from distgrad.core.errors import InvalidArgumentError, PeerLostError

Array = np.ndarray

DEFAULT_TIMEOUT = 60.0
REDUCTIONS = {"sum": "add", "max": "maximum", "min": "minimum"}

# Told of every operation behind its end, where somebody records a timeline: whose it was, which
# one, and when it began and ended by ``time.perf_counter``.
told: Callable[[Communicator, str, float, float], None] | None = None


class Communicator:
    """The collectives of one rank in a world of ``world_size``.

    All ranks must make the same calls in the same order. Each message carries a header that is
    checked, and each call has a deadline: a peer that died, froze or took another turn is a
    PeerLostError, never a hang. After the first such error this rank's transport is closed and
    every further call raises. One thread at a time uses a communicator.

    Arrays are C-contiguous, of one of ``calls.DTYPES`` and of any shape, empty ones included;
    they must have the same dtype and number of bytes on every rank.

    Args:
        transport: how bytes move; None makes a world of one, which copies nothing.
        timeout: seconds that one call may take, unless the call names its own.
    """

    # Where a rank sends no more than this, everyone reduces whole arrays: one exchange instead of
    # two, nearly twice as fast. The order of the additions, and so every bit, is the same.
    _whole_bytes = 512 * 1024

    on_devices = False  # whether the arrays lie on GPUs
    _xp: Any = np  # the library of the arrays
    _array_type: type = np.ndarray

    def __init__(
        self, transport: Transport | None = None, *, timeout: float = DEFAULT_TIMEOUT
    ) -> None:
        self.rank = 0 if transport is None else transport.rank
        self.world_size = 1 if transport is None else transport.world_size
        self.timeout = timeout
        self.seconds = 0.0  # in collectives so far, waiting for the others included
        self.clock_ahead = 0  # nanoseconds that this host's clock is ahead of rank 0's
        self._transport = transport
        self._sequence = 0
        self._ended: str | None = None
        self._scratch = self._xp.empty(0, np.uint8)
        self._inboxes = 0  # how many there have been
        self._nodes: tuple[ShardTree | None, list[tuple[Node, ...]]] = None, []
        # Told once that this rank's part has ended, and whether in peace.
        self.at_end: list[Callable[[bool], None]] = []
        # Everyone starts with its right-hand neighbour, so that no rank is everyone's first target.
        self._peers = [(self.rank + i) % self.world_size for i in range(1, self.world_size)]
        self._whole_sums = WholeSums(transport, self._peers)

    @property
    def calls(self) -> int:
        """How many exchanges there have been: between two operations the same on all ranks."""
        return self._sequence

    @property
    def shares_memory(self) -> bool:
        """Whether every rank reaches every other through memory that they share."""
        return self._rounds_of_transport() is not None

    def barrier(self, *, timeout: float | None = None) -> None:
        """Returns once every rank has called it."""
        with self._operation("barrier", timeout) as deadline:
            self._exchange(self._call("barrier", deadline), self._nothing, "nothing")

    def broadcast(self, array: Array, root: int = 0, *, timeout: float | None = None) -> None:
        """Copies the array of rank ``root`` into everyone's ``array``, in place."""
        flat = self._flat("broadcast", array)
        self._check_root(root)
        with self._operation("broadcast", timeout) as deadline:
            call = self._call("broadcast", deadline, flat.dtype, root, flat.nbytes)
            if self.rank == root:
                self._exchange(call, lambda: Arrays({p: [flat] for p in self._peers}, {}))
            else:
                self._exchange(call, lambda: Arrays({}, {root: [flat]}))

    def broadcast_object(self, obj: Any, root: int = 0, *, timeout: float | None = None) -> Any:
        """Returns the object of rank ``root`` on every rank; other ranks' ``obj`` is ignored."""
        self._check_root(root)
        mine = pickles.pickled(obj) if self.rank == root and self._peers else pickles.NOTHING
        with self._operation("broadcast_object", timeout) as deadline:
            call = self._call("broadcast_object", deadline, tag=root, nbytes=mine.nbytes)
            if self.rank == root:
                pickles.exchange(self._transport, call, mine, self._peers, [])
                return obj
            return pickles.exchange(self._transport, call, mine, [], [root])[root]

    def allgather_object(self, obj: Any, *, timeout: float | None = None) -> list[Any]:
        """Returns the objects of all ranks, by rank."""
        mine = pickles.pickled(obj) if self._peers else pickles.NOTHING
        with self._operation("allgather_object", timeout) as deadline:
            call = self._call("allgather_object", deadline, nbytes=mine.nbytes)
            found = pickles.exchange(self._transport, call, mine, self._peers, self._peers)
        return [obj if rank == self.rank else found[rank] for rank in range(self.world_size)]

    def allreduce(
        self, array: Array, op: str = "sum", *, bucket: int = 0, timeout: float | None = None
    ) -> None:
        """Combines the arrays of all ranks element by element, in place, in rank order.

        The same world gives the same bits every time; another world size may not, for which see
        ``reduce_tree``.

        Args:
            array: this rank's values; holds the result afterwards.
            op: ``"sum"``, ``"max"`` or ``"min"``; the sum of booleans is whether any is true, and
                complex numbers have a sum alone.
            bucket: number below 65536 that must agree on all ranks, to tell equal sizes apart.
            timeout: seconds, instead of the communicator's.
        """
        if op not in REDUCTIONS:
            raise InvalidArgumentError(f"allreduce op must be sum, max or min, got {op!r}.")
        flat = self._flat("allreduce", array)
        if flat.dtype.kind == "c" and op != "sum":
            raise InvalidArgumentError(f"complex numbers have no {op}: got {flat.dtype}.")
        operation = f"allreduce({op})"
        with self._operation(operation, timeout) as deadline:
            if self.world_size == 1:
                return
            small = self._is_small(flat.nbytes)
            everywhere = [slice(0, flat.size)] * self.world_size
            for slices in [everywhere] if small else self._rounds(flat):
                call = self._call(operation, deadline, flat.dtype, bucket, flat.nbytes)
                self._reduce_in_rank_order(call, flat, slices, op)
                if not small:
                    call = self._call(operation, deadline, flat.dtype, bucket, flat.nbytes)
                    self._allgather_slices(call, flat, slices)

    def reduce_tree(
        self,
        tree_sum: TreeSum,
        out: Array,
        *,
        bucket: int = 0,
        scatter: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Sums the virtual shards of all ranks in canonical tree order into ``out``.

        The bits of the result do not depend on the number of ranks. Each rank has pushed the
        present shards of ``worker_shards(V, rank, world_size)``; ``tree_sum`` is empty afterwards.

        Args:
            tree_sum: this rank's shards.
            out: array of ``tree_sum.size`` elements and the same dtype that takes the sum.
            bucket: number below 65536 that must agree on all ranks.
            scatter: each rank gets only its ``part`` of the sum; the rest of ``out`` stays.
            timeout: seconds, instead of the communicator's.
        """
        tree = tree_sum.tree
        mine = self._own_partials(tree_sum, out, self._nodes_by_rank(tree)[self.rank])
        operation = "reduce_scatter_tree" if scatter else "reduce_tree"
        tag = tree.fingerprint() ^ bucket
        with self._operation(operation, timeout) as deadline:
            self._reduce_partials(tree, mine, operation, tag, deadline)
        tree_sum.reset()

    def reduce_trees(
        self, sums: Sequence[tuple[TreeSum, Array]], *, timeout: float | None = None
    ) -> None:
        """The same as ``reduce_tree`` on each sum and its array; small ones in one exchange.

        They must be over the same shards.
        """
        nbytes = sum([out.nbytes for _, out in sums])
        if self.world_size == 1 or not self._is_small(nbytes):
            for bucket, (tree_sum, out) in enumerate(sums):
                self.reduce_tree(tree_sum, out, bucket=bucket, timeout=timeout)
            return
        tree = sums[0][0].tree
        nodes = self._nodes_by_rank(tree)[self.rank]
        ready = [self._own_partials(tree_sum, out, nodes) for tree_sum, out in sums]
        with self._operation("reduce_tree", timeout) as deadline:
            self._reduce_whole(tree, ready, tree.fingerprint(), deadline)
        for tree_sum, _ in sums:
            tree_sum.reset()

    def part(self, size: int) -> slice:
        """This rank's part of a flat array of ``size`` elements, in what is scattered."""
        return self._parts(size)[self.rank]

    def allgather(self, array: Array, *, bucket: int = 0, timeout: float | None = None) -> None:
        """Gives everyone the ``part`` of each rank's ``array``, in place.

        Args:
            array: holds this rank's part; and those of all ranks afterwards.
            bucket: number below 65536 that must agree on all ranks.
            timeout: seconds, instead of the communicator's.
        """
        flat = self._flat("allgather", array)
        with self._operation("allgather", timeout) as deadline:
            for slices in self._rounds(flat):
                call = self._call("allgather", deadline, flat.dtype, bucket, flat.nbytes)
                self._allgather_slices(call, flat, slices)

    def settle(self, *, timeout: float | None = None) -> None:
        """Returns when what was begun is done: at once, where the arrays are a host's."""

    def leave(self, code: int, *, timeout: float = 1.0) -> bool:
        """Tells everyone that this rank stops with ``code``; True if all ranks do the same.

        True means that the ranks may simply exit. False means that somebody is still at work (or
        lost) and must be ended with ``abort``; a peer inside a collective learns of it at once.
        """
        try:
            with self._operation("leave", timeout) as deadline:
                call = self._call("leave", deadline, tag=code)
                self._exchange(call, self._nothing, "nothing")
        except PeerLostError:
            return False
        return True

    def abort(self, code: int, reason: str = "") -> None:
        """Ends every rank now: processes exit with ``code``, threads raise PeerLostError."""
        self._ended = self._ended or f"aborted with code {code}"
        if self._transport is not None:
            self._transport.abort(code, reason or f"aborted with code {code}")
        self._tell_the_end(in_peace=False)

    def close(self) -> None:
        """Ends this rank's part without waiting for the others; further calls do nothing."""
        self._tell_the_end(in_peace=True)
        self._ended = self._ended or "closed"
        if self._transport is not None:
            self._transport.close()

    def _operation(self, operation: str, timeout: float | None) -> Operation:
        """Makes the deadline; on any error inside closes this rank, so that peers raise too."""
        if self._ended:
            raise PeerLostError(
                f"rank {self.rank} cannot {operation}: its communicator has ended ({self._ended})."
            )
        return Operation(self, Deadline(operation, self.timeout if timeout is None else timeout))

    def _fail(self, error: BaseException) -> None:
        if self._transport is None:
            return  # nobody is out of step: a notebook goes on after Ctrl-C
        self._ended = str(error) or type(error).__name__
        self._transport.close(self._ended)
        self._tell_the_end(in_peace=False)

    def _tell_the_end(self, in_peace: bool) -> None:
        told, self.at_end = self.at_end, []
        for tell in told:
            tell(in_peace)

    def _call(
        self,
        operation: str,
        deadline: Deadline,
        dtype: np.dtype[Any] | None = None,
        tag: int = 0,
        nbytes: int = 0,
    ) -> Call:
        self._sequence += 1
        return Call(self.rank, operation, self._sequence, deadline, dtype, tag, nbytes)

    def _exchange(
        self,
        call: Call,
        make: Callable[[], Arrays],
        key: Hashable = None,
        *,
        in_step: bool = False,
    ) -> None:
        """Sends a header and arrays to each peer while receiving the same from each peer.

        ``make`` and ``key`` are those of ``Transport.exchange``. With ``in_step`` the peers are
        known to be in the same call, so that their arrays can be received without looking at the
        headers first: one wait instead of two.
        """
        if self._transport is not None:
            self._transport.exchange(
                call.header, make, call.check, call.deadline, key=key, in_step=in_step
            )

    def _nothing(self) -> Arrays:
        return Arrays({p: [] for p in self._peers}, {p: [] for p in self._peers})

    def _where(self, slices: Sequence[slice], flat: Array, *others: Array) -> tuple[Any, ...]:
        """What tells slices of arrays like one, and the inbox, from any other memory."""
        bounds = [bound for each in slices for bound in (each.start, each.stop)]
        addresses = [array.__array_interface__["data"][0] for array in (flat, *others)]
        return flat.dtype, self._inboxes, *addresses, *bounds

    def _reduce_in_rank_order(
        self, call: Call, flat: Array, slices: Sequence[slice], op: str
    ) -> None:
        """Combines each rank's slice of all ranks' arrays, on that rank."""
        mine = flat[slices[self.rank]]
        inbox = self._inbox(self.world_size - 1, mine.size, flat.dtype)

        def arrays() -> Arrays:
            return Arrays(
                {p: [flat[slices[p]]] for p in self._peers},
                {p: [place] for p, place in zip(self._peers, inbox, strict=True)},
                [self._in_rank_order(mine, inbox)] if op == "sum" else (),
            )

        self._exchange(call, arrays, ("allreduce", op == "sum", *self._where(slices, flat)))
        if op != "sum":
            run_additions(self._in_rank_order(mine, inbox), self._xp, REDUCTIONS[op])

    def _in_rank_order(self, mine: Array, inbox: Array) -> list[Addition]:
        """Folds ranks 0, 1, 2, ... into ``mine``; rows of ``inbox``, from peers, are scratch."""
        received = dict(zip(self._peers, inbox, strict=True))
        found: list[Addition] = []
        if self.rank > 0:
            before = received[0]
            found += [(before, received[peer], before) for peer in range(1, self.rank)]
            found.append((before, mine, mine))
        peers = range(self.rank + 1, self.world_size)
        return found + [(mine, received[peer], mine) for peer in peers]

    def _allgather_slices(self, call: Call, flat: Array, slices: Sequence[slice]) -> None:
        """Gives everyone each rank's slice."""
        mine = flat[slices[self.rank]]

        def arrays() -> Arrays:
            return Arrays(
                {p: [mine] for p in self._peers}, {p: [flat[slices[p]]] for p in self._peers}
            )

        self._exchange(call, arrays, ("allgather", *self._where(slices, flat)), in_step=True)

    def _reduce_partials(
        self, tree: ShardTree, own_sum: OwnSum, operation: str, tag: int, deadline: Deadline
    ) -> None:
        """Adds up what all ranks have; of ``reduce_scatter_tree`` each gets its part alone."""
        flat, own = own_sum
        nodes, scatter = self._nodes_by_rank(tree), operation == "reduce_scatter_tree"
        if self.world_size == 1:
            tree.combine(dict(zip(nodes[0], own, strict=True)), flat, self._xp)
            return
        if self._is_small(flat.nbytes) and not scatter:
            self._reduce_whole(tree, [own_sum], tag, deadline)
            return
        for slices in self._rounds(flat):
            call = self._call(operation, deadline, flat.dtype, tag, flat.nbytes)
            self._reduce_slices(call, tree, own_sum, slices)
            if not scatter:
                call = self._call(operation, deadline, flat.dtype, tag, flat.nbytes)
                self._allgather_slices(call, flat, slices)

    def _reduce_slices(
        self, call: Call, tree: ShardTree, own_sum: OwnSum, slices: Sequence[slice]
    ) -> None:
        """Adds up each rank's slice of all ranks' partials, on that rank."""
        flat, own = own_sum
        nodes, where = self._nodes_by_rank(tree), slices[self.rank]
        mine = flat[where]
        inbox = self._inbox(sum(len(nodes[p]) for p in self._peers), mine.size, flat.dtype)

        def arrays() -> Arrays:
            places = iter(inbox)
            received = {p: {node: next(places) for node in nodes[p]} for p in self._peers}
            partials = {n: a[where] for n, a in zip(nodes[self.rank], own, strict=True)}
            for each in received.values():
                partials.update(each)
            return Arrays(
                {p: [array[slices[p]] for array in own] for p in self._peers},
                {p: list(received[p].values()) for p in self._peers},
                [tree.additions(partials, mine)],
            )

        self._exchange(call, arrays, (tree, *self._where(slices, flat, *own)))

    def _reduce_whole(
        self, tree: ShardTree, sums: Sequence[OwnSum], tag: int, deadline: Deadline
    ) -> None:
        """Sums into whole arrays, by one exchange of all partials."""
        nbytes = sum([flat.nbytes for flat, _ in sums])
        call = self._call("reduce_tree", deadline, sums[0][0].dtype, tag, nbytes)
        nodes = self._nodes_by_rank(tree)
        self._whole_sums(tree, nodes, sums, call.header, call.check, deadline)

    def _own_partials(self, tree_sum: TreeSum, out: Array, nodes: Sequence[Node]) -> OwnSum:
        """Checks a sum and the array it goes to; its partials in the order that peers expect."""
        flat = self._flat("reduce_tree", out)
        if flat.size != tree_sum.size or flat.dtype != tree_sum.dtype:
            raise InvalidArgumentError(
                f"reduce_tree needs out of {tree_sum.size} {tree_sum.dtype}, "
                f"got {flat.size} {flat.dtype}."
            )
        tree, own = tree_sum.tree, tree_sum.partials_of(nodes)
        if own is None:
            shards = worker_shards(tree.virtual_shards, self.rank, self.world_size)
            raise InvalidArgumentError(
                f"rank {self.rank} must push every present shard of {list(shards)} and no other "
                f"before reduce_tree; present are {list(tree.present)}."
            )
        return flat, own

    def _nodes_by_rank(self, tree: ShardTree) -> list[tuple[Node, ...]]:
        if self._nodes[0] is not tree:  # nearly every step has the tree of the one before
            shards, size = tree.virtual_shards, self.world_size
            found = [tree.maximal(worker_shards(shards, r, size)) for r in range(size)]
            self._nodes = tree, found
        return self._nodes[1]

    def _is_small(self, nbytes: int) -> bool:
        return nbytes * (self.world_size - 1) <= self._whole_bytes

    def _rounds(self, flat: Array) -> list[list[slice]]:
        return in_rounds(self._parts(flat.size), flat.itemsize, self._rounds_of_transport())

    def _rounds_of_transport(self) -> Rounds | None:
        return None if self._transport is None else self._transport.rounds

    def _parts(self, size: int) -> list[slice]:
        return parts(size, self.world_size)

    def _inbox(self, count: int, size: int, dtype: np.dtype[Any]) -> Array:
        """``count`` receive buffers out of memory that is kept from call to call."""
        nbytes = count * size * dtype.itemsize
        if self._scratch.nbytes < nbytes:
            self._scratch = self._xp.empty(nbytes, np.uint8)
            self._inboxes += 1
        inbox: Array = self._scratch[:nbytes].view(dtype).reshape(count, size)
        return inbox

    def _check_root(self, root: int) -> None:
        if not 0 <= root < self.world_size:
            raise InvalidArgumentError(f"root {root} is not a rank of 0..{self.world_size - 1}.")

    def _flat(self, operation: str, array: Array) -> Array:
        return flat_of(operation, array, self._array_type)


class Operation:
    """The context of one operation; a class, since a generator would cost twice as much."""

    def __init__(self, communicator: Communicator, deadline: Deadline) -> None:
        self._communicator, self._deadline = communicator, deadline

    def __enter__(self) -> Deadline:
        self._begun = time.perf_counter()
        return self._deadline

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        ended = time.perf_counter()
        self._communicator.seconds += ended - self._begun
        if (tell := told) is not None:
            tell(self._communicator, self._deadline.operation, self._begun, ended)
        if error is not None:
            self._communicator._fail(error)
