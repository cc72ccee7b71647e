"""Samples that lie on a GPU as a whole: the same batches and bits, and when that is not done."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest

import distgrad as tf
from distgrad import keras
from distgrad.backend.sent import Sent
from distgrad.core import dispatch
from distgrad.data.loader import Loader
from distgrad.data.source import ArraySource, NestSource, Subset
from distgrad.testing import cuda_on_cpu, fake_cupy
from distgrad.training import evaluation, feeding, resident

pytestmark = [
    pytest.mark.cpu,  # it installs the other module itself
    pytest.mark.skipif(not cuda_on_cpu.available(), reason="no g++"),
]

N = 50
X = np.arange(3 * N, dtype=np.float32).reshape(N, 3)
Y = np.arange(N)


@pytest.fixture
def gpu() -> Iterator:
    with fake_cupy.installed(2), fake_cupy.own_gpu(1) as backend:
        yield backend


def loader(source: ArraySource, shuffle: bool = True, size: int = 12) -> Loader:
    return Loader(source, size, 4, range(1, 4), 0, shuffle)


SOURCES = {
    "arrays": ArraySource(X, Y),
    "a subset": Subset(ArraySource(X, Y), np.arange(1, N, 2)),
    "nests": NestSource(({"a": X, "b": (Y, Y > 3)}, Y.astype(np.int32), None)),
}


def rows(nest) -> list:
    return [np.asarray(leaf).tolist() for leaf in tf.nest.flatten(nest) if leaf is not None]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_the_same_batches_lie_on_the_device(gpu, source, shuffle: bool) -> None:
    found = resident.resident(loader(source, shuffle), gpu)
    assert found is not None
    for epoch, start in ((0, 0), (1, 2)):
        pairs = zip(
            found.epoch(epoch, start), loader(source, shuffle).epoch(epoch, start), strict=True
        )
        for batch, expected in pairs:
            assert (batch.size, batch.sizes) == (expected.size, expected.sizes)
            for (i, arrays), (j, wanted) in zip(batch.shards, expected.shards, strict=True):
                assert i == j and rows(arrays) == rows(wanted)
                for sent in tf.nest.flatten(arrays):
                    if sent is not None:
                        assert type(sent) is Sent
                        assert sent.there.get().tolist() == sent.host.tolist()
                        assert (sent.shape, sent.dtype) == (sent.host.shape, sent.host.dtype)


def test_nobody_makes_what_nobody_reads_on_the_host(gpu) -> None:
    found = resident.resident(loader(ArraySource(X, Y)), gpu)
    assert found is not None
    (x, y) = next(iter(found.epoch(0))).shards[0][1]
    assert y.get() is y.host  # made once
    assert callable(x._host) and type(y._host) is np.ndarray


def test_what_had_better_be_sent_in_batches(gpu, monkeypatch, tmp_path) -> None:
    np.save(tmp_path / "x.npy", X)
    on_disk = np.load(tmp_path / "x.npy", mmap_mode="r")
    texts = np.array(["a"] * N)
    others = [ArraySource(X.astype(dtype)) for dtype in (">f4", tf.bfloat16.as_numpy_dtype)]
    for source in (NestSource((on_disk, Y)), ArraySource(X, texts), *others):
        assert resident.resident(loader(source), gpu) is None
    few = loader(ArraySource(X, Y))
    few.steps_per_epoch = 2  # 24 of 50
    assert resident.resident(few, gpu) is None
    few.steps_per_epoch = 3
    assert resident.resident(few, gpu) is not None
    for name, value in (("_MOST", X.nbytes), ("_PART", 1e-9)):
        with monkeypatch.context() as patch:
            patch.setattr(resident, name, value)
            assert resident.resident(loader(ArraySource(X, Y)), gpu) is None


def test_a_step_that_is_not_captured_gets_tensors(gpu) -> None:
    source = NestSource((X, Y, None))
    one = next(iter(feeding.epochs(Loader(source, 12, 1, range(1), 0), gpu)(0, 0)))
    nobody = Loader(source, 2, 4, range(2, 3), 0)  # its shard is in no batch of two
    spare = next(iter(feeding.epochs(nobody, gpu)(0, 0)))
    assert not spare.shards
    for x, y, weight in (one.shards[0][1], spare.spare):
        assert all(type(a) is tf.Tensor and a.device == "/GPU:0" for a in (x, y))
        assert weight is None


def model() -> keras.Model:
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5), keras.layers.Dense(2)])
    weights = np.random.default_rng(0)
    for weight in made.weights:
        weight.assign(weights.normal(size=weight.shape) / 50)
    made.compile("adam", "mse", metrics=["mae"])
    return made


@pytest.mark.parametrize("shards", [1, 3])
def test_fit_evaluate_and_predict_have_the_bits_of_batches_that_are_sent(
    gpu, monkeypatch, shards: int
) -> None:
    target = np.stack([X[:, 0], X[:, 1] - X[:, 2]], 1)
    found = []
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", str(shards))
    for way in (resident.resident, lambda loader, backend: None):
        monkeypatch.setattr(feeding, "resident", way)
        tf.random.set_seed(3)
        made = model()
        history = made.fit(X, target, batch_size=12, epochs=2, verbose=0).history
        held = made.evaluate(X, target, batch_size=12, verbose=0)
        found.append((history, held, made.predict(X, batch_size=12, verbose=0).tolist()))
    assert found[0] == found[1]


def test_what_is_held_out_goes_there_once(gpu, monkeypatch) -> None:
    made, target, copies = model(), np.ones((N, 2), np.float32), []
    asarray = type(gpu).asarray

    def counted(self, value, dtype=None):
        copies.append(getattr(value, "shape", ()))
        return asarray(self, value, dtype)

    monkeypatch.setattr(type(gpu), "asarray", counted)
    held = X[:20], target[:20]
    found = made.fit(X, target, batch_size=12, epochs=3, verbose=0, validation_data=held).history
    assert [copies.count(shape) for shape in ((50, 3), (50, 2), (20, 3), (20, 2))] == [1] * 4
    assert found["val_loss"][-1] == made.evaluate(*held, batch_size=12, verbose=0)[0]
    assert copies.count((20, 3)) == 2  # of arrays that somebody may have changed


@pytest.mark.parametrize("lie_there", [True, False])
@pytest.mark.parametrize("how", ["captured", "eager", "by Python"])
def test_batches_are_not_overwritten_while_somebody_has_them(
    gpu, monkeypatch, lie_there: bool, how: str
) -> None:
    """Outputs that are the inputs, of batches in places that are filled again."""
    if not lie_there:
        monkeypatch.setattr(feeding, "resident", lambda loader, backend: None)

    class Same(keras.layers.Layer):
        def call(self, x):
            if how == "by Python":
                float(x[0, 0])  # which no program has
            return x

    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), Same()])
    made.layers[0].set_weights([np.eye(3), np.zeros(3)])
    made.compile("sgd", "mse", run_eagerly=how == "eager")
    given = keras.Model(made.inputs, [made.outputs[0], made.inputs[0]])
    given.compile("sgd", ["mse", "mae"], run_eagerly=how == "eager")
    once, twice = given.predict(X, batch_size=8, verbose=0)
    assert once.tolist() == twice.tolist() == X.tolist()
    assert made.evaluate(X, X + 1, batch_size=8, verbose=0) == 1


def test_samples_leave_the_device_with_the_call_that_brought_them(gpu) -> None:
    gc.collect()
    made, target, before = model(), np.ones((N, 2), np.float32), len(resident._lying)
    held = X[:20], target[:20]
    arrays = dispatch.current().array_type
    there = [a.shape for a in gc.get_objects() if type(a) is arrays].count(X.shape)
    made.fit(X, target, batch_size=12, verbose=0, validation_data=held)
    made.evaluate(X, target, batch_size=12, verbose=0)
    made.predict(X, batch_size=12, verbose=0)
    gc.collect()
    assert len(resident._lying) == before
    assert [a.shape for a in gc.get_objects() if type(a) is arrays].count(X.shape) == there


def test_nobody_waits_for_a_look_at_labels(gpu, monkeypatch) -> None:
    """They are checked on the host, where they lie as well."""
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    made.evaluate(X, Y % 4, batch_size=10, verbose=0)
    asked = []
    monkeypatch.setattr(type(dispatch.current().asarray(Y)), "get", asked.append)
    monkeypatch.setattr(
        evaluation, "_read", lambda results: [(0.0, np.zeros(0), 1.0)] * len(results)
    )
    made.evaluate(X, Y % 4, batch_size=10, verbose=0)
    assert not asked
    monkeypatch.undo()
    with pytest.raises(tf.errors.InvalidArgumentError, match="4"):
        made.evaluate(X, np.where(Y == 37, 4, Y % 4), batch_size=10, verbose=0)


def test_results_are_read_together_and_for_callbacks_one_by_one(gpu, monkeypatch) -> None:
    made, reads = model(), []
    read = evaluation._read

    def counted(results):
        reads.append(len(results))
        return read(results)

    monkeypatch.setattr(evaluation, "_read", counted)
    monkeypatch.setattr(evaluation, "AT_ONCE", 4)
    target = np.ones((N, 2), np.float32)
    alone = made.evaluate(X, target, batch_size=5, verbose=0)
    assert reads == [4, 4, 2]
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            seen.append(logs["loss"])

    assert made.evaluate(X, target, batch_size=5, verbose=0, callbacks=[Watch()]) == alone
    assert len(seen) == 10 and seen[-1] == alone[0] and reads[3:] == [1] * 10


def test_outputs_are_read_some_at_a_time(gpu, monkeypatch) -> None:
    from distgrad.keras.models import gathered

    made = model()
    whole = made.predict(X, batch_size=5, verbose=0)
    monkeypatch.setattr(gathered, "_WAITING", 100)  # of 40 bytes a batch
    assert made.predict(X, batch_size=5, verbose=0).tolist() == whole.tolist()
    assert whole.shape == (N, 2)
