"""How a process joins its world, and how an error on one rank ends all of them.

``connect()`` is for scripts, ``run_rank`` for a main function. Both work in the same way under
mpirun, under our own supervisor and alone; whoever started the process has left variables that say
so (``environ.detect``).

A rank that fails must take the others with it: MPI alone would let them wait for ever. How an
error ends the world, and that it is printed once, is decided here (``end_world``).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from distgrad.comm import clocks, mpi_life, one_host, tcp
from distgrad.comm.communicator import Communicator
from distgrad.comm.mpi import MPITransport
from distgrad.comm.rendezvous import Rendezvous, split_address
from distgrad.comm.transport import Transport
from distgrad.core.errors import (
    JobError,
    MissingExtraError,
    OutOfStepError,
    PeerLostError,
    PreemptedError,
    UsageError,
)
from distgrad.launcher import environ, farewell, load
from distgrad.launcher.environ import World
from distgrad.launcher.process import die_with_parent

# Seconds: for how long a rank with an error waits for all others to have the same one; and for
# how long it keeps silent so that one with a better claim can speak and end the world (the
# culprit before those who lost it, rank 0 before the others). On a busy machine it takes a process
# longer to come to its end, with the exit code that tells of the culprit.
_TOGETHER = 2.0
_AFTER_CULPRIT = 3.0
_AFTER_RANK_0 = 0.5


def connect() -> Communicator:
    """Joins the world that this script was started in; alone, that is a world of one.

    From then on an uncaught exception of this script ends every rank and is printed once, an exit
    code of it (``sys.exit(7)``) becomes that of the job as soon as another rank waits for it in
    vain, the process dies with the one that started it, and the communicator is closed at exit.
    Call it once.

    Raises:
        UsageError: the variables of whoever started us are wrong or incomplete.
        MissingExtraError: mpirun started us and mpi4py is missing or belongs to another MPI.
        PeerLostError: not all ranks came in time; the message names those that did not.
    """
    world = environ.detect()
    if world.is_rank:
        _hook(lambda error: _end_alone(world, error))
    communicator = _communicator(world)
    if world.is_rank:
        farewell.joined()
        install_excepthook(communicator)
    atexit.register(_in_this_process(communicator.close))
    communicator.clock_ahead = clocks.ahead(communicator)
    return communicator


def run_rank(world: World, main: Callable[[Communicator], int]) -> int:
    """Runs ``main(communicator)`` as one rank and returns the exit code of this process.

    An error on any rank ends all of them with its exit code, and is printed once.
    """
    try:
        communicator = _communicator(world)
    except JobError as error:
        return _end_alone(world, error)
    farewell.joined()
    try:
        communicator.clock_ahead = clocks.ahead(communicator)
        code = main(communicator)
    except BaseException as error:
        return end_world(communicator, error)
    communicator.close()
    farewell.said()
    return code


def end_world(communicator: Communicator, error: BaseException) -> int:
    """Prints ``error`` once in the whole world and ends every rank with its exit code.

    A job error that all ranks raise together (a bad setting, a diverged loss, preemption) lets
    them exit by themselves; then this returns the exit code. In every other case the world is
    aborted, so that no rank goes on waiting for this one.
    """
    farewell.said()
    rank = communicator.rank
    turn = mpi_life.turn(rank)
    code, text = _verdict(error)
    if isinstance(error, SystemExit) and code == 0:
        communicator.close()
        return 0
    if isinstance(error, PeerLostError):
        mpi_life.tell_loss()
    if isinstance(error, OutOfStepError):  # known at first hand: to others it is a loss
        time.sleep(_AFTER_RANK_0 + turn if rank > 0 else 0)
    elif isinstance(error, PeerLostError):
        time.sleep(_AFTER_CULPRIT * load.factor() + turn)
    elif isinstance(error, JobError | SystemExit):
        # A preempted rank 0 is still saving; of other errors everyone knows at the same time.
        patience = communicator.timeout if isinstance(error, PreemptedError) else _TOGETHER
        if communicator.leave(code, timeout=patience):
            if rank == 0:  # before anything that takes time: the others end, and so we may have to
                _say(text)
            communicator.close()
            return code
    elif rank > 0:
        time.sleep(_AFTER_RANK_0 + turn)
    mpi_life.take_floor()
    text = text or f"error: rank {rank} has ended with exit code {code}."
    if farewell.take_floor():
        _say(text, rank)
    communicator.abort(code, text.strip().rpartition("\n")[2])
    if communicator.world_size > 1:
        os._exit(code)  # at once, as MPI does it, so that nobody else has to speak
    return code


def install_excepthook(communicator: Communicator) -> None:
    """Makes an uncaught exception of this script end every rank."""

    _hook(lambda error: end_world(communicator, error))


def _hook(end: Callable[[BaseException], int]) -> None:
    """Makes an uncaught exception end this process with the exit code that ``end`` gives."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, PeerLostError) and (place := _place(trace)):
            error.add_note(place)  # since no traceback is shown
        raise SystemExit(end(error.with_traceback(trace)))

    sys.excepthook = _in_this_process(hook, sys.__excepthook__)


def _in_this_process(
    call: Callable[..., object], in_a_fork: Callable[..., object] = lambda: None
) -> Callable[..., object]:
    """``call``, but in a fork of this process, which is no rank, ``in_a_fork``."""
    process = os.getpid()
    return lambda *given: (call if os.getpid() == process else in_a_fork)(*given)


def _end_alone(world: World, error: BaseException) -> int:
    """Prints an error of a rank that has not joined its world, and gives its exit code."""
    farewell.joined()
    farewell.said()
    code, text = _verdict(error)
    lost = isinstance(error, PeerLostError)  # which may be rank 0
    if world.rank > 0 or lost:  # who has started us may know the culprit, and ends us then
        time.sleep(_AFTER_RANK_0 + mpi_life.turn(world.rank))
    # Once per machine, where its starter leaves it to us: an installation is a machine's affair.
    own = lost or world.local_rank == 0 or not isinstance(error, JobError)
    if farewell.take_floor(otherwise=own):
        _say(text, world.rank)
    if lost:
        os._exit(code)  # at once, as above
    return code


def _communicator(world: World) -> Communicator:
    return Communicator(_join(world), timeout=environ.operation_timeout())


def _join(world: World) -> Transport | None:
    """The transport that brings this rank to the others; None alone."""
    if not world.is_rank:
        return None
    die_with_parent()
    shares = environ.share_memory()
    if world.started_by_mpi:
        try:
            seconds = environ.start_timeout()
            mpi = MPITransport(
                expected_size=world.world_size, started_by=world.source, timeout=seconds
            )
            return one_host.through_memory(mpi, seconds) if shares else mpi
        except MissingExtraError as error:
            if world.source != "Slurm":
                raise
            raise MissingExtraError(
                f"{error} Or do without MPI: before srun, set DISTGRAD_ADDRESS=host:port (a free "
                "port of rank 0's host) and DISTGRAD_TOKEN (a secret)."
            ) from None
    if world.world_size == 1:
        return None
    if world.address is None:
        raise UsageError(
            f"this process was started as rank {world.rank} of {world.world_size} by variables in "
            f"the style of {world.source}, but nothing says where the ranks meet: start them with "
            "distgrad launch or mpirun, or set DISTGRAD_ADDRESS=host:port (a free port of rank 0's "
            "host) and DISTGRAD_TOKEN."
        )
    token, seconds = environ.token(), environ.start_timeout()
    if world.rank == 0 and world.source != "distgrad":  # nobody else keeps the place of meeting
        host, port = split_address(world.address)
        Rendezvous(world.world_size, token, host=host, port=port, timeout=seconds).start()
    return tcp.connect(
        world.rank,
        world.world_size,
        world.address,
        token,
        interface=environ.network_interface(),
        timeout=seconds,
        share_memory=shares,
    )


def _verdict(error: BaseException) -> tuple[int, str]:
    """Exit code and text of an error: one line for the expected ones, else a traceback."""
    if isinstance(error, JobError):
        return error.exit_code, " ".join(["error:", str(error), *getattr(error, "__notes__", [])])
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0, ""
        return 1, str(error.code)
    if isinstance(error, KeyboardInterrupt):
        return 130, str(error) or "interrupted"
    return 1, "".join(traceback.format_exception(error)).rstrip()


def _place(trace: TracebackType | None) -> str:
    """The line of the script that a traceback has come through last."""
    ours = str(Path(__file__).parents[1])
    frames = [f for f in traceback.extract_tb(trace) if not f.filename.startswith((ours, "<"))]
    return f"Seen at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""


def _say(text: str, rank: int | None = None) -> None:
    """Writes to stderr, after all of stdout; every line says which rank speaks, if one is given.

    What they do not take is dropped: the world has to end all the same.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    if text:
        mark = "" if rank is None else f"[rank {rank}] "
        with contextlib.suppress(OSError, ValueError):
            print(mark + text.replace("\n", "\n" + mark), file=sys.stderr, flush=True)
