"""Where the graphs of captured programs end, and outputs that are told of in groups."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile import cupy_exec
from distgrad.compile.capture import trace
from distgrad.compile.captured import CaptureError
from distgrad.compile.cuda import plan
from distgrad.compile.cuda.branch import AT_ONCE
from distgrad.compile.cupy_exec import cuda_executor
from distgrad.core import dispatch
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind
from distgrad.ops.host import host_values

from .programs import check, executor_of, floats, on_host, pieces

pytestmark = pytest.mark.usefixtures("on_gpu")

# Where a graph ends


def test_python_code_splits_a_graph():
    seen = []

    def f(x):
        y = tf.nn.relu(x) * 2.0
        z = bind(host_values, y, fn=lambda a: seen.append(1) or a + 1)
        return tf.reshape(z, (3,)) * y

    x = floats(3)
    executor = executor_of(f, x)
    seen.clear()
    for _ in range(2):
        y = np.maximum(x, 0) * 2
        np.testing.assert_allclose(on_host(executor([x]))[0], (y + 1) * y, rtol=1e-6)
    assert len(seen) == 2 and pieces(executor) == ["graph", "alone", "graph"]


def test_a_kernel_that_waits_for_the_device_runs_by_itself():
    def f(x):
        y = x * 2.0
        order = tf.argsort(y)
        return tf.gather(y, order) + 1.0, order

    x = floats(7)
    executor = check(f, x, equal=True)
    found = pieces(executor)
    assert found.count("alone") >= 1 and found[0] == found[-1] == "graph"


def test_graphs_have_the_bits_of_their_launches_one_by_one(monkeypatch):
    def f(x, w):
        h = tf.nn.dropout(tf.nn.gelu(x @ w), 0.3)
        sort = tf.sort(tf.nn.softmax(h))
        return sort, tf.reduce_sum(tf.linalg.cholesky(tf.eye(8) * 2.0) @ tf.transpose(h), 0)

    x, w, found = floats(5, 6), floats(6, 8), []
    for on in (True, False):
        monkeypatch.setattr(cupy_exec, "graphs", on)
        tf.random.set_seed(1)
        executor = executor_of(f, x, w)
        found.append([on_host(executor([x, w])) for _ in range(3)])
    for one, other in zip(*found, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.tobytes() == b.tobytes()


def test_checks_of_inputs_are_made_on_the_host_before_the_launch():
    table = tf.Variable(floats(5, 3))

    def f(rows, labels):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.cast(labels, tf.int64), tf.gather(table, rows)
        )

    rows, labels = np.array([0, 4, 2]), np.array([0, 1, 2], np.int32)
    executor = check(f, rows, labels)
    assert pieces(executor) == ["graph"]
    with pytest.raises(InvalidArgumentError, match=r"outside \[0, 5\)"):
        executor([np.array([0, 5, 2]), labels])
    with pytest.raises(InvalidArgumentError, match=r"outside \[0, 3\)"):
        executor([rows, labels + 1])


def test_a_look_at_a_value_cannot_be_captured():
    @tf.function(jit_compile="strict")
    def f(x):
        return x if tf.reduce_sum(x) > 0.0 else -x

    with pytest.raises(CaptureError, match="the value of a tensor is read at .*reduce_sum"):
        f(tf.constant([1.0, 2.0]))


# Groups of outputs


def test_groups_are_told_in_order_and_lie_in_the_places_given():
    x, told, early = floats(4, 3), [], []

    def f(x):
        return tf.reduce_sum(x), x * 2.0, x[1:], tf.nn.softmax(x @ tf.transpose(x))

    program = trace(f, [x]).program
    executor = cuda_executor(program, [x], [[3], [1, 2]])
    xp = dispatch.current().xp
    flat = xp.zeros(16 + 12 + 9, dtype=np.float32)
    places = {3: flat[:16].reshape(4, 4), 1: flat[16:28].reshape(4, 3), 2: flat[28:].reshape(3, 3)}
    frame = executor.frame(places)
    for run in range(3):
        given = x + run
        expected = [t.numpy() for t in f(tf.constant(given))]

        def tell(number, expected=expected):
            told.append(number)
            for position in [[3], [1, 2]][number]:
                found = places[position].get()
                np.testing.assert_allclose(found, expected[position], rtol=1e-5)

        frame([given], tell, lambda: early.append(frame.parts[0].outputs()[0].get()))
        np.testing.assert_allclose(early[-1], expected[0], rtol=1e-5)
    assert told == [0, 1] * 3
    frame([x])  # without anybody to tell, from another set of graphs
    np.testing.assert_allclose(places[1].get(), x * 2)


def test_a_loss_is_there_before_its_gradients():
    """Also where its last sum was fused behind them, and random keys keep their order."""
    x, w = floats(4, 3), tf.Variable(floats(3, 5))

    def f(x):
        with tf.GradientTape() as tape:
            h = tf.nn.dropout(tf.nn.tanh(x @ w), 0.4)
            loss = tf.reduce_mean(tf.nn.dropout(h * h, 0.2))
        return loss, tape.gradient(loss, w)

    executor = cuda_executor(trace(f, [x]).program, [x], [[1]])
    assert executor.plan.ready < len(executor.plan.nodes)
    place = dispatch.current().xp.zeros((3, 5), dtype=np.float32)
    tf.random.set_seed(2)
    early: list = []
    frame = executor.frame({1: place})
    frame([x], None, lambda: early.append(frame.parts[0].outputs()[0].copy()))
    tf.random.set_seed(2)
    loss, gradient = f(tf.constant(x))
    np.testing.assert_allclose(early[0].get(), loss.numpy(), rtol=1e-5)
    np.testing.assert_allclose(place.get(), gradient.numpy(), rtol=1e-5, atol=1e-6)


def test_variables_that_one_launch_writes_are_written_once():
    a, b = tf.Variable(np.ones(3, np.float32)), tf.Variable(np.ones(5, np.float32))

    @tf.function(jit_compile="strict")
    def step(x):
        one, two = tf.reduce_sum(a) * x[:3], tf.reduce_sum(b) * x  # not by small kernels
        a.assign(one)
        b.assign(two)

    x = tf.constant(np.ones(5, np.float32))
    for number in (1, 2):
        step(x)
        np.testing.assert_array_equal(a.numpy(), np.full(3, 3.0**number))
        np.testing.assert_array_equal(b.numpy(), np.full(5, 5.0**number))


# Products that nothing waits for


def of_layers(*sizes):
    """A loss, and its gradients by some layers, as a program for a GPU; with its arguments."""
    x = floats(5, sizes[0])
    weights = [floats(*pair) / np.float32(pair[0]) ** 0.5 for pair in pairwise(sizes)]

    def f(x, *weights):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            h = x
            for w in weights:
                h = tf.nn.tanh(h @ w)
            loss = tf.reduce_sum(h * h)
        return loss, *tape.gradient(loss, weights)

    given = [x, *weights]
    groups = [list(range(1, len(sizes)))]
    return f, given, cuda_executor(trace(f, given).program, given, groups)


def test_gradients_of_weights_run_beside_what_follows(monkeypatch):
    f, given, executor = of_layers(6, 7, 8, 9, 4)
    leaves = [node for node in executor.plan.nodes if node.leaf]
    assert len(leaves) == 4
    eager = [t.numpy() for t in f(*map(tf.constant, given))]
    frame = executor.frame()
    for _ in range(5):  # what lies beside is done late, and early
        for found, expected in zip(frame(given), eager, strict=True):
            np.testing.assert_allclose(found.get(), expected, rtol=1e-5, atol=1e-6)
    ((script, _),) = frame._scripts.values()
    assert sum("launch" in getattr(piece, "__qualname__", "") for piece in script) == 1
    graph = [a.get().tobytes() for a in frame(given)]
    monkeypatch.setattr(cupy_exec, "graphs", False)
    assert [a.get().tobytes() for a in executor.frame()(given)] == graph


def test_nothing_lies_where_a_leaf_still_looks():
    _, _, executor = of_layers(*range(3, 20))
    own = executor.plan

    def places(node):
        for view in node.mentions:
            if view.buffer.kind == "temporary":
                start = own.homes[view.buffer]
                yield view.buffer, range(start, start + view.buffer.nbytes)

    for index, node in enumerate(own.nodes):
        if not node.leaf:
            continue
        later = [i for i, other in enumerate(own.nodes) if other.leaf and i > index]
        end = min(join for join in [*own.joins, *later[AT_ONCE - 1 :]] if join > index)
        for other in own.nodes[index + 1 : end]:
            for held, mine in places(node):
                for buffer, theirs in places(other):
                    apart = mine.stop <= theirs.start or theirs.stop <= mine.start
                    assert apart or buffer is held


def test_large_products_and_those_that_are_needed_are_no_leaves(monkeypatch):
    monkeypatch.setattr(plan, "_LEAF", 5 * 7 * 8)
    _, _, executor = of_layers(6, 7, 8, 9)
    assert [node.products for node in executor.plan.nodes if node.leaf] == [5 * 7 * 8, 5 * 6 * 7]


def test_leaves_take_the_memory_of_few(monkeypatch):
    """Two of them wait at a time, however many there are."""
    sizes = [40] * 20
    _, _, executor = of_layers(*sizes)
    assert sum(node.leaf for node in executor.plan.nodes) == 19
    monkeypatch.setattr(plan, "_LEAF", 0)
    _, _, other = of_layers(*sizes)
    array = 5 * 40 * 4  # bytes of the features of a layer
    assert other.nbytes < executor.nbytes <= other.nbytes + 2 * (AT_ONCE + 1) * array
