"""Collectives of arrays on GPUs, one GPU for each rank: NCCL moves them, the host's world leads.

The algorithms are those of `Communicator`, so that a sum has the bits that it has on hosts. Before
each exchange the ranks meet over the host's transport: a rank that is missing, or in another call,
is named there, before any GPU waits for it. The exchange is then put on the caller's stream, and
nobody waits; ``settle`` does, with a deadline. NCCL waits for a lost rank for ever: whatever ends
the host's communicator aborts NCCL's as well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from distgrad.comm.additions import run_additions
from distgrad.comm.calls import DTYPES, HEADER_BYTES, Call
from distgrad.comm.communicator import Array, Communicator, Operation
from distgrad.comm.transport import Arrays, Deadline, Prepared, name_ranks
from distgrad.comm.tree import ShardTree
from distgrad.comm.whole_sums import OwnSum
from distgrad.core.errors import PeerLostError

_SPINS = 200  # looks at an event before the core is given up
_SHORT_NAP, _LONG_NAP = 20e-6, 1e-3
_PARTS = {"complex64": "float32", "complex128": "float64"}
_LOOK = 0.05  # seconds between two looks at a call that blocks
_GOODBYE = 2.0  # seconds for NCCL to end in peace


class DeviceCommunicator(Communicator):
    """The collectives of arrays on this thread's GPU, for the ranks of ``host``.

    The arguments of a collective are a device's; objects and barriers go through the host. Work is
    put on the current stream of the calling thread. A result is only good, and an error only
    raised, once ``settle`` has returned. Every rank must have a GPU of its own.

    Args:
        host: the communicator of the same ranks on hosts; whatever ends either ends both.
        cupy: the module.
        nccl: ``cupy.cuda.nccl``.
        plain: where each rank has one shard, NCCL's own reductions add them in the order that is
            fastest: other bits for another number of ranks.

    Raises:
        PeerLostError: NCCL cannot start, or a rank does not come.
    """

    on_devices = True

    def __init__(self, host: Communicator, cupy: Any, nccl: Any, *, plain: bool = False) -> None:
        self._xp, self._array_type = cupy, cupy.ndarray
        super().__init__(host._transport, timeout=host.timeout)
        self._host, self._nccl, self._plain = host, nccl, plain
        self._device = cupy.cuda.Device().id
        codes = {dtype: getattr(nccl, f"NCCL_{dtype.upper()}", None) for dtype in DTYPES}
        self._codes = {dtype: code for dtype, code in codes.items() if code is not None}
        self._meeting: Prepared | None = None
        if self._transport is not None:
            self._meeting = self._transport.prepare(HEADER_BYTES, self._nothing())
        self._running: str | None = None  # the last operation that nobody has waited for
        self._outgrown: list[Array] = []  # scratch memory that may still be in use
        self._calling: Deadline | None = None
        self._over, self._ending = threading.Event(), threading.Lock()
        # NCCL waits in C for those that do not come, without a deadline: we meet here first.
        number = host.broadcast_object(nccl.get_unique_id() if self.rank == 0 else None)
        host.barrier()
        with host._operation("the start of NCCL", None) as deadline:
            self._comm = self._patiently(
                lambda: nccl.NcclCommunicator(self.world_size, number, self.rank), deadline
            )
        host.at_end.append(self._end)
        self._watcher = threading.Thread(target=self._watch, name="nccl watch", daemon=True)
        self._watcher.start()
        self._try_out()

    def broadcast(self, array: Array, root: int = 0, *, timeout: float | None = None) -> None:
        flat = self._flat("broadcast", array)
        self._check_root(root)
        with self._operation("broadcast", timeout) as deadline:
            self._meet(self._call("broadcast", deadline, flat.dtype, root, flat.nbytes))
            if flat.size:
                with self._launch(deadline) as (comm, stream):
                    at, *kind = self._seen(flat)
                    comm.broadcast(at, at, *kind, root, stream)

    def allgather(self, array: Array, *, bucket: int = 0, timeout: float | None = None) -> None:
        flat = self._flat("allgather", array)
        with self._operation("allgather", timeout) as deadline:
            call = self._call("allgather", deadline, flat.dtype, bucket, flat.nbytes)
            self._meet(call)
            self._allgather_slices(call, flat, self._parts(flat.size))

    def settle(self, *, timeout: float | None = None) -> None:
        """Returns when the device has done all that was begun, on the current stream's way.

        Every rank must call it. Raises PeerLostError by the deadline at the latest.
        """
        operation = self._running
        if operation is None:
            return
        with self._operation(operation, timeout) as deadline:
            # Who has come here has put all of its work on its device.
            self._meet(self._call("settle", deadline))
            event = self._xp.cuda.Event(disable_timing=True)
            self._xp.cuda.get_current_stream().record(event)
            self._wait(event, deadline)
        self._running = None
        self._outgrown.clear()

    def leave(self, code: int, *, timeout: float = 1.0) -> bool:
        return self._host.leave(code, timeout=timeout)

    def abort(self, code: int, reason: str = "") -> None:
        self._host.abort(code, reason)

    def close(self) -> None:
        self._host.close()

    # What the algorithms of the base class stand on.

    def _operation(self, operation: str, timeout: float | None) -> Operation:
        return self._host._operation(operation, timeout)

    def _call(
        self, operation: str, deadline: Deadline, dtype: Any = None, tag: int = 0, nbytes: int = 0
    ) -> Call:
        if dtype is not None:  # of arrays; also where this rank has no element to send
            self._running = operation
        return self._host._call(operation, deadline, dtype, tag, nbytes)

    def _exchange(
        self,
        call: Call,
        make: Callable[[], Arrays],
        key: Hashable = None,
        *,
        in_step: bool = False,
    ) -> None:
        if not in_step:
            self._meet(call)
        outgoing, incoming, sums = make()
        sends = [(peer, a) for peer, arrays in outgoing.items() for a in arrays if a.size]
        receives = [(peer, a) for peer, arrays in incoming.items() for a in arrays if a.size]
        if sends or receives:
            self._move(call.deadline, sends, receives)
        for additions in sums:
            run_additions(additions, self._xp)

    def _where(self, slices: Sequence[slice], flat: Array, *others: Array) -> tuple[Any, ...]:
        return ()  # nothing is remembered

    def _rounds_of_transport(self) -> None:
        return None

    def _move(
        self,
        deadline: Deadline,
        sends: Sequence[tuple[int, Array]],
        receives: Sequence[tuple[int, Array]],
    ) -> None:
        with self._launch(deadline) as (comm, stream):
            self._nccl.groupStart()
            try:
                for peer, a in sends:
                    comm.send(*self._seen(a), peer, stream)
                for peer, a in receives:
                    comm.recv(*self._seen(a), peer, stream)
            finally:
                self._nccl.groupEnd()

    def _reduce_partials(
        self, tree: ShardTree, own_sum: OwnSum, operation: str, tag: int, deadline: Deadline
    ) -> None:
        plain = self._plain and own_sum[0].dtype.name in (*self._codes, *_PARTS)
        if not plain or tree.virtual_shards > self.world_size:
            super()._reduce_partials(tree, own_sum, operation, tag, deadline)
            return
        flat, own = own_sum
        self._meet(self._call(operation, deadline, flat.dtype, tag, flat.nbytes))
        if not own:  # this rank has no shard
            flat[...] = 0
        (mine,) = own or (flat,)
        if flat.size:
            self._reduce_plainly(deadline, mine, flat, operation == "reduce_scatter_tree")

    def _reduce_whole(
        self, tree: ShardTree, sums: Sequence[OwnSum], tag: int, deadline: Deadline
    ) -> None:
        nodes = self._nodes_by_rank(tree)
        nbytes = sum([flat.nbytes for flat, _ in sums])
        partials = [dict(zip(nodes[self.rank], own, strict=True)) for _, own in sums]
        for (flat, _), each in zip(sums, partials, strict=True):
            each.update({n: self._xp.empty_like(flat) for p in self._peers for n in nodes[p]})
        arrays = Arrays(
            {p: [array for _, own in sums for array in own] for p in self._peers},
            {p: [each[node] for each in partials for node in nodes[p]] for p in self._peers},
            [tree.additions(p, out) for (out, _), p in zip(sums, partials, strict=True)],
        )
        call = self._call("reduce_tree", deadline, sums[0][0].dtype, tag, nbytes)
        self._exchange(call, lambda: arrays)

    def _allgather_slices(self, call: Call, flat: Array, slices: Sequence[slice]) -> None:
        if flat.size % self.world_size:  # NCCL's own wants equal parts
            super()._allgather_slices(call, flat, slices)
        elif flat.size:
            mine = flat[slices[self.rank]]
            with self._launch(call.deadline) as (comm, stream):
                at, *kind = self._seen(mine)
                comm.allGather(at, self._seen(flat)[0], *kind, stream)

    def _inbox(self, count: int, size: int, dtype: Any) -> Array:
        before = self._scratch
        inbox = super()._inbox(count, size, dtype)
        if self._scratch is not before:
            self._outgrown.append(before)
        return inbox

    def _reduce_plainly(self, deadline: Deadline, mine: Array, out: Array, scatter: bool) -> None:
        """The sum of all ranks' ``mine`` by NCCL's own reductions; ``mine`` may be ``out``."""
        total = self._nccl.NCCL_SUM
        with self._launch(deadline) as (comm, stream):
            if not scatter:
                at, *kind = self._seen(out)
                comm.allReduce(self._seen(mine)[0], at, *kind, total, stream)
            elif out.size % self.world_size == 0:
                part = out[self.part(out.size)]
                at, *kind = self._seen(part)
                comm.reduceScatter(self._seen(mine)[0], at, *kind, total, stream)
            else:
                self._nccl.groupStart()
                try:
                    for root, where in enumerate(self._parts(out.size)):
                        given, taken = mine[where], out[where]
                        if given.size:
                            at, *kind = self._seen(given)
                            comm.reduce(at, self._seen(taken)[0], *kind, total, root, stream)
                finally:
                    self._nccl.groupEnd()

    def _seen(self, array: Array) -> tuple[int, int, int]:
        """An array as NCCL takes it: its address, how many elements it has, and of which type.

        Complex numbers are their parts; what NCCL has no type for, which it may copy, is bytes.
        """
        if array.dtype.name not in self._codes:
            array = array.view(_PARTS.get(array.dtype.name, "uint8"))
        address: int = array.data.ptr  # type: ignore[attr-defined]
        return address, array.size, self._codes[array.dtype.name]

    # Calls that may block, and waits.

    def _meet(self, call: Call) -> None:
        """Returns when every rank is in the same call."""
        if self._meeting is not None:
            self._meeting(call.header, call.check, call.deadline)

    @contextmanager
    def _launch(self, deadline: Deadline) -> Iterator[tuple[Any, int]]:
        """NCCL's communicator and the current stream, for calls that the watch may end."""
        self._calling = deadline
        try:
            yield self._comm, self._xp.cuda.get_current_stream().ptr
        except self._nccl.NcclError as error:
            self._raise(deadline, error)
        finally:
            self._calling = None
        self._check(deadline)

    def _watch(self) -> None:
        """Ends a call of NCCL that blocks past its deadline: connections are made in the first."""
        while not self._over.wait(_LOOK):
            deadline = self._calling
            if deadline is not None and deadline.left() == 0.0:
                self._end(in_peace=False)

    def _wait(self, event: Any, deadline: Deadline) -> None:
        looks, nap = 0, _SHORT_NAP
        while not event.done:
            looks += 1
            if looks < _SPINS:
                continue
            self._look(deadline)
            if deadline.left() == 0.0:
                raise PeerLostError(
                    f"rank {self.rank} waited {deadline.seconds:g} s for its GPU in "
                    f"{deadline.operation}, which {name_ranks(self._peers)} have begun, too: a "
                    "GPU of one of them, or the way between two, hangs. NCCL_DEBUG=INFO says more; "
                    "DISTGRAD_NCCL=off goes through the hosts."
                )
            time.sleep(nap)
            nap = min(2 * nap, _LONG_NAP)
        self._check(deadline)  # an abort ends the work, too

    def _look(self, deadline: Deadline) -> None:
        """Raises what the transport or NCCL know of a failure."""
        if self._transport is not None:
            self._transport.look(deadline)
        self._check(deadline)

    def _check(self, deadline: Deadline) -> None:
        """Raises what NCCL knows of a failure, and after an abort."""
        if self._over.is_set():
            if deadline.left() == 0.0:  # by the watch
                deadline.expire(self.rank, self._peers)
            raise PeerLostError(f"rank {self.rank}: {deadline.operation} was aborted.")
        try:
            self._comm.check_async_error()
        except self._nccl.NcclError as error:
            self._raise(deadline, error)

    def _raise(self, deadline: Deadline, error: Exception) -> None:
        if self._over.is_set() and deadline.left() == 0.0:  # the watch has ended it
            deadline.expire(self.rank, self._peers)
        raise PeerLostError(
            f"rank {self.rank}: NCCL failed in {deadline.operation}: {error}. NCCL_DEBUG=INFO says "
            "more; DISTGRAD_NCCL=off goes through the hosts."
        ) from None

    def _patiently(self, call: Callable[[], Any], deadline: Deadline) -> Any:
        """What ``call`` gives, which may block for ever: in a thread that is then left behind."""
        found: list[Any] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                self._xp.cuda.Device(self._device).use()
                found.append(call())
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=run, name="nccl", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_LOOK)
            if thread.is_alive() and self._transport is not None:
                self._transport.look(deadline)
                if deadline.left() == 0.0:
                    deadline.expire(self.rank, self._peers)
        if errors:
            self._raise(deadline, errors[0])
        return found[0]

    def _try_out(self) -> None:
        """One number from each rank to each: it makes the connections, and shows that they work."""
        number = self._xp.ones(1, "float32")
        self.allreduce(number)
        self.settle()

    def _end(self, in_peace: bool) -> None:
        with self._ending:
            if self._over.is_set():
                return
            self._over.set()
        if self._watcher is not threading.current_thread():
            self._watcher.join(_GOODBYE)
        # In peace, what peers have not taken yet is sent first. Neither may keep us for ever.
        last = self._comm.destroy if in_peace else self._comm.abort
        goodbye = threading.Thread(target=last, name="nccl", daemon=True)
        goodbye.start()
        goodbye.join(_GOODBYE)
