"""Products through cuBLAS, on a library that reads memory as cuBLAS does: column by column."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

import distgrad as tf
from distgrad.backend.cublas import Matrices, matrices, one_step
from distgrad.compile.capture import trace
from distgrad.compile.cupy_exec import cuda_executor
from distgrad.core import devices, dispatch
from distgrad.testing import fake_cublas, fake_cupy
from distgrad.testing.standin import asarray

pytestmark = pytest.mark.cpu  # it installs the other module itself
RNG = np.random.default_rng(0)


@pytest.fixture
def blas() -> Iterator:
    with fake_cupy.installed():
        devices.use("cuda")
        yield dispatch.current().blas


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_matmul_takes_whatever_strides_there_are(blas, dtype):
    def seen(batch, rows, columns):
        """Matrices of one shape: row by row, column by column, with gaps, backwards, repeated."""
        whole = RNG.normal(size=(*batch, rows, columns)).astype(dtype)
        yield whole
        yield np.ascontiguousarray(whole.swapaxes(-1, -2)).swapaxes(-1, -2)
        yield np.concatenate([whole, whole], -1)[..., :columns]
        yield np.repeat(whole, 2, -1)[..., ::2]
        yield whole[..., :, ::-1]
        yield np.moveaxis(np.ascontiguousarray(np.moveaxis(whole, -2, 0)), 0, -2)
        yield np.broadcast_to(whole[..., :1, :], whole.shape)

    rtol = 1e-2 if dtype is np.float16 else 1e-5
    batches = [((), ()), ((3,), (3,)), ((3,), ()), ((), (2, 3)), ((2, 1), (1, 3)), ((2, 3), (2, 3))]
    for (first, second), (m, k, n) in itertools.product(batches, [(4, 3, 5), (1, 3, 1), (2, 1, 2)]):
        for a, b in itertools.product(seen(first, m, k), seen(second, k, n)):
            found = blas.matmul(asarray_of(a), asarray_of(b)).get()
            np.testing.assert_allclose(found, np.matmul(a, b), rtol=rtol, atol=rtol)


def asarray_of(array):
    """An array of the stand-in with the strides of this one."""
    made = asarray(0)
    made._data = array
    return made


def test_matmul_writes_where_it_is_told(blas):
    a, b, out = (asarray(RNG.normal(size=shape)) for shape in [(3, 4), (4, 5), (6, 5)])
    assert blas.matmul(a, b, out=out[:3]).shape == (3, 5)
    np.testing.assert_allclose(out.get()[:3], a.get() @ b.get())
    spread = asarray(np.zeros((3, 10)))
    blas.matmul(a, b, out=spread[:, ::2])
    np.testing.assert_allclose(spread.get()[:, ::2], a.get() @ b.get())
    with pytest.raises(ValueError, match="cannot be multiplied"):
        blas.matmul(a, a)


def test_what_cublas_does_not_take_goes_to_cupy(blas):
    whole = asarray(np.arange(6).reshape(2, 3))
    assert blas.matmul(whole, whole.T).get().tolist() == [[5, 14], [14, 50]]
    assert blas.matmul(asarray(np.ones(3)), asarray(np.ones(3))).get() == 3
    empty = blas.matmul(asarray(np.zeros((2, 0))), asarray(np.zeros((0, 3))))
    assert empty.get().tolist() == np.zeros((2, 3)).tolist()


def test_matrices_that_need_no_copy():
    assert matrices((4, 3), (3, 1)) == Matrices(False, 3, 0)
    assert matrices((4, 3), (7, 1)) == Matrices(False, 7, 0)
    assert matrices((4, 3), (1, 4)) == Matrices(True, 4, 0)
    assert matrices((5, 4, 3), (12, 3, 1), (5,)) == Matrices(False, 3, 12)
    assert matrices((4, 3), (3, 1), (5,)) == Matrices(False, 3, 0)
    assert matrices((4, 3), (6, 2)) is None
    assert matrices((4, 3), (0, 1)) is None
    assert matrices((2, 3, 4, 3), (36, 3, 9, 1), (2, 3)) is None  # heads beside the time
    assert one_step((2, 3), (36, 12), (2, 3)) == 12
    assert one_step((1, 3), (0, 12), (2, 3)) is None


@pytest.mark.parametrize("on", [False, True])
def test_tf32_is_for_captured_float32_products_alone(blas, monkeypatch, on):
    used = []
    plain = fake_cublas.Library.cublasGemmStridedBatchedEx

    def noted(self, *args):
        used.append(args[-2])
        return plain(self, *args)

    monkeypatch.setattr(fake_cublas.Library, "cublasGemmStridedBatchedEx", noted)
    precision = tf.keras.mixed_precision
    precision.enable_tensor_float_32_execution(on)
    try:
        assert precision.tensor_float_32_execution_enabled() is on
        for dtype in ("float32", "float64", "float16", "bfloat16"):
            x = tf.constant(np.ones((2, 2)), dtype=dtype)
            tf.function(lambda x: x @ x, jit_compile="strict")(x)
    finally:
        precision.enable_tensor_float_32_execution(False)
    assert set(used) == {77 if on else 68, 70, 68}


def test_eager_products_of_bfloat16_are_given_to_cublas_as_they_are(blas, monkeypatch):
    kinds = []
    real = fake_cublas.Library.cublasGemmStridedBatchedEx

    def seen(self, *args):
        kinds.append(args[8])
        return real(self, *args)

    monkeypatch.setattr(fake_cublas.Library, "cublasGemmStridedBatchedEx", seen)
    x, w = RNG.normal(size=(2, 5, 3)), RNG.normal(size=(4, 3))
    x, w = (tf.Variable(a, dtype="bfloat16") for a in (x, w))
    with tf.GradientTape() as tape:
        y = tf.matmul(x, w, transpose_b=True)
    found = [y, *tape.gradient(y, [x, w])]
    assert kinds == [14] * 3
    wide = [a.numpy().astype(np.float32) for a in (x, w)]
    ones = np.ones((2, 5, 4), np.float32)
    expected = [wide[0] @ wide[1].T, ones @ wide[1], np.einsum("bij,bik->jk", ones, wide[0])]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == tf.bfloat16
        np.testing.assert_allclose(ours.numpy().astype(np.float32), theirs, rtol=2**-8, atol=1e-6)
    assert tf.matmul(x[:, :0], w, transpose_b=True).shape == (2, 0, 4)


def test_the_workspace_of_a_graph_outlives_the_thread_that_made_it(blas):
    x = np.ones((3, 3), np.float32)
    executor = cuda_executor(trace(lambda x: x @ x, (x,)).program, (x,))
    frames, made = [executor.frame()], []

    def run():
        frames[0]([x])
        made.append(weakref.ref(blas.open()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    gc.collect()
    assert made[0]() is not None
    frames.clear()
    gc.collect()
    assert made[0]() is None
