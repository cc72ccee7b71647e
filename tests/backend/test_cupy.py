"""The backend for GPUs on a CuPy that is none: devices, errors, and a whole script."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from importlib import metadata

import numpy as np
import pytest

import distgrad as tf
from distgrad.backend import cupy as backend
from distgrad.core import devices, dispatch
from distgrad.core.errors import (
    DeviceLostError,
    DeviceMemoryError,
    MissingExtraError,
    NoDeviceError,
    UsageError,
)
from distgrad.launcher import environ
from distgrad.testing import cuda_on_cpu, fake_cupy, standin

pytestmark = [
    pytest.mark.cpu,  # it installs the other module itself
    pytest.mark.skipif(not cuda_on_cpu.available(), reason="no g++"),
]


@pytest.fixture
def gpu() -> Iterator[None]:
    with fake_cupy.installed():
        yield


def test_device_contexts(gpu):
    x = tf.constant([1.0, 2.0])
    with tf.device("/GPU:0"):
        y = tf.constant([3.0, 4.0])
        v = tf.Variable([5.0, 6.0])
        with tf.device("/CPU:0"):
            assert tf.zeros(2).device == "/CPU:0"
        assert tf.zeros(2).device == tf.random.normal((2,)).device == "/GPU:0"
    assert (x.device, y.device, v.device) == ("/CPU:0", "/GPU:0", "/GPU:0")
    z = x * y + v  # what lies on the CPU is copied
    assert z.device == "/GPU:0" and z.numpy().tolist() == [8.0, 14.0]
    assert tf.constant(1.0).device == "/CPU:0"
    v.assign(x)
    assert v.device == "/GPU:0" and v.numpy().tolist() == [1.0, 2.0]
    assert type(v._buffer) is standin.Array


def test_a_variable_from_a_file_lies_where_new_ones_do(gpu):
    with tf.device("GPU"):
        text = pickle.dumps(tf.Variable([5.0, 6.0]))
        there = pickle.loads(text)
    assert (there.device, pickle.loads(text).device) == ("/GPU:0", "/CPU:0")
    assert there.numpy().tolist() == [5.0, 6.0]


def test_a_gradient_lies_where_its_variable_lies(gpu):
    with tf.device("GPU"):
        w = tf.Variable(np.ones((3, 2), np.float32))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.nn.softmax(np.ones((4, 3), np.float32) @ w)[:, 0] ** 2)
    assert tape.gradient(loss, w).device == "/GPU:0"


def test_each_rank_takes_a_gpu_of_its_own(gpu, monkeypatch):
    for rank, expected in [(0, 0), (1, 1), (2, 0), (3, 1)]:
        assert devices.use("cuda", rank).selected == expected
    with (
        pytest.warns(UserWarning, match=r"sees 2 GPUs.*'/GPU:2' lies on the first GPU"),
        tf.device("/GPU:2"),
    ):
        assert tf.zeros(2).device == "/GPU:0"
    monkeypatch.setattr(devices, "soft_placement", False)
    with pytest.raises(NoDeviceError, match=r"no device '/GPU:2' here: this process sees 2 GPUs"):
        tf.device("/GPU:2").__enter__()
    before = dispatch.current().selected
    with tf.device("/GPU:0"):
        assert dispatch.current().selected == 0
    assert dispatch.current().selected == before == 1


def test_the_environment_chooses_when_the_first_array_is_made(gpu, monkeypatch):
    monkeypatch.setenv("DISTGRAD_DEVICE", "cuda")
    devices.ask_environment()
    assert dispatch.default is None
    assert tf.constant(1.0).device == "/GPU:0"
    assert environ.device() == "cuda"
    monkeypatch.setenv("DISTGRAD_DEVICE", "gpu")
    devices.ask_environment()  # as the import does, which must not fail
    with pytest.raises(UsageError, match="must be cpu or cuda, got 'gpu'"):
        tf.constant(1.0)


# Errors say what to do


def test_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(backend, "distributions", dict)
    with pytest.raises(MissingExtraError, match=r"pip install 'distgrad\[cuda12\]'") as caught:
        devices.use("cuda")
    assert caught.value.exit_code == 3
    monkeypatch.setattr(backend, "distributions", lambda: {"cupy-cuda12x": "14.2.0"})
    with pytest.raises(NoDeviceError, match=r"\(cupy-cuda12x\) is installed but cannot be"):
        devices.use("cuda")


def test_two_cupy_packages(monkeypatch):
    both = {"cupy-cuda12x", "cupy-cuda13x"}

    def version(name):
        if name in both:
            return "14.2.0"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    with (
        fake_cupy.installed(),
        pytest.raises(NoDeviceError, match="pip uninstall -y cupy-cuda12x cupy-cuda13x, then"),
    ):
        devices.use("cuda")


@pytest.mark.parametrize("count, driver, text", [
    (0, 12090, "sees no GPU.*CUDA_VISIBLE_DEVICES"),
    (1, 0, "no NVIDIA driver on this machine"),
    (1, 11040, r"driver \(for CUDA 11.4\) is too old for this CuPy \(CUDA 12.9\)"),
])  # fmt: skip
def test_no_device(count, driver, text):
    with fake_cupy.installed(count, driver), pytest.raises(NoDeviceError, match=text) as caught:
        devices.use("cuda")
    assert caught.value.exit_code == 3


def test_memory_that_is_used_up_and_a_gpu_that_fails(gpu, monkeypatch):
    with tf.device("/GPU:0"):
        x = tf.ones((2, 2))
    p = tf.matmul.__globals__["dot"]
    xp = dispatch.backend_of(x._data).xp

    def failing(error):
        def kernel(*args, **params):
            raise error

        monkeypatch.setitem(p._direct, xp, kernel)

    failing(fake_cupy.OutOfMemoryError("Out of memory allocating 9 bytes"))
    with pytest.raises(DeviceMemoryError, match=r"in dot.*global_batch_size.*virtual_shards"):
        x @ x
    failing(fake_cupy.CUDARuntimeError("cudaErrorECCUncorrectable: uncorrectable ECC error"))
    with pytest.raises(DeviceLostError, match=r"GPU 0 failed in dot.*--resume auto"):
        x @ x
    failing(RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        x @ x


def test_a_captured_function_runs_as_it_is(gpu):
    @tf.function(jit_compile=True)
    def double(x):
        return x * 2.0

    devices.use("cuda")
    assert double(tf.constant(1.5)).device == "/GPU:0"


def trained(device: str) -> tuple[list, list]:
    devices.use(device)
    tf.keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(48, 6)).astype(np.float32)
    y = (x.sum(axis=1) > 0).astype(np.int64)
    model = tf.keras.Sequential([
        tf.keras.layers.Dense(8, activation="gelu"),
        tf.keras.layers.LayerNormalization(),
        tf.keras.layers.Dropout(0.3),
        tf.keras.layers.Dense(2),
    ])  # fmt: skip
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
    history = model.fit(x, y, batch_size=16, epochs=3, verbose=0)
    assert all(v.device == ("/CPU:0" if device == "cpu" else "/GPU:0") for v in model.weights)
    model.evaluate(x, y, verbose=0)
    return history.history["loss"], model.predict(x, verbose=0)


def test_fit_gives_the_numbers_of_the_cpu(gpu):
    """The same initial weights, dropout masks and order of samples: only rounding differs."""
    there, here = trained("cuda"), trained("cpu")
    np.testing.assert_allclose(there[0], here[0], rtol=1e-5)
    np.testing.assert_allclose(there[1], here[1], rtol=1e-4, atol=1e-5)
