"""Threads that share one call of generated functions, and sleep where there is nothing to do.

Whoever calls works as well. Tasks are taken one by one, so that a thread that the machine holds up
keeps nobody waiting but for the task that it has. Who has waited for that longer than it worked
does the tasks of the next calls alone: of 16, and of twice as many each time. Which thread does a
task changes no bit.

The threads are Python's, in machine code that holds no lock of the interpreter, and wait by those
calls of POSIX threads whose addresses they are given; without these, one thread does all.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import ctypes
import functools
import os
import signal
import struct
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.compile import memory
from distgrad.compile.llvm.loops import Native, address_of, kept
from distgrad.compile.llvm.pool_code import CALLS, functions, places
from distgrad.launcher import load
from distgrad.launcher.threads import blas, of_kernels


def threads() -> int:
    """How many threads share a call: `of_kernels`, or as many as BLAS has.

    Where a quota gives a container fewer cores, there are fewer.
    """
    pool = _started()
    return 1 if pool is None else min(pool.threads, _wanted())


def _wanted() -> int:
    return of_kernels() or threads_of_blas()


_blas, _cores = functools.cache(blas), functools.cache(load.cores)


class _Limit:
    """One thread for BLAS while somebody is within it, in this thread of Python or another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before = 1  # threads of BLAS when there was none

    def threads(self) -> int:
        """Those of BLAS outside of it."""
        library = _blas()
        with self._lock:
            if self._users:
                return self._before
            return 1 if library is None else library.get_num_threads() or 1

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._before = _blas().get_num_threads()
                _blas().set_num_threads(1)
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                _blas().set_num_threads(self._before)


_limit = _Limit()


def threads_of_blas() -> int:
    """How many it uses, where nobody has it use one."""
    return _limit.threads()


def by_blas(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A call that multiplies by BLAS, with one thread of it: the bits are those of that.

    More threads would look for more work for a tenth of a second, on the cores that ours need.
    """
    if threads_of_blas() == 1:
        return call(*args, **kwargs)
    with _limit:
        return call(*args, **kwargs)


def state() -> int:
    """The address of what the threads share; the first word of a list of tasks."""
    pool = _started()
    assert pool is not None, "one thread shares nothing"
    return pool.state


def run(tasks: Any) -> None:
    """Does the tasks of a list that lies at an address, in no order; all are done then.

    The list is ``state()``, their number, and for each a function and its table.
    """
    functions().share(tasks)


def shared(function: Native, table: np.ndarray) -> Callable[[], None]:
    """Calls the function on each row of a table of entries, which is kept, and may change."""
    tasks = np.empty(2 + 2 * len(table), np.int64)
    tasks[:2], tasks[2::2] = (state(), len(table)), function.address
    tasks[3::2] = address_of(table) + table.strides[0] * np.arange(len(table))
    return kept(run, address_of(tasks), (tasks, table))


class _Pool:
    """The state that all threads share, in memory that is never given back."""

    def __init__(self, count: int, library: ctypes.CDLL) -> None:
        functions()  # threads that begin find them made
        where = places()
        size = max(where.values()) + 8 * len(CALLS)
        self._memory = memory.block(size)
        self.state = address_of(self._memory)
        self._table = struct.pack("Q", self.state)
        self._words = self._memory[: size // 8 * 8].view(np.int64)
        for name, call in CALLS.items():
            self._word(name)[...] = ctypes.cast(getattr(library, call), ctypes.c_void_p).value
        library.pthread_mutex_init(ctypes.c_void_p(self.state + where["mutex"]), None)
        for name in ("work", "done"):
            library.pthread_cond_init(ctypes.c_void_p(self.state + where[name]), None)
        self._left = threading.Semaphore(0)
        self._running = 0  # threads but the caller's
        self._forking = threading.Lock()
        self._begin(count - 1)
        atexit.register(self.end)
        # A fork has no other thread, which may have held a lock; so there is none when it is made.
        os.register_at_fork(
            before=self._pause, after_in_parent=self._go_on, after_in_child=self._alone
        )

    def _begin(self, count: int) -> None:
        """Starts so many threads, or as many as this process may have."""
        self._word("stop")[...] = 0
        with contextlib.suppress(RuntimeError):  # no more of them; or Python is about to end
            while self._running < count:
                _thread.start_new_thread(self._serve, ())  # nobody's to wait for, or to count
                self._running += 1
        self.threads = 1 + self._running

    def _word(self, name: str) -> np.ndarray:
        at = places()[name] // 8
        return self._words[at : at + 1]

    def _serve(self) -> None:
        # Signals are the main thread's, whose waits they end.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        functions().work(self._table)
        self._left.release()

    def end(self) -> None:
        """The threads leave the code, whose memory goes with the interpreter."""
        if self._running:
            functions().halt(self._table)
            for _ in range(self._running):
                self._left.acquire(timeout=1)
            self._running = 0

    def _pause(self) -> None:
        self._forking.acquire()  # one fork after the other
        self._paused = self._running
        self.end()

    def _go_on(self) -> None:
        self._begin(self._paused)
        self._forking.release()

    def _alone(self) -> None:
        """A fork does all by itself."""
        self.threads = 1
        self._word("busy")[...] = 1
        self._forking.release()


_making = threading.Lock()
_made: _Pool | None = None


def _started() -> _Pool | None:
    """The pool of this process; None where one thread does all."""
    global _made
    if _made is None and (count := min(_wanted(), _cores())) > 1:
        with _making:
            library = _posix()
            if _made is None and library is not None:
                _made = _Pool(count, library)
    return _made


@functools.cache
def _posix() -> ctypes.CDLL | None:
    """What has the calls of POSIX threads; None on a system that has none."""
    try:
        library = ctypes.CDLL(None)
        for call in (*CALLS.values(), "pthread_mutex_init", "pthread_cond_init"):
            getattr(library, call)
    except (OSError, AttributeError, TypeError):
        return None
    return library if hasattr(os, "register_at_fork") else None
