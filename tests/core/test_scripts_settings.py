"""tf.summary, tf.io, tf.autograph, tf.config, and what is said of names that are not there."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

import distgrad as tf
from distgrad.backend import cupy
from distgrad.compile.llvm import engine
from distgrad.core import devices
from distgrad.testing import process
from distgrad.training.tensorboard import _records


def events(folder):
    """The values of all event files of a folder: (step, tag, number or None)."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.*")):
        for data, _ in _records(path.read_bytes()):
            event = Event.FromString(data)
            for value in event.summary.value:
                plain = value.simple_value if value.WhichOneof("value") == "simple_value" else None
                found.append((event.step, value.tag, plain))
    return found


@pytest.fixture(autouse=True)
def nothing_in_force():
    yield
    tf.summary.create_noop_writer().set_as_default()
    tf.summary.experimental.set_step(None)


def test_summaries_are_written_while_a_writer_is_in_force(tmp_path):
    pytest.importorskip("tensorboardX")
    assert not tf.summary.scalar("loss", 1.0, step=0)
    writer = tf.summary.create_file_writer(tmp_path / "train")
    with writer.as_default():
        for step in range(2):
            assert tf.summary.scalar("loss", tf.constant(0.5 + step), step=step)
        assert tf.summary.histogram("weights", tf.range(9.0), step=2)
        assert tf.summary.text("words", "hello", step=2)
    assert not tf.summary.scalar("loss", 1.0, step=3)
    writer.close()
    found = events(tmp_path / "train")
    assert found[:2] == [(0, "loss", 0.5), (1, "loss", 1.5)]
    assert [(step, tag.split("/")[0]) for step, tag, _ in found[2:]] == [
        (2, "weights"),
        (2, "words"),
    ]


def test_images_are_written_up_to_a_number(tmp_path):
    pytest.importorskip("tensorboardX")
    pytest.importorskip("PIL")
    with tf.summary.create_file_writer(tmp_path).as_default(step=1):
        assert tf.summary.image("digits", np.zeros((5, 4, 4, 1), np.uint8), max_outputs=2)
        with pytest.raises(ValueError, match=r"\(k, height, width, channels\)"):
            tf.summary.image("digits", np.zeros((4, 4)))
    assert [tag for _, tag, _ in events(tmp_path)] == ["digits/image/0", "digits/image/1"]


def test_steps_and_conditions(tmp_path):
    pytest.importorskip("tensorboardX")
    with tf.summary.create_file_writer(tmp_path).as_default():
        with pytest.raises(ValueError, match="no step"):
            tf.summary.scalar("a", 1.0)
        tf.summary.experimental.set_step(tf.Variable(7))
        assert tf.summary.scalar("a", 1.0) and tf.summary.should_record_summaries()
        with tf.summary.record_if(lambda: False):
            assert not tf.summary.scalar("a", 2.0)
        assert tf.summary.scalar("a", 3.0, step=8)
    assert events(tmp_path) == [(7, "a", 1.0), (8, "a", 3.0)]


def test_names_have_the_scope_in_force_and_files_their_suffix(tmp_path):
    pytest.importorskip("tensorboardX")
    scope = tf.summary.experimental.summary_scope
    with tf.summary.create_file_writer(tmp_path, filename_suffix=".x").as_default(step=1):
        with tf.name_scope("outer"):
            tf.summary.scalar("a", 1.0)
            tf.summary.text("b", "c")
            with scope("my loss") as (tag, inner):
                assert (tag, inner) == ("outer/my loss", "outer/myloss/")
                tf.summary.write(tag, 2)
        with scope(None, "other") as (tag, _):
            assert tag == "other"
    assert [tag.split("/t")[0] for _, tag, _ in events(tmp_path)] == [
        "outer/a",
        "outer/b",
        "outer/my loss",
    ]
    assert [path.suffix for path in tmp_path.iterdir()] == [".x"]


def test_any_tensor_is_written_with_what_is_said_of_it(tmp_path):
    module = pytest.importorskip("tensorboardX.proto.event_pb2")
    from tensorboardX.proto.summary_pb2 import SummaryMetadata

    assert not tf.summary.write("none", 1, step=1)
    told = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="mine"))
    values = tf.constant([[1, 2], [3, 4]]), 0.5, tf.constant([True]), tf.zeros([2], tf.bfloat16)
    with tf.summary.create_file_writer(tmp_path).as_default(step=3):
        for value in values:
            assert tf.summary.write("t", value, metadata=told)
        tf.summary.write("t", 1, metadata=told.SerializeToString())
    (path,) = tmp_path.iterdir()
    found = [module.Event.FromString(data) for data, _ in _records(path.read_bytes())][1:]
    assert all(each.summary.value[0].metadata == told and each.step == 3 for each in found)
    tensors = [each.summary.value[0].tensor for each in found]
    assert [each.dtype for each in tensors] == [3, 1, 10, 14, 3]  # TensorFlow's numbers of dtypes
    assert [size.size for size in tensors[0].tensor_shape.dim] == [2, 2]
    assert np.frombuffer(tensors[0].tensor_content, np.int32).tolist() == [1, 2, 3, 4]


def test_a_closed_writer_is_not_used_again(tmp_path):
    pytest.importorskip("tensorboardX")
    writer = tf.summary.create_file_writer(tmp_path)
    writer.close()
    writer.close()
    with pytest.raises(RuntimeError, match="is closed"), writer.as_default():
        pass
    with pytest.raises(RuntimeError, match="is closed"):
        writer.set_as_default()


def test_files_and_folders(tmp_path):
    gfile = tf.io.gfile
    gfile.makedirs(tmp_path / "a" / "b")
    gfile.makedirs(tmp_path / "a" / "b")
    name = str(tmp_path / "a" / "b" / "x.txt")
    with gfile.GFile(name, "w") as file:
        file.write("text")
    gfile.copy(name, name + ".copy")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        gfile.copy(name, name + ".copy")
    with gfile.GFile(name) as file:
        assert (file.read(2), file.size(), gfile.stat(name).length) == ("te", 4, 4)
    assert gfile.glob(str(tmp_path / "a" / "*" / "x.*")) == [name, name + ".copy"]
    gfile.rename(name + ".copy", name, overwrite=True)
    assert gfile.listdir(tmp_path / "a" / "b") == ["x.txt"] and gfile.isdir(tmp_path / "a")
    gfile.rmtree(tmp_path / "a")
    for use in (gfile.listdir, gfile.remove, gfile.stat, lambda path: gfile.GFile(path).read()):
        with pytest.raises(tf.errors.NotFoundError, match="No such file"):
            use(str(tmp_path / "a"))
    assert not gfile.exists(name)


def test_python_runs_as_it_is():
    @tf.autograph.experimental.do_not_convert
    def double(x):
        return 2 * x

    @tf.autograph.experimental.do_not_convert()
    def triple(x):
        return 3 * x

    assert (double(2), triple(2)) == (4, 6)
    traced = []
    captured = tf.function(lambda x: traced.append(tf.inside_function()) or x + 1, jit_compile=True)
    captured(tf.constant(1.0))
    assert any(traced) and not tf.inside_function()
    assert tf.autograph.to_code(tf.function(double)).startswith("@tf.autograph")
    assert tf.autograph.to_graph(double) is double


def test_settings_of_devices_are_taken():
    (cpu,) = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration(memory_limit=1024)] * 2
    tf.config.set_logical_device_configuration(cpu, parts)
    assert len(tf.config.list_logical_devices("CPU")) == 1  # none is cut into parts
    tf.config.optimizer.set_jit(True)
    tf.debugging.set_log_device_placement(True)
    tf.debugging.disable_traceback_filtering()


@pytest.mark.parametrize(
    "name, instead",
    [
        ("ragged.placeholder", "to_tensor"),
        ("keras.distribution", "distgrad launch"),
        ("keras.quantizers", "int8=True"),
        ("sparse.placeholder", "to_dense makes dense tensors"),
        ("saved_model.save", "x.keras"),
        ("lite.TFLiteConverter", "ONNX"),
        ("experimental.numpy.interp", "keras.ops"),
        ("distribute.ParameterServerStrategy", "MirroredStrategy"),
        ("set_random_seed", "tf.random.set_seed"),
        ("layers.dense", "TensorFlow 1"),
        ("keras.layers.embeddings.Embedding", "layers of tf.keras.layers itself"),
        ("keras.backend.learning_phase", "training=True"),
        ("keras.utils.np_utils", "tf.keras.utils itself"),
    ],
)
def test_what_is_left_out_says_what_to_use(name, instead):
    found = tf
    with pytest.raises(AttributeError, match=instead):
        for part in name.split("."):
            found = getattr(found, part)


def test_names_between_two_versions_are_those_of_today():
    keras = tf.keras
    assert keras.optimizers.legacy.Adam is keras.optimizers.experimental.Adam
    assert keras.optimizers.legacy.Adam is keras.optimizers.Adam
    assert keras.layers.experimental.preprocessing.Rescaling is keras.layers.Rescaling
    for module, name in [
        ("optimizers.legacy", "Adam"),
        ("optimizers.experimental", "Adam"),
        ("layers.experimental", "preprocessing"),
        ("layers.experimental.preprocessing", "Rescaling"),
    ]:
        assert hasattr(importlib.import_module(f"distgrad.keras.{module}"), name)


@pytest.mark.parametrize("value", ["abc", ["a", "b"]])
def test_texts_are_arrays_and_no_variables(value):
    for made in (tf.constant(value), tf.convert_to_tensor(value), tf.constant(value, tf.string)):
        assert (made.tolist(), tf.is_tensor(made)) == (value, False)
        assert tf.strings.upper(made).tolist() == np.char.upper(value).tolist()
    with pytest.raises(ValueError, match="keep texts in NumPy arrays"):
        tf.Variable(value)


def test_the_version_that_scripts_print():
    assert tf.__version__ == tf.version.VERSION
    assert tf.version.GIT_VERSION and tf.version.COMPILER_VERSION


@pytest.mark.cpu  # with a GPU there, nothing is missing
def test_a_device_that_is_not_here(monkeypatch):
    monkeypatch.setattr(devices, "_warned", set())
    monkeypatch.setattr(cupy, "distributions", dict)  # CuPy is not installed
    monkeypatch.setitem(sys.modules, "cupy", None)
    missing = pytest.warns(UserWarning, match="GPUs need CuPy.*'/GPU:0' lies on the CPU")
    with missing, tf.device("/GPU:0"):
        assert tf.zeros(2).device == "/CPU:0"
    for name in ("/CPU:5", "/job:localhost", tf.config.list_logical_devices("CPU")[0]):
        with tf.device(name):
            assert tf.zeros(2).device == "/CPU:0"
    with pytest.raises(tf.errors.InvalidArgumentError, match="another job"):
        tf.device("/job:worker/task:1").__enter__()
    assert tf.config.get_soft_device_placement()
    tf.config.set_soft_device_placement(False)
    try:
        with pytest.raises(ImportError, match="GPUs need CuPy"):
            tf.device("/GPU:0").__enter__()
        for name in ("/TPU:0", "/CPU:5"):
            with pytest.raises(RuntimeError, match="no device"):
                tf.device(name).__enter__()
    finally:
        tf.config.set_soft_device_placement(True)


def test_rounding_products_on_a_gpu_is_asked_for_by_its_name_in_tensorflow():
    settings = tf.config.experimental
    assert not settings.tensor_float_32_execution_enabled()
    settings.enable_tensor_float_32_execution(True)
    try:
        assert tf.keras.mixed_precision.tensor_float_32_execution_enabled()
    finally:
        settings.enable_tensor_float_32_execution(False)
    assert settings.get_synchronous_execution()
    assert settings.get_visible_devices("CPU") == tf.config.list_physical_devices("CPU")


@pytest.mark.skipif(not engine.available(), reason="needs llvmlite and FMA")
def test_threads_of_operations_are_as_many_as_a_script_says():
    with pytest.raises(ValueError, match="0 or more, got -1"):
        tf.config.threading.set_intra_op_parallelism_threads(-1)
    tf.config.threading.set_intra_op_parallelism_threads(0)
    code = """
import distgrad as tf
from distgrad.compile.llvm import pool
tf.config.threading.set_intra_op_parallelism_threads(1)
print(tf.config.threading.get_intra_op_parallelism_threads(), pool.threads())
"""
    env = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"))
    result = process.run([sys.executable, "-c", code], env=env, timeout=60)
    assert (result.returncode, result.stdout) == (0, "1 1\n"), result.stderr
