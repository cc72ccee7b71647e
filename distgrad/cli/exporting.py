"""The verb that takes a trained run elsewhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distgrad.cli.using import Step


class Format(StrEnum):
    onnx = "onnx"
    keras = "keras"
    safetensors = "safetensors"
    npz = "npz"


def export(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run folder, `latest`, or a job's name (its newest run).",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The file to write; else RUN/export/model.*",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    to: Annotated[
        Format | None,
        typer.Option(
            "--to", help="What to write; else by the ending of FILE, or ONNX.", show_default=False
        ),
    ] = None,
    step: Step = None,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="The model alone: inputs as in training, outputs as they are."),
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also write a smaller file with weights of 8 bits.")
    ] = False,
    web: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write a web page that runs the model: draw, or type numbers.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Write a run for phones, browsers, boards (ONNX), or for Keras.

    An ONNX file takes raw values (pixels, columns of a table) and is run beside the model first.
    """
    from distgrad.export.run import export_run

    kind = None if to is None else to.value
    export_run(run, output, kind, step=step, raw=raw, int8=int8, page=web, force=force)
    return 0
