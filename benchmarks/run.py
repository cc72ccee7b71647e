"""Training steps side by side with torch, TensorFlow, Keras, JAX and HIPS autograd.

    python benchmarks/run.py --install            # once: an environment with the peers
    python benchmarks/run.py --write              # all workloads, into benchmarks/RESULTS.md
    python benchmarks/run.py --workloads mnist_mlp,cnn --only "distgrad captured,JAX jit"
    python benchmarks/run.py --cores 2            # on two cores with as many threads, by the clock

Float32, the same weights, batch and Adam for all; each contender a process of its own with one
thread, all pinned to the same core and alive at once. Nobody is timed whose losses of the first 20
steps differ from the others'. Rounds go through the contenders in turn, in rotating order, so that
a noisy machine meets all alike; a time is the process's CPU time, of all its threads; what counts
is the median of the ratios of each round. Steps run on a batch that is ready; "fit" forms take
theirs from the framework's loader.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from crew import (
    DISTGRAD,
    PeerError,
    Process,
    arguments,
    chosen,
    crew,
    handing,
    machine,
    write_section,
)
from workloads import SHARDED, WORKLOADS, Workload

STEPS = 20  # whose losses are compared
TOLERANCE = 1e-3
SECONDS = 0.3  # of a contender's turn in a round
CONTENDERS = [
    *("distgrad eager", "distgrad captured", "torch eager", "torch compile"),
    *("TensorFlow function", "TensorFlow XLA", "Keras", "Keras, no XLA", "Keras fit"),
    *("JAX jit", "HIPS autograd"),
]


@dataclass
class Measured:
    """What came out of one workload."""

    workload: Workload
    times: dict[str, list[float]] = field(default_factory=dict)  # seconds a step, by round
    setup: dict[str, float] = field(default_factory=dict)  # seconds until the first step is done
    disagreement: float = 0.0  # the largest among those that were timed
    notes: list[str] = field(default_factory=list)

    def median(self, name: str) -> float:
        return statistics.median(self.times[name])

    def best_peer(self) -> str | None:
        peers = [name for name in self.times if name not in DISTGRAD]
        return min(peers, key=self.median, default=None)

    def ratios(self, name: str, other: str) -> list[float]:
        return [a / b for a, b in zip(self.times[name], self.times[other], strict=True)]


def disagreement(losses: Sequence[float], expected: Sequence[float]) -> float:
    """The largest relative difference; below a hundredth of the first loss, relative to that."""
    floor = abs(expected[0]) / 100
    pairs = zip(losses, expected, strict=True)
    worst = [abs(a - b) / max(abs(b), floor) for a, b in pairs]
    return max(float("inf") if each != each else each for each in worst)


def agreeing(measured: Measured, losses: dict[str, list[float]]) -> list[str]:
    """Those with the losses of the reference: the first peer, or else the first of ours."""
    reference = next((name for name in losses if name not in DISTGRAD), next(iter(losses)))
    expected = losses[reference]
    moved = disagreement(expected[-1:], expected[:1])
    if moved < 3 * TOLERANCE and measured.workload.kind != "chain":
        measured.notes.append(
            f"{reference} does not train: losses {expected[0]:.6g} to {expected[-1]:.6g}"
        )
        return []
    agreed = []
    for name, found in losses.items():
        off = disagreement(found, expected)
        if off < TOLERANCE:
            agreed.append(name)
            measured.disagreement = max(measured.disagreement, off)
        else:
            measured.notes.append(
                f"{name} is not timed: losses {found[0]:.6g} to {found[-1]:.6g}, "
                f"{reference} {expected[0]:.6g} to {expected[-1]:.6g} (off by {off:.1e})"
            )
    return agreed


def measure(
    workload: Workload, processes: dict[str, Process], path: str, rounds: int, seconds: float
) -> Measured:
    """Compares losses, then times; a contender that fails is noted, and left out."""
    measured = Measured(workload)
    losses: dict[str, list[float]] = {}

    def failed(name: str, error: PeerError) -> None:
        measured.notes.append(str(error))
        losses.pop(name, None)
        if processes[name].process.poll() is not None or "no answer" in str(error):
            processes.pop(name).close()

    for name in list(processes):
        try:
            answer = processes[name].ask("losses", workload.slug, path, STEPS)
        except PeerError as error:
            failed(name, error)
            continue
        if answer["losses"] is not None:
            losses[name] = answer["losses"]
            measured.setup[name] = answer["setup"]
    names = agreeing(measured, losses) if losses else []
    measured.times = {name: [] for name in names}
    counts: dict[str, int] = {}

    def turn(name: str) -> None:
        try:
            if name not in counts:
                taken = min(processes[name].ask("time", 2) for _ in range(3))
                counts[name] = max(1, min(20_000, int(seconds / max(taken, 1e-7))))
                # A fit starts and ends a run: the more steps, the less of that is left.
                counts[name] *= 3 if name.endswith(" fit") else 1
            else:
                measured.times[name].append(processes[name].ask("time", counts[name]))
        except PeerError as error:
            failed(name, error)
            names.remove(name)
            del measured.times[name]

    for round_ in range(rounds + 1):  # the first finds how many steps a turn takes
        place = round_ % max(1, len(names))
        for name in names[place:] + names[:place]:
            turn(name)
    return measured


def spread(found: Sequence[float]) -> str:
    """The median and the quartiles."""
    if len(found) < 2:
        return f"{found[0]:.2f}"
    low, middle, high = statistics.quantiles(found, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} - {high:.2f})"


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"


def ratio_cell(measured: Measured, name: str, other: str | None, target: float | None) -> str:
    """Ours over the other's, with the target and whether it is met."""
    if name not in measured.times or other not in measured.times:
        return "-"
    found = measured.ratios(name, other)
    if target is None:
        return spread(found)
    met = "met" if statistics.median(found) <= target else "missed"
    return f"{spread(found)}, {met} ({target})"


def row(measured: Measured) -> str:
    """The line of one workload in the table of ratios."""
    workload, best = measured.workload, measured.best_peer()
    cells = [workload.name]
    for name in ("distgrad eager", "distgrad captured"):
        cells.append(milliseconds(measured.median(name)) if name in measured.times else "-")
    cells.append(f"{best} {milliseconds(measured.median(best))}" if best else "-")
    cells.append(ratio_cell(measured, "distgrad captured", best, workload.captured))
    eager_peer = workload.eager_peer or best
    cell = ratio_cell(measured, "distgrad eager", eager_peer, workload.eager)
    cells.append(cell + (f" to {workload.eager_peer}" if workload.eager_peer else ""))
    cells.append(f"{measured.disagreement:.0e}")
    return f"| {' | '.join(cells)} |"


RATIOS = (
    "| workload | eager, ms | captured, ms | best peer, ms | captured / best | eager / best "
    "| losses differ |\n|---|---|---|---|---|---|---|"
)


def all_times(table: Sequence[Measured]) -> str:
    """Every contender's time for each workload, with the seconds that it took to set up."""
    names = [name for name in CONTENDERS if any(name in each.times for each in table)]
    names += [n for each in table for n in each.times if n not in names]
    names = list(dict.fromkeys(names))
    lines = [f"| | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
    for each in table:
        cells = [
            f"{milliseconds(each.median(name))} [{each.setup[name]:.1f}]"
            if name in each.times
            else "-"
            for name in names
        ]
        lines.append(f"| {each.workload.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def sharded(processes, handed, rounds: int, seconds: float, names: Sequence[str]) -> str:
    """V = 8 against V = 1 on one worker: a table."""
    lines = ["| workload | V = 1, ms | V = 8, ms | V = 8 / V = 1 |", "|---|---|---|---|"]
    for slug in names:
        workload = WORKLOADS[slug]
        one, eight = "distgrad captured", "distgrad V=8"
        measured = measure(workload, processes, handed(workload), rounds, seconds)
        cells = [workload.name]
        for name in (one, eight):
            cells.append(milliseconds(measured.median(name)) if name in measured.times else "-")
        cells.append(ratio_cell(measured, eight, one, SHARDED[slug]))
        lines.append(f"| {' | '.join(cells)} |")
        lines += [f"\n{note}" for note in measured.notes]
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a contender's turn")
    parser.add_argument("--workloads", type=lambda text: text.split(","), default=list(WORKLOADS))
    parser.add_argument("--cores", type=int, default=1, help="of each, which take turns")
    options = parser.parse_args(argv)
    unknown = [name for name in options.workloads if name not in WORKLOADS]
    if unknown:
        raise SystemExit(f"no workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    python, names = chosen(options, CONTENDERS)
    table: list[Measured] = []
    with handing() as handed, crew(names, python, options.cores) as processes:
        versions = sorted({process.ask("about")["version"] for process in processes.values()})
        print(RATIOS, flush=True)
        for slug in options.workloads:
            workload = WORKLOADS[slug]
            path = handed(workload)
            table.append(measure(workload, processes, path, options.rounds, options.seconds))
            print(row(table[-1]), *table[-1].notes, sep="\n", flush=True)
    shards = [slug for slug in SHARDED if slug in options.workloads]
    text = ""
    if shards and "distgrad captured" in names and options.cores == 1:
        pair = ["distgrad captured", "distgrad V=8"]
        with handing() as handed, crew(pair, python) as processes:
            text = sharded(processes, handed, options.rounds, options.seconds, shards)
    timed = "One thread, process CPU time"
    title = "Side by side, `python benchmarks/run.py`"
    if options.cores > 1:
        timed = f"{options.cores} threads on as many cores, time of the clock"
        title = f"On several cores, `python benchmarks/run.py --cores {options.cores}`"
    report = "\n".join(
        [
            f"{machine()}; {'; '.join(versions)}; {time.strftime('%Y-%m-%d')}. {timed} a step, "
            f"medians of {options.rounds} rounds; ratios are medians over rounds with their "
            "quartiles; targets, which are for one thread, in brackets.\n",
            RATIOS,
            *map(row, table),
            *[f"\n{note}" for each in table for note in each.notes],
            "\nMilliseconds a step of everyone; in brackets the seconds of CPU time from the "
            "weights to the end of the first step.\n",
            all_times(table),
            "\nOne worker that runs 8 virtual shards against one that runs 1:\n" if text else "",
            text,
        ]
    )
    print(f"\n{all_times(table)}")
    if options.write:
        write_section(title, report)
    ours = [each for each in table for note in each.notes if note.startswith("distgrad")]
    return 1 if ours else 0


if __name__ == "__main__":
    raise SystemExit(main())
