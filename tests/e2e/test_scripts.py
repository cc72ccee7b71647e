"""A user's own script, alone, under mpirun and under distgrad launch: one result, printed once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.mpi, pytest.mark.slow, pytest.mark.timeout_s(300)]

HEAD = """\
import hashlib, json
import numpy as np
import distgrad as tf
from distgrad import distribute

layers = tf.keras.layers
rng = np.random.default_rng(0)
x = rng.normal(size=(150, 6)).astype("float32")
y = (x[:, 0] > 0).astype("int64") + (x[:, 1] > 0)


def tell(model, **more):
    digest = hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights()))
    if distribute.is_chief():
        print(json.dumps({"sha": digest.hexdigest(), **more}), flush=True)
    same = set(distribute.allgather_object(digest.hexdigest()))
    assert len(same) == 1, same
"""

FIT = """\
model = tf.keras.Sequential([
    layers.SpectralNormalization(layers.Dense(9, activation="relu")),
    layers.BatchNormalization(), layers.Dropout(0.3),
    layers.Dense(3, activation="softmax", kernel_regularizer="l2"),
])
tf.keras.utils.set_random_seed(SEED)
model.compile(tf.keras.optimizers.Adam(0.01, global_clipnorm=1.0),
              "sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(x, y, batch_size=37, epochs=3, validation_split=0.2, verbose=VERBOSE)
data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(50, seed=1).batch(20)
model.fit(data, epochs=1, verbose=0)
tell(model, history=history.history, tested=model.evaluate(x, y, verbose=0))
"""

WIDE = """\
x = rng.normal(size=(300, 500)).astype("float32")  # products that BLAS's threads would share
y = rng.integers(0, 3, 300)
model = tf.keras.Sequential([layers.Dense(400, activation="relu"), layers.Dense(3)])
tf.keras.utils.set_random_seed(SEED)
for captured in (False, True):
    model.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  jit_compile=captured)
    model.fit(x, y, batch_size=300, epochs=2, verbose=0)
tell(model)
"""

OWN_STEP = """\
class Own(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.stack = tf.keras.Sequential([layers.Dense(8, activation="tanh"), layers.Dropout(0.2),
                                          layers.Dense(3)])

    def call(self, x, training=False):
        return self.stack(x, training=training)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            scores = self(x, training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=scores))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
        return {"loss": loss, "norm": tf.linalg.global_norm(gradients)}

tf.keras.utils.set_random_seed(SEED)
model = Own()
model.compile(tf.keras.optimizers.Adam(0.01), loss="mse")
history = model.fit(x, y, batch_size=37, epochs=2, verbose=0)
tell(model, history=history.history)
"""

LOOP = """\
tf.keras.utils.set_random_seed(SEED)
model = tf.keras.Sequential([layers.Dense(9, activation="relu"), layers.BatchNormalization(),
                             layers.Dropout(0.3), layers.Dense(3)])
optimizer = tf.keras.optimizers.Adam(0.01)


def loss_fn(batch):
    inputs, labels = batch
    scores = model(inputs, training=True)
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=scores))


losses = []
for start in range(0, 150, 37):
    batch = x[start:start + 37], y[start:start + 37]
    found = distribute.gradients(loss_fn, batch)
    optimizer.apply_gradients(found)
    losses.append(found.loss)
tell(model, losses=losses)
"""

STRATEGY = """\
tf.keras.utils.set_random_seed(SEED)
strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    model = tf.keras.Sequential([layers.Dense(9, activation="relu"), layers.BatchNormalization(),
                                 layers.Dropout(0.3), layers.Dense(3)])
    optimizer = tf.keras.optimizers.Adam(0.01)
    accuracy = tf.keras.metrics.SparseCategoricalAccuracy()


def train_step(inputs):
    images, labels = inputs
    with tf.GradientTape() as tape:
        scores = model(images, training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=scores)
        loss = tf.reduce_sum(losses) / 37
    variables = model.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
    accuracy.update_state(labels, scores)
    return loss


@tf.function
def distributed_step(inputs):
    each = strategy.run(train_step, args=(inputs,))
    return strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None)


data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(150).batch(37)
losses = [float(distributed_step(b)) for b in strategy.experimental_distribute_dataset(data)]
tell(model, losses=losses, accuracy=float(accuracy.result()))
"""

KINDS = """\
tf.keras.utils.set_random_seed(SEED)

class Model(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(np.linspace(-1, 1, 36).reshape(6, 6).view(complex))
        self.mean = tf.Variable(np.zeros(3, complex), trainable=False)
        self.seen = tf.Variable(np.zeros(2, np.uint8), trainable=False)
        self.called = tf.Variable(False, trainable=False)

    def call(self, x):
        z = tf.cast(x, tf.complex128) @ self.kernel
        self.mean.assign(0.9 * self.mean + 0.1 * tf.reduce_mean(z, 0))
        self.seen.assign_add([1, 2])
        self.called.assign(True)
        return tf.cast(tf.abs(z), tf.float32)

model = Model()
model.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(x, y, epochs=2, batch_size=24, verbose=VERBOSE)
tell(model, mean=str(model.mean.numpy()), seen=model.seen.numpy().tolist(),
     called=bool(model.called), dtype=model.kernel.dtype.name)
"""

HOROVOD = """\
tf.keras.utils.set_random_seed(SEED)
model = tf.keras.Sequential([layers.Dense(3)])
model.build((None, 6))
distribute.broadcast(model.variables)
optimizer = tf.keras.optimizers.SGD(0.1)
mine = slice(distribute.rank(), None, distribute.world_size())
for start in range(0, 120, 24):
    part = slice(start, start + 24)
    with tf.GradientTape() as tape:
        scores = model(x[part][mine])
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y[part][mine], logits=scores))
    gradients = distribute.mean(tape.gradient(loss, model.trainable_variables))
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))
tell(model, weights=[w.tolist() for w in model.get_weights()])
"""


RECORDS = """\
import tempfile
folder = tempfile.mkdtemp()


def feature(**kinds):
    return tf.train.Feature(**kinds)


for part in range(3):
    with tf.io.TFRecordWriter(f"{folder}/{part}.tfrecord", "GZIP") as writer:
        for row, label in zip(x[part::3], y[part::3]):
            features = {
                "x": feature(bytes_list=tf.train.BytesList(value=[row.tobytes()])),
                "y": feature(int64_list=tf.train.Int64List(value=[label])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())

wanted = {"x": tf.io.FixedLenFeature([], tf.string), "y": tf.io.FixedLenFeature([], tf.int64)}


def parse(record):
    found = tf.io.parse_single_example(record, wanted)
    return tf.reshape(tf.io.decode_raw(found["x"], tf.float32), [6]), found["y"]


tf.keras.utils.set_random_seed(SEED)
data = tf.data.Dataset.list_files(f"{folder}/*.tfrecord").interleave(
    lambda name: tf.data.TFRecordDataset(name, "GZIP"), 2, num_parallel_calls=tf.data.AUTOTUNE
)
data = data.map(parse).shuffle(50).batch(37).prefetch(tf.data.AUTOTUNE)
model = tf.keras.Sequential([layers.Dense(9), layers.Dropout(0.3), layers.Dense(3)])
loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"])
history = model.fit(data, epochs=2, verbose=VERBOSE)
tell(model, history=history.history)
"""


def script(folder: Path, body: str, seed: str = "7", verbose: int = 0) -> Path:
    path = folder / "script.py"
    path.write_text(HEAD + body.replace("SEED", seed).replace("VERBOSE", str(verbose)))
    return path


def told(result) -> dict:
    assert result.returncode == 0, result.stdout + result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("{")]
    return json.loads(line)


@pytest.mark.parametrize(
    "body",
    [FIT, WIDE, OWN_STEP, LOOP, STRATEGY],
    ids=["fit", "wide", "train_step", "gradients", "strategy"],
)
def test_a_script_ends_with_the_same_bits_on_any_number_of_workers(dg, tmp_path, monkeypatch, body):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", "6")
    program = [str(script(tmp_path, body))]
    alone = told(dg.run(program=program))
    for ranks in (1, 2, 3):
        assert told(dg.run(program=program, ranks=ranks)) == alone, f"mpirun -n {ranks}"
    monkeypatch.delenv("DISTGRAD_VIRTUAL_SHARDS")
    launch = ("launch", "-n", "2", "--virtual-shards", "6", program[0])
    assert told(dg.run(*launch)) == alone, "distgrad launch"
    assert told(dg.run(program=program))["sha"] != alone["sha"], "one shard"


def test_variables_of_every_kind_of_number_are_trained_alike(dg, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", "2")
    program = [str(script(tmp_path, KINDS))]
    alone = told(dg.run(program=program))
    assert (alone["seen"], alone["called"], alone["dtype"]) == ([14, 28], True, "complex128")
    assert told(dg.run(program=program, ranks=2)) == alone


def test_workers_read_the_same_records(dg, tmp_path, monkeypatch):
    pytest.importorskip("google.protobuf")
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", "4")
    program = [str(script(tmp_path, RECORDS))]
    alone = told(dg.run(program=program))
    assert told(dg.run(program=program, ranks=2)) == alone


def test_ranks_begin_alike_even_where_nobody_set_a_seed(dg, tmp_path):
    program = [str(script(tmp_path, FIT, seed="int.from_bytes(__import__('os').urandom(3))"))]
    found = told(dg.run(program=program, ranks=2))
    assert found["history"]["loss"][-1] < found["history"]["loss"][0]


def test_a_plain_tape_with_one_line_more(dg, tmp_path):
    program = [str(script(tmp_path, HOROVOD))]
    alone = told(dg.run(program=program))["weights"]
    for a, b in zip(told(dg.run(program=program, ranks=3))["weights"], alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_progress_is_printed_once(dg, tmp_path):
    program = [str(script(tmp_path, FIT, verbose=2))]
    lines = dg.run(program=program, ranks=2).stdout.splitlines()
    assert lines.count("Epoch 1/3") == 1
    assert sum(line.startswith("4/4 - ") for line in lines) == 3


def test_an_error_of_the_script_ends_all_ranks_and_is_shown_once(dg, tmp_path):
    body = FIT + "\nif distribute.rank() == 1:\n    raise KeyError('on purpose')\n"
    body += "distribute.barrier()\n"
    result = dg.run(program=[str(script(tmp_path, body))], ranks=2)
    assert result.returncode == 1
    assert result.stderr.count("KeyError: 'on purpose'") == 1
    assert "[rank 1]" in result.stderr


@pytest.mark.parametrize("rows", ["distribute.rank():", ":32", "distribute.rank()::2"])
def test_other_data_on_one_rank_is_a_usage_error(dg, tmp_path, rows):
    """Of another length, or a part that each rank has taken for itself; and validation on one."""
    body = f"x, y = x[{rows}], y[{rows}]\n{FIT}"
    if rows == ":32":
        held = "(x, y) if distribute.rank() else None"
        body = body.replace("validation_split=0.2", f"validation_data={held}")
    result = dg.run(program=[str(script(tmp_path, body))], ranks=2)
    assert result.returncode == 2, result.stderr
    assert "every worker must give fit" in result.stderr or "rank 1 was given" in result.stderr


def test_a_part_of_a_dataset_on_each_rank_is_warned_of(dg, tmp_path):
    whole = "data = tf.data.Dataset.from_tensor_slices((x, y)).batch(15)\n"
    part = whole + "data = data.shard(2, distribute.rank())\n"
    for data, times in ((whole, 0), (part, 1)):
        body = data + FIT.replace("x, y, batch_size=37, epochs=3, validation_split=0.2", "data")
        result = dg.run(program=[str(script(tmp_path, body))], ranks=2)
        assert result.returncode == 0, result.stderr
        assert result.stderr.count("UserWarning: rank 1 was given other data than rank 0") == times
