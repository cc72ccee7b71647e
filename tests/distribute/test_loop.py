"""Custom loops: the world a script sees, and gradients that do not depend on its size."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
import pytest

import distgrad as tf
from distgrad import distribute
from distgrad.comm.communicator import Communicator
from distgrad.compile import executors
from distgrad.compile.function import Function
from distgrad.compile.llvm import engine
from distgrad.core import devices
from distgrad.core.errors import DesyncError, OutOfStepError, PeerLostError, UsageError
from distgrad.distribute import loop
from distgrad.testing.thread_world import run_world
from distgrad.training import handshake, world

RNG = np.random.default_rng(5)
X = RNG.normal(size=(37, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 37)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """A world of one, and a fresh loop, whatever ran before."""
    monkeypatch.setattr(loop, "_loop", loop._Loop())
    with world.use(Communicator()):
        yield


def test_alone():
    assert distribute.world() == (0, 1, 1)
    assert distribute.is_chief() and distribute.world_size() == 1
    distribute.barrier()
    v = tf.Variable([1.0, 2.0])
    distribute.broadcast([v])
    assert v.numpy().tolist() == [1, 2]
    assert distribute.broadcast_object({"a": 1}) == {"a": 1}
    assert distribute.allgather_object("x") == ["x"]


def test_ranks_with_other_virtual_shards_are_named():
    def rank(c: Communicator) -> str:
        with pytest.raises(UsageError) as caught:
            handshake.check_shards([8, 8, None][c.rank], c)
        return str(caught.value)

    said = run_world(3, rank)
    assert len(set(said)) == 1
    assert "is 8 on rank 0 and none on rank 2" in said[0]
    assert "-x DISTGRAD_VIRTUAL_SHARDS" in said[0]


def test_gradients_of_one_shard_are_those_of_a_tape():
    w = tf.Variable(RNG.normal(size=(4, 3)).astype(np.float32))
    unread = tf.Variable(1.0)

    def loss_fn(batch):
        x, y = batch
        scores = tf.constant(x) @ w
        return tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=scores)
        )

    with tf.GradientTape() as tape:
        loss = loss_fn((X, Y))
    expected = tape.gradient(loss, w).numpy()
    found = distribute.gradients(loss_fn, (X, Y))
    ((gradient, variable),) = found
    assert variable is w and found.loss == float(loss)
    np.testing.assert_array_equal(gradient.numpy(), expected)
    (g, none) = distribute.gradients(loss_fn, (X, Y), [w, unread])
    np.testing.assert_array_equal(g[0].numpy(), expected)
    assert none == (None, unread)


def train(world_size: int, shards: int, monkeypatch) -> tuple:
    """Three steps of a loop with dropout and a moving average; what every rank has."""
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", str(shards))

    def model(rank: int) -> tuple:
        rng = np.random.default_rng(rank if rank == 0 else 99 + rank)  # rank 0's values count
        return tf.Variable(rng.normal(size=(4, 3)).astype("f")), tf.Variable(0.0, trainable=False)

    models = [model(rank) for rank in range(world_size)]
    optimizers = [tf.keras.optimizers.Adam(0.1) for _ in range(world_size)]
    loops = [loop._Loop() for _ in range(world_size)]
    tf.random.set_seed(1)

    def work(c: Communicator) -> tuple:
        w, seen = models[c.rank]

        def loss_fn(batch):
            x = tf.nn.dropout(tf.constant(batch["x"]), 0.3)
            seen.assign(0.5 * seen + 0.5 * tf.reduce_mean(x))
            scores = x @ w
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels=batch["y"], logits=scores
            )
            return tf.reduce_mean(losses)

        shown = []
        for start in (0, 16, 32):
            part = slice(start, start + 16)
            found = distribute.gradients(loss_fn, {"x": X[part], "y": Y[part]}, [w], [seen])
            optimizers[c.rank].apply_gradients(found)
            shown.append(found.loss)
        return w.numpy().tobytes(), seen.numpy().tobytes(), shown

    # One loop and one world for each thread that plays a process.
    here = threading.local()
    monkeypatch.setattr(world, "communicator", lambda: here.c)
    monkeypatch.setattr(loop, "_loop", _PerThread(here))

    def play(c: Communicator) -> tuple:
        here.c, here.loop = c, loops[c.rank]
        return work(c)

    ranks = run_world(world_size, play, time_limit=60)
    assert all(rank == ranks[0] for rank in ranks)
    return ranks[0]


def test_what_a_function_assigns_is_found_and_is_the_mean_over_the_shards(monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", "4")
    w, seen, calls = tf.Variable(tf.ones([4, 1])), tf.Variable(0.0, trainable=False), []

    def loss_fn(batch):
        calls.append(len(batch))
        seen.assign_add(tf.reduce_mean(batch))
        return tf.reduce_mean(batch @ w)

    ((_, variable),) = distribute.gradients(loss_fn, X)
    assert variable is w and len(calls) == 1 + 4
    np.testing.assert_allclose(seen.numpy(), X.mean(), rtol=1e-5)
    distribute.gradients(loss_fn, X)
    assert len(calls) == 9  # it is found once
    np.testing.assert_allclose(seen.numpy(), 2 * X.mean(), rtol=1e-5)


class _PerThread:
    def __init__(self, here) -> None:
        object.__setattr__(self, "here", here)

    def __getattr__(self, name):
        return getattr(self.here.loop, name)

    def __setattr__(self, name, value):
        setattr(self.here.loop, name, value)


@pytest.mark.parametrize("shards", [4, 6])
def test_equal_bits_for_1_2_3_and_4_processes(shards, monkeypatch):
    alone = train(1, shards, monkeypatch)
    for world_size in (2, 3, 4):
        assert train(world_size, shards, monkeypatch) == alone
    assert train(1, 3, monkeypatch) != alone


@pytest.mark.parametrize("executor", ["cuda"] if devices.on_gpu() else ["numpy", "generated"])
def test_mean_in_a_captured_step(executor, monkeypatch):
    """Also where one process alone meets a new shape, or plans one: it must not wait for others."""
    if executor == "generated" and not engine.available():
        pytest.skip("needs llvmlite and FMA")
    monkeypatch.setattr(executors, "best", lambda: executor)
    here = threading.local()
    monkeypatch.setattr(world, "communicator", lambda: here.c)

    def play(c: Communicator, decorator: Any) -> list[list[float]]:
        here.c = c
        w, optimizer = tf.Variable([[0.5], [-0.5]]), tf.keras.optimizers.Adam(0.1)

        @decorator
        def step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(tf.matmul(x, w) - 1.0))
            (gradient,) = distribute.mean(tape.gradient(loss, [w]))
            optimizer.apply_gradients([(gradient, w)])
            return loss

        rng, seen = np.random.default_rng(c.rank), []
        for size in 12 * (4, 3 + c.rank):
            step(tf.constant(rng.normal(size=(size, 2)).astype(np.float32)))
            seen.append(w.numpy().ravel().tolist())
        if isinstance(step, Function):
            assert len(step.executors) == (1 if c.rank == 1 else 2)
        return seen

    eager, plain, strict = (
        run_world(3, functools.partial(play, decorator=decorator), time_limit=30)
        for decorator in (lambda f: f, tf.function, tf.function(jit_compile="strict"))
    )
    assert plain == eager and strict[0] == strict[1] == strict[2]
    np.testing.assert_allclose(strict[0], eager[0], rtol=1e-5)


@pytest.mark.parametrize("makes", [False, True])
def test_processes_that_fall_back_alone_stay_in_step(makes, monkeypatch):
    """One looks at a value before the mean, and runs eagerly; one operation of each is one of all.

    With variables that are made after the mean, at the first call.
    """
    here = threading.local()
    monkeypatch.setattr(world, "communicator", lambda: here.c)

    def play(c: Communicator, captured: bool) -> list[list[float]]:
        here.c = c
        w, made = tf.Variable([1.0, -1.0]), []

        def step(x):
            if c.rank == 0 and float(x[0]) > 100:
                raise AssertionError
            (total,) = distribute.mean([w * x])
            if makes and not made:
                made.append(tf.Variable(0.5))
            w.assign_sub(total * (made[0] if makes else 0.5))
            return total

        fn, seen = tf.function(step) if captured else step, []
        for i in range(14):
            fn(tf.constant([0.1 * c.rank, 0.2 * i], tf.float32))
            seen.append(w.numpy().tolist())
        if captured:
            assert len(fn.executors) == (c.rank != 0)
        return seen

    eager, plain = (
        run_world(2, functools.partial(play, captured=f), time_limit=30) for f in (0, 1)
    )
    assert plain == eager and plain[0] == plain[1]


def test_mean_averages_over_processes(monkeypatch):
    def work(c: Communicator) -> list:
        with_world = {"g": tf.constant([1.0, 2.0]) * float(c.rank + 1), "none": None}
        found = distribute.mean(with_world)
        exact = distribute.mean_by_count([float(c.rank), 1.0], c.rank + 1)
        return [found["g"].numpy().tolist(), found["none"], exact]

    import threading

    here = threading.local()
    monkeypatch.setattr(world, "communicator", lambda: here.c)

    def play(c: Communicator) -> list:
        here.c = c
        return work(c)

    expected = [[2.0, 4.0], None, [(0 * 1 + 1 * 2 + 2 * 3) / 6, 1.0]]
    assert run_world(3, play, time_limit=30) == [expected] * 3

    def whole(c: Communicator) -> list:
        here.c = c
        small, truths = distribute.mean([np.uint8([200, 1]), np.array([c.rank == 0, True])])
        return [small.dtype.name, small.numpy().tolist(), truths.numpy().tolist()]

    assert run_world(4, whole, time_limit=30) == [["float64", [200.0, 1.0], [0.25, 1.0]]] * 4


def on_ranks(monkeypatch, work) -> list[str]:
    """What two processes raise in ``work(rank, w, optimizer)``, or "": another rate on each."""
    here = threading.local()
    monkeypatch.setattr(world, "communicator", lambda: here.c)
    monkeypatch.setattr(loop, "_loop", _PerThread(here))

    def play(c: Communicator) -> str:
        here.c, here.loop = c, loop._Loop()
        try:
            work(c.rank, tf.Variable([1.0, 2.0]), tf.keras.optimizers.Adam(0.1 + c.rank))
        except (UsageError, DesyncError) as error:
            return str(error)
        return ""

    return run_world(2, play, time_limit=30)


def averaged(w, optimizer, captured=False) -> None:
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(w * w)
        gradients = distribute.mean(tape.gradient(loss, [w]))
        optimizer.apply_gradients(zip(gradients, [w], strict=True))

    step = tf.function(step) if captured else step
    for _ in range(3):
        step()


RATES = (
    "optimizer.learning_rate is 1.1 on rank 1 and 0.1 on rank 0: every worker must apply the "
    "gradients of all by the same optimizer, with the same settings."
)


def test_another_optimizer_of_one_process_is_named(monkeypatch):
    def summed(rank, w, optimizer) -> None:
        for _ in range(3):
            found = distribute.gradients(lambda x: tf.reduce_sum(w) * tf.reduce_mean(x), X)
            optimizer.apply_gradients(found)

    assert on_ranks(monkeypatch, summed) == [RATES] * 2
    for captured in (False, True):
        found = on_ranks(monkeypatch, lambda rank, w, o, c=captured: averaged(w, o, c))
        assert found == [RATES] * 2


def test_updates_that_only_one_process_makes_are_its_own_affair(monkeypatch):
    """Or each by itself, of weights that are averaged then."""

    def chief(rank, w, optimizer) -> None:
        for _ in range(5):
            gradients = distribute.mean([w * 1.0])
            if rank == 0:
                optimizer.apply_gradients(zip(gradients, [w], strict=True))
            distribute.broadcast([w])

    def each(rank, w, optimizer) -> None:
        for _ in range(5):
            optimizer.apply_gradients([(w * 1.0, w)])
            w.assign(distribute.mean(w))

    assert on_ranks(monkeypatch, chief) == on_ranks(monkeypatch, each) == ["", ""]


def test_averaged_gradients_of_other_weights_are_warned_of_once(monkeypatch):
    def work(rank, w, optimizer) -> None:
        w.assign(w + float(rank))
        averaged(w, tf.keras.optimizers.SGD(0.1))

    with pytest.warns(UserWarning, match="differs between rank 0 and rank 1") as seen:
        assert on_ranks(monkeypatch, work) == ["", ""]
    assert sum("distribute.broadcast(model.variables)" in str(w.message) for w in seen) == 1


@pytest.mark.parametrize("shapes", [((4,), (2, 2)), (None, (4,))])
def test_other_tensors_of_one_size_are_not_averaged(shapes, monkeypatch):
    here = threading.local()
    monkeypatch.setattr(world, "communicator", lambda: here.c)

    def play(c: Communicator) -> str:
        here.c = c
        own = shapes if c.rank == 0 else shapes[::-1]
        with pytest.raises((OutOfStepError, PeerLostError)) as caught:
            distribute.mean([None if shape is None else tf.zeros(shape) for shape in own])
        return str(caught.value)

    said = "".join(run_world(2, play, time_limit=30))
    assert "ranks 0 and 1 are not in the same call" in said or "ranks 1 and 0 are not" in said
    assert "of distribute.mean, of shape (" in said


def test_a_batch_of_another_length_is_named(monkeypatch):
    here = threading.local()
    monkeypatch.setattr(world, "communicator", lambda: here.c)
    monkeypatch.setattr(loop, "_loop", _PerThread(here))

    def play(c: Communicator) -> str:
        here.c, here.loop = c, loop._Loop()
        w = tf.Variable([1.0])
        with pytest.raises(UsageError) as caught:
            distribute.gradients(lambda x: tf.reduce_mean(x * w), np.ones(4 + c.rank, np.float32))
        return str(caught.value)

    (said,) = set(run_world(2, play, time_limit=30))
    assert "rank 1 was given other data than rank 0: every worker needs the whole" in said


def test_a_later_batch_of_another_length_is_named(monkeypatch):
    here = threading.local()
    monkeypatch.setattr(world, "communicator", lambda: here.c)
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", "6")
    monkeypatch.setattr(loop, "_loop", _PerThread(here))

    def play(c: Communicator) -> str:
        here.c, here.loop = c, loop._Loop()
        w = tf.Variable([1.0])

        def loss_fn(x):
            return tf.reduce_mean(x * w)

        for size in (12, 5, 2):  # of which some shards have nothing, at last all of one rank
            distribute.gradients(loss_fn, np.ones(size, np.float32))
        with pytest.raises(UsageError) as caught:
            distribute.gradients(loss_fn, np.ones(10 + 2 * c.rank, np.float32))
        return str(caught.value)

    for rank, said in enumerate(run_world(2, play, time_limit=30)):
        assert f"rank {rank} was given a batch of {10 + 2 * rank}, of which all have" in said


def test_what_cannot_be_broadcast_is_said(monkeypatch):
    with pytest.warns(UserWarning, match="no variables; a model has none before it is built"):
        distribute.broadcast(tf.keras.Sequential([tf.keras.layers.Dense(3)]).variables)
    here = threading.local()
    monkeypatch.setattr(world, "communicator", lambda: here.c)

    def play(c: Communicator) -> str:
        here.c = c
        variables = [tf.Variable(tf.zeros(shape)) for shape in ((4,), (2, 2))]
        with pytest.raises(UsageError) as caught:
            distribute.broadcast(variables[:: -1 if c.rank else 1])
        return str(caught.value)

    (said,) = set(run_world(2, play, time_limit=30))
    assert "variable 0 is 0: [2, 2] float32 on rank 1 and 0: [4] float32 on rank 0" in said


def test_a_loop_that_goes_on_at_its_step_draws_what_an_undisturbed_one_draws(monkeypatch):
    def played(steps: range, number: bool) -> list[float]:
        monkeypatch.setattr(loop, "_loop", loop._Loop())  # a process of its own
        tf.random.set_seed(3)
        w = tf.Variable(tf.ones((4, 3)))

        def loss_fn(batch):
            return tf.reduce_mean(tf.nn.dropout(batch, 0.5) @ w)

        return [distribute.gradients(loss_fn, X, step=i if number else None).loss for i in steps]

    undisturbed = played(range(4), number=False)
    assert len(set(undisturbed)) == 4
    assert played(range(4), number=True) == undisturbed
    assert played(range(2, 4), number=True) == undisturbed[2:]
    assert played(range(2, 4), number=False) == undisturbed[:2]


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("DistributedGradientTape", "distribute.mean"),
        ("all_reduce", "distribute.mean"),
        ("init", "nothing is needed"),
        ("get_world_size", "distribute.world_size"),
        ("broadcast_variables", "distribute.broadcast"),
        ("all_gather_object", "distribute.allgather_object"),
        ("DistributedSampler", "distribute.gradients"),
        ("start_timeline", "DISTGRAD_TIMELINE"),
        ("local_rank", "takes the GPU of its number"),
        ("join", "distribute.gradients"),
        ("no_sync", "distribute.mean once"),
        ("elastic", "--max-restarts"),
    ],
)
def test_names_of_peers_say_what_to_use(name: str, instead: str):
    with pytest.raises(AttributeError, match=f"{name}.*{instead}"):
        getattr(distribute, name)


def test_wrong_batches_and_functions():
    w = tf.Variable(1.0)
    with pytest.raises(ValueError, match=r"\[3, 37\]"):
        distribute.gradients(lambda b: w * 1.0, (X, Y[:3]))
    with pytest.raises(ValueError, match="no trainable variable"):
        distribute.gradients(lambda b: tf.constant(1.0), (X, Y))


DESYNC = """
import sys
import numpy as np
import distgrad as tf
from distgrad import distribute
from distgrad.launcher.connect import connect
from distgrad.training import world

with world.use(connect()):
    x = np.arange(32, dtype="f").reshape(8, 4) / 32
    w = tf.Variable(np.full((4, 1), 0.5, "f"), name="w")
    b = tf.Variable(np.zeros(1, "f"), name="bias")
    for step in range(6):
        found = distribute.gradients(lambda x: tf.reduce_mean((x @ w + b) ** 2), x, [w, b], **KEY)
        for g, v in found:
            v.assign_sub(0.1 * g)
        if step == 3 and distribute.rank() == 1 and "wrong" in sys.argv:
            b.assign(np.nextafter(b.numpy(), np.float32(9)))
        print(f"step {step}", flush=True)
"""


@pytest.mark.timeout_s(100)
@pytest.mark.parametrize(
    ("key", "wrong", "steps"),
    [
        ("dict(check_every=2)", True, 4),
        ("dict(check_every=2)", False, 6),
        ("dict(check_every=0)", True, 6),
        ("{}", True, 6),  # every 100
    ],
)
def test_a_weight_that_one_process_has_changed(run_cli, tmp_path, key, wrong, steps):
    (tmp_path / "script.py").write_text(DESYNC.replace("**KEY", f"**{key}"))
    words = ["wrong"] if wrong else []
    result = run_cli("launch", "-n", 3, tmp_path / "script.py", *words)
    assert result.stdout.count(f"step {steps - 1}") == 3, result.stderr
    assert f"step {steps}" not in result.stdout
    if steps == 6:
        assert (result.returncode, result.stderr) == (0, "")
    else:
        assert result.returncode == 6
        assert (
            "error: the ranks no longer have the same weights after step 4: 1: bias:0 differs "
            "on rank 1 from ranks 0, 2." in result.stderr
        )


def test_the_alarm_is_on_by_default(monkeypatch):
    w = tf.Variable(np.ones((4, 3), "f"))
    told = []
    monkeypatch.setattr(loop.DesyncAlarm, "compare", lambda self, step: told.append(step))
    for _ in range(201):
        distribute.gradients(lambda batch: tf.reduce_sum(w), (X, Y), [w])
    assert told == [1, 2, 100, 200]
