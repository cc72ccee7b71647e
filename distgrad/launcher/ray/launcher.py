"""The Ray launcher: a driver that hands the ranks of a job to Ray Train, and looks after them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any

from distgrad.comm.rendezvous import Gate, new_token
from distgrad.comm.transport import name_ranks
from distgrad.core.errors import JobError, MissingExtraError
from distgrad.launcher import environ, process
from distgrad.launcher.base import Launcher, Program, program_of
from distgrad.launcher.ray.agent import Errand
from distgrad.launcher.ray.crew import Crew
from distgrad.launcher.supervisor import LOST, Member, Team, outcome

if TYPE_CHECKING:
    from distgrad.launcher.ray.cluster import Cluster

INSTALL = "pip install 'distgrad[ray]', or 'ray[default,train]>=2.60'."

# Seconds until Ray must have room for all workers, and until all must have begun; starting a
# worker takes Ray some seconds of a core.
_ROOM_TIMEOUT = 30.0
_START_TIMEOUT = 120.0
_UNPLACED = 1.0  # the same where it has not begun any
_SAY_AFTER = 5.0  # seconds of waiting for a place until what is missing is said
_RELEASE = 15.0  # seconds that Ray gets to end the workers of a start that is over
_LOOK = 0.1


class RayLauncher(Launcher):
    """Runs each rank in a Ray worker, on the cluster that is there or on one of its own."""

    name = "ray"

    def launch(self, job: Any, argv: Sequence[str], *, max_restarts: int = 0) -> int:
        """Runs the job on Ray and returns its exit code.

        Raises:
            UsageError: the job has fewer virtual shards than workers.
            MissingExtraError: Ray is not installed, or cannot place the workers.
        """
        return self.start(program_of(job, argv, sys.executable), max_restarts=max_restarts)

    def start(self, program: Program, *, max_restarts: int = 0) -> int:
        _need_ray()
        from distgrad.launcher.ray import cluster

        threads = program.threads or 1
        program = replace(program, threads=threads)  # no more than it asks Ray for
        each: dict[str, float] = {"CPU": threads}
        if program.gpus:
            each["GPU"] = program.gpus
        received: list[int] = []
        crews: list[Crew] = []

        def forward(signum: int, frame: FrameType | None) -> None:
            received.append(signum)
            again = len([s for s in received if s != signal.SIGUSR1]) > 1
            for crew in crews:
                if again:
                    crew.kill()
                else:
                    crew.signal(signum)

        with (
            cluster.joined(program.workers, each) as place,
            process.handled_signals(forward),
        ):
            for restart in range(max_restarts + 1):
                start = _Start(program, restart, place, each)
                code = start.run(crews, received)
                if code != LOST or received or restart == max_restarts:
                    break
                _say(f"starting all workers again (restart {restart + 1} of {max_restarts})")
        return code

    def commands(self, program: Program) -> list[str]:
        python, *words = program.command
        if words[:2] == ["-m", "distgrad"]:
            words = [*words[2:], "-n", str(program.workers), "--launcher", self.name]
        else:
            options = ["-n", str(program.workers), "--launcher", self.name]
            if program.threads is not None:
                options += ["--threads-per-worker", str(program.threads)]
            if program.virtual_shards is not None:
                options += ["--virtual-shards", str(program.virtual_shards)]
            if program.gpus:
                options += ["--gpus-per-worker", str(program.gpus)]
            words = ["launch", *options, *words]
        submit = ["ray", "job", "submit", "--address", "http://HEAD:8265", "--working-dir", "."]
        return [shlex.join([*submit, "--", os.path.basename(python), "-m", "distgrad", *words])]


class _Start:
    """One start of all ranks: a Ray Train run in a thread, and a wire to each of its workers."""

    def __init__(
        self,
        program: Program,
        restart: int,
        place: Cluster,
        each: dict[str, float],
    ) -> None:
        self.program = program
        self.place = place
        self.each = each
        token = new_token()
        gate = Gate(place.host, 0, token)
        self.crew = Crew(gate, program.workers, program.logs)
        self.errand = Errand(
            driver=gate.address,
            token=token,
            arguments=program.words(restart)[1:],  # without the Python of this machine
            settings={
                **environ.inherited_settings(),
                **program.settings(),
                "DISTGRAD_LAUNCHER": "ray",
            },
            folder=os.getcwd(),
            restart=restart,
            timeout=environ.start_timeout(default=_START_TIMEOUT),
        )
        self.trouble: Exception | None = None
        self.thread = threading.Thread(target=self._fit, name="ray train", daemon=True)

    def run(self, crews: list[Crew], received: list[int]) -> int:
        """The exit code of the job. Raises MissingExtraError where Ray cannot start the ranks."""
        lacking = self.place.shortage(self.program.workers, self.each)
        if lacking and not self.place.can_grow:
            raise MissingExtraError(f"{lacking}.")
        ranks = self.crew.ranks
        team = Team([Member(f"rank {rank.number}", ()) for rank in ranks])
        crews.append(self.crew)
        self.thread.start()
        try:
            called_off = not self._gather(received)
            code = 128 + received[-1] if called_off else outcome(team, ranks, received)
        except JobError as error:
            self._end(crews, error.exit_code, f"error: {error}")
            raise
        self._end(crews, code)
        return code

    def _end(self, crews: list[Crew], code: int, text: str = "") -> None:
        """Ends all ranks, and waits until Ray has its workers back."""
        self.crew.close()
        crews.remove(self.crew)
        none_came = len(self.crew.missing()) == self.program.workers
        self.thread.join(_UNPLACED if none_came else _RELEASE)
        if self.thread.is_alive():
            # Ray knows no way to call a start off; leaving it takes this process to its end. What
            # Ray has started for it ends with it.
            if text:
                _say(text)
            shutil.rmtree(self.place.storage, ignore_errors=True)
            os._exit(code)
        if self.trouble is not None:
            self.place.free_places()

    def _gather(self, received: list[int]) -> bool:
        """Waits until every agent has come; False if somebody has called it off."""
        begun = time.monotonic()
        room = environ.start_timeout(default=_ROOM_TIMEOUT)
        said = False
        while missing := self.crew.missing():
            if received:
                return False
            if any(rank.poll() is not None for rank in self.crew.ranks):
                return True  # a rank that has failed already tells more
            if not self.thread.is_alive():
                raise MissingExtraError(
                    f"Ray could not start {name_ranks(missing)}: {_last_line(self.trouble)}"
                )
            waited = time.monotonic() - begun
            lacking = None
            if waited > room or (waited > _SAY_AFTER and not said):
                lacking = self.place.shortage(self.program.workers, self.each)
            if lacking and waited > room:
                raise MissingExtraError(
                    f"{lacking}: start fewer workers, or wait longer for nodes with "
                    "DISTGRAD_START_TIMEOUT=SECONDS."
                )
            if waited > self.errand.timeout:
                raise MissingExtraError(
                    f"Ray has not started {name_ranks(missing)} of {self.program.workers} within "
                    f"{waited:.0f} s (DISTGRAD_START_TIMEOUT): can their hosts reach "
                    f"{self.errand.driver}, and have they distgrad installed?"
                )
            if lacking and not said:
                _say(f"waiting for Ray: {lacking}")
            said = said or waited > _SAY_AFTER
            time.sleep(_LOOK)
        return True

    def _fit(self) -> None:
        from distgrad.launcher.ray import trainer

        # We decide how long to wait, and Ray shall not give up before.
        wait = f"{2 * self.errand.timeout:g}"
        environ.set_defaults({"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": wait})
        config = trainer.DistgradConfig(
            own_machine=not self.place.can_grow,
            interface=environ.network_interface(),
            timeout=environ.start_timeout(),
        )
        try:
            trainer.run(self.errand, self.program.workers, self.each, config, self.place.storage)
        except Exception as error:  # of a worker that was lost, the crew knows already
            self.trouble = error


def _need_ray() -> None:
    for name in ("ray", "pyarrow"):  # Ray Train does not work without its own extra
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(f"the ray launcher needs {name}: {INSTALL}")


def _last_line(error: BaseException | None) -> str:
    return str(error).strip().rpartition("\n")[2] if error else "its run ended at once."


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
