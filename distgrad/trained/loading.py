"""A trained model from a run folder: its weights, its job, and what its inputs are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distgrad import keras, resuming, run_state
from distgrad.assembly import model_for
from distgrad.compile import eager
from distgrad.core import devices
from distgrad.core.errors import DataError, MissingExtraError, NoDeviceError, UsageError
from distgrad.data import source
from distgrad.data.preparation import Preparation
from distgrad.job import Job
from distgrad.keras import mixed_precision
from distgrad.launcher import environ, threads
from distgrad.training import checkpoint, run_folder

PREPARATION = "preparation.json"


@dataclass(frozen=True)
class Trained:
    """What a run has left: a compiled ``model`` with the weights after ``step`` steps.

    ``preparation`` says how its inputs were made; ``state`` is what the checkpoint says of itself.
    """

    folder: Path
    step: int
    job: Job
    preparation: Preparation
    model: keras.Sequential
    state: dict[str, Any]

    def __repr__(self) -> str:  # job and state are pages long
        return f"<Trained {self.job.name!r}, step {self.step}, of {str(self.folder)!r}>"


def load(folder: str | Path, step: int | None = None, overrides: Sequence[str] = ()) -> Trained:
    """The model of a run folder, with the weights of its newest whole checkpoint, or of ``step``.

    Neither the data nor the machine or the number of workers that trained it are needed. Moving
    averages of the weights, where the optimizer keeps them, have taken their place, as in the
    run's own test. ``overrides`` are changes to the job, ``key.sub=value``.

    Raises UsageError for a folder that holds no run or no such checkpoint, DataError where no
    checkpoint can be read; a damaged one is named on stderr and passed over for the one before it.
    """
    folder = Path(folder)
    job = job_of(folder, overrides)
    commit = commit_of(folder, step)
    preparation = preparation_of(folder, job)
    _check_changes(folder, job, commit)
    model = model_for(job, preparation)
    run_state.restore(model, commit)
    assert model.optimizer is not None
    model.optimizer.finalize_variable_values(model.optimizer.trained)
    return Trained(folder, commit.state["cursor"]["step"], job, preparation, model, commit.state)


def open_run(name: str, step: int | None = None, overrides: Sequence[str] = ()) -> Trained:
    """The run that ``name`` means, in a process that computes as its training did.

    It is found by `find_run_folder`, and takes the job's device, threads and kernels; what is
    not here is named on stderr, and done without. Raises as `find_run_folder` and `load`.
    """
    folder = run_folder.find_run_folder(name)
    job = job_of(folder, overrides)
    threads.limit(job.threads_per_worker)
    mixed_precision.enable_tensor_float_32_execution(job.tensor_float_32)
    try:
        devices.use(job.device, environ.detect().local_rank)
    except (MissingExtraError, NoDeviceError) as error:
        resuming.warn(f"the run was trained on a GPU, and is used on the CPU: {error}")
        devices.use("cpu")
    run = load(folder, step, overrides)
    try:
        eager.use(run.state.get("kernels", "numpy"))
    except MissingExtraError as error:
        resuming.warn(f"the last bits may differ from those of the training: {error}")
        eager.use("numpy")
    return run


def keras_file(path: str) -> tuple[keras.Model, Preparation]:
    """The model of a ``.keras`` file, and what it takes: arrays as they are.

    Raises DataError where it cannot be read, UsageError for a model of several inputs or outputs.
    """
    try:
        model = keras.models.load_model(path)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be loaded: {error}") from error
    try:
        (x,), (y,) = model.inputs, model.outputs
    except (AttributeError, ValueError):
        raise UsageError(
            f"{path} has not one input and one output: use keras.models.load_model in Python"
        ) from None
    shapes = tuple(x.shape[1:]), tuple(y.shape[1:])
    names = x.dtype.name, y.dtype.name
    return model, Preparation("arrays", shapes[0], names[0], shapes[1], names[1])


def job_of(folder: Path, overrides: Sequence[str] = ()) -> Job:
    """The job of a run folder. Raises UsageError for any other folder."""
    from distgrad.config import load as load_config

    resolved = folder / "resolved.yaml"
    if not resolved.is_file():
        there = (
            "is no folder" if not folder.is_dir() else "holds no run (there is no resolved.yaml)"
        )
        raise UsageError(f"{folder} {there}; name the folder of a run, as distgrad train says it")
    return Job.from_config(load_config(resolved, overrides), run_dir=str(folder))


def commit_of(folder: Path, step: int | None = None) -> checkpoint.Commit:
    """The newest whole checkpoint of a run, or that of ``step``. Raises as `load`."""
    checkpoints = folder / "checkpoints"
    found = {int(path.name[5:]): path for path in checkpoint.commits(checkpoints)}
    if step is not None:
        if step not in found:
            there = ", ".join(map(str, found)) or "none"
            raise UsageError(f"{folder} has no checkpoint of step {step}; those there: {there}")
        return checkpoint.load(found[step])
    commit = checkpoint.load_newest(checkpoints, resuming.warn)
    if commit is None:
        raise DataError(f"{folder} has no checkpoint yet: it ended, or is, before its first one")
    return commit


# What a trained model can be used with other values of; all files of data may have moved.
_FREE = (
    *("loss", "metrics", "device", "train.", "parallel."),
    *("data.path ", "data.x ", "data.y ", "data.test_x ", "data.test_y "),
    *("data.images ", "data.labels ", "data.test_images ", "data.test_labels "),
)


def _check_changes(folder: Path, job: Job, commit: checkpoint.Commit) -> None:
    for text in resuming.changes_of(job, commit.state["job"]):
        if not text.startswith(_FREE):
            raise UsageError(f"{folder}: {text}, but that is how the model was trained")


def preparation_of(folder: Path, job: Job) -> Preparation:
    """What a run has noted of its inputs; a run of before it did so is asked for its data."""
    file = folder / PREPARATION
    try:
        return Preparation.from_json(file.read_text(encoding="utf-8"), str(file))
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read ({error})") from None
    try:
        found = source.load(job.data, job.seed).preparation
    except DataError as error:
        raise DataError(
            f"{folder} is of a version of distgrad that kept no {PREPARATION}, so that the data "
            f"it was trained on are needed, too: {error}"
        ) from None
    assert found is not None
    return found
