"""The stand-in for CUDA graphs is as strict as CuPy: what it lets through can be captured."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from distgrad.testing import fake_cupy

pytestmark = pytest.mark.cpu  # it needs no device


@pytest.fixture
def cupy() -> Iterator[Any]:
    with fake_cupy.installed():
        yield sys.modules["cupy"]


@pytest.fixture
def stream(cupy) -> Iterator[Any]:
    """A stream that is captured, with memory of its own."""
    made = cupy.cuda.Stream(non_blocking=True)
    with made, cupy.cuda.using_allocator(cupy.cuda.MemoryPool().malloc):
        made.begin_capture()
        yield made
        if made.is_capturing():
            made.end_capture()


def test_a_graph_does_at_each_launch_what_was_noted(cupy):
    x, y = cupy.array([1.0, 2.0]), cupy.array([0.0, 0.0])
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream, cupy.cuda.using_allocator(cupy.cuda.MemoryPool().malloc):
        stream.begin_capture()
        z = cupy.exp(x) + 1.0
        y[...] = z[::-1]
        y *= 2.0
        cupy.add(y, x, out=y)
        made = cupy.where(x > 1.5, x, 0.0)
        graph = stream.end_capture()
    assert y.get().tolist() == [0.0, 0.0] and np.isnan(made.get()).all()
    for values in ([1.0, 2.0], [3.0, 0.5]):
        x[...] = cupy.array(values)
        graph.launch()
        given = np.array(values)
        np.testing.assert_allclose(y.get(), 2 * (np.exp(given) + 1)[::-1] + given)
        np.testing.assert_array_equal(made.get(), np.where(given > 1.5, given, 0))


def test_what_asks_for_the_host_is_refused(cupy, stream):
    stream.end_capture()
    x, flags = cupy.array([2.0, 1.0]), cupy.array([True, False])
    stream.begin_capture()
    for call in (
        x.get,
        lambda: float(x[0]),
        lambda: bool((x > 0).all()),
        lambda: cupy.array(np.ones(2)),
        lambda: cupy.asarray([1.0]),
        lambda: cupy.sort(x),
        lambda: x[flags],
        lambda: cupy.cuda.alloc_pinned_memory(8),
        stream.synchronize,
        lambda: stream.record().synchronize(),
    ):
        with pytest.raises(RuntimeError, match="capturing"):
            call()
    for call in (lambda: x @ x, lambda: cupy.matmul(x, x), lambda: cupy.linalg.norm(x)):
        with pytest.raises(NotImplementedError, match="cuBLAS"):
            call()


def test_memory_of_the_common_pool_is_refused(cupy):
    x, stream = cupy.array([1.0]), cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="the pool that others use"):
            x + 1.0
        with pytest.raises(RuntimeError, match="the pool that others use"):
            cupy.cuda.alloc(8)
        assert x[:1].reshape(1, 1).shape == (1, 1)  # a view takes none
        stream.end_capture()


def test_captures_stand_where_cuda_lets_them(cupy):
    null, stream = cupy.cuda.get_current_stream(), cupy.cuda.Stream(non_blocking=True)
    stream.begin_capture()
    with pytest.raises(RuntimeError, match="a capture goes on"):
        cupy.cuda.Stream(non_blocking=True).begin_capture()
    graph = stream.end_capture()
    with pytest.raises(RuntimeError, match="not capturing"):
        stream.end_capture()
    with pytest.raises(RuntimeError, match="default"):
        null.begin_capture()
    graph.launch()


def test_arrays_are_made_at_addresses(cupy):
    block = cupy.cuda.alloc(256)
    whole = cupy.ndarray((4, 2), np.float32, block)
    part = cupy.ndarray((2,), np.float32, block + 12, (8,))
    whole[...] = cupy.arange(8, dtype=np.float32).reshape(4, 2)
    assert part.get().tolist() == [3.0, 5.0]
    part[...] = 9.0
    assert whole[1, 1].item() == 9.0


def test_a_capture_forks_and_joins(cupy, stream):
    stream.end_capture()
    x, y = cupy.array([1.0]), cupy.array([0.0])
    other = cupy.cuda.Stream(non_blocking=True)
    stream.begin_capture()
    x += 1.0
    other.wait_event(stream.record())
    with other:
        y[...] = x
    stream.wait_event(other.record())
    x *= 10.0
    graph = stream.end_capture()
    for _ in range(3):
        before = x.get()
        graph.launch()
        assert y.get() == before + 1 and x.get() == 10 * (before + 1)


def test_what_is_not_waited_for_has_no_order(cupy, stream):
    stream.end_capture()
    x, y, found = cupy.array([1.0]), cupy.array([0.0]), set()
    other = cupy.cuda.Stream(non_blocking=True)
    stream.begin_capture()
    other.wait_event(stream.record())
    x += 1.0  # after the event
    with other:
        y[...] = x
    x *= 10.0  # before it is waited for
    stream.wait_event(other.record())
    graph = stream.end_capture()
    for _ in range(2):
        x[...] = cupy.array([1.0])
        graph.launch()
        found.add(float(y.get()[0]))
    assert found == {1.0, 20.0}


def test_a_fork_that_is_left_open_or_not_captured_is_refused(cupy, stream):
    stream.end_capture()
    x, other = cupy.array([1.0]), cupy.cuda.Stream(non_blocking=True)
    stream.begin_capture()
    with other, pytest.raises(RuntimeError, match="this stream is not captured"):
        x += 1.0
    event = stream.record()
    other.wait_event(event)
    with other:
        x += 1.0
    with pytest.raises(RuntimeError, match="Unjoined"):
        stream.end_capture()
    with pytest.raises(RuntimeError, match="a capture that has ended"):
        other.wait_event(event)
