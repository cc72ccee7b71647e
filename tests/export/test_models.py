"""``model.export``: what is in the file, every kind of model, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad as tf
from distgrad.core.errors import ExportError, MissingExtraError
from distgrad.export import onnx_file, verify
from distgrad.export.model import to_onnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

keras = tf.keras
layers = keras.layers


def run(path: Path | bytes, *arrays: np.ndarray) -> list[np.ndarray]:
    content = path if isinstance(path, bytes) else path.read_bytes()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))


def cnn() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="pixels"),
            layers.Conv2D(4, 3, padding="same", activation="relu", name="edges"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax", name="classes"),
        ],
        name="reader",
    )


def test_the_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Opset, names, an open batch, metadata; and the same numbers as predict, at any batch size."""
    model = cnn()
    path = tmp_path / "reader.onnx"
    model.export(path, format="onnx")
    said = capsys.readouterr().out
    assert said.startswith(f"{path}: ONNX opset 18, ") and "off the model (by onnxruntime" in said
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    assert [(o.domain, o.version) for o in file.opset_import] == [("", 18)]
    assert (file.ir_version, file.producer_name) == (10, "distgrad")
    assert file.producer_version == tf.__version__
    graph = file.graph
    assert graph.name == "reader"
    shapes = [
        [d.dim_param or d.dim_value for d in each.type.tensor_type.shape.dim]
        for each in (*graph.input, *graph.output)
    ]
    assert [each.name for each in (*graph.input, *graph.output)] == ["pixels", "classes"]
    assert shapes == [["batch", 8, 8, 1], ["batch", 3]]
    constants = {each.name for each in graph.initializer}
    assert {"edges/kernel", "edges/bias", "classes/kernel", "classes/bias"} <= constants
    assert "reader/edges/convolve/Conv" in {node.name for node in graph.node}
    assert not any(node.op_type in ("Dropout", "Identity", "Shape") for node in graph.node)
    x = np.random.default_rng(0).normal(size=(11, 8, 8, 1)).astype(np.float32)
    np.testing.assert_allclose(run(path, x)[0], model.predict(x, verbose=0), atol=1e-6)


def test_quiet(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cnn().export(str(tmp_path / "m.onnx"), verbose=False, opset_version=18)
    assert capsys.readouterr().out == ""


def test_the_same_file_each_time() -> None:
    model = cnn()
    assert to_onnx(model).content == to_onnx(model).content


def test_an_export_leaves_the_model_and_the_random_numbers_as_they_were() -> None:
    model = cnn()
    model.compile("adam", "mse")
    before = [w.copy() for w in model.get_weights()]
    tf.random.set_seed(1)
    expected = tf.random.uniform([2]).numpy()
    tf.random.set_seed(1)
    to_onnx(model)
    assert tf.random.uniform([2]).numpy().tolist() == expected.tolist()
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_several_inputs_and_outputs_of_a_graph_with_operators_and_a_shared_layer() -> None:
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = layers.Dense(3, name="shared")
    first, second = shared(a), shared(b)
    outputs = [layers.Concatenate(name="both")([first, second * 2.0 - first]), first[:, :2]]
    made = to_onnx(keras.Model([a, b], outputs))
    assert [each.name for each in made.inputs] == ["a", "b"]
    assert made.outputs[0] == "both" and len(made.outputs) == 2
    constants = [c.name for c in onnx.load_from_string(made.content).graph.initializer]
    assert constants.count("shared/kernel") == 1


def test_dicts_of_inputs_and_outputs_keep_their_names() -> None:
    given = {"left": keras.Input((2,)), "right": keras.Input((2,))}
    found = {"sum": layers.Add()(list(given.values())), "left": layers.Dense(1)(given["left"])}
    made = to_onnx(keras.Model(given, found))
    assert [each.name for each in made.inputs] == ["left", "right"]
    assert made.outputs == ("left_1", "sum")  # of one graph: two edges cannot have one name


class Own(keras.Model):
    """Custom layers, control flow over shapes, functions of distgrad, a table of its own."""

    def __init__(self) -> None:
        super().__init__(name="own")
        self.inner = layers.Dense(6)
        self.scale = self.add_weight(shape=(6,), initializer="ones", name="scale")

    def call(self, x: Any, training: bool = False) -> Any:
        y = self.inner(x) * self.scale
        if training:
            y = y / 0.0
        y = tf.reshape(y, [x.shape[0] * 2, 3])  # of a size that the batch decides
        y = tf.concat([y, tf.zeros([y.shape[0], 1])], axis=1)
        top = tf.argsort(y, axis=-1, direction="DESCENDING")
        largest = tf.math.top_k(y, k=2).values
        return tf.gather(tf.constant([0.5, 1.5, 2.5, 3.5]), top), tf.reduce_max(y, axis=0), largest


def test_a_subclassed_model_that_was_called(tmp_path: Path) -> None:
    model = Own()
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    expected = [each.numpy() for each in model(x)]
    model.export(tmp_path / "own.onnx", verbose=False)
    for found, wanted in zip(run(tmp_path / "own.onnx", x), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    names = {each.name for each in onnx.load(tmp_path / "own.onnx").graph.initializer}
    assert {"scale", "dense/kernel"} <= names


def test_a_model_that_was_never_called_needs_a_signature() -> None:
    with pytest.raises(ExportError, match="'own' was never called"):
        to_onnx(Own())
    made = to_onnx(Own(), [keras.Input((4,), name="x")])
    assert made.inputs[0].name == "x" and made.outputs == ("output", "output_1", "output_2")


def test_custom_gradients_and_rematerialized_layers() -> None:
    @tf.custom_gradient
    def clipped(x):
        return tf.clip_by_value(x, -1.0, 1.0), lambda g: g

    with keras.RematScope("full"):
        dense = layers.Dense(4, activation="gelu")
    model = keras.Sequential([keras.Input((3,)), dense, layers.Lambda(clipped)])
    assert to_onnx(model).difference < 1e-6


def test_a_batch_of_one_size_may_look_at_it() -> None:
    class Weighted(keras.Model):
        def call(self, x: Any) -> Any:
            return x * tf.reshape(tf.range(x.shape[0], dtype="float32"), [-1, 1])

    with pytest.raises(ExportError, match=r"multiply, of weighted, depends on the batch size"):
        to_onnx(Weighted(name="weighted"), [keras.Input((2,))])
    made = to_onnx(Weighted(), [keras.Input(batch_shape=(4, 2))])
    assert made.batches == (4,) and made.inputs[0].shape == (4, 2)


class Refused(keras.Model):
    """One that does with its input what it is told."""

    def __init__(self, what: Any) -> None:
        super().__init__(name="refused")
        self.what = layers.Lambda(what, name="what")

    def call(self, x: Any) -> Any:
        return self.what(x)


STATE = tf.Variable(0.0)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda x: x / x.shape[0], r"divide_exact, of refused/what, depends on the batch size"),
        (lambda x: sum(tf.unstack(x)), r"refused/what, gives as many results as the batch"),
        (lambda x: sum([x] * x.shape[0]), r"add, of refused/what, is not there with every batch"),
        (
            lambda x: [x * 2, x * 3][x.shape[0] % 2] + 1,
            r"multiply, of refused/what, depends on .* 2.0 and 3.0",
        ),
        (lambda x: x if float(x[0, 0]) > 1 else -x, r"the value of a tensor is read at"),
        (lambda x: x + tf.random.normal([2]), r"refused/what draws random numbers"),
        (lambda x: x + STATE.assign_add(1.0), r"refused/what keeps a state between calls"),
        (lambda x: tf.linalg.inv(tf.eye(2) + 0 * x[:, None]), r"inverse, of refused/what, has no"),
        (lambda x: tf.cast(x, "complex64"), r"onnxruntime cannot run|is not valid"),
    ],
    ids=[
        "number",
        "unstack",
        "count",
        "operand",
        "value",
        "random",
        "state",
        "no converter",
        "complex",
    ],
)
def test_what_cannot_be_written_is_named_with_its_layer(what: Any, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        to_onnx(Refused(what), [keras.Input((2,))])


def test_a_size_that_is_not_linear_in_the_batch_is_found_out() -> None:
    square = Refused(lambda x: tf.ones([x.shape[0] ** 2, 1]) + x[0, 0])
    with pytest.raises(ExportError, match="gives 'output' the shape|cannot run the ONNX file"):
        to_onnx(square, [keras.Input((2,))])


def test_a_stateful_layer_is_refused() -> None:
    model = keras.Sequential([keras.Input((3, 2)), layers.LSTM(2, stateful=True)])
    with pytest.raises(ExportError, match="state|variables at each call"):
        to_onnx(model)


def test_another_open_size_than_the_batch_has_to_be_given() -> None:
    x = keras.Input((None, 3), name="steps")
    model = keras.Model(x, layers.LSTM(2)(x))
    with pytest.raises(ExportError, match=r"'steps' has the shape \(None, None, 3\)"):
        to_onnx(model)
    assert to_onnx(model, [keras.Input((7, 3))]).difference < 1e-6


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_16_bits_are_exported_as_float32(policy: str) -> None:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(2, 3, dtype=policy),
            layers.Flatten(dtype=policy),
            layers.Dense(3, activation="softmax", dtype=policy),
        ]
    )
    made = to_onnx(model)
    assert made.half and "float32 in place of 16 bits" in str(made)
    file = onnx.load_from_string(made.content)
    kinds = {each.data_type for each in file.graph.initializer}
    assert kinds <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    assert 0 < made.difference < 2e-2


def test_float64_stays_float64() -> None:
    model = keras.Sequential([keras.Input((3,), dtype="float64"), layers.Dense(2, dtype="float64")])
    made = to_onnx(model)
    assert made.inputs[0].dtype == np.float64 and made.difference < 1e-12


def test_nothing_is_left_of_an_export_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = cnn(), tmp_path / "m.onnx"
    model.export(path, verbose=False)
    before = path.read_bytes()
    true = verify.runner

    def off(content: bytes) -> Any:
        run, name = true(content)
        return lambda feeds: [each + np.float32(1e-3) for each in run(feeds)], name

    monkeypatch.setattr(verify, "runner", off)
    with pytest.raises(ExportError, match="'classes' is off by 0.001"):
        model.export(path)
    assert path.read_bytes() == before
    with pytest.raises(ExportError):
        model.export(tmp_path / "other.onnx")
    assert list(tmp_path.iterdir()) == [path]


def test_other_formats_and_opsets(tmp_path: Path) -> None:
    model = cnn()
    with pytest.raises(ValueError, match="writes format='onnx', not 'tf_saved_model'"):
        model.export(tmp_path / "m", format="tf_saved_model")
    with pytest.raises(ValueError, match="writes ONNX opset 18, not 21"):
        model.export(tmp_path / "m.onnx", opset_version=21)


def test_without_onnx_the_pip_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'distgrad\[onnx\]'"):
        to_onnx(cnn())


def test_without_onnxruntime_the_evaluator_of_onnx_compares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    made = to_onnx(cnn())
    assert made.runtime.startswith("onnx 1.") and made.difference < 1e-5
    with pytest.raises(MissingExtraError, match=r"pip install 'distgrad\[onnx\]'"):
        verify.quantized(made.content)


def test_indices_are_drawn_within_their_table() -> None:
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(1000, 4)(tokens)
    rare = layers.Embedding(3, 4)(layers.Lambda(lambda t: t % 3)(tokens))
    made = to_onnx(keras.Model(tokens, layers.Add()([x, rare])))
    assert made.difference == 0.0


def test_constants_are_checked_and_reproduced_by_the_reference_evaluator() -> None:
    made = to_onnx(cnn())
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 1)).astype(np.float32)
    (ours,) = onnx_file.evaluator(made.content).run(None, {"pixels": x})
    np.testing.assert_allclose(ours, run(made.content, x)[0], atol=1e-6)


CONFIGS = sorted(Path(__file__).parents[2].joinpath("configs").glob("*.yaml"))
SAMPLES = {
    "mnist": ((28, 28), "float32"),
    "digits": ((8, 8), "float32"),
    "digits_cnn": ((8, 8), "float32"),
    "breast_cancer": ((30,), "float32"),
    "el_nino_lstm": ((24, 1), "float32"),
    "python_help_transformer": ((32,), "int32"),
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_models_of_the_shipped_jobs(path: Path) -> None:
    from distgrad.config import load
    from distgrad.job import Job
    from distgrad.keras import specs

    job = Job.from_config(load(path, []))
    shape, dtype = SAMPLES[path.stem]
    model = keras.Sequential([keras.Input(shape, dtype=dtype)])
    for spec in job.layers:
        model.add(specs.make("layer", spec))
    made = to_onnx(model)
    assert made.difference < 2e-6
    constants = {each.name for each in onnx.load_from_string(made.content).graph.initializer}
    kernels = {p for p in model.variable_paths() if p.endswith("kernel")}
    assert kernels <= constants
