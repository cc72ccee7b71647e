"""Loss and metrics of a trained model, with the bits of the run's own test."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distgrad import keras
from distgrad.assembly import check_metrics, check_targets
from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import worker_shards
from distgrad.core.errors import DataError, UsageError
from distgrad.data import source
from distgrad.data.fresh import Fresh
from distgrad.data.loader import Loader
from distgrad.keras.layers.tracking import settled
from distgrad.trained.loading import Trained, keras_file
from distgrad.trained.outputs import Outputs
from distgrad.training.evaluation import evaluate
from distgrad.training.handshake import check_environment, check_kernels
from distgrad.training.programs import Jit
from distgrad.training.progress import shown
from distgrad.training.staging import link

PARTS = {"test": "test", "validation": "validation", "train": "training"}


@dataclass(frozen=True)
class Evaluation:
    """Loss and metrics by name, over so many samples of ``what``.

    ``confusion`` counts samples by true class (rows) and predicted one, if asked for.
    """

    run: str
    step: int
    what: str
    samples: int
    results: dict[str, float]
    classes: tuple[str, ...] = ()
    confusion: np.ndarray | None = None


def results_on(
    model: keras.Model, loader: Loader, communicator: Communicator, jit: Jit
) -> dict[str, float]:
    """Loss and metrics over the samples of a loader; all ranks call it."""
    passes = model.passes(jit)
    loss, sums = evaluate(
        passes.compute,
        model.sums_size,
        passes.batches(loader),
        communicator,
        loader.virtual_shards,
        mean_loss=model.mean_loss,
        counted=model.counted,
    )
    return model.results(loss, sums)


def evaluate_run(
    run: Trained,
    communicator: Communicator,
    *,
    part: str = "test",
    path: str | None = None,
    labels: str | None = None,
    confusion: bool = False,
) -> Evaluation:
    """A run on a part of its job's data (``test``, ``validation``, ``train``), or on a file.

    The batches and shards are those of the training, so that its own test gave the same bits, at
    any number of workers; all of them call it. ``labels`` is the file of the targets, where that is
    another. Raises UsageError for a part that the job does not have, DataError for a file that is
    not like the data of the training.
    """
    check_environment(communicator, config=run.job.config_hash)
    check_kernels(communicator)
    link(communicator, deterministic=run.job.deterministic)
    samples = _own(run, communicator, part) if path is None else _fresh(run, path, labels)
    outputs = Outputs.of(run.model, run.preparation)
    if confusion and not outputs.classes:
        raise UsageError(f"{run.folder}: its outputs are no classes, so there is no confusion")
    check_metrics(run.job, run.model, samples)
    shards = run.state["virtual_shards"]
    if communicator.world_size > shards:
        raise UsageError(
            f"{run.folder} was trained in {shards} shards, which {communicator.world_size} ranks "
            "cannot share: start fewer"
        )
    own = worker_shards(shards, communicator.rank, communicator.world_size)
    loader = Loader(samples, run.job.global_batch_size, shards, own, run.job.seed, shuffle=False)
    with settled(run.model):
        results = results_on(run.model, loader, communicator, run.job.jit)
        counts = None
        if confusion and communicator.rank == 0:
            counts = confusion_of(run.model, outputs, samples, run.job.global_batch_size)
    what = f"{PARTS[part]} samples" if path is None else f"samples of {path}"
    return Evaluation(
        str(run.folder), run.step, what, len(samples), results, outputs.classes, counts
    )


def evaluate_keras(
    path: str, data: str, labels: str | None = None, batch: int = 32, confusion: bool = False
) -> Evaluation:
    """A compiled model of a ``.keras`` file on arrays with targets. Raises as `evaluate_run`."""
    model, how = keras_file(path)
    if model.objective is None:
        raise UsageError(f"{path} was saved without compile: it has no loss to compute")
    samples = Fresh(how).labelled(data, labels)
    outputs = Outputs.of(model, how)
    if confusion and not outputs.classes:
        raise UsageError(f"{path}: its outputs are no classes, so there is no confusion")
    loader = Loader(samples, batch, 1, range(1), 0, shuffle=False)
    try:
        model.prepare(samples.take(slice(0, 1)))
        results = results_on(model, loader, Communicator(None), "auto")
    except ValueError as error:  # its layers and its loss say best what they take
        raise DataError(f"{data} does not fit {path}: {error}") from error
    counts = confusion_of(model, outputs, samples, batch) if confusion else None
    step = int(model.optimizer.calls.numpy()) if model.optimizer else 0
    what = f"samples of {data}"
    return Evaluation(path, step, what, len(samples), results, outputs.classes, counts)


def confusion_of(
    model: Any, outputs: Outputs, samples: source.ArraySource, batch: int
) -> np.ndarray:
    """Counts (classes, classes) of samples by true class and predicted one."""
    number = len(outputs.classes)
    counts = np.zeros((number, number), np.int64)
    for start in range(0, len(samples), batch):
        x, y = samples.take(slice(start, min(start + batch, len(samples))))
        predicted = outputs.probabilities(model.predict_on_batch(x)).argmax(axis=-1)
        one_hot = not outputs.two and y.shape[-1:] == (number,) and y.ndim == predicted.ndim + 1
        true = y.argmax(axis=-1) if one_hot else np.round(y).astype(np.int64)
        np.add.at(counts, (true.reshape(-1), predicted.reshape(-1)), 1)
    return counts


def report(found: Evaluation) -> Iterator[str]:
    """An evaluation as lines for people."""
    yield f"{found.run}, step {found.step}: {found.samples} {found.what}"
    for name, value in found.results.items():
        yield f"{name} {shown(value)}"
    if found.confusion is not None:
        yield ""
        yield from confusion_table(found.classes, found.confusion)


def as_dict(found: Evaluation) -> dict[str, Any]:
    """An evaluation as plain values, its numbers exact."""
    values = {key: value for key, value in vars(found).items() if key != "confusion"}
    if found.confusion is None:
        del values["classes"]
        return values
    each = [dataclasses.asdict(score) for score in scores(found.classes, found.confusion)]
    return values | {"confusion": found.confusion.tolist(), "scores": each}


@dataclass(frozen=True)
class Score:
    """One class: how many samples it has, which part of those predicted are of it, and found."""

    name: str
    samples: int
    precision: float
    recall: float


def scores(classes: Sequence[str], confusion: np.ndarray) -> list[Score]:
    """Of every class; 0 where nothing was predicted, or there is nothing to find."""
    right, true, said = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return [
        Score(name, int(true[i]), *(float(right[i] / max(n[i], 1)) for n in (said, true)))
        for i, name in enumerate(classes)
    ]


_MOST_COLUMNS = 16


def confusion_table(classes: Sequence[str], confusion: np.ndarray) -> Iterator[str]:
    """Rows are true classes, columns predicted ones; then precision and recall of each."""
    first = max(len("class"), *map(len, classes))
    if len(classes) <= _MOST_COLUMNS:
        width = max(len(str(confusion.max())), *map(len, classes)) + 2
        yield f"{'':<{first}}  predicted"
        yield f"{'true':<{first}}" + "".join(f"{name:>{width}}" for name in classes)
        for name, row in zip(classes, confusion.tolist(), strict=True):
            yield f"{name:<{first}}" + "".join(f"{count:>{width}}" for count in row)
        yield ""
    yield f"{'class':<{first}}  precision  recall  samples"
    met = confusion.sum(axis=0) + confusion.sum(axis=1) > 0
    for score, seen in zip(scores(classes, confusion), met, strict=True):
        if seen:
            yield (
                f"{score.name:<{first}}  {score.precision:>9.4f}  {score.recall:>6.4f}  "
                f"{score.samples:>7}"
            )
    if len(classes) > _MOST_COLUMNS:
        yield f"({len(classes)} classes are too many for a matrix here: --json has it)"


def _own(run: Trained, communicator: Communicator, part: str) -> source.ArraySource:
    try:
        splits = source.load(
            run.job.data,
            run.job.seed,
            allow_download=communicator.rank == 0,
            announce=_announce if communicator.rank == 0 else _silent,
        )
    except DataError as error:
        moved = "; where it has moved, say so: data.path=FILE" if run.job.data.get("path") else ""
        raise DataError(f"{error}{moved}") from None
    if splits.preparation != run.preparation:
        raise DataError(
            f"{splits.description}: these are no longer the data that {run.folder} was trained on "
            "(their columns, classes or statistics differ). Evaluate a file with --data: it is "
            "seen as the data of the training were."
        )
    found = splits.parts().get(PARTS[part])
    if found is None:
        raise UsageError(f"{run.folder} has no {part} samples: its job sets no validation_fraction")
    return found


def _fresh(run: Trained, path: str, labels: str | None) -> source.ArraySource:
    samples = Fresh(run.preparation, run.job.data).labelled(path, labels)
    named = dataclasses.replace(run.job, data={"path": labels or path})
    check_targets(named, run.model.output_shape[1:], {"given": samples})
    return samples


def _announce(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # stdout may be read as JSON


def _silent(text: str) -> None: ...
