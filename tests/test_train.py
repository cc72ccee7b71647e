"""``tf.train``: checkpoints of objects, by TensorFlow's rules for what is found and what is not."""

from __future__ import annotations

import copy
import json
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf
from distgrad.core import files
from distgrad.core.errors import DataError
from distgrad.testing import process
from distgrad.training import checkpoint_manager, world
from distgrad.training.checkpoint import save as save_commit

keras, train = tf.keras, tf.train


class Net(keras.Model):
    """The network of TensorFlow's guide to checkpoints: its weights are made at the first call."""

    def __init__(self) -> None:
        super().__init__()
        self.l1 = keras.layers.Dense(5)

    def call(self, x):
        return self.l1(x)


def step(net, optimizer) -> None:
    x = np.arange(10, dtype=np.float32)[:, None]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.abs(net(x) - 5 * x))
    variables = net.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))


def made(**more):
    optimizer, net = keras.optimizers.Adam(0.1), Net()
    return train.Checkpoint(step=tf.Variable(1), optimizer=optimizer, net=net, **more)


def bits(*objects) -> list[bytes]:
    return [np.asarray(v.numpy()).tobytes() for each in objects for v in each.variables]


def test_a_loop_goes_on_where_it_stopped_before_anything_was_built(tmp_path):
    """The guide's loop: restored values reach weights and moments when these are made."""
    whole = made()
    for _ in range(6):
        step(whole.net, whole.optimizer)
    first = made()
    for count in range(3):
        step(first.net, first.optimizer)
        first.step.assign_add(1)
        if count == 0:
            start = [w.numpy() for w in first.net.weights]
    tf.random.set_seed(7)  # the next network draws other weights than the first
    manager = train.CheckpointManager(first, tmp_path, max_to_keep=3)
    assert manager.save() == f"{tmp_path}/ckpt-1" == train.latest_checkpoint(tmp_path)
    second = made()
    status = second.restore(train.latest_checkpoint(tmp_path))
    assert (int(second.step), int(second.save_counter)) == (4, 1)
    with pytest.raises(AssertionError, match=r"net/l1/kernel"):
        status.assert_consumed()  # not yet
    status.assert_existing_objects_matched().assert_nontrivial_match().expect_partial()
    assert int(second.optimizer.iterations) == 3
    x = np.ones((2, 1), np.float32)
    np.testing.assert_array_equal(second.net(x), first.net(x))
    for each in (first, second):
        step(each.net, each.optimizer)
    assert bits(second.net, second.optimizer) == bits(first.net, first.optimizer)
    status.assert_consumed()
    assert start[0].shape == (1, 5)


def test_what_is_found_in_objects_and_under_which_names(tmp_path):
    class Block(tf.Module):
        def __init__(self):
            super().__init__()
            self.w, self._b, self.size = tf.Variable([1.0, 2.0]), tf.Variable(3), 4

    block, shared = Block(), tf.Variable(5.0)
    model = keras.Sequential([keras.layers.Dense(2, input_shape=(3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    inner = train.Checkpoint(block)  # a root has no name of its own
    saved = train.Checkpoint(
        inner=inner, model=model, many={"a": [shared, (tf.Variable(6.0),)]}, again=shared
    )
    path = saved.write(tmp_path / "deep" / "one")
    manifest = json.loads((Path(path) / "manifest.json").read_text())
    paths = manifest["state"]["paths"]
    assert sorted(paths) == sorted(
        [
            *("inner/w", "inner/_b", "again"),
            *("many/a/0", "many/a/1/0", "model/optimizer/iterations"),
            *("model/dense/kernel", "model/dense/bias", "model/optimizer/learning_rate"),
            *("model/dense_1/kernel", "model/dense_1/bias"),
        ]
    )
    assert paths["again"] == paths["many/a/0"]  # kept once
    other = tf.Variable(0.0)
    train.Checkpoint(again=other).restore(path).assert_existing_objects_matched()
    assert float(other) == 5
    kernel = model.layers[0].kernel.numpy()
    for variable in (*block.variables, *model.weights, shared):
        variable.assign(tf.zeros_like(variable))
    saved.restore(path).assert_consumed()
    np.testing.assert_array_equal(model.layers[0].kernel, kernel)
    assert (block.w.numpy().tolist(), int(block._b), float(shared)) == ([1, 2], 3, 5)


def test_parts_by_attributes_and_values_that_wait_for_their_variables(tmp_path):
    """The guide's section on delayed restorations; modules that make variables when called."""
    root = made()
    step(root.net, root.optimizer)
    path = root.save(tmp_path / "c")
    bias, kernel = tf.Variable(tf.zeros([5])), tf.Variable(tf.zeros([1, 5]))
    layer = train.Checkpoint(bias=bias)
    status = train.Checkpoint(net=train.Checkpoint(l1=layer)).restore(path)
    np.testing.assert_array_equal(bias, root.net.l1.bias)
    layer.kernel = kernel
    np.testing.assert_array_equal(kernel, root.net.l1.kernel)
    status.assert_existing_objects_matched()

    class Late(tf.Module):
        def __call__(self):
            if not hasattr(self, "w"):
                self.w = tf.Variable(tf.zeros([2]))
            return self.w

    class Stack(keras.Model):
        def __init__(self):
            super().__init__()
            self.blocks = [keras.layers.Dense(2), keras.layers.Dense(2)]
            self.head = keras.Sequential([keras.layers.Dense(1), keras.layers.Dense(1)])

        def call(self, x):
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    late, stack = Late(), Stack()
    late().assign([1.0, 2.0])
    stack(np.ones((1, 3)))
    path = train.Checkpoint(late=late, stack=stack).save(tmp_path / "d")
    paths = json.loads((Path(path) / "manifest.json").read_text())["state"]["paths"]
    assert {"late/w", "stack/blocks/1/bias", "stack/head/dense_1/kernel"} < set(paths)
    again = train.Checkpoint(late=Late(), stack=Stack())
    status = again.restore(path)
    assert again.late().numpy().tolist() == [1, 2]
    x = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(again.stack(x), stack(x))
    status.assert_consumed()


def test_values_wait_for_what_is_put_into_a_list_or_dict(tmp_path):
    """As in TensorFlow's guide to checkpoints."""
    saved = tf.train.Checkpoint(listed=[tf.Variable(float(n)) for n in range(1, 6)])
    saved.mapped = {"one": saved.listed[0], "six": tf.Variable(6.0)}
    restored = tf.train.Checkpoint()
    status = restored.restore(saved.save(tmp_path / "both"))
    one, two, three, four, five, six = made = [tf.Variable(0.0) for _ in range(6)]
    restored.listed = []
    restored.listed.append(two)
    assert float(two) == 1
    restored.listed.insert(0, one)
    restored.listed.extend([three, four])
    restored.listed += [five]
    restored.mapped = {}
    restored.mapped["six"] = six
    restored.mapped.update(one=one)
    assert [float(v) for v in made] == [1, 1, 3, 4, 5, 6]  # what has a value keeps it
    status.assert_consumed()
    assert type(copy.copy(restored.listed)) is list and type(copy.copy(restored.mapped)) is dict


def test_slots_averages_and_scales_come_back(tmp_path):
    def fresh():
        inner = keras.optimizers.Adam(0.1, use_ema=True, gradient_accumulation_steps=2)
        return keras.optimizers.LossScaleOptimizer(inner, initial_scale=4.0), tf.Variable([1.0])

    optimizer, v = fresh()
    for _ in range(3):
        optimizer.apply_gradients([(tf.constant([2.0]), v)])
    path = train.Checkpoint(optimizer=optimizer, v=v).save(tmp_path / "c")
    again, w = fresh()
    status = train.Checkpoint(optimizer=again, v=w).restore(path)
    for each, variable in ((optimizer, v), (again, w)):
        each.apply_gradients([(tf.constant([2.0]), variable)])
    status.assert_consumed()
    assert bits(again) == bits(optimizer) and v.numpy() == w.numpy()


def test_what_does_not_match_is_named_and_changes_nothing(tmp_path):
    a, b = tf.Variable([1.0, 2.0]), tf.Variable(3)
    path = train.Checkpoint(a=a, b=b).save(tmp_path / "c")
    more = train.Checkpoint(a=tf.Variable([0.0, 0.0]), c=tf.Variable(9))
    status = more.restore(path)
    assert more.a.numpy().tolist() == [1, 2] and int(more.c) == 9
    with pytest.raises(AssertionError, match="no variable .yet. for these values: b$"):
        status.assert_consumed()
    with pytest.raises(AssertionError, match="no value for these variables: c$"):
        status.assert_existing_objects_matched()
    with pytest.raises(AssertionError, match="no variable for any"):
        train.Checkpoint(z=tf.Variable(0)).restore(path).assert_nontrivial_match()
    for wrong in (tf.Variable([0.0]), tf.Variable([0, 0])):
        mixed = train.Checkpoint(b=tf.Variable(0), a=wrong)
        with pytest.raises(ValueError, match=r"'a' as float32\[2\], the variable is"):
            mixed.restore(path)
        assert int(mixed.b) == 0
    with pytest.raises(tf.errors.NotFoundError, match="no checkpoint .*nowhere"):
        more.restore(tmp_path / "nowhere")
    job = save_commit(tmp_path / "job", 1, {"model": {"a": np.zeros(2)}}, {"step": 1}, 1)
    with pytest.raises(ValueError, match="checkpoint of a job"):
        more.restore(job)
    nothing = more.restore(None)
    with pytest.raises(AssertionError, match="save_path=None"):
        nothing.assert_consumed()
    nothing.expect_partial().initialize_or_restore()
    for value in (3, "x", np.ones(2), None):
        with pytest.raises(ValueError, match="cannot be checkpointed"):
            train.Checkpoint(value=value)
    train.Checkpoint(later=[])


def test_the_manager_keeps_so_many_and_goes_on_in_its_folder(tmp_path):
    checkpoint = train.Checkpoint(v=tf.Variable(0))
    manager = train.CheckpointManager(checkpoint, tmp_path, max_to_keep=2, checkpoint_name="m")
    assert manager.latest_checkpoint is None and train.latest_checkpoint(tmp_path) is None
    for _ in range(3):
        checkpoint.v.assign_add(1)
        manager.save()
    assert [Path(p).name for p in manager.checkpoints] == ["m-2", "m-3"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint", "m-2", "m-3"]
    assert (tmp_path / "checkpoint").read_text().startswith('model_checkpoint_path: "m-3"\n')
    again = train.Checkpoint(v=tf.Variable(0))
    second = train.CheckpointManager(again, str(tmp_path), 2, checkpoint_name="m")
    assert second.checkpoints == manager.checkpoints
    assert second.restore_or_initialize() == manager.latest_checkpoint and int(again.v) == 3
    assert Path(second.save()).name == "m-4"  # the count was restored, too
    assert Path(second.save(checkpoint_number=17)).name == "m-17"
    assert [Path(p).name for p in second.checkpoints] == ["m-4", "m-17"]
    state = train.get_checkpoint_state(tmp_path)
    assert state.all_model_checkpoint_paths == second.checkpoints
    with pytest.raises(ValueError, match="max_to_keep"):
        train.CheckpointManager(again, tmp_path, 0)
    with pytest.raises(ValueError, match="step_counter"):
        train.CheckpointManager(again, tmp_path, 1, checkpoint_interval=5)


def test_the_manager_deletes_nothing_that_others_saved(tmp_path):
    checkpoint = train.Checkpoint(v=tf.Variable(5))
    options = train.CheckpointOptions(experimental_io_device="/job:localhost")
    others = [checkpoint.save(tmp_path / "other", options) for _ in range(2)]
    again = train.Checkpoint(v=tf.Variable(0))
    manager = train.CheckpointManager(again, tmp_path, max_to_keep=1)
    assert manager.checkpoints == [] and manager.latest_checkpoint == others[1]
    assert manager.restore_or_initialize() == others[1] and int(again.v) == 5
    last = [manager.save() for _ in range(3)][-1]
    manager.sync()
    again.sync()
    assert manager.checkpoints == [last] and manager.latest_checkpoint == last
    assert all(Path(path).exists() for path in others)


def test_the_root_keeps_its_names_and_may_be_lent(tmp_path):
    module = tf.Module()
    module.v = tf.Variable(3)
    with pytest.raises(ValueError, match="the root has another 'v'"):
        train.Checkpoint(module, v=tf.Variable(5))
    train.Checkpoint(module, v=module.v)
    path = train.Checkpoint(weakref.ref(module), w=tf.Variable(5)).save(tmp_path / "c")
    other = tf.Module()
    other.w = tf.Variable(0)
    swapped = train.Checkpoint(other, v=tf.Variable(0))
    swapped.restore(path).assert_consumed()
    assert (int(swapped.v), int(other.w)) == (3, 5)


def test_a_state_that_was_written_with_indents(tmp_path):
    (tmp_path / "checkpoint").write_text("""
      model_checkpoint_path: "./m-2"
      all_model_checkpoint_paths: "./m-1"
      all_model_checkpoint_paths: "./m-2"
    """)
    state = train.get_checkpoint_state(tmp_path)
    assert Path(state.model_checkpoint_path) == tmp_path / "m-2"
    assert len(state.all_model_checkpoint_paths) == 2


def test_a_checkpoint_without_variables_is_no_trivial_match(tmp_path):
    status = train.Checkpoint(a=[]).save(tmp_path / "c")
    status = train.Checkpoint(b=[]).restore(status).assert_consumed()
    status.assert_existing_objects_matched().assert_nontrivial_match().run_restore_ops()


def test_intervals_hours_and_first_starts(tmp_path, monkeypatch):
    clock = [1e6]
    monkeypatch.setattr(checkpoint_manager.time, "time", lambda: clock[0])
    checkpoint, counter, begun = train.Checkpoint(v=tf.Variable(0)), tf.Variable(0), []
    manager = train.CheckpointManager(
        checkpoint,
        tmp_path,
        max_to_keep=1,
        keep_checkpoint_every_n_hours=2,
        step_counter=counter,
        checkpoint_interval=10,
        init_fn=lambda: begun.append(1),
    )
    assert manager.restore_or_initialize() is None and begun == [1]
    saved = []
    for number in range(0, 60, 5):
        counter.assign(number)
        saved.append(manager.save() is not None)
        clock[0] += 1800
    assert saved == [True, False] * 6
    # one an hour was saved: that of every second hour stays, and the newest
    assert sorted(p.name for p in tmp_path.glob("ckpt-*")) == ["ckpt-3", "ckpt-5", "ckpt-6"]
    assert manager.save(check_interval=False) is not None


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path):
    checkpoint = train.Checkpoint(v=tf.Variable(0))
    manager = train.CheckpointManager(checkpoint, tmp_path, max_to_keep=None)
    for value in (1, 2):
        checkpoint.v.assign(value)
        path = manager.save()
    file = Path(path) / "variables.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"ckpt-2/variables.safetensors: \d+ bytes where"):
        checkpoint.restore(path)
    with pytest.warns(UserWarning, match="ckpt-2.*Going back"):
        assert manager.restore_or_initialize() == f"{tmp_path}/ckpt-1"
    assert int(checkpoint.v) == 1


def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    checkpoint = train.Checkpoint(v=tf.Variable(1))
    path = checkpoint.write(tmp_path / "c")
    checkpoint.v.assign(2)

    def full(*args):
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(files, "write", full)
        with pytest.raises(OSError, match="no space"):
            checkpoint.write(path)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    checkpoint.restore(path).assert_consumed()
    assert int(checkpoint.v) == 1


def test_only_rank_0_writes(tmp_path):
    class Second:
        rank, world_size = 1, 2

    checkpoint = train.Checkpoint(v=tf.Variable(1))
    with world.use(Second()):
        manager = train.CheckpointManager(checkpoint, tmp_path, max_to_keep=1)
        assert manager.save() == f"{tmp_path}/ckpt-1"
        train.CheckpointManager(checkpoint, tmp_path / "of" / "rank_1", max_to_keep=1).save()
    (folder,) = tmp_path.iterdir()  # a script may delete the one that it has named
    assert not list((folder / "rank_1").iterdir()) and int(checkpoint.save_counter) == 2


def test_two_processes_save_once_and_both_restore(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        """
import sys
import time
import distgrad as tf
from distgrad import distribute
from distgrad.training import checkpoint as commits
commit = commits.commit
commits.commit = lambda *args: time.sleep(0.3) or commit(*args)  # the others are faster
checkpoint = tf.train.Checkpoint(v=tf.Variable(10 + distribute.rank()))
manager = tf.train.CheckpointManager(checkpoint, sys.argv[1], max_to_keep=1)
for _ in range(2):
    path = manager.save()
    assert tf.train.latest_checkpoint(sys.argv[1]) == path
    checkpoint.restore(path).assert_consumed()
if distribute.is_chief():
    manager.save()  # as scripts for other frameworks do
distribute.barrier()
checkpoint.restore(tf.train.latest_checkpoint(sys.argv[1])).assert_consumed()
print("value", int(checkpoint.v), int(checkpoint.save_counter))
"""
    )
    command = [sys.executable, "-m", "distgrad", "launch", "-n", "2", script, tmp_path / "c"]
    result = process.run(command, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("value 10 3") == 2
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["checkpoint", "ckpt-3"]


def test_checkpoints_as_they_come(tmp_path):
    folder = tmp_path / "c"
    assert list(tf.train.checkpoints_iterator(folder, timeout=0)) == []
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(v=tf.Variable(1.0)), folder, 2)
    first = manager.save()
    answers = [False, True]
    found = []
    for path in tf.train.checkpoints_iterator(folder, timeout=0, timeout_fn=lambda: answers.pop(0)):
        found.append(path)
        if len(found) == 1:
            second = manager.save()
    assert found == [first, second] and answers == []


def test_a_manager_that_knows_the_last_step(tmp_path):
    step = tf.Variable(3)
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(step=step),
        tmp_path,
        max_to_keep=1,
        step_counter=step,
        checkpoint_interval=5,
        last_checkpoint_step=1,
    )
    assert manager.save(check_interval=True) is None
    step.assign(6)
    assert manager.save(check_interval=True) is not None


def test_variables_of_every_dtype(tmp_path):
    names = ("bool", "uint8", "int64", "float16", "bfloat16", "float64", "complex64", "complex128")
    values = {name: tf.Variable(tf.cast([[1, 2]], name)) for name in names}
    values["complex128"].assign([[1 + 2j, 3 - 4j]])
    path = tf.train.Checkpoint(scalar=tf.Variable(1j, dtype="complex128"), **values).save(
        tmp_path / "c"
    )
    into = {name: tf.Variable(tf.zeros((1, 2), name)) for name in names}
    scalar = tf.Variable(0j, dtype="complex128")
    tf.train.Checkpoint(scalar=scalar, **into).restore(path).assert_consumed()
    assert complex(scalar) == 1j
    for name in names:
        assert np.array_equal(into[name].numpy(), values[name].numpy())


def test_a_variable_of_an_open_shape_takes_what_was_saved(tmp_path):
    path = tf.train.Checkpoint(v=tf.Variable([1.0, 2.0])).write(tmp_path / "c")
    open_one = tf.Variable([0.0], shape=[None])
    tf.train.Checkpoint(v=open_one).read(path).assert_consumed()
    assert open_one.numpy().tolist() == [1.0, 2.0]
    for other in (tf.Variable(0.0, shape=[]), tf.Variable([1, 2])):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"has 'v' as float32\[2\]"):
            tf.train.Checkpoint(v=other).read(path)


def test_a_metric_is_nothing_to_be_saved():
    with pytest.raises(ValueError, match="metric"):
        tf.train.Checkpoint(metric=tf.keras.metrics.Mean())
