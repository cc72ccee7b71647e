"""A function called on several workers from a notebook: results, errors, Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

import distgrad as tf
from distgrad import distribute
from distgrad.core.errors import JobError, MissingExtraError, PeerLostError, UsageError
from distgrad.launcher import calling

SCALE = 2.0  # a global of the notebook, which travels with the functions that read it


@pytest.fixture(autouse=True)
def as_in_a_notebook() -> Iterator[None]:
    """The functions of this file go by value, as those of a notebook do."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def train(rate: float) -> tuple:
    tf.keras.utils.set_random_seed(0)
    x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(16, 4)
    model = tf.keras.Sequential([tf.keras.layers.Dense(8, "tanh"), tf.keras.layers.Dense(1)])
    model.compile(tf.keras.optimizers.Adam(rate), "mse")
    history = model.fit(x, SCALE * x[:, :1], batch_size=8, epochs=2, verbose=0)
    print(f"rank {distribute.rank()} of {distribute.world_size()}")
    return distribute.rank(), model, history.history


def test_models_and_histories_come_back_by_rank_with_equal_bits(capsys) -> None:
    ((_, alone, history),) = tf.launch(train, (0.1,), workers=1, virtual_shards=4)
    found = tf.launch(train, (0.1,), workers=2, virtual_shards=4)
    assert [rank for rank, _, _ in found] == [0, 1]
    for _, model, other in found:
        assert other == history
        for mine, theirs in zip(alone.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "[rank 1] rank 1 of 2",
        "rank 0 of 1",
        "rank 0 of 2",
    ]


def fails() -> None:
    if distribute.rank() == 1:
        raise ValueError("a bug of mine")
    distribute.barrier()


def dies() -> None:
    if distribute.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    distribute.barrier()


@pytest.mark.parametrize(
    ("fn", "error", "said"),
    [(fails, JobError, "ValueError: a bug of mine"), (dies, PeerLostError, "rank 1 .* SIGKILL")],
)
def test_a_failure_ends_all_and_is_an_error_here(fn, error, said, capsys) -> None:
    with pytest.raises(error, match=f"{fn.__name__} has failed on its workers") as caught:
        tf.launch(fn, workers=2)
    assert type(caught.value) is error
    assert re.search(said, capsys.readouterr().err)


def exits() -> None:
    if distribute.rank() == 1:
        sys.exit()


def test_a_worker_that_exits_within_the_function_is_named() -> None:
    with pytest.raises(JobError, match="rank 1 has ended within exits, by sys.exit say"):
        tf.launch(exits, workers=2)


def waits() -> None:
    distribute.barrier()
    time.sleep(60)


def test_ctrl_c_stops_the_workers() -> None:
    timer = threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        tf.launch(waits, workers=2)
    assert time.monotonic() - begun < 20


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="workers must be 1 or more"):
        tf.launch(train, (0.1,), workers=0)
    with pytest.raises(UsageError, match=r"args must be a tuple .* not dict"):
        tf.launch(train, {"rate": 0.1}, workers=2)
    with pytest.raises(UsageError, match="4 workers cannot share 2 virtual shards"):
        tf.launch(train, (0.1,), workers=4, virtual_shards=2)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cloudpickle", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'distgrad\[notebook\]'"):
            calling.launch(train, (0.1,), workers=1)
    monkeypatch.setenv("DISTGRAD_RANK", "1")
    monkeypatch.setenv("DISTGRAD_WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="this process is one: rank 1 of 2"):
        tf.launch(train, (0.1,), workers=2)
