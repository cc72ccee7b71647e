"""The machine code of `pool`, and where what its threads share lies in memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from distgrad.compile.llvm import engine
from distgrad.compile.llvm.loops import Native

_LINE = 8  # words of a cache line: threads that write what others read would wait for each other
_WORDS = (  # a line each
    *("tasks", "list", "pending", "sleepers", "waits", "stop"),
    *("busy", "mode", "alone", "pause"),
)
_OBJECTS = {"mutex": 128, "work": 128, "done": 128}  # bytes: more than any system's have
CALLS = {
    "lock": "pthread_mutex_lock",
    "unlock": "pthread_mutex_unlock",
    "wait": "pthread_cond_wait",
    "wake": "pthread_cond_broadcast",
}
_SPINS = 4000  # looks before a thread goes to sleep: about a tenth of a millisecond
_BEARABLE = 100_000  # cycles that nobody minds to wait
_LONGEST = 4096  # calls that are done alone, at most, before others are asked again
_PAUSE = "@llvm.x86.sse2.pause()"  # tells a core that its thread waits; all that has FMA has it


def places() -> dict[str, int]:
    """Where in the state each word, object and address lies, in bytes."""
    sizes = {**dict.fromkeys(_WORDS, 8 * _LINE), **_OBJECTS, **dict.fromkeys(CALLS, 8)}
    found, at = {}, 0
    for name, size in sizes.items():
        found[name] = at
        at += size
    return found


class Functions(NamedTuple):
    """What runs a list of tasks; waits for tasks and does them; ends those that wait."""

    share: Callable[[int], None]
    work: Callable[[bytes], None]
    halt: Callable[[bytes], None]


@functools.cache
def functions() -> Functions:
    """Compiled now, or before."""
    text = _text()
    names = ("entry", "work", "halt")
    return Functions(*(Native(engine.address(text, name)).on for name in names))


def _text() -> str:
    """The code of all three.

    A word holds the number of the list, in its upper half, and how many of its tasks nobody has
    taken. Who takes one makes it one less, if it is what it was: a list that is read before belongs
    to that word, since there is no other until all tasks are done. A task runs in the mode of who
    shares it, which says what becomes of denormals. Nobody misses a call to wake up:
    who goes to sleep says so first and looks once more then, and who has something for others
    writes it first and then looks whether somebody sleeps (all in one order, seq_cst).
    """
    where = places()

    def at(name: str) -> str:
        return f"getelementptr i8, ptr %state, i64 {where[name]}"

    def posix(name: str, label: str, arguments: str) -> str:
        """A call of POSIX threads; ``label`` makes its names its own."""
        return f"""  %{name}.at.{label} = {at(name)}
  %{name}.{label} = load ptr, ptr %{name}.at.{label}
  %{name}.done.{label} = call i32 %{name}.{label}({arguments})"""

    def locked(label: str) -> str:
        return f"  %mutex.{label} = {at('mutex')}\n{posix('lock', label, f'ptr %mutex.{label}')}"

    def unlocked(label: str) -> str:
        return posix("unlock", label, f"ptr %mutex.{label}")

    def waking(label: str, whom: str) -> str:
        return f"""{locked(label)}
  %whom.{label} = {at(whom)}
{posix("wake", label, f"ptr %whom.{label}")}
{unlocked(label)}"""

    def resting(label: str, whom: str) -> str:
        """Under the lock, until somebody wakes ``whom``."""
        bell = f"  %bell.{label} = {at(whom)}"
        return f"{bell}\n{posix('wait', label, f'ptr %bell.{label}, ptr %mutex.{label}')}"

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
{locked("sleep")}
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
{resting("sleep", "work")}
  br label %asleep
awake:
  %fewer = atomicrmw sub ptr %sleepers.at, i64 1 seq_cst
{unlocked("sleep")}
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
{locked("sleep")}
  %waits.at = {at("waits")}
  store atomic i64 1, ptr %waits.at seq_cst, align 8
  br label %asleep
asleep:
  %others = load atomic i64, ptr %pending.at seq_cst, align 8
  %over = icmp eq i64 %others, 0
  br i1 %over, label %awake, label %rest
rest:
{resting("sleep", "done")}
  br label %asleep
awake:
  store atomic i64 0, ptr %waits.at seq_cst, align 8
{unlocked("sleep")}
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
