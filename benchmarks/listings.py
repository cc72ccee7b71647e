"""TensorFlow's kind of listings as they are, under TensorFlow and under distgrad.

    python benchmarks/run.py --install        # once: an environment with the peers
    python benchmarks/listings.py [--rounds N] [--only NAME,...] [--write]

Each file in ``listings`` is a TensorFlow script; for distgrad nothing but its import is changed. It
runs as it is written, and where it has a ``tf.function``, with ``jit_compile=True`` in it, too. CPU
time of the process for one call of ``step`` (the median of several), and for the first one, which
traces and compiles; one thread, a process for each measurement, in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from crew import HERE, LIMIT, PEERS, environment, machine, write_section

FORMS = ("TensorFlow", "TensorFlow, jit", "distgrad", "distgrad, jit")
SECONDS = 3.0  # of steps in one measurement
FEWEST = 15  # of them, behind as many that warm up


def measure(path: str, form: str) -> dict[str, float]:
    """Runs a listing in this process: milliseconds of a step, and of the first one."""
    text = Path(path).read_text()
    if form.startswith("distgrad"):
        text = text.replace("import tensorflow as tf", "import distgrad as tf")
    if form.endswith("jit"):
        text = text.replace("@tf.function", "@tf.function(jit_compile=True)")
    space: dict = {"__name__": "listing"}
    exec(compile(text, path, "exec"), space)

    def call() -> float:
        start = time.process_time()
        float(space["step"]())
        return (time.process_time() - start) * 1e3

    first, taken = call(), []
    for _ in range(FEWEST):
        call()
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(taken) < FEWEST:
        taken.append(call())
    return {"step": statistics.median(taken), "first": first}


def measured(path: Path, form: str, python: Path) -> dict[str, float]:
    program = sys.executable if form.startswith("distgrad") else python
    done = subprocess.run(
        [program, __file__, "--measure", path, form],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{path.stem} under {form} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, found: dict[str, list[dict[str, float]]]) -> str:
    steps = {form: [each["step"] for each in found[form]] for form in found}
    cells = [
        f"{statistics.median(steps[form]):.3g} "
        f"[{statistics.median(each['first'] for each in found[form]) / 1e3:.1f}]"
        if form in found
        else "-"
        for form in FORMS
    ]
    for theirs, ours in (FORMS[::2], FORMS[1::2]):
        if ours not in found:
            cells.append("-")
            continue
        ratios = sorted(b / a for a, b in zip(steps[theirs], steps[ours], strict=True))
        cells.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} - {ratios[-1]:.2f})")
    return f"| {name} | {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", nargs=2, metavar=("FILE", "FORM"), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=lambda text: text.split(","), help="listings: A,B,...")
    parser.add_argument("--python", type=Path, default=PEERS / "bin" / "python")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args(argv)
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return 0
    paths = sorted((HERE / "listings").glob("*.py"))
    table = [
        f"{machine()}; {time.strftime('%Y-%m-%d')}. Milliseconds of process CPU time a step, "
        f"medians of {options.rounds} rounds; in brackets the seconds of the first step.\n",
        f"| listing | {' | '.join(FORMS)} | ratio | ratio, jit |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(table))
    for path in paths:
        if options.only and path.stem not in options.only:
            continue
        forms = FORMS if "@tf.function" in path.read_text() else FORMS[::2]
        found: dict[str, list[dict[str, float]]] = {form: [] for form in forms}
        for turn in range(options.rounds):
            first = turn % len(forms)
            for form in forms[first:] + forms[:first]:
                found[form].append(measured(path, form, options.python))
        table.append(row(path.stem, found))
        print(table[-1], flush=True)
    if options.write:
        write_section("Listings, `python benchmarks/listings.py`", "\n".join(table))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
