"""A function as a job: called on several workers of this machine, from a notebook or a script.

The function travels by value (cloudpickle), since workers cannot import what a notebook has
defined; what it returns comes back in the same way. Apart from that a worker is one of ``distgrad
launch``: supervised, with deadlines, and its error ends all of them.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distgrad.core import errors
from distgrad.launcher import environ

_CALL = "call"
_ERRORS = (
    errors.UsageError,
    errors.MissingExtraError,
    errors.DataError,
    errors.DivergedError,
    errors.PeerLostError,
    errors.PreemptedError,
)


def launch(
    fn: Callable[..., Any],
    args: Sequence[Any] = (),
    *,
    workers: int,
    virtual_shards: int | None = None,
    threads_per_worker: int | None = None,
    max_restarts: int = 0,
) -> list[Any]:
    """Calls ``fn(*args)`` on so many workers of this machine, and gives what each returns, by rank.

    The workers are processes that ``distribute`` brings together, as those of ``distgrad launch``,
    whose options these are; what they print appears here. What goes in and comes back is pickled,
    models and histories too. Ctrl-C stops them all.

    Raises UsageError where this process is a worker itself, MissingExtraError without cloudpickle;
    and where a worker fails, the error of the exit code (1: JobError), after what it has said.
    """
    from distgrad.comm.tree import worker_shards
    from distgrad.launcher.base import Program
    from distgrad.launcher.local import LocalLauncher
    from distgrad.launcher.supervisor import Team, supervise

    world = environ.detect()
    if world.is_rank:
        raise errors.UsageError(
            f"launch() starts workers, and this process is one: rank {world.rank} of "
            f"{world.world_size}. Call the function itself there."
        )
    if not isinstance(args, (tuple, list)):
        raise errors.UsageError(
            f"args must be a tuple of what the function is called with, as in launch(train, "
            f"(config,), workers=2), not {type(args).__name__}."
        )
    if workers < 1:
        raise errors.UsageError(f"workers must be 1 or more, got {workers}.")
    if virtual_shards is not None:
        worker_shards(virtual_shards, 0, workers)  # refuses too many workers
    with tempfile.TemporaryDirectory(prefix="distgrad-call-") as name:
        folder = Path(name)
        call = _cloudpickle().dumps((fn, tuple(args)))
        (folder / _CALL).write_bytes(pickle.dumps((sys.path, call)))
        start = f"from {__name__} import answer; answer({name!r})"
        program = Program(
            [sys.executable, "-c", start],
            workers,
            threads=threads_per_worker,
            virtual_shards=virtual_shards,
        )

        def team(restart: int) -> Team:
            found = LocalLauncher.team(program, restart)
            # A notebook shows what is written to its sys.stdout: rank 0 goes through it, too.
            found.members = [replace(m, mark=m.mark or "") for m in found.members]
            return found

        code = supervise(team, max_restarts=max_restarts)
        if code == 130:
            raise KeyboardInterrupt
        if code:
            kinds = {kind.exit_code: kind for kind in _ERRORS}
            raise kinds.get(code, errors.JobError)(
                f"{getattr(fn, '__name__', 'the function')} has failed on its workers with exit "
                f"code {code}: what they said stands above."
            )
        results = [folder / str(rank) for rank in range(workers)]
        for rank, path in enumerate(results):
            if not path.exists():
                raise errors.JobError(
                    f"rank {rank} has ended within {getattr(fn, '__name__', 'the function')}, by "
                    "sys.exit say, and returned nothing."
                )
        return [pickle.loads(path.read_bytes()) for path in results]


def answer(folder: str) -> None:
    """Makes the call that lies in ``folder``, as the worker that this process is."""
    path, call = pickle.loads((Path(folder) / _CALL).read_bytes())
    sys.path[:] = path
    fn, args = pickle.loads(call)
    result = _cloudpickle().dumps(fn(*args))
    (Path(folder) / str(environ.detect().rank)).write_bytes(result)


def _cloudpickle() -> Any:
    try:
        import cloudpickle
    except ImportError:
        raise errors.MissingExtraError(
            "to send a function to workers needs cloudpickle: pip install 'distgrad[notebook]'"
        ) from None
    return cloudpickle
