"""The verbs that use a trained run."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from distgrad.cli.words import split

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
BatchSize = Annotated[
    int | None,
    typer.Option(
        "-b",
        "--batch-size",
        min=1,
        help="Samples at a time; else as in training.",
        show_default=False,
    ),
]
Step = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="The checkpoint of this step; else the newest.", show_default=False
    ),
]


_KERAS = ".keras"


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
    batch_size: BatchSize = None,
    confusion: Annotated[
        bool, typer.Option("--confusion", help="Show which classes are taken for which.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, its numbers exact.")] = False,
) -> int:
    """Compute loss and metrics of a run, to the bits of its own test.

    Started by mpirun or srun, the ranks share the work.
    """
    from distgrad.core.errors import UsageError
    from distgrad.launcher import environ
    from distgrad.launcher.connect import run_rank

    (name,), changes = split(words, "one run is needed", 1)
    if batch_size is not None:
        changes.append(f"train.global_batch_size={batch_size}")

    def main(communicator: Communicator) -> int:
        import json

        from distgrad import trained
        from distgrad.trained import evaluating

        if name.endswith(_KERAS):
            if data is None:
                raise UsageError(f"{name} knows of no data: name a file of them, --data")
            size = 32 if batch_size is None else batch_size
            found = evaluating.evaluate_keras(name, data, labels, size, confusion)
        else:
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


def predict(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN [INPUT] [KEY.SUB=VALUE]...",
            help="A run folder, `latest`, or a job's name (its newest run), and a file: a table, "
            "arrays, the values of a series, or a text to go on from; - is stdin: a CSV file, or a "
            "text.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Where to: .csv, .jsonl, .npy or .npz (a text: .txt); - is the screen, as CSV.",
        ),
    ] = "-",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    step: Step = None,
    batch_size: BatchSize = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="Text: what to go on from, in place of INPUT.", show_default=False),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Text: characters to add, else 200. A series: values to forecast, else as many "
            "as in training.",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, help="Text: 0 takes the likeliest character.", show_default="1"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Text: another seed gives another text.", show_default="0"),
    ] = None,
) -> int:
    """Let a trained run predict classes or values for rows of a file.

    They come in the order and units of the file.

    Columns of a table are found by their names; a label column is not needed, and not looked at.
    """
    from distgrad import trained
    from distgrad.trained import predicting

    (name, *inputs), changes = split(words, "a run is needed, and at most one file", 2)
    if name.endswith(_KERAS):
        model, how = trained.keras_file(name)
        asked = predicting.Asked(model, how, {}, batch_size or 32)
    else:
        if batch_size is not None:
            changes.append(f"train.global_batch_size={batch_size}")
        run = trained.open_run(name, step, changes)
        size = run.job.global_batch_size
        asked = predicting.Asked(run.model, run.preparation, run.job.data, size)
    said = asked.answer(
        "/dev/stdin" if inputs == ["-"] else inputs[0] if inputs else None,
        output,
        force,
        prompt=prompt,
        length=length,
        temperature=temperature,
        seed=seed,
    )
    if output != "-":
        print(said)
    return 0
