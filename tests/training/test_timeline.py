"""The timeline: its spans add up, its file is whole whatever happens, and nothing waits for it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm import clocks
from distgrad.comm.communicator import Communicator
from distgrad.core import timeline as spans_of
from distgrad.core.errors import UsageError
from distgrad.data.prefetch import Prefetcher
from distgrad.testing.thread_world import run_world
from distgrad.training import timeline
from distgrad.training.trace_file import TraceFile

from . import traces

profiler = tf.profiler.experimental


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    timeline.end()
    assert spans_of.told is None


def small_model() -> tf.keras.Model:
    model = tf.keras.Sequential(
        [tf.keras.layers.Dense(4, activation="relu"), tf.keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    return model


class Slow(tf.keras.callbacks.Callback):
    """Takes its time behind each step."""

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        until = time.perf_counter() + 0.004
        while time.perf_counter() < until:  # it works, by whichever clock
            pass


def fit(steps: int, *callbacks: tf.keras.callbacks.Callback, **how: object) -> None:
    x = np.zeros((4 * steps, 3), np.float32)
    small_model().fit(x, x[:, :1], batch_size=4, verbose=0, callbacks=[*callbacks], **how)


def test_the_spans_of_steps_nest_and_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The time of this process: what others take between two spans is none of theirs.
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    monkeypatch.setattr(time, "perf_counter_ns", time.process_time_ns)
    with profiler.Profile(tmp_path):
        began = time.perf_counter()
        fit(25, Slow())
        took = 1e6 * (time.perf_counter() - began)
    path = tmp_path / "timeline.json"
    assert list(traces.processes(path)) == [0]
    inside = {
        (e["name"].split()[0], around and around["name"]) for e, around in traces.nested(path)
    }
    assert {("program", "step 1"), ("update", "step 25"), ("capture", "step 1")} <= inside
    assert {("wait", None), ("callbacks", None)} <= inside
    whole = [e for e, around in traces.nested(path) if around is None]
    assert len(traces.spans(path, "step ")) == 25
    assert sum(e["dur"] for e in traces.spans(path, "callbacks")) > 25 * 4000
    first, last = whole[0], whole[-1]
    assert sum(e["dur"] for e in whole) == pytest.approx(
        last["ts"] + last["dur"] - first["ts"], rel=0.2
    )
    assert sum(e["dur"] for e in whole) <= took


def test_the_script_api_is_tensorflows(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "timeline.json"
    with pytest.raises(tf.errors.UnavailableError, match="no timeline"):
        profiler.stop()
    profiler.start(str(path.parent), options=profiler.ProfilerOptions(host_tracer_level=3))
    with pytest.raises(tf.errors.AlreadyExistsError, match=r"timeline\.json"):
        profiler.start(tmp_path / "other")

    @tf.function
    def doubled(x: tf.Tensor) -> tf.Tensor:
        return 2 * x

    x = tf.Variable([1.0])
    with profiler.Trace("train", step_num=3, _r=1) as trace, tf.GradientTape() as tape:
        y = x * x
        trace.set_metadata(note="a")
    tape.gradient(y, x)
    doubled(y)
    profiler.stop()
    with profiler.Trace("unseen"):
        pass
    with (
        profiler.Profile(path.parent),
        profiler.Trace("again", loss=float("nan"), y=tf.constant(2)),
    ):
        pass
    found = [(e["name"], e.get("args")) for e in traces.spans(path)]
    assert found == [
        ("train", {"step_num": 3, "_r": 1, "note": "a"}),
        ("gradient", None),
        ("doubled", None),
        ("again", {"loss": "nan", "y": "tf.Tensor(2, shape=(), dtype=int32)"}),
    ]
    assert not (tmp_path / "other").exists()


def test_summary_traces_are_timelines(tmp_path: Path) -> None:
    tf.summary.trace_on(graph=True)
    tf.summary.trace_export("graph", step=0)
    tf.summary.trace_on(profiler=True, profiler_outdir=str(tmp_path))
    with profiler.Trace("seen"):
        pass
    tf.summary.trace_export("f", step=0)
    assert [e["name"] for e in traces.spans(tmp_path / "timeline.json")] == ["seen"]


def test_tensorboard_profiles_the_batches_that_it_is_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    for batches, steps in ((2, [2]), ((3, 5), [3, 4, 5]), ("4,4", [4]), (0, [])):
        folder = tmp_path / repr(batches)
        fit(4, tf.keras.callbacks.TensorBoard(folder, profile_batch=batches), epochs=2)
        path = folder / "timeline.json"
        assert path.exists() == bool(steps)
        found = traces.spans(path, "step ") if steps else []
        assert [e["name"] for e in found] == [f"step {step}" for step in steps]
    for wrong in (-1, (5, 3), (1, 2, 3)):
        with pytest.raises(ValueError, match="profile_batch"):
            tf.keras.callbacks.TensorBoard(tmp_path, profile_batch=wrong)


def test_what_threads_read_ahead_has_a_row(tmp_path: Path) -> None:
    path = tmp_path / "timeline.json"
    timeline.start(path, Communicator())
    assert list(Prefetcher(iter(range(3)))) == [0, 1, 2]
    timeline.stop()
    rows = {e["args"]["name"] for e in traces.events(path) if e["name"] == "thread_name"}
    assert rows == {"read ahead"}
    assert [e["name"] for e in traces.spans(path)] == ["read a batch"] * 3


def test_a_timeline_ends_at_its_most_spans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timeline, "_MOST", 50)
    monkeypatch.setattr(timeline, "_AT_ONCE", 20)
    profiler.start(tmp_path)
    fit(30)
    assert spans_of.told is None
    assert len(traces.spans(tmp_path / "timeline.json")) == 50
    assert (
        capsys.readouterr().err.count("is full, with 50 spans of all ranks; the run goes on") == 1
    )


def test_a_full_disk_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(file: TraceFile, lines: list[str]) -> None:
        raise OSError(28, "No space left on device")

    profiler.start(tmp_path)
    monkeypatch.setattr(timeline, "_AT_ONCE", 5)
    monkeypatch.setattr(TraceFile, "add", full)
    fit(30)
    assert spans_of.told is None
    assert capsys.readouterr().err.count("cannot be written: [Errno 28] No space left") == 1
    assert traces.spans(tmp_path / "timeline.json") == []


def test_a_fork_is_no_rank(tmp_path: Path) -> None:
    with profiler.Profile(tmp_path), profiler.Trace("parent"):
        child = os.fork()
        if child == 0:
            with profiler.Trace("child"):
                pass
            timeline.end()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert [e["name"] for e in traces.spans(tmp_path / "timeline.json")] == ["parent"]


def test_without_a_timeline_there_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit(2)
    assert spans_of.told is None and list(tmp_path.iterdir()) == []


# The file


def line(name: str) -> str:
    return json.dumps({"ph": "X", "pid": 0, "tid": 1, "ts": 1.0, "dur": 1.0, "name": name})


def test_the_file_is_whole_after_every_addition(tmp_path: Path) -> None:
    path = tmp_path / "new" / "t.json"
    first = TraceFile(path, since=0, now=7 * 10**18)
    second = TraceFile(path, since=6 * 10**18, now=8 * 10**18)
    assert first.origin == second.origin, "one time for all who write"
    names = []
    for number, file in enumerate((first, second, second, first)):
        file.add([line(f"{number}"), line(f'"{{\n{number}')])
        names += [f"{number}", f'"{{\n{number}']
        assert [e["name"] for e in traces.events(path)] == ["origin", *names]
        assert [e["name"] for e in file.events()] == ["origin", *names]


def test_what_a_killed_process_has_half_written_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    file = TraceFile(path, since=0, now=10**18)
    file.add([line("a")])
    text = path.read_bytes()
    for cut in (b"", b"\n", line("b").encode()[:20], line("b" * 1000).encode()[:-1]):
        path.write_bytes(text.removesuffix(b"\n]\n") + b",\n" + cut)
        file.add([line("c")])
        assert [e["name"] for e in traces.events(path)] == ["origin", "a", "c"]


def test_the_file_of_an_earlier_run_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    TraceFile(path, since=0, now=10**18).add([line("old")])
    TraceFile(path, since=10**18 + 1, now=10**18 + 2).add([line("new")])
    assert [e["name"] for e in traces.events(path)] == ["origin", "new"]


def test_a_file_that_is_no_timeline_is_left_alone(tmp_path: Path) -> None:
    for text in ("import distgrad\n", "{}", "[]", '[{"name": "origin"}]'):
        (tmp_path / "mine").write_text(text)
        with pytest.raises(UsageError, match="is no timeline"):
            timeline.start(tmp_path / "mine", Communicator())
        assert (tmp_path / "mine").read_text() == text
    with pytest.raises(UsageError, match="cannot be written"):
        timeline.start(tmp_path / "mine" / "below", Communicator())


def test_who_waits_for_the_file_for_long_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank that is frozen as it writes holds up nobody: its lines come later."""
    monkeypatch.setattr("distgrad.training.trace_file._PATIENCE", 0.0)
    path = tmp_path / "timeline.json"
    made = timeline.start(path, Communicator())

    def busy(file: TraceFile, lines: list[str]) -> None:
        raise BlockingIOError

    with monkeypatch.context() as frozen, profiler.Trace("a"):
        frozen.setattr(TraceFile, "add", busy)
        made._write()
    made._write()
    assert spans_of.told is not None
    timeline.stop()
    assert [e["name"] for e in traces.spans(path)] == ["a"]


# Several ranks


def test_the_slowest_rank_is_named() -> None:
    def call(rank: int, number: int, ts: float, dur: float) -> timeline.Event:
        at = {"pid": rank, "tid": 2, "ts": ts, "dur": dur}
        return {**at, "name": "reduce_tree", "args": {"call": number}}

    events = [
        *(call(0, 1, 100.0, 500.0), call(1, 1, 400.0, 250.0), call(2, 1, 395.0, 200.0)),
        *(call(0, 2, 700.0, 90.0), call(1, 2, 710.0, 90.0)),  # rank 2 has told nothing of it
        *(call(0, 3, 900.0, 20.0), call(1, 3, 899.0, 20.0), call(2, 3, 950.0, 5.0)),
    ]
    named: set = set()
    waits = [json.loads(text) for text in timeline._waits(events, 3, named)]
    assert [(e["pid"], e["tid"], e["name"], e["ts"], e["dur"]) for e in waits] == [
        (0, 2, "wait for rank 1", 100.0, 300.0),
        (0, 2, "wait for rank 2", 900.0, 20.0),
        (1, 2, "wait for rank 2", 899.0, 20.0),
    ]
    assert named == {("reduce_tree", 1), ("reduce_tree", 3)}
    assert list(timeline._waits(events, 3, named)) == [], "nothing is told twice"


def test_clocks_of_hosts_are_compared() -> None:
    """By what they are apart, as exactly as an exchange is short; by 0 where they agree."""

    def ahead(communicator: Communicator) -> int:
        apart = 10**12 * communicator.rank
        return clocks.ahead(communicator, lambda: time.time_ns() - apart)

    began = time.perf_counter()
    zero, one, two = run_world(3, ahead)
    took = 1e9 * (time.perf_counter() - began)
    assert zero == 0
    assert one == pytest.approx(-(10**12), abs=took) and two == pytest.approx(-2e12, abs=took)
    assert run_world(3, clocks.ahead) == [0, 0, 0]
    assert clocks.ahead(Communicator()) == 0


def test_spans_of_threads_that_come_and_go_share_a_row(tmp_path: Path) -> None:
    """The courier of each step."""
    path = tmp_path / "timeline.json"
    timeline.start(path, Communicator())

    def work() -> None:
        with spans_of.span("reduce"):
            pass

    for _ in range(3):
        thread = threading.Thread(target=work, name="courier")
        thread.start()
        thread.join()
    timeline.stop()
    assert {e["tid"] for e in traces.spans(path, "reduce")} == {1}
