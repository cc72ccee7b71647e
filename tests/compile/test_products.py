"""Products of matrices: which have one thread whatever BLAS has, and the bits of those."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import distgrad
import distgrad as tf
from distgrad.compile import eager, products
from distgrad.compile.capture import trace
from distgrad.compile.llvm import engine
from distgrad.testing import process

pytestmark = pytest.mark.skipif(not engine.available(), reason="needs llvmlite and FMA")

SMALL_MODELS = """
import hashlib
import numpy as np
import distgrad as tf

layers, rng = tf.keras.layers, np.random.default_rng(0)
tf.keras.utils.set_random_seed(0)
y = rng.integers(0, 10, 128)
for shape, hidden in [
    ((128, 784), [layers.Dense(128, activation="relu")]),
    ((128, 20, 16), [layers.LSTM(64, return_sequences=True), layers.LSTM(64)]),
]:
    x = rng.random(shape, np.float32)
    model = tf.keras.Sequential([*hidden, layers.Dense(10)])
    model.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=64, epochs=2, verbose=0)
    print(hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest())
"""


def test_small_models_have_the_same_bits_with_any_number_of_threads() -> None:
    def hashes(threads: int) -> list[str]:
        root = str(Path(distgrad.__path__[0]).parent)
        env = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        env |= {"PYTHONPATH": root}
        result = process.run([sys.executable, "-c", SMALL_MODELS], env=env, timeout=100)
        assert result.returncode == 0, result.stderr
        return result.stdout.split()

    one = hashes(1)
    assert len(one) == 2 and hashes(2) == one


@pytest.mark.parametrize("several", [False, True])
def test_large_products_are_left_to_the_threads_of_blas(monkeypatch, several: bool) -> None:
    """Captured products and eager ones alike."""
    from distgrad.compile.cpu_exec import cpu_executor

    monkeypatch.setattr(products, "ALONE", 32 * 48 * 40)
    monkeypatch.setattr(products, "one_thread", lambda: not several)
    monkeypatch.setattr(eager, "_one_thread", lambda: not several)
    monkeypatch.setattr(eager, "_MULTIPLIED", 1)
    monkeypatch.setattr(eager, "_used", "generated")
    rng = np.random.default_rng(0)
    w = rng.random((40, 48), np.float32)
    for rows, by_blas in [(32, False), (33, several)]:
        x = rng.random((rows, 40), np.float32)
        program = trace(tf.matmul, [x, w]).program
        assert program is not None
        executor = cpu_executor(program, [x, w])
        assert (np.matmul in [step.fn for step in executor.schedule.steps]) == by_blas
        if by_blas:
            np.testing.assert_array_equal(executor([x, w])[0], x @ w)
        assert (eager._product(x, w, False, False) is None) == by_blas
