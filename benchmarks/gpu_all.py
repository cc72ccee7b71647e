"""All that is to be known of a GPU that is there for some minutes: ``gpu.py --all --minutes N``.

Stages follow each other in the order of what is lost without them, each a process of its own that
is ended when its time is over; what one leaves of it is the next one's. Each writes its table into
``gpu.md`` as it goes, so that there is one whatever happens later. A contender at whose work a
process ends is left out, and the stage done once more; after the second time it stays out.

What torch and JAX compile for a stage takes longer than what is timed. The first stage lets them do
that side by side, into caches that the others find. torch measures what it chooses among once
more; what XLA has chosen, while others were at work, stays.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path

import gpu_compile
from gpu_record import Record

_STEPS = ["--patience", "120", "--rounds", "3", "--workload"]
# Arguments of gpu.py, and the share of the time.
STAGES = {
    "tests": (["--check", "--workload"], 0.13),
    "MNIST MLP": ([*_STEPS, "mnist_mlp"], 0.09),
    "Adam": ([*_STEPS, "adam_100m"], 0.08),
    "wide MLP": ([*_STEPS, "wide_mlp"], 0.08),
    "CNN": ([*_STEPS, "cnn"], 0.10),
    "char transformer": ([*_STEPS, "char_transformer"], 0.10),
    "transformer d 768 in bfloat16": ([*_STEPS, "transformer_d_768_in_bfloat16"], 0.18),
    "transformer d 768": ([*_STEPS, "transformer_12_layers_d_768"], 0.16),
    "convolutions and attention": (["--kernels", "--workload", "--rounds", "3"], 0.03),
    "fit, evaluate and predict": (["--passes", "--workload", "--rounds", "3"], 0.04),
    "sizes of buckets": (["--buckets", "1", "1024", "--rounds", "3"], 0.01),
}
COMPILING = 0.33  # of the time, at most, where steps are measured
_AGAIN = 15.0  # seconds for a stage that is done once more, at least
_TIMES = 3
LATE = "not finished in time"


def run(
    minutes: float,
    more: list[str],
    say: Callable[[str], None],
    names: Sequence[str] = (),
    unwanted: Set[str] = frozenset(),
    kept: Path | None = None,
    compiling: float = COMPILING,
) -> dict[str, str]:
    """Runs these stages (or all), with ``more`` arguments for each; how each of them ended.

    Without the ``unwanted`` contenders. What was found is ``kept`` in a file for further runs.
    What is to be compiled has that share of the time before anything is measured, at most.
    """
    began, shares, ends = time.monotonic(), 0.0, {}
    chosen = {name: STAGES[name] for name in names or STAGES}
    total = sum(share for _, share in chosen.values())
    whole = began + minutes * 60
    suspects: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = kept or Path(folder) / "record.json"
        env = gpu_compile.environment(Path(folder))
        steps = [words[-1] for words, _ in chosen.values() if words[:-1] == _STEPS]
        ready: set[tuple[str, str]] = set()
        if steps:
            program, seconds = Path(__file__).with_name("gpu.py"), compiling * minutes * 60
            say(f"== compiling: {seconds:.0f} s ==")
            ready = gpu_compile.compiled(program, steps, seconds, env, more, say)
            began, minutes = time.monotonic(), (whole - time.monotonic()) / 60
        for name, (words, share) in chosen.items():
            shares += share / total
            without = {*unwanted, *(suspect for suspect, times in suspects.items() if times > 1)}
            seconds = began + shares * minutes * 60 - time.monotonic()
            for _ in range(_TIMES):
                say(f"\n== {name}: {max(seconds, 0):.0f} s ==")
                first = sorted(name for name, slug in ready if slug == words[-1])
                given = [*words, *_more(words, seconds, path, without, first), *more]
                ends[name] = _ended(given, max(seconds, 1.0), env)
                say(f"== {name}: {ends[name]} ==")
                record = Record(path)
                if ends[name] == "done" or record.at_work is None:
                    break
                workload, suspect = record.at_work
                if suspect not in record.results.get(workload, {}):
                    record.leave_out(workload, suspect, f"{ends[name]} there")
                record.end()
                if ends[name] == LATE:  # nobody's fault: one that hangs has ended by itself
                    break
                suspects[suspect] += 1
                without.add(suspect)
                left = began + shares * minutes * 60 - time.monotonic()
                seconds = min(max(left, _AGAIN), whole - time.monotonic())
                if seconds < _AGAIN:
                    break
    return ends


def _more(
    words: list[str], seconds: float, path: Path, without: set[str], first: Sequence[str]
) -> list[str]:
    more = ["--record", str(path)]
    if "--check" in words:
        more += ["--check-limit", f"{max(seconds - 5, 1):.0f}"]
    if "--patience" in words:
        more += ["--limit", f"{max(seconds - 5, 1):.0f}"]  # it has to begin, too
        for suspect in sorted(without):
            more += ["--without", suspect]
        for name in first:  # what is compiled already
            more += ["--first", name]
    return more


def _ended(words: list[str], seconds: float, env: Mapping[str, str]) -> str:
    """What became of gpu.py with these arguments, and of all that it started."""
    command = [sys.executable, str(Path(__file__).with_name("gpu.py")), *words]
    process = subprocess.Popen(command, env=env, start_new_session=True)
    try:
        code = process.wait(seconds)
        return "done" if code == 0 else f"failed with exit code {code}"
    except subprocess.TimeoutExpired:
        return LATE
    finally:
        gpu_compile.end(process)
