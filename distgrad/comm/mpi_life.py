"""How a process enters MPI, and leaves it with the exit code of its program.

MPI_Init waits for ever for a rank that ended before it, and MPI_Finalize keeps a rank that ended
before the others, its exit code with it. Here the one has a deadline; and before the other, a rank
tells everyone that it has come to its end, and hears from those who still need it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from distgrad.core.errors import OutOfStepError, PeerLostError

_TAG, _FLOOR_TAG = 25704, 25705  # beside that of the transport
_IN_PEACE, _LOST = 0, 1
_PAUSE = 1e-3
_PUSH = 1.0  # seconds for a word to go out
_LAST_WORDS = 10.0  # seconds that a program has from the end of its script to its exit
_PASSED_ON = 0.05  # seconds: mpirun ends itself at an abort, with what it has not passed on yet
_AFTER_A_CODE = 0.5  # seconds for which a rank that came to its end in peace lets others speak
_CROSSING = 0.02  # seconds for a message between ranks that look for it
_SPOKEN_FOR = 10.0  # seconds that a rank which ends all has for it, before another one does
_PER_RANK, _RANKS = 0.2, 10

_life: MPILife | None = None


def begin(mpi: Any, seconds: float) -> MPILife:
    """Initialises MPI unless it is, and makes this process end it at exit.

    Where not all ranks come within ``seconds``, this process says so and ends, with exit code 6.
    """
    global _life
    if _life is None:
        ours = not mpi.Is_initialized()
        if ours:
            with _deadline(seconds):
                _initialize(mpi)
        _life = MPILife(mpi, ours=ours)
        atexit.register(_life.end)
    return _life


def tell_loss() -> None:
    """Lets ranks that have come to their end know that this one still needed one of them."""
    if _life is not None:
        _life.tell(_LOST)
        _life.push(_PUSH)


def turn(rank: int) -> float:
    """Seconds for which a rank keeps silent, so that of several that have to end all, one does."""
    return _PER_RANK * min(rank, _RANKS)


def take_floor() -> None:
    """Returns when it is for this rank to say why all end: no other one under MPI is at it.

    mpirun may take longer to end the others than they keep silent (``turn``).
    """
    if _life is not None:
        _life.take_floor()


def abort(mpi: Any, code: int) -> None:
    """Ends all ranks with an exit code, once what this one has printed has come through."""
    end = time.monotonic() + _PUSH
    while _unread(1) or _unread(2):  # mpirun looks at an abort before it looks at these
        if time.monotonic() > end:
            break
        time.sleep(_PAUSE)
    time.sleep(_PASSED_ON)
    mpi.COMM_WORLD.Abort(code)


class MPILife:
    """What ranks tell each other at their end: one byte to each of the others.

    Args:
        mpi: the module ``mpi4py.MPI``, initialised.
        ours: whether it is for us to finalize it; else whoever has initialised it does.
    """

    def __init__(self, mpi: Any, *, ours: bool) -> None:
        self._mpi = mpi
        self._ours = ours
        self._process = os.getpid()
        self._world = world = mpi.COMM_WORLD
        self._rank = world.Get_rank()
        peers = [peer for peer in range(world.Get_size()) if peer != self._rank]
        self._heard = {peer: bytearray([_IN_PEACE]) for peer in peers}
        self._receiving = {
            peer: world.Irecv([word, mpi.BYTE], peer, _TAG) for peer, word in self._heard.items()
        }
        self._sending: list[Any] = []

    def has_ended(self, peer: int) -> bool:
        """Whether a rank has come to its end, or has lost somebody."""
        return bool(self._receiving[peer].Test())

    def tell(self, word: int) -> None:
        """Tells the others, once."""
        if not self._sending:
            send = self._world.Isend
            self._sending = [send([bytes([word]), self._mpi.BYTE], p, _TAG) for p in self._heard]

    def push(self, seconds: float) -> None:
        """Lets MPI bring the words on their way: it moves nothing while nobody calls it."""
        end = time.monotonic() + seconds
        while not self._mpi.Request.Testall(self._sending) and time.monotonic() < end:
            time.sleep(_PAUSE)

    def take_floor(self) -> None:
        """What the function says: the first rank has the floor, of several at once the lowest."""
        if not self._floor_taken(self._heard):
            send = self._world.Isend
            self._sending += [send([b"", self._mpi.BYTE], p, _FLOOR_TAG) for p in self._heard]
            if not self._floor_taken([peer for peer in self._heard if peer < self._rank]):
                return
        time.sleep(_SPOKEN_FOR)

    def _floor_taken(self, peers: Iterable[int]) -> bool:
        """Whether one of these ranks has the floor."""
        end = time.monotonic() + _CROSSING
        while True:  # more than one look: MPI takes in messages while it is called
            if any(self._world.Iprobe(peer, _FLOOR_TAG) for peer in peers):
                return True
            if time.monotonic() > end:
                return False
            time.sleep(_PAUSE)

    def end(self) -> None:
        """Ends MPI once all ranks have come to their end; at exit."""
        if self._mpi.Is_finalized() or os.getpid() != self._process:  # a fork is no rank
            return
        self.tell(_IN_PEACE)
        waiting = [*self._receiving.values(), *self._sending]
        done = False
        while not done:
            done = self._mpi.Request.Testall(waiting)
            missed = [p for p, word in self._heard.items() if word[0] == _LOST]
            if missed:
                self._end_alone(missed[0])
                return
            time.sleep(0 if done else _PAUSE)
        if self._ours:
            self._mpi.Finalize()

    def _end_alone(self, peer: int) -> None:
        """Ends all ranks with the exit code that this one is about to have.

        Python tells nobody at exit which one that is: a child goes on to it, and this process sees
        it there.
        """
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        child = os.fork()
        if child == 0:
            return
        code = _exit_code(child)
        time.sleep(turn(self._rank) + (0 if code else _AFTER_A_CODE))
        self.take_floor()
        how = f"ended with exit code {code}" if code else "come to the end of its program"
        advice = "" if code else " Every rank must make the same number of collective calls."
        print(
            f"[rank {self._rank}] error: rank {self._rank} has {how}, while rank {peer} still "
            f"waited for it.{advice}",
            file=sys.stderr,
            flush=True,
        )
        abort(self._mpi, code or OutOfStepError.exit_code)


def _unread(fd: int) -> bool:
    """Whether something that was written to a pipe still lies in it, where the system says so."""
    count = bytearray(struct.calcsize("i"))
    try:
        import fcntl
        import termios

        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            return False
        fcntl.ioctl(fd, termios.FIONREAD, count)
    except (ImportError, OSError):
        return False
    return any(count)


def _exit_code(child: int) -> int:
    """The exit code of a child, which is killed if it takes too long; 0 then, too."""
    end = time.monotonic() + _LAST_WORDS
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return code if code > 0 else 0
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            end = float("inf")
        time.sleep(_PAUSE)


def _initialize(mpi: Any) -> None:
    """MPI_Init, with threads allowed where the library can."""
    try:
        # Through ctypes other threads go on meanwhile, the one with the deadline among them.
        initialize: Callable[..., int] = ctypes.CDLL(mpi.__file__).MPI_Init_thread
    except (OSError, AttributeError):  # a library that is linked in another way
        mpi.Init_thread(mpi.THREAD_MULTIPLE)
        return
    initialize(None, None, ctypes.c_int(mpi.THREAD_MULTIPLE), ctypes.byref(ctypes.c_int()))
    mpi.COMM_WORLD.Set_errhandler(mpi.ERRORS_RETURN)
    mpi.COMM_SELF.Set_errhandler(mpi.ERRORS_RETURN)


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    def give_up() -> NoReturn:
        print(
            f"error: not all ranks have come to MPI within {seconds:g} s "
            "(DISTGRAD_START_TIMEOUT): one has ended before that, or starts late. Its own output "
            "says why, if it has any.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(PeerLostError.exit_code)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
