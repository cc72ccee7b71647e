"""Every job in configs, run for real for some steps: alone and under mpirun, to the same bits.

Whole trainings take minutes together; the scores in the heads of the files are from those.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from distgrad.config import load

CONFIGS = Path(__file__).parents[2] / "configs"
JOBS = sorted(path.name for path in CONFIGS.glob("*.yaml"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout_s(240)]

# A few steps each, and what the test samples score after them must at least be.
SHORT: dict[str, tuple[list[str], str, float]] = {
    "breast_cancer.yaml": (["train.epochs=2"], "test_accuracy", 0.7),
    "digits.yaml": (["train.epochs=1"], "test_accuracy", 0.7),
    "digits_cnn.yaml": (["train.epochs=1", "data.test_fraction=0.5"], "test_accuracy", 0.2),
    "el_nino_lstm.yaml": (["train.epochs=2"], "test_mean_absolute_error", 0.0),
    "mnist.yaml": (["train.epochs=2"], "test_accuracy", 0.5),
    "python_help_transformer.yaml": (
        ["data.builtin=null", "data.path=text.txt", "train.epochs=1"],
        "test_accuracy",
        0.05,
    ),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, no way to the internet, and a small part of the text to train on."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.chdir(tmp_path)
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name].strip() for name in sorted(topics))
    (tmp_path / "text.txt").write_text(text[:12_000], encoding="utf-8")
    return tmp_path


def write_mnist(home: Path) -> None:
    """A file of the form of MNIST's: a class is a bright row, among noise."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 480), ("test", 120)):
        y = rng.integers(0, 10, n).astype(np.uint8)
        x = rng.integers(0, 60, (n, 28, 28)).astype(np.uint8)
        x[np.arange(n), 2 * y + 3] = 250
        arrays |= {f"x_{part}": x, f"y_{part}": y}
    folder = home / ".keras" / "datasets"
    folder.mkdir(parents=True)
    np.savez(folder / "mnist.npz", **arrays)


def test_every_job_is_here() -> None:
    assert set(JOBS) == set(SHORT)
    for job in JOBS:
        assert load(CONFIGS / job).parallel.virtual_shards >= 2, job  # the same bits for 2 workers


@pytest.mark.mpi
@pytest.mark.parametrize("job", JOBS)
def test_the_same_bits_alone_and_on_two_workers(dg, home: Path, job: str) -> None:
    changes, name, least = SHORT[job]
    if job == "mnist.yaml":
        write_mnist(home)
    alone = dg.train(home / "alone", CONFIGS / job, *changes)
    both = dg.train(home / "both", CONFIGS / job, *changes, ranks=2)
    assert both.status["world_size"] == 2
    assert both.sha256 == alone.sha256
    assert both.metrics == alone.metrics
    assert alone.status["metrics"][name] > least


@pytest.mark.mpi
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_the_same_bits_in_half_precision(dg, home: Path, policy: str) -> None:
    """With a scaled loss, whose scale is the same on all workers, and with bfloat16, without."""
    changes = ["train.epochs=1", f"train.mixed_precision={policy}"]
    job = (CONFIGS / "digits.yaml", *changes, "model.layers.3.dtype=float32")
    alone = dg.train(home / "alone", *job)
    assert dg.train(home / "both", *job, ranks=2).sha256 == alone.sha256
    assert alone.status["metrics"]["test_accuracy"] > 0.7


def test_mnist_without_its_file_says_what_is_missing(dg, home: Path) -> None:
    says = ["mnist.npz is not in", str(home / ".keras"), "https://", "by hand"]
    dg.refuses("train", CONFIGS / "mnist.yaml", "--run-dir", home / "run", code=4, says=says)


def test_a_label_that_is_no_class(dg, home: Path) -> None:
    y = np.array([0, 1, 2, 10] * 5)
    np.savez(home / "own.npz", x=np.zeros((20, 8, 8)), y=y)
    says = ["own.npz: the label 10 of training sample", "none of the 10 classes, 0 to 9"]
    data = "data={source: npz, path: own.npz}"
    for how in ({}, {"ranks": 2}):
        words = ("train", CONFIGS / "digits.yaml", data, "--run-dir", home / f"run{len(how)}")
        dg.refuses(*words, code=4, says=says, **how)


def test_samples_that_the_first_layer_cannot_take(dg, home: Path) -> None:
    layer = "model.layers.0={type: Conv2D, filters: 3, kernel_size: 3}"
    says = ["model.layers.0 (Conv2D) cannot take what the data gives, shape (8, 8) a sample"]
    words = ("train", CONFIGS / "digits.yaml", layer, "--run-dir", home / "run")
    dg.refuses(*words, code=2, says=says)


@pytest.mark.parametrize("job", [job for job in JOBS if job != "mnist.yaml"])
def test_the_head_of_a_job_states_what_simple_methods_reach(job: str) -> None:
    path = CONFIGS.parent / "benchmarks" / "baselines.py"
    spec = importlib.util.spec_from_file_location("baselines", path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    head = re.match(r"(#.*\n)+", (CONFIGS / job).read_text())[0]
    found = program.baselines(CONFIGS / job)
    if "python_help" in job:  # each Python has its own edition of the text
        assert found["bigram"] < found["unigram"] < found["uniform"]
        assert abs(found["bigram"] - 2.32) < 0.1
        found = {"uniform": found["uniform"]}
    for name, score in found.items():
        assert f"{name} {score:.3f}" in head.replace("\n# ", " "), (name, score)
