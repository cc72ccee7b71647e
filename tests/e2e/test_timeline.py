"""One timeline of all ranks, whoever starts them, and whatever happens to one of them."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest

from ..training import traces

HOST = platform.node()
BOTH = {0: f"rank 0 on {HOST}", 1: f"rank 1 on {HOST}"}
LAUNCHERS = [
    pytest.param({"options": ["-n", 2]}, id="local"),
    pytest.param({"ranks": 2}, id="mpirun", marks=pytest.mark.mpi),
]

SCRIPT = """
import os, signal, sys, time
os.environ["DISTGRAD_TIMELINE"] = sys.argv[1]
import numpy as np
import distgrad as tf
from distgrad import distribute

x = np.ones((8, 3), np.float32)
model = tf.keras.Sequential([tf.keras.layers.Dense(1)])
optimizer = tf.keras.optimizers.SGD()
for step in range(6):
    if step == 3 and distribute.rank() == 0:
        open(sys.argv[1] + "waits", "w").close()
    if step == 3 and distribute.rank() == 1:
        while not os.path.exists(sys.argv[1] + "waits"):
            time.sleep(0.01)
        time.sleep(1.2)
        if sys.argv[2] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    found = distribute.gradients(lambda batch: tf.reduce_mean(model(batch) ** 2), x)
    optimizer.apply_gradients(found)
"""


@pytest.mark.parametrize("how", LAUNCHERS)
def test_the_steps_that_a_job_asks_for(dg, tmp_path: Path, how: dict[str, Any]) -> None:
    asked = "tracking.timeline=[3, 6]"
    run = dg.train(tmp_path / "run", dg.digits, "train.epochs=1", asked, **how)
    path = run.folder / "timeline.json"
    assert traces.processes(path) == BOTH
    for rank in BOTH:
        steps = [e["name"] for e in traces.spans(path, "step ") if e["pid"] == rank]
        assert steps == [f"step {step}" for step in (3, 4, 5, 6)]
    rows = traces.nested(path)
    within = [(e["name"], around and around["name"].split()[0]) for e, around in rows]
    for name in ("program", "reduce bucket 0", "update"):
        assert within.count((name, "step")) == 8
    assert within.count(("reduce_tree", "reduce")) == 8
    waited_in = {around for name, around in within if name.startswith("wait for rank")}
    assert waited_in <= {"reduce_tree"}
    assert traces.check_that_ranks_agree(path) == 4


@pytest.mark.parametrize("how", LAUNCHERS)
def test_a_rank_that_is_late_is_named_by_the_others(
    dg, tmp_path: Path, how: dict[str, Any]
) -> None:
    path = tmp_path / "timeline.json"
    result = run_script(dg, tmp_path, "late", how)
    assert result.returncode == 0, result.stderr
    assert traces.processes(path) == BOTH
    waits = [
        (e, around)
        for e, around in traces.nested(path)
        if e["pid"] == 0 and e["name"] == "wait for rank 1" and e["dur"] > 1e6
    ]
    assert len(waits) == 1
    ((wait, around),) = waits
    assert around is not None and "call" in around["args"] and around["dur"] >= wait["dur"]
    assert traces.check_that_ranks_agree(path) >= 6


@pytest.mark.parametrize("how", LAUNCHERS)
def test_what_is_known_of_a_killed_rank_is_there(dg, tmp_path: Path, how: dict[str, Any]) -> None:
    result = run_script(dg, tmp_path, "killed", how)
    assert result.returncode != 0
    path = tmp_path / "timeline.json"
    if "ranks" not in how:  # mpirun may kill the others before they have written anything
        assert 0 in traces.processes(path)
        longest = max(e["dur"] for e, _ in traces.nested(path) if e["pid"] == 0)
        assert longest > 1e6, "how long it was waited for"
    assert traces.events(path)[0]["name"] == "origin"


def run_script(dg, folder: Path, what: str, how: dict[str, Any]) -> Any:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    words = (script, f"{folder}/", what)
    if "ranks" in how:
        first, *rest = words
        return dg.run(*rest, program=[str(first)], ranks=how["ranks"])
    return dg.run("launch", *how["options"], *words)
