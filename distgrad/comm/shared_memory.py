"""Memory between two processes of one host: shared rings, and reading from each other directly.

Through a ring bytes flow without a system call. It lies in a file without a name, which goes when
its last process goes: nothing is left in /dev/shm, however a rank dies. A peer opens it through
/proc, which needs the same user and the same namespace of processes; where that fails, TCP carries
the bytes. Large arrays are copied out of the other process (``process_vm_readv``): one copy less,
where nothing (Yama, a sandbox) forbids it.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import secrets
import sys
import threading
import time
from pathlib import Path
from typing import Any

_RING_BYTES = 1 << 20  # of one direction; twice what is sent in one piece, or more
_ALL_BYTES = 1 << 24  # of one direction of all peers together
_PAGE = 4096
_PR_SET_PTRACER = 0x59616D61
_MOST = 1 << 30  # bytes in one call
_LINE = 8  # words in a cache line, for each counter one of its own

# A ring's count is stored after its bytes, and must be seen after them: x86-64 keeps the order of
# stores, other processors would need barriers that Python does not have.
_ORDERED = sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64")


class _Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class PeerMemory:
    """The memory of process ``pid``."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def read(self, address: int, into: memoryview) -> None:
        """Fills ``into`` (writeable bytes) from the peer's ``address``.

        Raises:
            OSError: the process is gone, or may not be read.
        """
        assert _readv is not None
        start = ctypes.addressof(ctypes.c_char.from_buffer(into))
        done, total = 0, len(into)
        while done < total:
            count = min(total - done, _MOST)
            mine, theirs = _Piece(start + done, count), _Piece(address + done, count)
            got = _readv(self.pid, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0)
            if got <= 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            done += got


class Card:
    """What a rank shows its peers, so that they can try to read its memory."""

    def __init__(self) -> None:
        self._secret = ctypes.create_string_buffer(secrets.token_bytes(16), 16)

    def show(self) -> dict[str, Any] | None:
        """The card; None where this system cannot do it."""
        here = place()
        if _readv is None or here is None:
            return None
        address = ctypes.addressof(self._secret)
        return {**here, "pid": os.getpid(), "address": address, "secret": self._secret.raw.hex()}


def reader(card: dict[str, Any] | None) -> PeerMemory | None:
    """The memory of the process that shows this card, if it can really be read."""
    if card is None or not _is_here(card):
        return None
    memory, found = PeerMemory(card["pid"]), bytearray(16)
    try:
        memory.read(card["address"], memoryview(found))
    except OSError:
        return None
    return memory if found.hex() == card["secret"] else None


def allow_family(pid: int) -> None:
    """Lets ``pid`` and its descendants read this process where Yama would forbid it."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0)


def filled_up(count: int) -> int:
    """The multiple of 8 from ``count`` on."""
    return (count + 7) & -8


class Stream:
    """One end of the memory that two processes share.

    What is written in one piece begins at a multiple of 8 bytes, so that numbers lie in the rings
    as they must to be added there. A piece is as long for its reader as for its writer.

    Args:
        memory: zeros at first, but for what nobody has read yet.
        first: whether this is the end of the process that made it.
    """

    def __init__(self, memory: mmap.mmap, first: bool) -> None:
        view = memoryview(memory)
        self._counts = view[:_PAGE].cast("Q")
        self.size = size = (len(view) - _PAGE) // 2
        rings = view[_PAGE : _PAGE + size], view[_PAGE + size : _PAGE + 2 * size]
        self._out, self._in = rings if first else rings[::-1]
        # Both count bytes from the start; the difference is what the ring holds.
        mine, theirs = (0, 2 * _LINE) if first else (2 * _LINE, 0)
        self._written_at, self._taken_at = mine, mine + _LINE
        self._arrived_at, self._read_at = theirs, theirs + _LINE
        self._written = self._read = 0
        self._my_doze, self._their_doze = (4 * _LINE, 5 * _LINE)[:: 1 if first else -1]
        self._fence = threading.Lock()
        self._addresses: list[int] = []

    @property
    def space(self) -> int:
        """Bytes that can be written now."""
        return max(0, self.size - (self._written - self._counts[self._taken_at]))

    @property
    def ready(self) -> int:
        """Bytes that can be read now."""
        return self._counts[self._arrived_at] - self._read

    def write(self, data: memoryview) -> int:
        """Writes as many bytes as there is space for; how many."""
        count = min(self.space, len(data))
        place = self._written % self.size
        head = min(count, self.size - place)
        self._out[place : place + head] = data[:head]
        if head < count:
            self._out[: count - head] = data[head:count]
        self._written += count
        if count == len(data):
            self._written = filled_up(self._written)
        self._counts[self._written_at] = self._written
        return count

    def peek(self, count: int) -> bytes:
        """The next ``count`` bytes, which are there and stay unread."""
        place = self._read % self.size
        found = bytes(self._in[place : place + count])
        return found + bytes(self._in[: count - len(found)])

    def read(self, into: memoryview) -> int:
        """Reads as many bytes as are there, and fit; how many."""
        count = min(self.ready, len(into))
        place = self._read % self.size
        head = min(count, self.size - place)
        into[:head] = self._in[place : place + head]
        if head < count:
            into[head:count] = self._in[: count - head]
        self._read += count
        if count == len(into):
            self._read = filled_up(self._read)
        self._counts[self._read_at] = self._read
        return count

    def addresses(self) -> list[int]:
        """Where machine code finds all this.

        The ring that is written, its size, the counts of what was written and taken; the same of
        the ring that is read; and whether the peer sleeps.
        """
        if not self._addresses:
            counts = ctypes.addressof(ctypes.c_char.from_buffer(self._counts))
            out, come = (
                ctypes.addressof(ctypes.c_char.from_buffer(r)) for r in (self._out, self._in)
            )
            places = (self._written_at, self._taken_at, self._arrived_at, self._read_at)
            written, taken, arrived, read = (counts + 8 * place for place in places)
            doze = counts + 8 * self._their_doze
            self._addresses = [
                *(out, self.size, written, taken),
                *(come, self.size, arrived, read),
                doze,
            ]
        return self._addresses

    def moved(self, written: int, read: int) -> None:
        """Is told what machine code has written and read."""
        self._written += written
        self._read += read

    def doze(self, asleep: bool) -> None:
        """Tells the peer whether it must wake this process when it has read or written."""
        self._counts[self._my_doze] = asleep
        self._order()

    def must_wake(self) -> bool:
        """Whether the peer sleeps, and must now be told that something has changed."""
        self._order()
        if not self._counts[self._their_doze]:
            return False
        self._counts[self._their_doze] = False
        return True

    def _order(self) -> None:
        """What was stored before is seen before what is loaded after: as any lock does it."""
        with self._fence:
            pass


class Offer:
    """Memory that this process offers to share with one peer.

    Args:
        peers: how many such peers there may be on this host.
    """

    def __init__(self, peers: int) -> None:
        self._memory: mmap.mmap | None = None
        self._file = -1
        self._secret = secrets.token_bytes(16)
        size = min(_RING_BYTES, max(_PAGE, _ALL_BYTES // max(peers, 1) // _PAGE * _PAGE))
        if not _ORDERED:
            return
        with contextlib.suppress(OSError):
            self._file = os.memfd_create("distgrad")
            os.ftruncate(self._file, _PAGE + 2 * size)
            self._memory = mmap.mmap(self._file, _PAGE + 2 * size)
            self._memory[-16:] = self._secret

    def show(self) -> dict[str, Any] | None:
        """What the peer needs to ``take`` it; None where this system cannot do it."""
        here = place()
        if self._memory is None or here is None:
            return None
        return {
            **here,
            "path": f"/proc/{os.getpid()}/fd/{self._file}",
            "secret": self._secret.hex(),
        }

    def end(self, taken: bool) -> Stream | None:
        """Our end of it, where the peer has taken it."""
        if self._file >= 0:
            os.close(self._file)
        return Stream(self._memory, True) if taken and self._memory is not None else None


def take(offer: dict[str, Any] | None) -> Stream | None:
    """The other end of what ``Offer.show`` showed, if this process can really see it."""
    if offer is None or not _is_here(offer):
        return None
    try:
        with open(offer["path"], "r+b", buffering=0) as file:
            memory = mmap.mmap(file.fileno(), 0)
    except (OSError, ValueError):
        return None
    return Stream(memory, False) if memory[-16:].hex() == offer["secret"] else None


def _is_here(other: dict[str, Any]) -> bool:
    here = place()
    return here is not None and all(other[key] == here[key] for key in here)


def place() -> dict[str, str] | None:
    """This boot of this host, and these namespaces of processes and of networks.

    Ranks with a network each are hosts of their own: cut off from each other, they must notice.
    """
    with contextlib.suppress(OSError):
        return {
            "host": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "pids": os.readlink("/proc/self/ns/pid"),
            "network": os.readlink("/proc/self/ns/net"),
        }
    return None


_readv = None
if sys.platform == "linux":
    _libc = ctypes.CDLL(None, use_errno=True)
    # os.sched_yield keeps the interpreter's lock, against which other threads then wait.
    yield_core = _libc.sched_yield
    _readv = getattr(_libc, "process_vm_readv", None)
    if _readv is not None:
        _readv.restype = ctypes.c_ssize_t
else:

    def yield_core() -> None:
        """Lets other threads and processes run."""
        time.sleep(0)
