"""TensorFlow's strategies: a replica is a virtual shard, whoever runs it."""

from __future__ import annotations

import contextlib
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import distgrad as tf
from distgrad import distribute
from distgrad.comm.communicator import Communicator
from distgrad.core import variable as variables_of
from distgrad.distribute import ReduceOp
from distgrad.distribute import strategy as strategy_of
from distgrad.distribute.inputs import DatasetOfEach
from distgrad.training import world

RNG = np.random.default_rng(6)
X = RNG.normal(size=(37, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 37)
BATCH = 16


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", "4")
    with world.use(Communicator()):
        yield
    assert not distribute.has_strategy() and not variables_of.watchers


def data():
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(37, seed=2).batch(BATCH)


def losses_of(logits, labels):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


class Script:
    """TensorFlow's listing of a custom loop, with what shows how replicas are put together."""

    def __init__(self, noise: float = 0.3) -> None:
        self.strategy = strategy = tf.distribute.MirroredStrategy()
        with strategy.scope():
            self.model = tf.keras.Sequential(
                [
                    tf.keras.layers.Dense(5, activation="tanh"),  # is built by the first run
                    tf.keras.layers.BatchNormalization(),
                    tf.keras.layers.Dropout(noise),
                    tf.keras.layers.Dense(3),
                ]
            )
            self.optimizer = tf.keras.optimizers.Adam(0.1)
            self.accuracy = tf.keras.metrics.SparseCategoricalAccuracy()
            self.mean = tf.keras.metrics.Mean()

    def step(self, inputs):
        x, y = inputs
        with tf.GradientTape() as tape:
            logits = self.model(x, training=True)
            loss = tf.reduce_sum(losses_of(logits, y)) / BATCH
        variables = self.model.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        self.accuracy.update_state(y, logits)
        self.mean(losses_of(logits, y))
        return loss

    def train(self) -> tuple:
        shown = []
        for batch in self.strategy.experimental_distribute_dataset(data()):
            each = self.strategy.run(self.step, args=(batch,))
            shown.append(float(self.strategy.reduce(ReduceOp.SUM, each, axis=None)))
        weights = [v.numpy().tobytes() for v in self.model.variables]
        return shown, weights, float(self.accuracy.result()), float(self.mean.result())


def test_the_listing_gives_the_same_bits_at_any_number_of_workers():
    """In processes: tests/e2e/test_scripts.py. Here: twice alone, which must not differ either."""
    found = []
    for _ in range(2):
        tf.keras.utils.set_random_seed(3)
        found.append(Script().train())
    assert found[0] == found[1]
    shown, _, accuracy, _ = found[0]
    assert len(shown) == 3 and all(np.isfinite(shown))
    assert accuracy * 37 == pytest.approx(round(accuracy * 37))


def test_the_replicas_train_as_one_tape_over_the_batch():
    strategy = tf.distribute.MirroredStrategy()
    start = RNG.normal(size=(4, 3)).astype("f")
    with strategy.scope():
        w, alone = tf.Variable(start), tf.Variable(start)
    optimizer, other = tf.keras.optimizers.SGD(0.5), tf.keras.optimizers.SGD(0.5)
    seen = tf.keras.metrics.Sum()

    def step(x, y, scale=1.0):
        with tf.GradientTape() as tape:
            loss = scale * tf.reduce_sum(losses_of(x @ w, y)) / BATCH
        optimizer.apply_gradients([(tape.gradient(loss, w), w)])
        seen.update_state(loss)
        return {"loss": loss, "rows": tf.shape(x)[0]}

    rows = []
    for (x, y), batch in zip(data(), strategy.experimental_distribute_dataset(data()), strict=True):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(losses_of(x @ alone, y)) / BATCH
        other.apply_gradients([(tape.gradient(loss, alone), alone)])
        each = strategy.run(step, args=batch, kwargs={"scale": 1.0})
        total = strategy.reduce("sum", each, axis=None)
        np.testing.assert_allclose(float(total["loss"]), float(loss), rtol=1e-5)
        rows.append(int(total["rows"]))
        np.testing.assert_allclose(w.numpy(), alone.numpy(), rtol=2e-5, atol=1e-6)
    assert rows == [16, 16, 5]
    assert optimizer.iterations.numpy() == 3
    assert float(seen.result()) > 0


@pytest.mark.parametrize("wrap", [lambda step: step, tf.function], ids=["plain", "function"])
def test_metrics_count_every_sample_once_and_keep_what_they_had(wrap):
    strategy = tf.distribute.MirroredStrategy()
    mean, own = tf.keras.metrics.Mean(), Largest()
    mean.update_state([10.0, 20.0])
    own.update_state(None, tf.constant([1.0]))

    @wrap
    def step(batch):
        mean.update_state(batch)
        own.update_state(None, batch)

    numbers = np.arange(1.0, 12.0, dtype="f")
    for batch in strategy.experimental_distribute_dataset([numbers]):
        strategy.run(step, args=(batch,))
    assert float(mean.result()) == pytest.approx((30 + numbers.sum()) / 13)
    assert float(own.result()) == 1 + numbers.sum()
    mean.reset_state()
    for batch in strategy.experimental_distribute_dataset([numbers]):
        strategy.run(step, args=(batch,))
    assert float(mean.result()) == pytest.approx(6.0)


class Largest(tf.keras.metrics.Metric):
    """A metric written for Keras, with an ``update_state`` of its own."""

    def __init__(self):
        super().__init__()
        self.total = self.add_weight(shape=(), initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(tf.reduce_sum(y_pred))

    def result(self):
        return self.total


def test_reduce_and_gather():
    strategy = tf.distribute.MirroredStrategy()
    numbers = np.arange(10.0, dtype="f")
    (batch,) = strategy.experimental_distribute_dataset([numbers])
    each = strategy.run(lambda x: (2 * x, tf.reduce_max(x)), args=(batch,))
    assert strategy.gather(each[0], axis=0).numpy().tolist() == (2 * numbers).tolist()
    parts = [part.numpy().tolist() for part in strategy.experimental_local_results(each[0])]
    assert [row for part in parts for row in part] == (2 * numbers).tolist() and len(parts) == 4
    assert float(strategy.reduce(ReduceOp.SUM, each[0], axis=0)) == 90
    assert float(strategy.reduce(ReduceOp.MEAN, each[0], axis=0)) == 9
    highest = [max(part) / 2 for part in parts]
    assert float(strategy.reduce("MEAN", each[1], axis=None)) == np.mean(highest)
    assert float(strategy.reduce("MEAN", tf.constant(3.0), axis=None)) == 3
    with pytest.raises(ValueError, match="no replica's cannot be summed"):
        strategy.reduce("SUM", tf.constant(3.0), axis=None)
    with pytest.raises(ValueError, match="SUM or MEAN, not 'max'"):
        strategy.reduce("max", each[1], axis=None)
    assert strategy.experimental_local_results(5) == (5,)


def test_a_batch_with_fewer_rows_than_replicas():
    strategy = tf.distribute.MirroredStrategy()
    (batch,) = strategy.experimental_distribute_dataset([np.array([1.0, 2.0], "f")])
    each = strategy.run(tf.reduce_sum, args=(batch,))
    assert float(strategy.reduce("SUM", each, axis=None)) == 3
    with pytest.raises(ValueError, match="one first dimension"):
        next(iter(strategy.experimental_distribute_dataset([(np.zeros(2), np.zeros(3))])))


def test_each_replica_reads_a_dataset_of_its_own():
    strategy = tf.distribute.MirroredStrategy()

    def make(context):
        size = context.get_per_replica_batch_size(8)
        rows = tf.data.Dataset.range(11).shard(
            context.num_input_pipelines, context.input_pipeline_id
        )
        return rows.batch(size)

    found = []
    for batch in strategy.distribute_datasets_from_function(make):
        total = strategy.reduce("SUM", strategy.run(tf.reduce_sum, args=(batch,)), axis=None)
        found.append(int(total))
    assert found == [sum(range(8)), 8 + 9 + 10]  # the fourth has but two rows
    assert len(list(strategy.experimental_distribute_datasets_from_function(make))) == 2
    with pytest.raises(ValueError, match="9 cannot be divided by 4"):
        distribute.InputContext(4, 0, 4).get_per_replica_batch_size(9)


def test_what_a_replica_reads_does_not_depend_on_the_others_of_its_worker():
    """Orders and draws of functions, made in advance or not."""

    def make(context):
        rows = tf.data.Dataset.range(40).shuffle(40)
        return rows.map(lambda x: (x, tf.random.uniform([]))).prefetch(1).batch(4)

    def read(own):
        tf.random.set_seed(1)
        replicas = SimpleNamespace(virtual_shards=4, own=own, communicator=Communicator())
        batches = list(DatasetOfEach(make, replicas))
        after = float(tf.random.uniform([])), list(tf.data.Dataset.range(9).shuffle(9))
        return [[x.own[3].numpy().tolist() for x in batch] for batch in batches], after

    assert read(range(4)) == read(range(3, 4))


def test_replicas_know_who_they_are():
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    assert distribute.get_replica_context().replica_id_in_sync_group == 0
    with strategy.scope():
        assert tf.distribute.get_strategy() is strategy and distribute.has_strategy()
        assert distribute.in_cross_replica_context()
        assert distribute.get_replica_context() is None

        def step():
            context = distribute.get_replica_context()
            return tf.constant([context.replica_id_in_sync_group, context.num_replicas_in_sync])

        assert strategy.gather(strategy.run(step), axis=0).numpy().tolist() == [
            *(0, 4, 1, 4, 2, 4, 3, 4)
        ]
    own = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant([context.replica_id_in_sync_group])
    )
    assert strategy.gather(own, axis=0).numpy().tolist() == [0, 1, 2, 3]


def test_all_reduce_and_its_gradient():
    """The replicas' part of ``(sum of x w) ** 2``, whose gradients add up to the whole one's."""
    strategy = tf.distribute.MirroredStrategy()
    with strategy.scope():
        w = tf.Variable(2.0)
    sgd = tf.keras.optimizers.SGD(1.0)

    def step(x):
        context = distribute.get_replica_context()
        with tf.GradientTape() as tape:
            total = context.all_reduce("SUM", tf.reduce_sum(x * w))
            loss = total**2 / context.num_replicas_in_sync
        sgd.apply_gradients([(tape.gradient(loss, w), w)])
        return total, context.all_reduce("MEAN", {"a": tf.reduce_sum(x)})["a"]

    (batch,) = strategy.experimental_distribute_dataset([np.arange(1.0, 7.0, dtype="f")])
    total, mean = strategy.run(step, args=(batch,))
    assert [float(value) for value in total.values] == [42.0] * 4
    assert [float(value) for value in mean.values] == [21 / 4] * 4
    assert w.numpy() == 2.0 - 2 * 42 * 21


def test_all_gather_and_its_gradient():
    """Of parts of sizes 2, 2, 1, 1: the whole, whose weighted sum each replica has a share of."""
    strategy = tf.distribute.MirroredStrategy()
    weights = np.arange(6.0, dtype="f")

    def step(x):
        context = distribute.get_replica_context()
        assert context.strategy is strategy is tf.distribute.get_strategy()
        with tf.GradientTape() as tape:
            tape.watch(x)
            whole = context.all_gather(x, axis=0)
            loss = tf.reduce_sum(whole * weights) / context.num_replicas_in_sync
        rows = context.all_gather({"r": tf.reshape(x, [1, -1])}, axis=-1)["r"]
        return whole, tape.gradient(loss, x), rows

    batches = strategy.experimental_distribute_dataset([weights + 1])
    whole, gradient, rows = strategy.run(step, args=(next(iter(batches)),))
    assert [part.numpy().tolist() for part in whole.values] == [[1, 2, 3, 4, 5, 6]] * 4
    assert np.concatenate([part.numpy() for part in gradient.values]).tolist() == weights.tolist()
    assert [part.numpy().tolist() for part in rows.values] == [[[1, 2, 3, 4, 5, 6]]] * 4
    alone = distribute.get_replica_context()
    assert alone.all_gather(tf.constant([1, 2]), axis=0).numpy().tolist() == [1, 2]


def test_one_strategy_at_a_time():
    one, other = tf.distribute.MirroredStrategy(), tf.distribute.OneDeviceStrategy("/cpu:0")
    assert one.cluster_resolver is None
    with one.scope(), one.scope():
        with pytest.raises(RuntimeError, match="scope of another strategy"), other.scope():
            pass
        with pytest.raises(RuntimeError, match="within a strategy's scope"):
            distribute.experimental_set_strategy(other)
    for strategy in (one, other):
        distribute.experimental_set_strategy(strategy)
        assert distribute.get_strategy() is strategy and distribute.in_cross_replica_context()
    distribute.experimental_set_strategy(None)
    with distribute.get_strategy().scope():  # which stands for none
        assert not distribute.has_strategy() and distribute.get_replica_context() is not None


def test_merge_call(monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", "1")
    strategy = tf.distribute.MirroredStrategy()

    def outside(given, x, y=0):
        assert given is strategy and distribute.in_cross_replica_context()
        assert distribute.get_replica_context() is None
        return given.reduce("SUM", x, axis=None) + y

    def step():
        return distribute.get_replica_context().merge_call(outside, (tf.constant(2),), {"y": 1})

    assert int(strategy.run(step)) == 3
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", "4")
    several = tf.distribute.MirroredStrategy()
    with pytest.raises(RuntimeError, match="for one replica, not 4"):
        several.run(step)


def test_batches_may_not_be_there_and_sums_go_over_several_axes():
    strategy = tf.distribute.MirroredStrategy()
    options = tf.distribute.InputOptions(experimental_fetch_to_device=False)
    rows = tf.data.Dataset.from_tensor_slices(np.arange(8.0).reshape(4, 2)).batch(4)
    batches = iter(strategy.experimental_distribute_dataset(rows, options))
    there, nothing = batches.get_next_as_optional(), batches.get_next_as_optional()
    assert there.has_value() and not nothing.has_value()
    assert nothing.element_spec == batches.element_spec == rows.element_spec
    value = strategy.run(lambda x: x, args=(there.get_value(),))
    assert float(strategy.reduce("MEAN", value, axis=(0, 1))) == 3.5
    assert float(strategy.reduce("SUM", value, axis=(0, -1))) == 28
    with pytest.raises(ValueError):
        strategy.reduce("MEAN", value, axis=2)


def test_a_variable_from_outside_of_the_scope_is_named():
    strategy = tf.distribute.MirroredStrategy()
    stray = tf.Variable(1.0, name="stray")
    sgd = tf.keras.optimizers.SGD(1.0)
    with pytest.raises(ValueError, match=r"stray:0 was not made within strategy.scope\(\)"):
        strategy.run(lambda: sgd.apply_gradients([(tf.constant(1.0), stray)]))


def test_the_strategy_that_stands_for_none_trains_variables_from_anywhere(monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", "1")
    monkeypatch.setattr(strategy_of, "_default", [])
    model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1)])
    sgd, mean = tf.keras.optimizers.SGD(0.5), tf.keras.metrics.Mean()
    model.set_weights([np.ones((2, 1)), np.zeros(1)])
    strategy = tf.distribute.get_strategy()

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x))
        sgd.apply_gradients(zip(tape.gradient(loss, model.weights), model.weights, strict=True))
        mean.update_state(loss)
        return loss

    rows = tf.data.Dataset.from_tensors(np.ones((1, 2), np.float32)).repeat(2)
    losses = []
    for batch in strategy.experimental_distribute_dataset(rows):
        losses.append(float(strategy.reduce("SUM", strategy.run(step, args=(batch,)))))
    assert losses == [2.0, 0.5] and float(mean.result()) == 1.25


def test_an_error_where_replicas_meet_leaves_none_of_them_waiting():
    strategy = tf.distribute.MirroredStrategy()
    stray = tf.Variable(1.0)
    sgd = tf.keras.optimizers.SGD(1.0)
    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="was not made within"):
        strategy.run(lambda: sgd.apply_gradients([(tf.constant(1.0), stray)]))
    replicas = set(threading.enumerate()) - before
    for thread in replicas:
        thread.join(10)
    assert not any(thread.is_alive() for thread in replicas)


def test_an_error_of_one_replica_ends_the_run():
    strategy = tf.distribute.MirroredStrategy()

    def step(x):
        if 5.0 in x.numpy():
            raise KeyError("five")

    (batch,) = strategy.experimental_distribute_dataset([np.arange(8.0)])
    with pytest.raises(KeyError, match="five"):
        strategy.run(step, args=(batch,))


def test_one_replica_alone_is_given_tensors(monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", "1")
    strategy = tf.distribute.MirroredStrategy()
    whole = strategy.experimental_distribute_dataset([(X, {"y": Y})])
    ((x, labels),) = whole
    assert type(x) is tf.Tensor and x.shape == X.shape and labels["y"].dtype == tf.int64
    np.testing.assert_array_equal(strategy.run(lambda x: 2 * x, args=(x,)), 2 * X)
    each = strategy.distribute_datasets_from_function(lambda context: data())
    assert type(next(iter(each))[0]) is tf.Tensor
    assert each.element_spec[0].shape == (None, 4)


def test_values_of_replicas_are_tensors():
    strategy = tf.distribute.MirroredStrategy()
    (rows,) = strategy.experimental_distribute_dataset([X[:8]])
    found = strategy.experimental_local_results(rows)
    assert [type(each) for each in found] == [tf.Tensor] * 4 and "tf.Tensor" in repr(rows)
    np.testing.assert_array_equal(np.concatenate([each.numpy() for each in found]), X[:8])


def test_a_compiled_function_that_runs_replicas_runs_eagerly_and_says_so():
    strategy = tf.distribute.MirroredStrategy()

    @tf.function(jit_compile=True)
    def step(batch):
        return strategy.reduce("SUM", strategy.run(tf.reduce_sum, args=(batch,)), axis=None)

    (batch,) = strategy.experimental_distribute_dataset([np.arange(8.0)])
    with pytest.warns(
        UserWarning, match=r"runs eagerly: an argument has no signature \(PerReplica\)"
    ):
        assert float(step(batch)) == 28


def test_fit_within_a_scope_is_what_it_is_without():
    def fitted(scope):
        tf.keras.utils.set_random_seed(4)
        with scope:
            model = tf.keras.Sequential([tf.keras.layers.Dense(3, activation="softmax")])
            model.compile("adam", "sparse_categorical_crossentropy")
        return model.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0).history

    options = tf.distribute.experimental.CommunicationOptions(
        implementation=tf.distribute.experimental.CommunicationImplementation.NCCL
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    assert strategy.cluster_resolver.task_id == 0
    tf.distribute.MirroredStrategy(cross_device_ops=tf.distribute.HierarchicalCopyAllReduce())
    assert fitted(strategy.scope()) == fitted(contextlib.nullcontext())


def test_a_model_tells_its_strategy():
    strategy = tf.distribute.MirroredStrategy()
    with strategy.scope():
        model = tf.keras.Sequential([tf.keras.layers.Dense(1)])
        assert model.distribute_strategy is strategy
    assert model.distribute_strategy is tf.distribute.get_strategy()


def test_strategies_that_do_not_exist_say_what_to_use():
    with pytest.raises(AttributeError, match="'ParameterServerStrategy': workers on CPUs and CUDA"):
        tf.distribute.ParameterServerStrategy  # noqa: B018


def test_a_script_that_looks_for_a_tpu_goes_on_without():
    try:
        tpu = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(tpu)
        strategy = tf.distribute.TPUStrategy(tpu)
    except ValueError:
        strategy = tf.distribute.get_strategy()
    assert strategy is tf.distribute.get_strategy()
    assert not isinstance(strategy, tf.distribute.TPUStrategy)

    class Replicator(tf.distribute.experimental.TPUStrategy):
        pass

    with pytest.raises(ValueError, match="provide a TPU Name to connect to.*MirroredStrategy"):
        Replicator()
