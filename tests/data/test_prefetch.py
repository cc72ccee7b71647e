import gc
import sys
import threading
import time

import pytest

from distgrad.data.prefetch import Prefetcher
from distgrad.testing import process


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "distgrad-prefetch"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    assert threads() == []


def counting(made, n=1000):
    for i in range(n):
        made.append(i)
        yield i


def test_the_same_items_in_order():
    assert list(Prefetcher(iter(range(100)), 3)) == list(range(100))
    items = Prefetcher(iter([]), 1)
    assert list(items) == [] and list(items) == []


def test_it_reads_no_further_ahead_than_it_may():
    made = []
    with Prefetcher(counting(made), 3) as items:
        assert [next(items) for _ in range(5)] == list(range(5))
        deadline = time.monotonic() + 5
        while len(made) < 9 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05)
        assert len(made) == 9  # five taken, three waiting, one in the hand of the thread


def test_an_exception_comes_where_its_item_would_have():
    def broken():
        yield 1
        yield 2
        raise KeyError("here")

    items = Prefetcher(broken(), 5)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(KeyError, match="here"):
        next(items)
    assert list(items) == []


def test_closing_ends_the_iterator_in_its_own_thread():
    ended = []

    def items():
        try:
            yield from range(1000)
        finally:
            ended.append(threading.current_thread().name)

    ahead = Prefetcher(items(), 2)
    next(ahead)
    ahead.close()
    ahead.close()
    assert ended == ["distgrad-prefetch"] and list(ahead) == []


def test_a_forgotten_one_ends():
    next(Prefetcher(counting([]), 2))
    gc.collect()
    assert threads() == []


def test_a_depth_of_nothing_is_refused():
    with pytest.raises(ValueError, match="depth is 0"):
        Prefetcher(iter([]), 0)


def test_a_process_ends_with_one_still_open(tmp_path):
    code = """
import itertools
from distgrad.data.prefetch import Prefetcher
items = Prefetcher(itertools.count(), 2)
print(next(items))
"""
    result = process.run([sys.executable, "-c", code], timeout=30, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "0\n", "")
