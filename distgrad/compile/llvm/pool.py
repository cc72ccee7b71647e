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
from typing import Any, NamedTuple

import numpy as np

from distgrad.compile import memory
from distgrad.compile.llvm import engine
from distgrad.compile.llvm.loops import Kept, Native, address_of
from distgrad.launcher import environ, load

_LINE = 8  # words of a cache line: threads that write what others read would wait for each other
_WORDS = (  # a line each
    *("tasks", "list", "pending", "sleepers", "waits", "stop"),
    *("busy", "mode", "alone", "pause"),
)
_OBJECTS = {"mutex": 128, "work": 128, "done": 128}  # bytes: more than any system's have
_CALLS = {
    "lock": "pthread_mutex_lock",
    "unlock": "pthread_mutex_unlock",
    "wait": "pthread_cond_wait",
    "wake": "pthread_cond_broadcast",
}
_SPINS = 4000  # looks before a thread goes to sleep: about a tenth of a millisecond
_BEARABLE = 100_000  # cycles that nobody minds to wait
_LONGEST = 4096  # calls that are done alone, at most, before others are asked again
_PAUSE = "@llvm.x86.sse2.pause()"  # tells a core that its thread waits; all that has FMA has it


def threads() -> int:
    """How many threads share a call: as many as BLAS has, by OMP_NUM_THREADS and its like.

    Where a quota gives a container fewer cores, there are fewer.
    """
    pool = _started()
    return 1 if pool is None else min(pool.threads, _threads_of_blas())


_blas, _cores = functools.cache(environ.blas), functools.cache(load.cores)


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


def _threads_of_blas() -> int:
    return _limit.threads()


def by_blas(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A call that multiplies by BLAS, with one thread of it: the bits are those of that.

    More threads would look for more work for a tenth of a second, on the cores that ours need.
    """
    if _threads_of_blas() == 1:
        return call(*args, **kwargs)
    with _limit:
        return call(*args, **kwargs)


def state() -> int:
    """The address of what the threads share; the first word of a list of tasks."""
    pool = _started()
    assert pool is not None, "one thread shares nothing"
    return pool.state


def run(tasks: int) -> None:
    """Does the tasks of a list that lies at an address, in no order; all are done then.

    The list is ``state()``, their number, and for each a function and its table.
    """
    _functions().share(tasks)


def shared(function: Native, table: np.ndarray) -> Callable[[], None]:
    """Calls the function on each row of a table of entries, which is kept, and may change."""
    tasks = np.empty(2 + 2 * len(table), np.int64)
    tasks[:2], tasks[2::2] = (state(), len(table)), function.address
    tasks[3::2] = address_of(table) + table.strides[0] * np.arange(len(table))
    return Kept(run, address_of(tasks), (tasks, table)).run


class _Pool:
    """The state that all threads share, in memory that is never given back."""

    def __init__(self, count: int, library: ctypes.CDLL) -> None:
        _functions()  # threads that begin find them made
        places = _places()
        size = max(places.values()) + 8 * len(_CALLS)
        self._memory = memory.block(size)
        self.state = address_of(self._memory)
        self._table = struct.pack("Q", self.state)
        self._words = self._memory[: size // 8 * 8].view(np.int64)
        for name, call in _CALLS.items():
            self._word(name)[...] = ctypes.cast(getattr(library, call), ctypes.c_void_p).value
        library.pthread_mutex_init(ctypes.c_void_p(self.state + places["mutex"]), None)
        for name in ("work", "done"):
            library.pthread_cond_init(ctypes.c_void_p(self.state + places[name]), None)
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
        at = _places()[name] // 8
        return self._words[at : at + 1]

    def _serve(self) -> None:
        # Signals are the main thread's, whose waits they end.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        _functions().work(self._table)
        self._left.release()

    def end(self) -> None:
        """The threads leave the code, whose memory goes with the interpreter."""
        if self._running:
            _functions().halt(self._table)
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
    if _made is None and (count := min(_threads_of_blas(), _cores())) > 1:
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
        for call in (*_CALLS.values(), "pthread_mutex_init", "pthread_cond_init"):
            getattr(library, call)
    except (OSError, AttributeError, TypeError):
        return None
    return library if hasattr(os, "register_at_fork") else None


def _places() -> dict[str, int]:
    """Where in the state each word, object and address lies, in bytes."""
    sizes = {**dict.fromkeys(_WORDS, 8 * _LINE), **_OBJECTS, **dict.fromkeys(_CALLS, 8)}
    places, at = {}, 0
    for name, size in sizes.items():
        places[name] = at
        at += size
    return places


class _Functions(NamedTuple):
    """What runs a list of tasks; waits for tasks and does them; ends those that wait."""

    share: Callable[[int], None]
    work: Callable[[bytes], None]
    halt: Callable[[bytes], None]


@functools.cache
def _functions() -> _Functions:
    text = _text()
    names = ("entry", "work", "halt")
    return _Functions(*(Native(engine.address(text, name)).on for name in names))


def _text() -> str:
    """The code of all three.

    A word holds the number of the list, in its upper half, and how many of its tasks nobody has
    taken. Who takes one makes it one less, if it is what it was: a list that is read before belongs
    to that word, since there is no other until all tasks are done. A task runs in the mode of who
    shares it, which says what becomes of denormals. Nobody misses a call to wake up:
    who goes to sleep says so first and looks once more then, and who has something for others
    writes it first and then looks whether somebody sleeps (all in one order, seq_cst).
    """
    places = _places()

    def at(name: str) -> str:
        return f"getelementptr i8, ptr %state, i64 {places[name]}"

    def under_lock(label: str, lines: str) -> str:
        """Code between the two ends of a lock; ``label`` makes its names its own."""
        return f"""
  %mutex.{label} = {at("mutex")}
  %lock.at.{label} = {at("lock")}
  %lock.{label} = load ptr, ptr %lock.at.{label}
  %unlock.at.{label} = {at("unlock")}
  %unlock.{label} = load ptr, ptr %unlock.at.{label}
  %locked.{label} = call i32 %lock.{label}(ptr %mutex.{label})
{lines}
  %unlocked.{label} = call i32 %unlock.{label}(ptr %mutex.{label})"""

    def waking(label: str, whom: str) -> str:
        return under_lock(
            label,
            f"""  %whom.{label} = {at(whom)}
  %wake.at.{label} = {at("wake")}
  %wake.{label} = load ptr, ptr %wake.at.{label}
  %woken.{label} = call i32 %wake.{label}(ptr %whom.{label})""",
        )

    return f"""
declare void {_PAUSE}
declare i64 @llvm.readcyclecounter()
declare i64 @llvm.umax.i64(i64, i64)
declare i64 @llvm.umin.i64(i64, i64)
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define internal i1 @one(ptr %state) {{
start:
  %list.at = {at("list")}
  br label %look
look:
  %word = load atomic i64, ptr %state seq_cst, align 8
  %left = and i64 %word, 4294967295
  %none = icmp eq i64 %left, 0
  br i1 %none, label %nothing, label %take
take:
  %list = load atomic ptr, ptr %list.at monotonic, align 8
  %less = sub i64 %word, 1
  %tried = cmpxchg ptr %state, i64 %word, i64 %less seq_cst seq_cst
  %won = extractvalue {{ i64, i1 }} %tried, 1
  br i1 %won, label %do, label %look
do:
  %mode.at = {at("mode")}
  call void @llvm.x86.sse.ldmxcsr(ptr %mode.at)
  %index = sub i64 %left, 1
  %twice = shl i64 %index, 1
  %function.at = getelementptr i64, ptr %list, i64 %twice
  %function = load ptr, ptr %function.at
  %table.at = getelementptr i64, ptr %function.at, i64 1
  %table = load ptr, ptr %table.at
  call void %function(ptr %table)
  %pending.at = {at("pending")}
  %before = atomicrmw sub ptr %pending.at, i64 1 seq_cst
  %last = icmp eq i64 %before, 1
  br i1 %last, label %done, label %did
done:
  %waits.at = {at("waits")}
  %waits = load atomic i64, ptr %waits.at seq_cst, align 8
  %asleep = icmp ne i64 %waits, 0
  br i1 %asleep, label %wake, label %did
wake:
{waking("done", "done")}
  br label %did
did:
  ret i1 true
nothing:
  ret i1 false
}}

define void @work(ptr %given) {{
start:
  %state = load ptr, ptr %given
  %sleepers.at = {at("sleepers")}
  %stop.at = {at("stop")}
  br label %busy
busy:
  %leaves = load atomic i64, ptr %stop.at seq_cst, align 8
  %stays = icmp eq i64 %leaves, 0
  br i1 %stays, label %try, label %end
try:
  %did = call i1 @one(ptr %state)
  br i1 %did, label %busy, label %spin
spin:
  %i = phi i64 [ 0, %try ], [ %i.next, %spin.next ]
  call void {_PAUSE}
  %seen = load atomic i64, ptr %state monotonic, align 8
  %seen.left = and i64 %seen, 4294967295
  %more = icmp ne i64 %seen.left, 0
  br i1 %more, label %busy, label %spin.next
spin.next:
  %i.next = add i64 %i, 1
  %again = icmp ult i64 %i.next, {_SPINS}
  br i1 %again, label %spin, label %sleep
sleep:
  %mutex = {at("mutex")}
  %lock.at = {at("lock")}
  %lock = load ptr, ptr %lock.at
  %locked = call i32 %lock(ptr %mutex)
  %counted = atomicrmw add ptr %sleepers.at, i64 1 seq_cst
  br label %asleep
asleep:
  %word = load atomic i64, ptr %state seq_cst, align 8
  %left = and i64 %word, 4294967295
  %none = icmp eq i64 %left, 0
  %stop = load atomic i64, ptr %stop.at seq_cst, align 8
  %goes.on = icmp eq i64 %stop, 0
  %sleeps = and i1 %none, %goes.on
  br i1 %sleeps, label %rest, label %awake
rest:
  %bell = {at("work")}
  %wait.at = {at("wait")}
  %wait = load ptr, ptr %wait.at
  %waited = call i32 %wait(ptr %bell, ptr %mutex)
  br label %asleep
awake:
  %fewer = atomicrmw sub ptr %sleepers.at, i64 1 seq_cst
  %unlock.at = {at("unlock")}
  %unlock = load ptr, ptr %unlock.at
  %unlocked = call i32 %unlock(ptr %mutex)
  br i1 %goes.on, label %busy, label %end
end:
  ret void
}}

define void @halt(ptr %given) {{
start:
  %state = load ptr, ptr %given
  %stop.at = {at("stop")}
  store atomic i64 1, ptr %stop.at seq_cst, align 8
{waking("halt", "work")}
  ret void
}}

define void @entry(ptr %given) {{
start:
  %state = load ptr, ptr %given
  %count.at = getelementptr i64, ptr %given, i64 1
  %count = load i64, ptr %count.at
  %list = getelementptr i64, ptr %given, i64 2
  %busy.at = {at("busy")}
  %tried = cmpxchg ptr %busy.at, i64 0, i64 1 seq_cst seq_cst
  %mine = extractvalue {{ i64, i1 }} %tried, 1
  %alone.at = {at("alone")}
  %pause.at = {at("pause")}
  br i1 %mine, label %ask, label %serial
ask:
  %alone = load i64, ptr %alone.at
  %waits.no.more = icmp eq i64 %alone, 0
  br i1 %waits.no.more, label %share, label %rather.not
rather.not:
  %alone.less = sub i64 %alone, 1
  store i64 %alone.less, ptr %alone.at
  store atomic i64 0, ptr %busy.at seq_cst, align 8
  br label %serial
serial:
  %k = phi i64 [ 0, %start ], [ 0, %rather.not ], [ %k.next, %serial ]
  %k.twice = shl i64 %k, 1
  %function.at = getelementptr i64, ptr %list, i64 %k.twice
  %function = load ptr, ptr %function.at
  %table.at = getelementptr i64, ptr %function.at, i64 1
  %table = load ptr, ptr %table.at
  call void %function(ptr %table)
  %k.next = add i64 %k, 1
  %k.more = icmp ult i64 %k.next, %count
  br i1 %k.more, label %serial, label %end
share:
  %began = call i64 @llvm.readcyclecounter()
  %mode.at = {at("mode")}
  call void @llvm.x86.sse.stmxcsr(ptr %mode.at)
  %list.at = {at("list")}
  store atomic ptr %list, ptr %list.at monotonic, align 8
  %pending.at = {at("pending")}
  store atomic i64 %count, ptr %pending.at monotonic, align 8
  %word = load atomic i64, ptr %state monotonic, align 8
  %number = lshr i64 %word, 32
  %number.next = add i64 %number, 1
  %upper = shl i64 %number.next, 32
  %new = or i64 %upper, %count
  store atomic i64 %new, ptr %state seq_cst, align 8
  %sleepers.at = {at("sleepers")}
  %sleepers = load atomic i64, ptr %sleepers.at seq_cst, align 8
  %some = icmp ne i64 %sleepers, 0
  br i1 %some, label %wake, label %help
wake:
{waking("start", "work")}
  br label %help
help:
  %did = call i1 @one(ptr %state)
  br i1 %did, label %help, label %worked
worked:
  %ended = call i64 @llvm.readcyclecounter()
  br label %spin
spin:
  %i = phi i64 [ 0, %worked ], [ %i.next, %spin.next ]
  %pending = load atomic i64, ptr %pending.at seq_cst, align 8
  %finished = icmp eq i64 %pending, 0
  br i1 %finished, label %free, label %spin.next
spin.next:
  call void {_PAUSE}
  %i.next = add i64 %i, 1
  %again = icmp ult i64 %i.next, {_SPINS}
  br i1 %again, label %spin, label %sleep
sleep:
  %mutex = {at("mutex")}
  %lock.at = {at("lock")}
  %lock = load ptr, ptr %lock.at
  %locked = call i32 %lock(ptr %mutex)
  %waits.at = {at("waits")}
  store atomic i64 1, ptr %waits.at seq_cst, align 8
  br label %asleep
asleep:
  %others = load atomic i64, ptr %pending.at seq_cst, align 8
  %over = icmp eq i64 %others, 0
  br i1 %over, label %awake, label %rest
rest:
  %bell = {at("done")}
  %wait.at = {at("wait")}
  %wait = load ptr, ptr %wait.at
  %rested = call i32 %wait(ptr %bell, ptr %mutex)
  br label %asleep
awake:
  store atomic i64 0, ptr %waits.at seq_cst, align 8
  %unlock.at = {at("unlock")}
  %unlock = load ptr, ptr %unlock.at
  %unlocked = call i32 %unlock(ptr %mutex)
  br label %free
free:
  %now = call i64 @llvm.readcyclecounter()
  %work = sub i64 %ended, %began
  %waited = sub i64 %now, %ended
  %bearable = add i64 %work, {_BEARABLE}
  %too.long = icmp ugt i64 %waited, %bearable
  %pause = load i64, ptr %pause.at
  %half = lshr i64 %pause, 1
  %twice.pause = shl i64 %pause, 1
  %least = call i64 @llvm.umax.i64(i64 %twice.pause, i64 16)
  %longer = call i64 @llvm.umin.i64(i64 %least, i64 {_LONGEST})
  %pause.next = select i1 %too.long, i64 %longer, i64 %half
  %alone.next = select i1 %too.long, i64 %longer, i64 0
  store i64 %pause.next, ptr %pause.at
  store i64 %alone.next, ptr %alone.at
  store atomic i64 0, ptr %busy.at seq_cst, align 8
  br label %end
end:
  ret void
}}
"""
