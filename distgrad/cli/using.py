"""The verbs that use a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from distgrad.comm.communicator import Communicator

RunWords = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN [KEY.SUB=VALUE]...",
        help="A run folder, `latest`, or a job's name (its newest run), and changes to its job.",
        show_default=False,
    ),
]
Step = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="The checkpoint of this step; else the newest.", show_default=False
    ),
]


class Part(StrEnum):
    test = "test"
    validation = "validation"
    train = "train"


def evaluate(
    words: RunWords,
    step: Step = None,
    part: Annotated[
        Part, typer.Option("--on", help="Which samples of the job's data.")
    ] = Part.test,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A labelled file of the same kind, seen as the data of the training were.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="The targets of --data, for .npy and IDX.", show_default=False
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "-b",
            "--batch-size",
            min=1,
            help="Samples at a time; else as in training.",
            show_default=False,
        ),
    ] = None,
    confusion: Annotated[
        bool, typer.Option("--confusion", help="Show which classes are taken for which.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, its numbers exact.")] = False,
) -> int:
    """Compute loss and metrics of a trained run, to the bits of its own test.

    Started by mpirun or srun, the ranks share the work.
    """
    from distgrad.launcher import environ
    from distgrad.launcher.connect import run_rank

    name, changes = _split(words)
    if batch_size is not None:
        changes.append(f"train.global_batch_size={batch_size}")

    def main(communicator: Communicator) -> int:
        import json

        from distgrad import trained
        from distgrad.trained import evaluating

        found = evaluating.evaluate_run(
            trained.open_run(name, step, changes),
            communicator,
            part=part.value,
            path=data,
            labels=labels,
            confusion=confusion,
        )
        if communicator.rank == 0 and as_json:
            print(json.dumps(evaluating.as_dict(found), indent=1))
        elif communicator.rank == 0:
            print("\n".join(evaluating.report(found)))
        return 0

    world = environ.detect()
    if world.is_rank:
        return run_rank(world, main)
    from distgrad.comm.communicator import Communicator

    return main(Communicator(None))


def _split(words: Sequence[str]) -> tuple[str, list[str]]:
    """The run and the changes to its job; what has an equals sign, and is no file, is a change."""
    from distgrad.core.errors import UsageError

    runs = [word for word in words if "=" not in word or Path(word).exists()]
    if len(runs) != 1:
        found = f"these are {len(runs)}: {', '.join(runs)}" if runs else "there is none"
        raise UsageError(f"one run is needed, {found}; changes to its job read key.sub=value")
    return runs[0], [word for word in words if word != runs[0]]
