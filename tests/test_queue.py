"""``tf.queue``: orders, waiting and closing, as TensorFlow's queues do."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import distgrad as tf
from distgrad import queue as queues

errors, queue = tf.errors, tf.queue


def fifo(capacity=10, dtypes="int32", shapes=(), **settings):
    return queue.FIFOQueue(capacity, dtypes, shapes=shapes, **settings)


def of(found):
    return np.asarray(found).tolist()


def meanwhile(function):
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def test_first_in_first_out_and_what_is_left_when_it_is_closed():
    q = fifo(4)
    q.enqueue(1)
    q.enqueue_many([[2, 3, 4]])
    assert q.size().dtype == tf.int32 and int(q.size()) == 4 and not q.is_closed()
    assert int(q.dequeue()) == 1 and of(q.dequeue_many(2)) == [2, 3] and of(q.dequeue_many(0)) == []
    q.close()
    assert q.is_closed()
    with pytest.raises(errors.CancelledError):
        q.enqueue(5)
    with pytest.raises(errors.OutOfRangeError, match="requested 2, current size 1"):
        q.dequeue_many(2)
    assert of(q.dequeue_up_to(3)) == [4]
    for take in (q.dequeue, lambda: q.dequeue_up_to(3)):
        with pytest.raises(errors.OutOfRangeError):
            take()


def test_elements_of_several_parts():
    q = queue.FIFOQueue(3, [tf.int32, tf.string])
    q.enqueue((1, "a"))
    q.enqueue(([1, 2], b"\xff"))
    one, two = q.dequeue(), q.dequeue()
    assert [of(part) for part in (*one, *two)] == [1, "a", [1, 2], b"\xff"]
    with pytest.raises(errors.InvalidArgumentError, match="shapes"):
        q.dequeue_many(1)
    named = fifo(3, [tf.int32, tf.float32], [[], [2]], names=["x", "y"])
    named.enqueue({"x": 0, "y": [0.0, 1.0]})
    named.enqueue_many({"x": [1, 2], "y": tf.ones((2, 2))})
    found = named.dequeue_many(3)
    assert of(found["x"]) == [0, 1, 2] and of(found["y"]) == [[0, 1], [1, 1], [1, 1]]
    for wrong in ((1, [1.0, 2.0]), {"x": 1}):
        with pytest.raises(ValueError, match="fifo_queue has"):
            named.enqueue(wrong)


def test_what_does_not_fit_is_refused():
    q = fifo(3, [tf.int32], [[2]])
    for wrong in ([[1, 2, 3]], [1, 2], {"x": [1, 2]}):
        with pytest.raises(ValueError):
            q.enqueue(wrong)
    with pytest.raises(TypeError):
        q.enqueue([["a", "b"]])
    with pytest.raises(errors.InvalidArgumentError, match="rows"):
        q.enqueue_many([1])
    with pytest.raises(errors.InvalidArgumentError, match="1 dtypes"):
        fifo(3, [tf.int32], [[], []])
    assert int(q.size()) == 0


def test_the_smallest_first():
    q = queue.PriorityQueue(10, tf.string, shapes=[[]])
    for number, text in ((3, "c"), (1, "a"), (2, "b"), (1, "a2")):
        q.enqueue((number, text))
    number, text = q.dequeue()
    assert number.dtype == tf.int64 and (int(number), of(text)) == (1, "a")
    assert [of(part) for part in q.dequeue_many(3)] == [[1, 2, 3], ["a2", "b", "c"]]


def test_any_order_that_follows_from_the_seed():
    def drawn(seed):
        q = queue.RandomShuffleQueue(50, 10, tf.int32, shapes=[[]], seed=seed)
        q.enqueue_many([range(30)])
        first = of(q.dequeue_many(20))
        q.close()  # then those are given, too, that were to be kept
        return first + of(q.dequeue_up_to(20))

    assert sorted(drawn(1)) == list(range(30)) and drawn(1) == drawn(1) != drawn(2)


def test_rows_of_several_lengths_are_filled_up():
    q = queue.PaddingFIFOQueue(5, [tf.int32, tf.string], shapes=[[None], [None]])
    q.enqueue(([1], ["a", "b"]))
    q.enqueue(([2, 3], ["c"]))
    numbers, texts = q.dequeue_many(2)
    assert of(numbers) == [[1, 0], [2, 3]] and of(texts) == [["a", "b"], ["c", ""]]


def test_they_wait_for_each_other():
    q, found = fifo(1), []
    taker = meanwhile(lambda: found.extend(of(q.dequeue_many(5))))  # more than it holds
    for number in range(5):
        q.enqueue(number)
    taker.join()
    putter = meanwhile(lambda: [q.enqueue(number) for number in range(5, 8)])
    found += [int(q.dequeue()) for _ in range(3)]
    putter.join()
    assert found == list(range(8))


def test_closing_ends_the_waiting():
    def ended(q, wait, expected, **how):
        raised = []

        def run():
            with pytest.raises(expected):
                wait()
            raised.append(expected)

        waiting = meanwhile(run)
        q.close(**how)
        waiting.join()
        assert raised

    q = fifo()
    ended(q, q.dequeue, errors.OutOfRangeError)
    full = fifo(1)
    full.enqueue(1)
    ended(full, lambda: full.enqueue(2), errors.CancelledError, cancel_pending_enqueues=True)


def test_nobody_waits_for_ever(monkeypatch):
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    with pytest.raises(errors.DeadlineExceededError, match="holds 0, not 1, and there is no other"):
        fifo().dequeue()
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    monkeypatch.setattr(queues, "PATIENCE", 0.01)
    full = fifo(1)
    full.enqueue(1)
    with pytest.raises(errors.DeadlineExceededError, match="is full, and 0.01 s have passed"):
        full.enqueue(1)


def test_a_function_takes_another_element_at_each_call():
    q = fifo()
    q.enqueue_many([[1, 2, 3]])
    double = tf.function(lambda: q.dequeue() * 2)
    assert [int(double()) for _ in range(3)] == [2, 4, 6]
