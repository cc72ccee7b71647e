"""One rank's main: builds what the job describes, trains it, and leaves a run folder behind."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from distgrad import __version__, keras, resuming, trained
from distgrad.assembly import build_model, class_weights
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
from distgrad.launcher import environ, threads
from distgrad.run_state import DISK, RunState
from distgrad.stopping import stop_on_signal
from distgrad.trained.evaluating import results_on
from distgrad.training import checkpoint, logs, run_folder, timeline
from distgrad.training.handshake import (
    check_environment,
    check_executor,
    check_variables,
    environment,
)
from distgrad.training.journal import Journal
from distgrad.training.loop import Observer, TrainingLoop
from distgrad.training.programs import ExecutorName
from distgrad.training.progress import progress, shown
from distgrad.training.staging import link
from distgrad.training.step import TrainStep
from distgrad.training.stragglers import Stragglers
from distgrad.training.trackers import chosen, trackers_of

# Makes one more observer of a loop, which is told last; it gets what tells the seconds that went by
# in communication so far, or None where they are not spent alone.
Observe = Callable[[TrainingLoop, Callable[[], float] | None], Observer]


def main(job: Job, communicator: Communicator, observe: Observe | None = None) -> int:
    """Runs this rank of the job to its end and returns the exit code.

    Raises the JobError that ended it; the launcher prints it and ends the other ranks.
    """
    world = environ.detect()
    devices.use(job.device, world.local_rank)
    alike = {**resuming.decides_bits(job), **resuming.decides_calls(job)}
    check_environment(communicator, **alike, config=job.config_hash)
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
    model.weigh_classes(class_weights(job, splits))
    run = _Run(job, communicator, folder, model, splits, commit, executor, trackers)
    timeline.ask_environment(communicator)
    if not gc.isenabled():  # a process of its own, see ``cli``: all that is there stays
        gc.freeze()
        gc.enable()
    try:
        with settled(model), stop_on_signal(run.step):
            return run.train(observe) if rank0 else run.follow(observe)
    finally:
        timeline.end()


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
        self.state = RunState(job, communicator, model, self.step, executor, folder, commit)
        loader = self._loader(splits.train, job.shuffle)
        self.loop = TrainingLoop(
            self.step,
            loader,
            model.results,
            cursor=self.state.cursor,
            validate=None if splits.validation is None else self._validate,
        )
        if communicator.world_size > 1:
            self.loop.observers.append(Stragglers(self.loop, communicator))
        self.timed = [] if job.timeline is None else [_Timed(self, *job.timeline)]

    def _loader(self, data: source.ArraySource, shuffle: bool) -> Loader:
        size = self.job.global_batch_size
        return Loader(data, size, self.shards, self.own, self.job.seed, shuffle)

    def _described(self) -> dict[str, str]:
        """What a trained model needs beside its weights."""
        how = self.splits.preparation
        return {} if how is None else {trained.PREPARATION: how.to_json()}

    # The two kinds of rank.

    def follow(self, observe: Observe | None) -> int:
        """Any rank but 0: trains, and leaves all words and files to rank 0."""
        self.loop.observers += [*self.timed, _Saver(self.state)]
        if observe is not None:
            self.loop.observers.append(observe(self.loop, self._communication()))
        try:
            self.loop.run(self.job.epochs)
        except PreemptedError:
            self.state.save(last=True)
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
        count = threads.of_kernels() or threads.blas_info()["threads"]
        print(f"{job.name}: {self.splits.description}")
        print(
            f"{self.model.count_params():,} parameters, {workers}, {shards}, "
            f"{count} {'thread' if count == 1 else 'threads'} a worker, "
            f"{resuming.RUNS[self.executor]}"
        )
        if self.state.commits.saved_step >= 0:
            print(
                f"resuming {folder} at step {cursor.step} (epoch {cursor.epoch + 1}, "
                f"step {cursor.step_in_epoch} of {loop.loader.steps_per_epoch})"
            )
        print(f"run folder {folder}", flush=True)
        with _usable(folder):
            journal = Journal(
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
        self.state.at_miss = journal.missed_save

        def keep() -> None:
            """Before a commit: without these files nobody could use it."""
            if run_folder.is_run_folder(folder):
                return
            print(f"warning: somebody has deleted {folder}: it is written anew.", file=sys.stderr)
            with contextlib.suppress(OSError):  # a full disk: the next commit will try again
                folder.mkdir(parents=True, exist_ok=True)
                journal.restore()
                run_folder.describe(folder, files)

        loop.observers += [
            journal,
            *self.timed,
            _Saver(self.state, keep),
            progress(loop, job.epochs, mode, environ.stdout_is_terminal()),
        ]
        if observe is not None:
            loop.observers.append(observe(loop, self._communication()))
        try:
            loop.run(job.epochs)
            keep()
            self._end()
            results = {**loop.logs(), **self._evaluate()}
            journal.final(results)
            self.communicator.barrier()
        except BaseException as error:
            self._failed(error, journal)
            raise
        digest = self.state.weights_sha256()
        journal.close("finished", exit_code=0, weights_sha256=digest)
        print(f"weights sha256 {digest}")
        for name in self.model.metrics_names:
            print(f"test {name} {shown(results[f'test_{name}'])}")
        print(f"run folder {folder}", flush=True)
        return 0

    def _rate(self) -> float:
        optimizer: Any = self.model.optimizer
        return optimizer.rate(max(1, int(optimizer.iterations)))

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
        self.state.save(last=True)

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
        loader = self._loader(data, shuffle=False)
        logs = results_on(self.model, loader, self.communicator, self.job.jit)
        return {f"{part}_{name}": value for name, value in logs.items()}

    def _failed(self, error: BaseException, journal: Journal) -> None:
        try:
            self.state.commits.settle()  # whatever has ended the run, it goes on from this one
        except DataError as unsaved:
            print(f"warning: {unsaved}", file=sys.stderr)
        code = getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else 1)
        if isinstance(error, SystemExit) and isinstance(error.code, int):
            code = error.code
        if code == 75:
            try:
                self.state.save(last=True)
            except DataError as unsaved:
                journal.close("failed", exit_code=unsaved.exit_code, error=str(unsaved))
                raise
            error.args = (
                f"stopped and saved after step {self.loop.cursor.step}; go on with the same "
                f"command and --run-dir {self.folder} --resume auto.",
            )
        saved_step = self.state.commits.saved_step
        if code == 130 and saved_step > 0:
            error.args = (
                f"interrupted; the last checkpoint is of step {saved_step}: go on with "
                f"the same command and --run-dir {self.folder} --resume auto",
            )
        state = {75: "preempted", 5: "diverged"}.get(code, "failed")
        journal.close(state, exit_code=code, error=str(error))


class _Timed(Observer):
    """Lets the timeline of a run have its steps ``first`` to ``last``."""

    def __init__(self, run: _Run, first: int, last: int) -> None:
        self._cursor = run.loop.cursor
        path = run.folder / timeline.NAME
        self._window = timeline.Window(first, last, path, run.communicator)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._window.before(self._cursor.step + 1)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._window.after(self._cursor.step)


class _Saver(Observer):
    """Commits every so many steps, each ``after`` a call."""

    def __init__(self, state: RunState, after: Callable[[], object] = lambda: None) -> None:
        self.state = state
        self.after = after

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.state.commits.look()
        every, step = self.state.job.every_steps, self.state.cursor.step
        if every and step % every == 0:
            self.after()
            self.state.save()
        if every and (step + 1) % every == 0:
            self.state.settle()


def _agree(communicator: Communicator, fn: Callable[[], Any]) -> Any:
    """What ``fn`` gives on rank 0, on every rank; its JobError is raised on every rank."""
    outcome: Any = None
    if communicator.rank == 0:
        try:
            with _usable():
                outcome = fn()
        except JobError as error:
            outcome = error
    outcome = communicator.broadcast_object(outcome, timeout=DISK * communicator.timeout)
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
