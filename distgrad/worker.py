"""One rank's main: builds what the job describes, trains it, and leaves a run folder behind."""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distgrad import __version__, keras, resuming, trained
from distgrad.assembly import build_model
from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import worker_shards
from distgrad.compile import eager
from distgrad.core import devices
from distgrad.core.errors import (
    DataError,
    DivergedError,
    JobError,
    PreemptedError,
    UsageError,
)
from distgrad.data import source
from distgrad.data.loader import Loader
from distgrad.job import Job
from distgrad.keras.layers.tracking import settled
from distgrad.launcher import environ
from distgrad.trained.evaluating import results_on
from distgrad.training import checkpoint, logs, run_folder
from distgrad.training.handshake import (
    check_environment,
    check_executor,
    check_variables,
    environment,
)
from distgrad.training.journal import Journal
from distgrad.training.loop import Cursor, Observer, TrainingLoop
from distgrad.training.programs import ExecutorName
from distgrad.training.progress import progress, shown
from distgrad.training.sharded import SlotParts
from distgrad.training.staging import link
from distgrad.training.step import TrainStep
from distgrad.training.trackers import chosen, trackers_of

# Makes one more observer of a loop, which is told last; it gets what tells the seconds that went by
# in communication so far, or None where they are not spent alone.
Observe = Callable[[TrainingLoop, Callable[[], float] | None], Observer]

_DISK = 10  # times the limit of a collective: for how long rank 0 may read or write meanwhile
# Seconds in which a second signal is the first, once more: who stops all processes of a job, as
# Slurm does, reaches a rank directly and through whatever has started it.
_ECHO = 2.0


def main(job: Job, communicator: Communicator, observe: Observe | None = None) -> int:
    """Runs this rank of the job to its end and returns the exit code.

    Raises the JobError that ended it; the launcher prints it and ends the other ranks.
    """
    world = environ.detect()
    devices.use(job.device, world.local_rank)
    check_environment(communicator, **resuming.decides_bits(job), config=job.config_hash)
    folder, resumed = _agree(
        communicator,
        lambda: run_folder.open_run_folder(job.run_dir, job.name, job.resume == "auto"),
    )
    try:
        return _prepared(job, communicator, folder, resumed, observe)
    except BaseException:
        if job.run_dir is None and communicator.rank == 0:
            run_folder.drop_start(folder)
        raise


def _prepared(
    job: Job, communicator: Communicator, folder: Path, resumed: bool, observe: Observe | None
) -> int:
    # Whatever refuses to go on comes first: it leaves the folder as it is, its logs included.
    trackers = _agree(communicator, lambda: chosen(job.tensorboard))
    commit = _agree(communicator, lambda: resuming.newest_commit(job, folder, resumed))
    executor = _agree(communicator, lambda: resuming.executor(job, folder, commit))
    eager.use(_agree(communicator, lambda: resuming.kernels(executor, commit)))
    check_executor(communicator, executor)
    log: contextlib.AbstractContextManager[None] = logs.kept(
        logs.log_path(folder, communicator.rank)
    )
    if (
        environ.detect().source == "distgrad" and communicator.rank
    ):  # whoever started it keeps its output
        log = contextlib.nullcontext()
    with log:
        return _work(job, communicator, folder, commit, executor, trackers, observe)


def _work(
    job: Job,
    communicator: Communicator,
    folder: Path,
    commit: checkpoint.Commit | None,
    executor: ExecutorName,
    trackers: Sequence[str],
    observe: Observe | None,
) -> int:
    rank0 = communicator.rank == 0
    say = print if rank0 else _silent
    if job.resume == "auto" and commit is None:
        say(f"nothing to resume in {folder}: starting anew")
    if rank0 and commit is not None:
        resuming.warn_of_changes(commit, environment())
    link(communicator, deterministic=job.deterministic)

    splits = source.load(job.data, job.seed, allow_download=rank0, announce=say)
    model = build_model(job, splits)
    run = _Run(job, communicator, folder, model, splits, commit, executor, trackers)
    with settled(model), _stop_on_signal(run.step):
        return run.train(observe) if rank0 else run.follow(observe)


class _Run:
    """A job on this rank, from the first step to the last."""

    def __init__(
        self,
        job: Job,
        communicator: Communicator,
        folder: Path,
        model: keras.Sequential,
        splits: source.Splits,
        commit: checkpoint.Commit | None,
        executor: ExecutorName,
        trackers: Sequence[str],
    ) -> None:
        self.job = job
        self.trackers = trackers
        self.communicator = communicator
        self.folder = folder
        self.model = model
        self.splits = splits
        self.executor: ExecutorName = executor
        self.shards = job.virtual_shards or communicator.world_size
        self.own = worker_shards(self.shards, communicator.rank, communicator.world_size)
        self.step = TrainStep.of(
            model,
            communicator,
            self.shards,
            job.seed,
            overlap=job.overlap,
            bucket_bytes=job.bucket_bytes,
            shard_optimizer=job.shard_optimizer,
            check_every=job.check_every_steps,
            paths=model.variable_paths(),
            executor=executor,
            strict=job.jit == "strict",
        )
        check_variables(model.variable_paths(), communicator)
        cursor = self._restore(commit)
        self.saved_step = self.gathered_step = cursor.step if commit is not None else -1
        self.gathered: dict[str, np.ndarray] = {}
        self.commits = checkpoint.Commits(folder / "checkpoints", job.keep_last, self._missed)
        self.journal: Journal | None = None
        self._broadcast()
        loader = self._loader(splits.train, job.shuffle)
        self.loop = TrainingLoop(
            self.step,
            loader,
            model.results,
            cursor=cursor,
            validate=None if splits.validation is None else self._validate,
        )

    def _loader(self, data: source.ArraySource, shuffle: bool) -> Loader:
        size = self.job.global_batch_size
        return Loader(data, size, self.shards, self.own, self.job.seed, shuffle)

    # State: everything under variable names, so that any number of workers can take it up.

    def _slot_paths(self, name: str) -> list[str]:
        paths = {id(variable): path for path, variable in self.model.variable_paths().items()}
        return [f"{paths[id(trained)]}/{name}" for trained in self.step.variables]

    def _gathered(self) -> dict[str, np.ndarray]:
        """On rank 0 the optimizer's state that is kept in parts; all ranks must call it."""
        found: dict[str, np.ndarray] = {}
        if isinstance(self.step.slots, SlotParts):
            for name in self.step.slots.names:
                whole = self.step.slots.gather(name)
                if whole is not None:
                    found.update(zip(self._slot_paths(name), whole, strict=True))
        return found

    def _restore(self, commit: checkpoint.Commit | None) -> Cursor:
        if commit is None:
            return Cursor()
        resuming.restore(self.model, commit)
        if isinstance(self.step.slots, SlotParts):
            for name in self.step.slots.names:
                paths = self._slot_paths(name)
                self.step.slots.load(name, [commit.arrays["optimizer"][path] for path in paths])
        return Cursor(**commit.state["cursor"])

    def _broadcast(self) -> None:
        """Everyone begins with the bits of rank 0."""
        for variables in resuming.state_variables(self.model).values():
            for path in sorted(variables):
                value = np.array(variables[path].numpy())
                self.communicator.broadcast(value)
                variables[path].assign(value)

    def save(self, *, last: bool = False) -> None:
        """Commits the state after the current step; all ranks call it, and wait until rank 0 has
        written it.

        A disk that does not take it is a warning, unless it is the last commit or one of several
        such in a row.
        """
        step = self.loop.cursor.step
        if step != self.gathered_step:  # the same on all ranks, whatever has been saved
            self.gathered, self.gathered_step = self._gathered(), step
        if self.communicator.rank == 0 and step != self.saved_step:
            self._write(step, last)
        self.communicator.barrier(timeout=_DISK * self.communicator.timeout)

    def _write(self, step: int, last: bool) -> None:
        arrays = {
            file: {path: np.asarray(variable.numpy()) for path, variable in variables.items()}
            for file, variables in resuming.state_variables(self.model).items()
        }
        arrays["optimizer"] |= self.gathered
        state = {
            "cursor": vars(self.loop.cursor),
            "seed": self.job.seed,
            "virtual_shards": self.shards,
            "config_hash": self.job.config_hash,
            "executor": self.executor,
            "kernels": eager.used(),
            "job": resuming.decides_bits(self.job),
            "environment": environment(),
        }
        if last:
            self.commits.save_last(step, arrays, state)
        elif not self.commits.save(step, arrays, state):
            return
        self.saved_step, self.gathered = step, {}

    def _described(self) -> dict[str, str]:
        """What a trained model needs beside its weights."""
        how = self.splits.preparation
        return {} if how is None else {trained.PREPARATION: how.to_json()}

    def _missed(self, text: str) -> None:
        print(f"warning: {text}", file=sys.stderr, flush=True)
        if self.journal is not None:
            self.journal.missed_save(text)

    def weights_sha256(self) -> str:
        paths = self.model.variable_paths()
        return checkpoint.weights_sha256({path: v.numpy() for path, v in paths.items()})

    # The two kinds of rank.

    def follow(self, observe: Observe | None) -> int:
        """Any rank but 0: trains, and leaves all words and files to rank 0."""
        self.loop.observers.append(_Saver(self))
        if observe is not None:
            self.loop.observers.append(observe(self.loop, self._communication()))
        try:
            self.loop.run(self.job.epochs)
        except PreemptedError:
            self.save(last=True)
            raise
        self._end()
        self._evaluate()
        self.communicator.barrier()
        return 0

    def train(self, observe: Observe | None) -> int:
        """Rank 0: trains, prints, and keeps the run folder."""
        job, loop, folder = self.job, self.loop, self.folder
        cursor = loop.cursor
        mode = environ.progress_mode()  # a wrong one is refused before the folder is that of a run
        files = {
            "resolved.yaml": job.resolved_yaml,  # first: it makes the folder that of a run
            "source.yaml": job.source_yaml,
            "overrides.txt": "".join(f"{line}\n" for line in job.overrides),
            "env.json": json.dumps({"distgrad": __version__, **environment()}, indent=1) + "\n",
            **self._described(),
        }
        with _usable(folder):
            run_folder.describe(folder, files)
        world = self.communicator.world_size
        workers = "1 worker" if world == 1 else f"{world} workers"
        shards = "1 virtual shard" if self.shards == 1 else f"{self.shards} virtual shards"
        threads = environ.blas_info()["threads"]
        print(f"{job.name}: {self.splits.description}")
        print(
            f"{self.model.count_params():,} parameters, {workers}, {shards}, "
            f"{threads} BLAS {'thread' if threads == 1 else 'threads'} a worker, "
            f"{resuming.RUNS[self.executor]}"
        )
        if self.saved_step >= 0:
            print(
                f"resuming {folder} at step {cursor.step} (epoch {cursor.epoch + 1}, "
                f"step {cursor.step_in_epoch} of {loop.loader.steps_per_epoch})"
            )
        print(f"run folder {folder}", flush=True)
        with _usable(folder):
            self.journal = journal = Journal(
                folder,
                loop,
                trackers_of(folder, self.trackers),
                self._rate,
                self._communication(),
                command=shlex.join(["distgrad", *sys.argv[1:]]),
                name=job.name,
                epochs=job.epochs,
                world_size=world,
                launcher=environ.launcher_name(),
                virtual_shards=self.shards,
                config_hash=job.config_hash,
            )
        loop.observers += [
            journal,
            _Saver(self),
            progress(loop, job.epochs, mode, environ.stdout_is_terminal()),
        ]
        if observe is not None:
            loop.observers.append(observe(loop, self._communication()))
        try:
            loop.run(job.epochs)
            self._end()
            results = {**loop.logs(), **self._evaluate()}
            journal.final(results)
            self.communicator.barrier()
        except BaseException as error:
            self._failed(error, journal)
            raise
        digest = self.weights_sha256()
        journal.close("finished", exit_code=0, weights_sha256=digest)
        print(f"weights sha256 {digest}")
        for name in self.model.metrics_names:
            print(f"test {name} {shown(results[f'test_{name}'])}")
        print(f"run folder {folder}", flush=True)
        return 0

    def _rate(self) -> float:
        optimizer: Any = self.model.optimizer
        return optimizer.rate(max(1, int(optimizer.iterations._buffer)))

    def _communication(self) -> Callable[[], float] | None:
        """What tells the seconds of communication; None where they are not spent alone."""
        total = self.step.sum
        if self.communicator.world_size == 1 or total.overlap or total.buckets.on_devices:
            return None
        return lambda: self.communicator.seconds

    def _validate(self, epoch: int) -> dict[str, float]:
        assert self.splits.validation is not None
        return self._results_on(self.splits.validation, "val")

    def _end(self) -> None:
        """After the last step: all ranks must still agree before it is saved."""
        self.step.alarm.compare(self.loop.cursor.step)
        self.save(last=True)

    def _evaluate(self) -> dict[str, float]:
        # After the last commit, which keeps the weights that training goes on from.
        self.model.optimizer.finalize_variable_values(self.step.variables)  # type: ignore[union-attr]
        results = self._results_on(self.splits.test, "test")
        if not math.isfinite(results["test_loss"]):
            raise DivergedError(
                f"the loss on the test samples is {results['test_loss']} after step "
                f"{self.loop.cursor.step}: the last update has spoilt the weights. Lower "
                "optimizer.learning_rate."
            )
        return results

    def _results_on(self, data: source.ArraySource, part: str) -> dict[str, float]:
        logs = results_on(self.model, self._loader(data, shuffle=False), self.communicator)
        return {f"{part}_{name}": value for name, value in logs.items()}

    def _failed(self, error: BaseException, journal: Journal) -> None:
        code = getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else 1)
        if isinstance(error, SystemExit) and isinstance(error.code, int):
            code = error.code
        if code == 75:
            try:
                self.save(last=True)
            except DataError as unsaved:
                journal.close("failed", exit_code=unsaved.exit_code, error=str(unsaved))
                raise
            error.args = (
                f"stopped and saved after step {self.loop.cursor.step}; go on with the same "
                f"command and --run-dir {self.folder} --resume auto.",
            )
        if code == 130 and self.saved_step > 0:
            error.args = (
                f"interrupted; the last checkpoint is of step {self.saved_step}: go on with the "
                f"same command and --run-dir {self.folder} --resume auto",
            )
        state = {75: "preempted", 5: "diverged"}.get(code, "failed")
        journal.close(state, exit_code=code, error=str(error))


class _Saver(Observer):
    """Commits every so many steps; the ranks go on together."""

    def __init__(self, run: _Run) -> None:
        self.run = run

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        every = self.run.job.every_steps
        if every and self.run.loop.cursor.step % every == 0:
            self.run.save()


class _stop_on_signal:
    """Context in which SIGTERM and SIGUSR1 ask for a stop at the next step boundary.

    So does a terminal that has gone, unless ``nohup`` is there for that.
    Behind the last step the run comes to its end instead, which is near.
    """

    def __init__(self, step: TrainStep) -> None:
        self._step = step
        self._before: dict[int, Any] = {}
        self._asked = 0.0

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            hang_up = (signal.SIGHUP,) if environ.hangs_up() else ()
            for number in (signal.SIGTERM, signal.SIGUSR1, *hang_up):
                self._before[number] = signal.signal(number, self._ask)

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        if not self._step.stop_requested:
            self._step.stop_requested, self._asked = True, time.monotonic()
        elif (
            number != signal.SIGHUP and time.monotonic() > self._asked + _ECHO
        ):  # the second time: at once
            sys.exit(128 + number)


def _agree(communicator: Communicator, fn: Callable[[], Any]) -> Any:
    """What ``fn`` gives on rank 0, on every rank; its JobError is raised on every rank."""
    outcome: Any = None
    if communicator.rank == 0:
        try:
            with _usable():
                outcome = fn()
        except JobError as error:
            outcome = error
    outcome = communicator.broadcast_object(outcome, timeout=_DISK * communicator.timeout)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@contextlib.contextmanager
def _usable(folder: Path | None = None) -> Iterator[None]:
    """Context in which a disk that does not take, or give, something of a run is a UsageError."""
    try:
        yield
    except OSError as error:
        name = "" if folder is None else f" {folder}"
        raise UsageError(f"the run folder{name} cannot be used: {error}") from None


def _silent(*args: Any, **kwargs: Any) -> None: ...
