"""The side-by-side benchmarks: our side of every workload, and the program that compares."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import distgrad as tf
from distgrad.core import devices
from distgrad.testing import cuda_on_cpu, fake_cupy

HERE = Path(__file__).resolve().parents[1] / "benchmarks"
NAMES = ("workloads", "networks", "crew", "run", "peers", "peers.distgrad_peer")


@pytest.fixture(scope="module")
def bench():
    """The modules of the benchmarks, which lie beside each other as scripts do."""
    sys.path.insert(0, str(HERE))
    try:
        yield SimpleNamespace(
            **{n.rpartition(".")[2]: importlib.import_module(n) for n in NAMES if n != "peers"}
        )
    finally:
        sys.path.remove(str(HERE))
        for name in NAMES:
            sys.modules.pop(name, None)


def slugs() -> list[str]:
    code = "import workloads; print(*workloads.WORKLOADS)"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.mark.parametrize("slug", slugs())
def test_our_side_of_every_workload(bench, slug: str) -> None:
    workload = bench.workloads.WORKLOADS[slug]
    parameters, (x, y) = workload.parameters(), workload.samples()
    losses = {}
    for form in ("eager", "captured"):
        trainer = bench.distgrad_peer.make(workload, parameters, form)
        batch = trainer.ready(x, y)
        losses[form] = [trainer.run(batch, 1) for _ in range(2)]
    first, second = losses["eager"]
    assert np.isfinite(first)
    assert first == second if workload.kind == "chain" else first != second
    assert bench.run.disagreement(losses["captured"], losses["eager"]) < bench.run.TOLERANCE


def test_a_workload_in_bfloat16(bench) -> None:
    """Its weights are of float32, and its losses near those of float32."""
    losses = {}
    for dtype in ("float32", "bfloat16"):
        workload = bench.workloads.transformer("small", 1, 32, 16, 2, 2, dtype=dtype)
        for form in ("eager", "captured"):
            trainer = bench.distgrad_peer.make(workload, workload.parameters(), form)
            batch = trainer.ready(*workload.samples())
            losses[dtype, form] = [trainer.run(batch, 1) for _ in range(3)]
    for form in ("eager", "captured"):
        assert losses["bfloat16", form] != losses["float32", form]
        assert bench.run.disagreement(losses["bfloat16", form], losses["float32", form]) < 5e-3


def test_the_first_loss_is_that_of_the_given_weights(bench) -> None:
    workload = bench.workloads.WORKLOADS["digits_mlp"]
    w1, b1, w2, b2 = (p.value.astype(np.float64) for p in workload.parameters())
    x, y = workload.samples()
    logits = np.maximum(x @ w1 + b1, 0) @ w2 + b2
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y])
    for form in bench.distgrad_peer.FORMS:
        trainer = bench.distgrad_peer.make(workload, workload.parameters(), form)
        assert trainer.run(trainer.ready(x, y), 1) == pytest.approx(expected, rel=1e-5)


def test_the_short_last_batch_of_an_epoch(bench) -> None:
    workload = bench.workloads.WORKLOADS["digits_mlp"]
    trainer = bench.distgrad_peer.make(workload, workload.parameters(), "captured")
    x, y = workload.samples()
    assert np.isfinite([trainer.run(trainer.ready(x[:n], y[:n]), 1) for n in (64, 64, 29)]).all()


def test_nobody_is_timed_whose_losses_differ(bench) -> None:
    measured = bench.run.Measured(bench.workloads.WORKLOADS["digits_mlp"])
    right = [2.0, 1.5, 1.0]
    losses = {
        "distgrad eager": [2.0, 1.5, 1.0005],
        "distgrad captured": [2.0, 1.5, 1.002],
        "torch eager": right,
        "JAX jit": [2.0, float("nan"), 1.0],
    }
    assert bench.run.agreeing(measured, losses) == ["distgrad eager", "torch eager"]
    assert measured.disagreement == pytest.approx(5e-4)
    assert [note.partition(" is ")[0] for note in measured.notes] == [
        "distgrad captured",
        "JAX jit",
    ]
    stuck = bench.run.Measured(bench.workloads.WORKLOADS["digits_mlp"])
    assert bench.run.agreeing(stuck, {"torch eager": [2.0, 2.0, 2.0]}) == []


def test_a_section_is_replaced_and_the_others_stay(bench, tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text("# Latest\n\n## One\n\nold\n\n## Two\n\nkept\n")
    bench.crew.write_section("One", "new", path)
    bench.crew.write_section("Three", "more", path)
    assert path.read_text() == "# Latest\n\n## One\n\nnew\n\n## Two\n\nkept\n\n## Three\n\nmore\n"


@pytest.mark.timeout_s(120)
def test_the_table_of_distgrad_alone(tmp_path: Path) -> None:
    none = str(tmp_path / "python")
    words = ["--only", "distgrad eager,distgrad captured,JAX jit", "--python", none]
    words += ["--workloads", "digits_mlp,chain_16", "--rounds", "2", "--seconds", "0.01"]
    done = subprocess.run(
        [sys.executable, str(HERE / "run.py"), *words], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "left out, not installed (--install): JAX jit" in lines
    rows = [line.split(" | ") for line in lines if line.startswith(("| digits MLP", "| chain 16"))]
    ratios, sharded = rows[:2], rows[2]
    for row in ratios:
        assert float(row[1]) > 0 and float(row[2]) > 0 and row[3] == "-"
    assert "(1.3)" in sharded[3]


@pytest.mark.timeout_s(120)
def test_the_table_of_kinds_of_layers_of_distgrad_alone(tmp_path: Path) -> None:
    words = ["--only", "distgrad eager,distgrad captured", "--python", str(tmp_path / "python")]
    words += ["--kinds", "mean pooling,mish,gru", "--rounds", "1", "--seconds", "0.01"]
    done = subprocess.run(
        [sys.executable, str(HERE / "kinds.py"), *words],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:5]]
    assert [row[0] for row in rows] == ["mean pooling", "mish", "gru"]
    assert all(float(row[1]) > 0 and float(row[2]) > 0 and row[3] == "-" for row in rows)


@pytest.mark.timeout_s(60)
def test_a_contender_that_fails_says_why(bench) -> None:
    process = bench.crew.Process("distgrad eager")
    try:
        with pytest.raises(bench.crew.PeerError, match="distgrad eager: FileNotFoundError"):
            process.ask("losses", "digits_mlp", "/nonexistent.npz", 2)
        assert "distgrad" in process.ask("about")["version"]
        process.process.kill()
        with pytest.raises(bench.crew.PeerError, match="distgrad eager"):
            process.ask("about")
    finally:
        process.close()


def test_the_program_for_gpus_on_a_cpu(monkeypatch, tmp_path: Path) -> None:
    """It trains, compares losses, and replaces what it has measured before."""
    monkeypatch.syspath_prepend(str(HERE))
    gpu = importlib.import_module("gpu")
    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "gpu.md")
    gpu.RESULTS.write_text(f"head\n{gpu.BEGIN}\nold\n{gpu.END}\ntail\n")
    said: list[str] = []
    workload = gpu.WORKLOADS["mnist_mlp"]
    names = ["distgrad eager", "distgrad captured", "distgrad 8 shards"]
    record = gpu.Record()
    noted: list[int] = []
    runs = gpu.prepared(
        workload,
        names,
        "cpu",
        record,
        said.append,
        note=lambda: noted.append(len(record.results[workload.name])),
    )
    assert list(runs) == names, said
    assert noted == [1, 2, 3]  # after each of them
    noted.clear()
    late = gpu.Record()
    assert not gpu.prepared(workload, names, "cpu", late, said.append, limit=1.0)
    assert [*late.left_out[workload.name].values()] == ["no time was left"] * 3

    def note() -> None:
        noted.append(len(record.results[workload.name]["distgrad eager"]))

    gpu.timed(workload, runs, "cpu", record, 2, 0.001, note)
    assert noted == [1, 2]  # after each round
    gpu.write("\n".join(gpu.report(record)))
    text = gpu.RESULTS.read_text()
    assert text.startswith("head\n") and text.endswith("tail\n") and "old" not in text
    assert "| MNIST MLP | " in text and "MNIST MLP, over one shard: 8 shards: " in text


@pytest.mark.cpu  # it installs the other module itself
@pytest.mark.skipif(not cuda_on_cpu.available(), reason="no g++")
def test_kernels_with_and_without_cudnn(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    kernels = importlib.import_module("gpu_kernels")
    monkeypatch.setattr(kernels, "CONVOLUTIONS", [(2, 9, 9, 8, 5, 3, 2), (2, 8, 8, 3, 5, 1, 1)])
    monkeypatch.setattr(kernels, "DEPTHWISE", [(2, 8, 8, 4, 4, 3, 1)])
    monkeypatch.setattr(kernels, "ATTENTION", [(1, 2, 260, 8), (2, 2, 6, 12)])  # not a small one
    with fake_cupy.installed():
        lines = kernels.table(devices.use("cuda"), 1, 1e-4, lambda line: None)
    cells = [line.split(" | ") for line in lines[4:]]
    assert len(cells) == 2 * 3 * 2 + 2
    assert all(len(line) == 6 and float(line[-1].rstrip("|")) < 1e-2 for line in cells[:-1])
    assert float(cells[-2][-1].rstrip("|")) > 0  # it was done in two ways
    assert cells[-1][1] == "no plan: heads of size 12 |"


def test_sizes_of_buckets_on_a_cpu(monkeypatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    gpu = importlib.import_module("gpu")
    words = ["gpu.py", "--device", "cpu", "--rounds", "2", "--workload", "mnist_mlp"]
    monkeypatch.setattr(sys, "argv", [*words, "--buckets", "0.01", "64"])
    gpu.main()
    said = capsys.readouterr().out
    assert "MNIST MLP, batch 128, 1 ranks:" in said
    assert "| 0.01 | 2 | " in said and "| 64 | 1 | " in said


def test_all_of_a_gpu_in_stages_that_end_in_time(monkeypatch, tmp_path) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    stages = importlib.import_module("gpu_all")
    lines: list[str] = []
    program = "import sys, time; time.sleep(float(sys.argv[1])); 1 / (5 - len(sys.argv))"
    monkeypatch.setattr(stages, "__file__", str(tmp_path / "gpu_all.py"))
    (tmp_path / "gpu.py").write_text(program)
    # The last one has what is left of the time: the others have much more than they take.
    shares = {"short": (["0"], 0.6), "wrong": (["0", "x", "y"], 0.3), "long": (["60"], 0.1)}
    monkeypatch.setattr(stages, "STAGES", shares)
    monkeypatch.setattr(stages, "_more", lambda *_: [])
    ends = stages.run(0.1, ["more"], lines.append)
    assert ends == {
        "short": "done",
        "wrong": "failed with exit code 1",
        "long": "not finished in time",
    }
    assert "== short: done ==" in lines


TORCH = ("torch reduce-overhead", "torch max-autotune")


def test_contenders_compile_side_by_side_for_stages(monkeypatch, tmp_path) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    compiling = importlib.import_module("gpu_compile")
    program = """
import os, pathlib, sys, time
name, slug, cache = sys.argv[2], sys.argv[4], pathlib.Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
cache.mkdir(parents=True, exist_ok=True)
(cache / f"{name} {slug}").write_text(" ".join(sys.argv[5:]))
(cache / f"{slug}.best_config").touch()
if name == "JAX jit":
    time.sleep(60)
if name == "torch max-autotune" and slug == "one":
    sys.exit("no room")
"""
    (tmp_path / "gpu.py").write_text(program)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setattr(compiling.os, "cpu_count", lambda: 3)
    env, lines = compiling.environment(tmp_path), []
    done = compiling.compiled(
        tmp_path / "gpu.py", ["one", "in bfloat16"], 5, env, ["--device", "cpu"], lines.append
    )
    assert done == {(n, w) for n in TORCH for w in ("one", "in bfloat16")} - {(TORCH[1], "one")}
    assert "    no room" in lines
    names = {path.name for path in (tmp_path / "inductor").iterdir()}
    everything = {f"{n} {w}" for n in ("JAX jit", *TORCH) for w in ("one", "in bfloat16")}
    assert names == everything - {"torch max-autotune in bfloat16"}
    assert (tmp_path / "inductor" / "JAX jit one").read_text() == "--device cpu"
    thrown = {path.name for path in (tmp_path / "inductor-thrown").glob("torch*")}
    assert thrown == {"torch max-autotune in bfloat16"}  # it has kernels to choose among
    assert lines[-1] == "not compiled in time: [('JAX jit', 'in bfloat16'), ('JAX jit', 'one')]"


def test_who_ends_a_process_is_left_out_of_the_next(monkeypatch, tmp_path) -> None:
    """The others' table is there, and what ends two processes is not tried again."""
    monkeypatch.syspath_prepend(str(HERE))
    stages = importlib.import_module("gpu_all")
    program = f"""
import os, sys
sys.path.insert(0, {str(HERE)!r})
from pathlib import Path
from gpu_record import Record
words = sys.argv[1:]
record = Record(Path(words[words.index("--record") + 1]))
print(words, file=open({str(tmp_path / "calls")!r}, "a"))
for name in ("ours", "bad", "theirs"):
    if name not in words:
        record.begin(words[0], name)
        if name == "bad":
            os._exit(3)
record.put(words[0], {{"ours": [1.0], "theirs": [2.0]}})
record.end()
Path({str(tmp_path / "last")!r}).write_text(repr((record.results, record.left_out)))
"""
    monkeypatch.setattr(stages, "__file__", str(tmp_path / "gpu_all.py"))
    (tmp_path / "gpu.py").write_text(program)
    shares = {name: ([name, "--patience", "1"], 0.3) for name in ("one", "two", "three")}
    monkeypatch.setattr(stages, "STAGES", shares)
    ends = stages.run(2.0, [], lambda line: None)
    assert ends == dict.fromkeys(shares, "done")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert ["bad" in call for call in calls] == [False, True, False, True, True]
    results, left_out = ast.literal_eval((tmp_path / "last").read_text())
    assert results == {name: {"ours": [1.0], "theirs": [2.0]} for name in shares}
    reasons = {"bad": "failed with exit code 3 there"}
    assert left_out == {"one": reasons, "two": reasons}


def test_a_process_that_is_done_once_more_keeps_what_was_found(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    gpu = importlib.import_module("gpu")
    record = gpu.Record()
    record.put("M", {"distgrad captured": [1.0, 3.0], "JAX jit": [2.0, 2.0]})
    record.put("M", {"distgrad captured": [1.0]})  # the other one was not ready in time
    record.leave_out("M", "JAX jit", "no time was left")
    (row,) = gpu.table(record.results, ["distgrad captured", "JAX jit"])[2:]
    assert row == "| M | 1 (0.50) | 2 (1.00) |" and not record.reasons()
    record.drop("M", "JAX jit", "its losses are others")
    (row,) = gpu.table(record.results, ["distgrad captured", "JAX jit"])[2:]
    assert row == "| M | 1 | - |" and len(record.reasons()) == 1


def test_kernels_of_a_step_are_summed_up(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    profile = importlib.import_module("gpu_profile")
    events = [
        {"name": name, "ts": start, "dur": spent, "cat": "kernel"}
        for name, start, spent in [("a", 0, 1.0), ("b", 2, 3.0), ("a", 6, 1.0), ("b", 8, 4.0)]
    ]
    assert profile.summary(events, 2) == [
        "2.0 launches and copies, busy 4.5 us of 6.0 us",
        "      3.5 us     1.0 x  b",
        "      1.0 us     1.0 x  a",
    ]


def test_one_that_fails_while_it_is_timed_leaves_the_times_of_the_others(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    gpu = importlib.import_module("gpu")
    calls = []

    def fails(count: int) -> float:
        calls.append(count)
        if len(calls) > 3:
            raise MemoryError("no more of it")
        return 0.0

    record = gpu.Record()
    workload = gpu.WORKLOADS["mnist_mlp"]
    gpu.timed(workload, {"good": lambda count: 0.0, "bad": fails}, "cpu", record, 3, 1e-6)
    assert list(record.results[workload.name]) == ["good"]
    assert len(record.results[workload.name]["good"]) == 3
    assert record.reasons() == ["- MNIST MLP, without bad: MemoryError: no more of it"]


def test_tests_of_a_gpu_are_counted_by_folder(monkeypatch, tmp_path, capsys) -> None:
    """Also those that were done when one hung."""
    monkeypatch.syspath_prepend(str(HERE))
    tests = importlib.import_module("gpu_tests")
    root = tmp_path / "tests"
    root.mkdir()
    option = "def pytest_addoption(parser):\n    parser.addoption('--device')\n"
    (tmp_path / "conftest.py").write_text(option)
    (root / "test_wrong.py").write_text("def test_d(): assert 1 == 2\ndef test_e(): pass\n")
    (root / "test_right.py").write_text("def test_f(): pass\n")
    monkeypatch.setattr(tests, "ROOT", tmp_path)
    monkeypatch.setattr(tests, "TESTS", ("tests/test_wrong.py", "tests/test_right.py"))
    monkeypatch.setattr(tests, "_PROCESSES", 1)
    noted: list[list[str]] = []
    tests.check("cpu", 60.0, lambda lines: noted.append(list(lines)))
    (lines,) = noted
    assert lines[0].startswith("1 failed, 2 passed in ")
    assert lines[2:4] == [
        "- tests/test_wrong.py: 1 passed, 1 failed",
        "- tests/test_right.py: 1 passed",
    ]
    assert lines[5:] == ["- wrong: tests/test_wrong.py::test_d"]
    assert "assert 1 == 2" in capsys.readouterr().out  # the traceback

    (root / "test_right.py").write_text(
        "import time\ndef test_f(): pass\ndef test_g(): time.sleep(60)\n"
    )
    monkeypatch.setattr(tests, "_PROCESSES", 0)  # in pytest's own process
    tests.check("cpu", 30.0, lambda lines: noted.append(list(lines)))
    assert noted[1][0].startswith("not finished in time (")
    assert noted[1][2:] == [*lines[2:4], "", "- wrong: tests/test_wrong.py::test_d"]
    assert "assert 1 == 2" in capsys.readouterr().out


def test_what_is_written_leaves_the_other_tables(monkeypatch, tmp_path) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    gpu = importlib.import_module("gpu")
    page = tmp_path / "gpu.md"
    page.write_text((HERE / "gpu.md").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(gpu, "RESULTS", page)
    marks = [gpu.CHECKED, gpu.BEGIN, gpu.KERNELS, gpu.BUCKETS]
    for mark in marks:
        gpu.write(f"of {mark[5:-4]}", mark)
    text = page.read_text(encoding="utf-8")
    assert all(text.count(f"{mark}\nof {mark[5:-4]}\n{gpu.END}") == 1 for mark in marks)


def test_a_contender_that_takes_too_long_is_left_out(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    gpu = importlib.import_module("gpu")
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"), gpu.within(0.05):
        time.sleep(5)
    with gpu.within(60):
        pass


def test_what_hangs_outside_of_python_ends_the_process() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\nimport gpu, signal\n"
        "gpu.GRACE = 0.1\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\n"
        "with gpu.within(0.2):\n    import time; time.sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 1 and "Timeout" in done.stderr and "line 6" in done.stderr


LISTINGS = sorted((HERE / "listings").glob("*.py"))
KERAS = [path for path in LISTINGS if "@tf.function" not in path.read_text()]


@pytest.mark.parametrize("path", KERAS, ids=lambda path: path.stem)
def test_a_listing_of_keras_is_captured_with_the_numbers_of_eager_steps(path: Path) -> None:
    text = path.read_text().replace("import tensorflow as tf", "import distgrad as tf")
    found = []
    for eager in (False, True):
        tf.keras.utils.set_random_seed(1)
        space: dict = {"__name__": "listing"}
        exec(compile(text, path, "exec"), space)
        space["model"].run_eagerly = eager
        found.append([float(space["step"]()) for _ in range(3)])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


@pytest.mark.parametrize("path", sorted({*LISTINGS} - {*KERAS}), ids=lambda path: path.stem)
def test_a_listing_of_tensorflow_learns_under_the_decorator(path: Path) -> None:
    """As it is written, and compiled: the same losses within rounding, and less at the end."""
    text = path.read_text().replace("import tensorflow as tf", "import distgrad as tf")
    losses = []
    for decorator in ("@tf.function", "@tf.function(jit_compile='strict')"):
        tf.keras.utils.set_random_seed(1)
        space: dict = {"__name__": "listing"}
        exec(compile(text.replace("@tf.function", decorator), path, "exec"), space)
        losses.append([float(space["step"]()) for _ in range(15)])
        assert len(space["train_step"].executors) == 1
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-4)
    assert losses[0][-1] < losses[0][0]


def test_the_bandwidth_of_adam_beside_that_of_a_copy(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    copy, gpu = importlib.import_module("gpu_copy"), importlib.import_module("gpu")
    results = {"Adam 100M": {"torch eager": [0.8], copy.COPY: [0.6]}, "CNN": {"JAX jit": [1.0]}}
    (line,) = copy.bandwidth(gpu.WORKLOADS.values(), results)
    assert line.startswith("Adam 100M: a copy of as many bytes (2.8 GB) takes 0.6 ms, 4.67 TB/s;")
    assert line.endswith("of that bandwidth torch eager 75%.")


def test_passes_are_measured_for_each_model(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    passes = importlib.import_module("gpu_passes")

    def small(keras):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        return model, (np.zeros((40, 3), np.float32), passes.classes(40, 2)), 4

    monkeypatch.setattr(passes, "MODELS", {"small": small})
    said, noted = [], []
    passes.table(1, said.append, noted.append)
    assert len(said) == 2 and noted == ["\n".join(said).splitlines()]
    numbers = said[1].strip("| ").split(" | ")
    assert numbers[0] == "small" and len(numbers) == 6
    assert all(float(number) > 0 for number in numbers[1:])
