"""Threads that share calls: every task is done once, whoever asks, and nobody is left behind."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import distgrad
from distgrad.backend.denormals import flushed
from distgrad.compile.llvm import engine, parts, pool
from distgrad.compile.llvm.blocks import Code, each_vector
from distgrad.launcher import load
from distgrad.testing import process

pytestmark = pytest.mark.skipif(not engine.available(), reason="needs llvmlite and FMA")


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A pool of three, whatever machine this is."""
    monkeypatch.setattr(pool, "threads_of_blas", lambda: 3)
    monkeypatch.setattr(pool, "_made", None)
    monkeypatch.setattr(pool, "_cores", lambda: 3)
    yield
    made = pool._made
    if made is not None:
        made.end()


def counting() -> parts.Native:
    """A function that adds 1 to so many floats from a pointer on."""
    code = Code(["x"], ["size"])
    one = "splat (float 1.0)"

    def write(at, lanes):
        place = code.at("%x", at)
        code.store(code.fadd(code.load(place, lanes), one), place, lanes)

    each_vector(code, "%size", write)
    return code.native()


def shared(count: int, size: int) -> parts.Shared:
    native = counting()
    each = [parts.Part(native, [(4 * size * i,)], (size,)) for i in range(count)]
    return parts.Shared(each)


@pytest.mark.parametrize("count", [2, 3, 7, 1000])
def test_every_task_is_done_once_at_each_call(count: int) -> None:
    size = 33
    x = np.zeros(count * size, np.float32)
    call, bound = shared(count, size), shared(count, size).bound([x])
    for _ in range(100):
        call(x)
        bound()
    assert (x == 200).all()


def test_threads_that_ask_at_the_same_time_have_each_their_own_done() -> None:
    """One shares, the others do all by themselves: nobody waits for a stranger's tasks."""
    arrays = [np.zeros(64 * 100, np.float32) for _ in range(6)]
    call = shared(64, 100)
    start = threading.Barrier(len(arrays))

    def many(x: np.ndarray) -> None:
        start.wait(timeout=30)
        for _ in range(300):
            call(x)

    threads = [threading.Thread(target=many, args=(x,)) for x in arrays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert all((x == 300).all() for x in arrays)


def test_tasks_run_in_the_mode_of_who_shares_them() -> None:
    """Denormals are zeros for all threads in a training step, and for none outside of one."""
    code = Code(["x"], ["size"])

    def write(at, lanes):
        place = code.at("%x", at)
        code.store(code.half(code.load(place, lanes)), place, lanes)

    each_vector(code, "%size", write)
    native, size = code.native(), 4096
    call = parts.Shared([parts.Part(native, [(4 * size * i,)], (size,)) for i in range(64)])
    tiny = np.float32(1e-38)
    for _ in range(20):
        x = np.full(64 * size, tiny)
        call(x)
        assert (x == tiny / 2).all()
        x = np.full(64 * size, tiny)
        with flushed():
            call(x)
        assert not x.any()


def test_who_has_tasks_when_the_threads_have_ended_does_them_alone() -> None:
    x = np.zeros(64 * 10, np.float32)
    call = shared(64, 10)
    call(x)
    pool._made.end()
    call(x)
    assert (x == 2).all()


def test_who_may_start_no_threads_does_all_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def start(*args: object) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(begin(*args))

    begin = _thread.start_new_thread
    monkeypatch.setattr(_thread, "start_new_thread", start)
    x = np.zeros(64 * 10, np.float32)
    shared(64, 10)(x)
    assert (x == 1).all() and pool.threads() == 2
    pool._made.end()
    monkeypatch.setattr(pool, "_made", None)
    assert pool.threads() == 1


def test_blas_has_one_thread_while_somebody_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        count = 3

        def get_num_threads(self) -> int:
            return self.count

        def set_num_threads(self, count: int) -> None:
            self.count = count

    library, limit = Library(), pool._Limit()
    monkeypatch.setattr(pool, "_blas", lambda: library)
    monkeypatch.setattr(pool, "_limit", limit)
    monkeypatch.setattr(pool, "threads_of_blas", limit.threads)
    first, second = threading.Event(), threading.Event()

    def inner() -> None:
        assert pool.by_blas(library.get_num_threads) == 1
        first.set()
        assert second.wait(30)
        seen.append(library.count)

    seen: list[int] = []
    thread = threading.Thread(target=pool.by_blas, args=(inner,))
    thread.start()
    assert first.wait(30)
    assert pool.threads() == 3  # not a wish of anybody's
    assert pool.by_blas(library.get_num_threads) == 1
    second.set()
    thread.join(30)
    assert seen == [1] and library.count == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forks_of_several_threads_leave_the_pool_as_it_was() -> None:
    x = np.zeros(64 * 10, np.float32)
    call = shared(64, 10)
    call(x)

    def forks() -> None:
        for _ in range(10):
            child = os.fork()
            if not child:
                os._exit(0)
            os.waitpid(child, 0)

    began = time.monotonic()
    threads = [threading.Thread(target=forks) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert pool._made._running == 2 and not pool._made._word("stop")[0]
    call(x)
    assert (x == 2).all() and time.monotonic() - began < 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_does_all_by_itself() -> None:
    x = np.zeros(64 * 100, np.float32)
    call = shared(64, 100)
    call(x)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            signal.alarm(20)
            call(x)
            os.write(write, b"done" if (x == 2).all() and pool.threads() == 1 else b"lost")
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        assert answer.read() == b"done"
    os.waitpid(child, 0)
    assert pool.threads() == 3 and not pool._made._word("stop")[0]
    call(x)
    assert (x == 2).all()


def test_fewer_threads_of_blas_are_fewer_here(monkeypatch: pytest.MonkeyPatch) -> None:
    shared(4, 16)(np.zeros(64, np.float32))
    assert pool.threads() == 3
    monkeypatch.setattr(pool, "threads_of_blas", lambda: 1)
    assert pool.threads() == 1


def test_a_quota_of_one_core_makes_no_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_cores", lambda: 1)
    assert pool.threads() == 1 and pool._made is None


def test_a_system_without_posix_threads_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_posix", lambda: None)
    assert pool.threads() == 1


def ran(text: str, **env: str) -> process.Result:
    root = str(Path(distgrad.__path__[0]).parent)
    return process.run([sys.executable, "-c", text], env={"PYTHONPATH": root, **env}, timeout=100)


FIT = """
import os, signal, sys, threading, time
import numpy as np
import distgrad as tf
from distgrad.compile.llvm import pool
x, y = np.random.rand(512, 512).astype("float32"), np.random.rand(512, 512).astype("float32")
model = tf.keras.Sequential([tf.keras.layers.Dense(512), tf.keras.layers.Dense(512)])
model.compile("adam", "mse")
model.fit(x, y, batch_size=512, epochs=2, verbose=0)
assert pool._made is not None and pool.threads() == 2
"""
TWO = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
two_cores = pytest.mark.skipif(load.cores() < 2, reason="one core, or a quota of one")


@two_cores
def test_a_script_ends_with_its_threads_asleep_and_awake() -> None:
    for last in ("", "time.sleep(0.3)"):
        result = ran(FIT + last, **TWO)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@two_cores
def test_a_signal_wakes_the_main_thread_whoever_else_there_is() -> None:
    late = """
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
began = time.monotonic()
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - began < 30)
"""
    result = ran(FIT + late, **TWO)
    assert (result.returncode, result.stdout, result.stderr) == (0, "interrupted True\n", "")


@two_cores
def test_blas_keeps_its_threads_for_others() -> None:
    after = """
import threadpoolctl
model.predict_on_batch(np.ones((2, 512), "float32"))
with tf.GradientTape() as tape:
    loss = tf.reduce_sum(tf.matmul(tf.constant(x[:4]), model.layers[0].kernel)[:, :1])
print({lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"})
"""
    result = ran(FIT + after, **TWO)
    assert (result.returncode, result.stdout) == (0, "{2}\n"), result.stderr
