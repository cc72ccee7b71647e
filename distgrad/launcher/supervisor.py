"""The supervisor: starts the processes of a job, ends all of them when one fails, starts them anew.

It is no rank. For the local launcher its children are the ranks, for MPI the one mpirun. It passes
signals on and output through, and whatever ends it, no child is left.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Literal, Protocol

from distgrad.core.errors import OutOfStepError, PeerLostError
from distgrad.launcher import environ, process
from distgrad.launcher.farewell import Floor
from distgrad.launcher.output import Lines, Overheard

LOST = PeerLostError.exit_code

_LOOK = 0.02  # seconds between two looks at the children
# For how long the others may end by themselves once one has failed: less than the time after which
# they would speak (connect.py).
_AFTER_FAILURE = 0.4
# Exit codes of those who have said why, where they do not tell us.
_TOLD = {1, 2, 3, 4, 5, 75, 130, 143}
# What has sent a signal that nobody means to send.
_LIKELY = {"SIGKILL": " Out of memory?", "SIGBUS": " Is /dev/shm full, or a disk?"}
# And what the word of a program means that adds the bits of SIGKILL to one (``starters``).
_MIXED = {13: "SIGILL or SIGPIPE", 15: "SIGABRT, SIGBUS or SIGTERM"}
_LAST_WORDS = 10.0  # between asking children to stop and killing them


@dataclass(frozen=True)
class Member:
    """One process to start.

    Args:
        name: what messages call it, such as ``rank 1``.
        command: the program and its arguments.
        settings: variables to add to our own environment.
        mark: what each of its lines of output begins with; None lets it write by itself.
        log: file that takes its output, too.
        death_signal: what it gets when the supervisor dies.
        killed_words: for one that starts ranks itself: what it writes to stdout when one of them
            died by a signal, the number of which is a group.
    """

    name: str
    command: Sequence[str]
    settings: dict[str, str] = field(default_factory=dict)
    mark: str | None = None
    log: Path | None = None
    death_signal: int = signal.SIGKILL
    killed_words: re.Pattern[bytes] | None = None


@dataclass
class Team:
    """The processes of one start of the job.

    Args:
        members: what to start, together.
        begun: called once all have been started.
        ended: called when none of them is left.
        killed: which exit codes of a member tell that something was killed, beside its own death
            by a signal (then the code is negative).
    """

    members: Sequence[Member]
    begun: Callable[[], object] = lambda: None
    ended: Callable[[], object] = lambda: None
    killed: frozenset[int] = frozenset()


class Child(Protocol):
    """What a child process, here or elsewhere, tells of itself."""

    pid: int

    def poll(self) -> int | None: ...

    def said(self) -> bool | None: ...


def supervise(team_of: Callable[[int], Team], *, max_restarts: int = 0) -> int:
    """Runs a team to its end, again after a loss, and returns the exit code of the last one.

    A team has failed when one member has; the others are then ended. The code is that of the
    first member to fail by itself; where one was killed or has lost a peer, it is 6, and all
    members are started again, at most ``max_restarts`` times. Other errors would come again.
    SIGTERM, SIGINT and SIGUSR1 are passed on; a second SIGTERM or SIGINT kills.

    Args:
        team_of: the team for start 0, 1, 2, ...
        max_restarts: how often to start again.
    """
    received: list[int] = []
    children: list[process.Started] = []

    def forward(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        if len([s for s in received if s != signal.SIGUSR1]) > 1:
            for child in children:
                process.kill_session(child)
        else:
            for child in children:
                if child.poll() is None:
                    child.send_signal(signum)

    with process.handled_signals(forward):
        for restart in range(max_restarts + 1):
            code = _run(team_of(restart), children, received)
            if code != LOST or received or restart == max_restarts:
                break
            _say(f"starting all workers again (restart {restart + 1} of {max_restarts})")
    return code


def _run(team: Team, children: list[process.Started], received: list[int]) -> int:
    children.clear()
    lines = Lines()
    heard: list[Overheard] = []
    floor = Floor()
    try:
        for member in team.members:
            if children and (received or any(each.poll() for each in children)):
                break  # asked to stop, or one has failed: no more of them are started
            env = environ.child_environment(member.settings)
            piped: bool | Literal["stdout"] = member.mark is not None
            if member.killed_words is not None:
                piped = "stdout"
            child = process.start(
                member.command,
                env,
                piped=piped,
                death_signal=member.death_signal,
                floor=floor if len(team.members) > 1 else None,  # mpirun looks after its ranks
            )
            children.append(child)
            if member.killed_words is not None:
                heard.append(Overheard(child, member.killed_words))
            elif member.mark is not None:
                lines.add(child, member.mark, member.log)
            for signum in tuple(received):  # one that came before this child
                child.send_signal(signum)
        team.begun()
        lines.start()
        signals = lambda: [each.number() for each in heard]  # noqa: E731
        return outcome(team, children, received, signals, floor.close)
    finally:
        _end(children)
        for each in heard:
            each.number()  # it has passed everything on then
        lines.finish()
        team.ended()


def outcome(
    team: Team,
    children: Sequence[Child],
    received: list[int],
    signals: Callable[[], Sequence[int | None]] = lambda: (),
    failing: Callable[[], object] = lambda: None,
) -> int:
    """The exit code of the team, once everyone has ended or one has failed and the rest may go.

    ``signals()`` are those by which ranks died, as far as who started them has said so;
    ``failing()`` is called once the first has failed.
    """
    failed: dict[int, int] = {}  # in the order in which it was seen
    give_up = None
    while True:
        running = 0
        for number, child in enumerate(children):
            code = child.poll()
            running += code is None
            if code and number not in failed:
                failed[number] = code
        if failed and give_up is None:
            failing()
            # Whoever has lost a peer has waited for a better word already; ranks that were asked
            # to stop wait for the one that is still saving.
            patience = 0.0 if LOST in failed.values() else _AFTER_FAILURE
            give_up = time.monotonic() + patience + (_saving() if received else 0.0)
        if not running or (give_up is not None and time.monotonic() > give_up):
            break
        time.sleep(_LOOK)
    if not failed:
        return 0
    # A loss is somebody's fault: first who was killed, then who failed by itself.
    of_ranks = next(filter(None, signals()), None)
    for number, code in failed.items():
        if code < 0 or code in team.killed or of_ranks is not None:
            if received:
                return 128 - code if code < 0 else _stopped(code, of_ranks, received)
            _say(f"error: {_death(team.members[number], children[number], code, of_ranks)}")
            return LOST
    for number, code in failed.items():
        said = children[number].said() if len(children) > 1 and not received else True
        if code != LOST or said is False:  # a script's own sys.exit(6) is no loss
            if not (code in _TOLD if said is None else said):
                _say(f"error: {team.members[number].name} has ended with exit code {code}.")
            return code
    if any(child.poll() == 0 for child in children):  # it was not lost, it has no more calls
        return OutOfStepError.exit_code
    return LOST


def _saving() -> float:
    return environ.operation_timeout() + _LAST_WORDS


def _stopped(code: int, of_ranks: int | None, received: list[int]) -> int:
    """The exit code where ranks under another program were asked to stop."""
    if of_ranks is None:
        return code
    return 128 + (received[0] if of_ranks == received[0] | signal.SIGKILL else of_ranks)


def _death(member: Member, child: Child, code: int, of_rank: int | None) -> str:
    if code < 0:
        return f"{member.name} (process {child.pid}) was killed by {_signal_name(-code)}"
    number = of_rank or (code - 128 if code > 128 else code)  # a shell adds 128
    if of_rank in _MIXED:
        return f"a rank under {member.name} was killed by {_MIXED[of_rank]}."
    return f"a rank under {member.name} was killed by {_signal_name(number)}"


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}."
    return f"{name}.{_LIKELY.get(name, '')}"


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends and reaps every child, and what it has left in its process group."""
    failed = any(child.returncode for child in children)
    for child in children:
        if child.poll() is None and not failed:  # an error of ours: let them save
            child.terminate()
    until = time.monotonic() + (0.0 if failed else _LAST_WORDS)
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, until - time.monotonic()))
        process.kill_session(child)
        child.wait()


def _say(text: str) -> None:
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
