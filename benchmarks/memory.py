"""Peak memory of each workload side by side with the peers.

    python benchmarks/run.py --install        # once: an environment with the peers
    python benchmarks/memory.py [--workloads A,B] [--only A,B] [--write]

Each contender trains each workload for 20 steps in a process of its own, alone. The peak is that of
resident memory (MiB), libraries and compiler included; in brackets the part above what the import
took. It counts nobody whose losses differ from the others'.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from crew import PeerError, Process, arguments, chosen, handing, machine, write_section
from run import CONTENDERS, STEPS, Measured, agreeing
from workloads import WORKLOADS


def peak(name: str, python: Path | None, slug: str, path: str) -> tuple[list | None, str]:
    """Losses (None where there is no form of it), and the peak as a cell of the table."""
    process = Process(name, python)
    try:
        process.ask("about")
        before = process.ask("memory")
        losses = process.ask("losses", slug, path, STEPS)["losses"]
        after = process.ask("memory")
    finally:
        process.close()
    return losses, f"{after / 2**20:.0f} ({(after - before) / 2**20:.0f})"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser)
    parser.add_argument("--workloads", type=lambda text: text.split(","), default=list(WORKLOADS))
    options = parser.parse_args(argv)
    unknown = [name for name in options.workloads if name not in WORKLOADS]
    if unknown:
        raise SystemExit(f"no workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    python, names = chosen(options, CONTENDERS)
    lines = [f"| | {' | '.join(names)} |\n|---{'|---' * len(names)}|"]
    print(lines[0])
    notes: list[str] = []
    with handing() as handed:
        for slug in options.workloads:
            workload = WORKLOADS[slug]
            path, measured = handed(workload), Measured(workload)
            losses: dict[str, list[float]] = {}
            cells: dict[str, str] = {}
            for name in names:
                try:
                    found, cell = peak(name, python, slug, path)
                except PeerError as error:
                    measured.notes.append(str(error))
                    continue
                if found is not None:
                    losses[name], cells[name] = found, cell
            agreed = agreeing(measured, losses) if losses else []
            row = [cells[name] if name in agreed else "-" for name in names]
            lines.append(f"| {workload.name} | {' | '.join(row)} |")
            print(lines[-1], *measured.notes, sep="\n", flush=True)
            notes += measured.notes
    if options.write:
        head = f"{machine()}; {time.strftime('%Y-%m-%d')}. Peak resident memory in MiB over "
        head += f"{STEPS} steps; in brackets what came on top of the import.\n\n"
        text = "\n".join([*lines, *[f"\n{note}" for note in notes]])
        write_section("Memory, `python benchmarks/memory.py`", head + text)
    return 1 if any(note.startswith("distgrad") for note in notes) else 0


if __name__ == "__main__":
    raise SystemExit(main())
