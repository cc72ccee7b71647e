"""Layers of all kinds beside Keras on TensorFlow: is one of them slower than its neighbours?

    python benchmarks/kinds.py --folder FOLDER --write    # FOLDER: the peers' environment of run.py
    python benchmarks/kinds.py --kinds "conv 3d,gru"

As ``run.py``: the same weights, batch and Adam, losses compared before anything is timed, one
thread each, rounds in turn. A step is ``train_on_batch``'s; Keras's is with XLA and without, and
the faster one counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

from crew import arguments, chosen, crew, handing, machine, write_section
from kinds_models import KINDS, register
from run import Measured, measure, milliseconds, ratio_cell

CONTENDERS = ["distgrad captured", "distgrad eager", "Keras", "Keras, no XLA"]
HEAD = (
    "| twice this | eager, ms | captured, ms | best of Keras, ms | captured / best | eager / best "
    "| first step, s | Keras's |\n|---|---|---|---|---|---|---|---|"
)


def row(measured: Measured) -> str:
    best, name = measured.best_peer(), measured.workload.sizes["kind"]
    ours = ("distgrad eager", "distgrad captured")
    cells = [milliseconds(measured.median(n)) if n in measured.times else "-" for n in ours]
    cells.append(f"{milliseconds(measured.median(best))}" if best else "-")
    cells.append(ratio_cell(measured, "distgrad captured", best, None))
    cells.append(ratio_cell(measured, "distgrad eager", best, None))
    cells += [f"{measured.setup[n]:.1f}" if n in measured.setup else "-" for n in (ours[1], best)]
    return f"| {' | '.join([name, *cells])} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.2, help="of a contender's turn")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(KINDS))
    options = parser.parse_args(argv)
    unknown = [name for name in options.kinds if name not in KINDS]
    if unknown:
        raise SystemExit(f"no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    python, names = chosen(options, CONTENDERS)
    table: list[Measured] = []
    with handing() as handed, crew(names, python) as processes:
        print(HEAD, flush=True)
        for workload in register():
            if workload.sizes["kind"] in options.kinds:
                path = handed(workload)
                found = measure(workload, processes, path, options.rounds, options.seconds)
                table.append(found)
                print(row(found), *found.notes, sep="\n", flush=True)
    ratios = [
        statistics.median(each.ratios("distgrad captured", best))
        for each in table
        if (best := each.best_peer()) and "distgrad captured" in each.times
    ]
    summary = ""
    if ratios:
        summary = (
            f"captured / best: median {statistics.median(ratios):.2f}, largest {max(ratios):.2f}; "
            f"{sum(r > 1 for r in ratios)} of {len(ratios)} kinds above 1.\n"
        )
        print(summary)
    notes = [note for each in table for note in each.notes]
    if options.write:
        report = [f"{machine()}; {time.strftime('%Y-%m-%d')}; {summary}", HEAD, *map(row, table)]
        write_section(
            "Kinds of layers, `python benchmarks/kinds.py`", "\n".join([*report, "", *notes])
        )
    return 1 if any(note.startswith("distgrad") for note in notes) else 0


if __name__ == "__main__":
    raise SystemExit(main())
