"""The README's examples, run as they stand."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from distgrad.config import load
from distgrad.testing import process

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home folder whose Keras cache holds a small mnist.npz."""
    folder = tmp_path_factory.mktemp("home")
    cache = folder / ".keras" / "datasets"
    cache.mkdir(parents=True)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 700).astype(np.uint8)
    x = rng.integers(0, 60, (700, 28, 28)).astype(np.uint8)
    x[np.arange(700), 2 * y, :] = 255  # the class is a bright row: easy to learn
    np.savez(cache / "mnist.npz", x_train=x[:600], y_train=y[:600], x_test=x[600:], y_test=y[600:])
    return folder


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_example(number, home, tmp_path):
    script = tmp_path / "example.py"
    script.write_text(blocks("python")[number])
    result = process.run(
        [sys.executable, script], timeout=60, cwd=tmp_path, env={"HOME": str(home)}
    )
    assert result.returncode == 0, result.stderr
    if "x**2" in script.read_text():
        assert result.stdout == "tf.Tensor(4.0, shape=(), dtype=float32)\n"
    elif "distribute" in script.read_text():
        assert re.fullmatch(r"loss \d\.\d{3}\n", result.stdout)
    else:
        assert "Epoch 5/5" in result.stdout and "accuracy" in result.stdout.splitlines()[-1]
        assert "mnist.npz" in result.stderr  # not the published file: used, with a warning


def test_yaml_example_is_the_shipped_job(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text(blocks("yaml")[0])
    assert load(job).to_dict()["model"] == load(ROOT / "configs/digits.yaml").to_dict()["model"]


def test_error_example(run_cli, tmp_path):
    shown = re.search(r"`(configs/digits.yaml:\d+:\d+: .*?)`", README)[1]
    job = (ROOT / "configs/digits.yaml").read_text()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/digits.yaml").write_text(job.replace("learning_rate", "learning_rte"))
    result = run_cli("train", "configs/digits.yaml")
    assert (result.returncode, result.stderr) == (2, f"error: {shown}\n")


def test_the_two_commands_come_first():
    assert "quickstart.sh" in blocks("sh")[0] and "test.sh" in blocks("sh")[0]
    assert README.index("launch/test.sh") < README.index("```python")
