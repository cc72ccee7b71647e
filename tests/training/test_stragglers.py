"""A rank that works longer than the others is named, whatever it does with its time."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import worker_shards
from distgrad.data.loader import Loader
from distgrad.data.source import ArraySource
from distgrad.testing.thread_world import run_world
from distgrad.training import stragglers
from distgrad.training.loop import TrainingLoop
from distgrad.training.step import TrainStep

from .models import network

SHARDS, SAMPLES, BATCH = 4, 40, 8
NAP = 0.12  # seconds, much more than a step takes on a busy machine


class Naps(ArraySource):
    """Samples that take their time, as on a slow disk."""

    slow = True

    def __init__(self, seconds: float) -> None:
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(SAMPLES, 6)), rng.integers(0, 3, SAMPLES)
        super().__init__(x.astype(np.float32), y)
        self.seconds = seconds

    def take(self, rows):
        time.sleep(self.seconds)
        return super().take(rows)


def train(naps: list[float], epochs: int, *, in_data: bool = False, **options) -> None:
    """So many steps of five an epoch, in which a rank naps for some seconds in each."""
    models = [network() for _ in naps]

    def work(c: Communicator) -> None:
        model, nap = models[c.rank], naps[c.rank]
        own = worker_shards(SHARDS, c.rank, c.world_size)
        step = TrainStep.of(model, c, SHARDS, 3, **options)
        compute = step.sum.compute

        def slowly(arrays, training):
            time.sleep(nap / len(own))
            return compute(arrays, training)

        if not in_data:
            step.sum.compute = slowly
        data = Naps(nap if in_data else 0.0)
        loop = TrainingLoop(step, Loader(data, BATCH, SHARDS, own, 3), model.results)
        loop.observers.append(stragglers.Stragglers(loop, c))
        loop.run(epochs)

    run_world(len(naps), work, time_limit=60)


@pytest.mark.parametrize("options", [{"overlap": False}, {"overlap": True, "bucket_bytes": 1}])
def test_who_works_longer_is_named_after_20_steps(capsys, options) -> None:
    train([NAP / 10, NAP, NAP / 10], 4, **options)
    said = r"warning: rank 1 on \S+ keeps the others waiting: in steps 3 to 20 it has worked for "
    assert re.fullmatch(said + r"[2-9]\.\d s, the others for \d\.\d s\.\n", capsys.readouterr().err)


def test_slow_data_are_work_too(capsys) -> None:
    train([0.0, NAP], 4, in_data=True)
    assert "warning: rank 1 on" in capsys.readouterr().err


def test_each_is_named_once(capsys, monkeypatch) -> None:
    monkeypatch.setattr(stragglers, "_EVERY", 20)
    train([NAP, 0.0], 8)
    assert capsys.readouterr().err.count("warning: rank 0") == 1


@pytest.mark.parametrize("naps", [[NAP, NAP], [NAP, NAP / 2, NAP / 2], [NAP / 10, NAP / 100]])
def test_shards_that_are_uneven_and_short_steps_are_not_worth_a_word(capsys, naps) -> None:
    train(naps, 4)
    assert capsys.readouterr().err == ""
