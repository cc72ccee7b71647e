"""summary: the table of Keras 3, compared line by line with the one it printed."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
layers = keras.layers

REFERENCE = Path(__file__).parents[2] / "reference"
_SPEC = importlib.util.spec_from_file_location("reference_models", REFERENCE / "models.py")
models = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(models)


def lines(model, **options) -> list[str]:
    printed: list[str] = []
    model.summary(print_fn=printed.append, **options)
    return "\n".join(printed).splitlines()


@pytest.mark.parametrize("name", ["sequential", "functional"])
def test_the_table_is_that_of_keras(name):
    with zipfile.ZipFile(REFERENCE / "keras_models.zip") as archive:
        expected = archive.read(f"{name}.txt").decode().splitlines()
    model = models.compiled(keras, models.MODELS[name](keras), "adam")
    models.steps(model, name, 1)
    found = lines(model, line_length=76)
    # Below the table, bytes differ: our learning rate is a float64.
    end = next(i for i, line in enumerate(expected) if line.startswith("└"))
    assert found[: end + 1] == [line.rstrip() for line in expected[: end + 1]]
    for ours, theirs in zip(found[end + 1 :], expected[end + 1 :], strict=True):
        assert ours.split("(")[0] == theirs.split("(")[0]


def test_nested_models_are_opened_if_asked():
    inner = keras.Sequential([layers.Dense(3), layers.Dense(2)], name="inner")
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(1)])
    assert not any("└ dense" in line for line in lines(model))
    opened = lines(model, expand_nested=True, line_length=100)
    assert sum("   └ dense" in line for line in opened) == 2
    assert any("└ dense_1 (Dense)" in line and "(None, 2)" in line for line in opened)


def test_totals_and_what_is_trainable():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(1)])
    model.layers[0].trainable = False
    found = lines(model, show_trainable=True)
    assert found[-3:] == [
        " Total params: 19 (76.00 B)",
        " Trainable params: 4 (16.00 B)",
        " Non-trainable params: 15 (60.00 B)",
    ]
    assert [line.split("│")[-2].strip() for line in found if "Dense" in line] == ["N", "Y"]


def test_before_building_and_on_too_narrow_a_line():
    model = keras.Sequential([layers.Dense(3)])
    assert any("?" in line and "0 (unbuilt)" in line for line in lines(model))
    model(np.ones((2, 4)))
    assert any("(None, 3)" in line and "15" in line for line in lines(model))
    with pytest.raises(ValueError, match="line_length=9"):
        lines(model, line_length=9)


def test_it_is_printed_without_print_fn(capsys):
    keras.Sequential([keras.Input((4,)), layers.Dense(3)]).summary()
    assert 'Model: "sequential"' in capsys.readouterr().out


def test_what_is_trainable_stands_in_the_middle_of_its_column():
    """As Keras 3 prints it."""
    model = tf.keras.Sequential([tf.keras.layers.Input((4,)), tf.keras.layers.Dense(6, name="x")])
    lines = []
    model.summary(line_length=80, show_trainable=True, print_fn=lines.append)
    assert any(line.endswith("│   Y   │") for line in "\n".join(lines).splitlines())
    assert not model.compiled
    model.compile("sgd", "mse")
    assert model.compiled


def test_a_subclassed_model_shows_the_shapes_that_its_layers_were_built_for():
    class Own(layers.Layer):  # tells nothing of its outputs
        def call(self, x):
            return x

    class Net(tf.keras.Model):
        def __init__(self):
            super().__init__()
            self.memory = layers.LSTM(2, return_sequences=True, return_state=True)
            self.inner = tf.keras.Sequential([layers.Dense(3)])
            self.own, self.unused = Own(), layers.Dense(1)

        def call(self, x):
            return self.own(self.inner(self.memory(x)[0]))

    net = Net()
    net(np.ones((4, 5, 1), np.float32))
    shapes = [
        line.split("│")[2].strip() for line in lines(net, line_length=110) if line.startswith("│")
    ]
    assert shapes == ["((4, 5, 2), (4, 2), (4, 2))", "(None, 5, 3)", "?", "?"]
    net = Net()
    net.compile("sgd", "mse")
    net.fit(np.ones((4, 5, 1)), np.ones((4, 5, 3)), verbose=0)
    assert "((None, 5, 2), (None, 2), (None, 2))" in "\n".join(lines(net, line_length=140))


def test_a_part_of_the_layers():
    names = ["first", "second", "third", "fourth"]
    model = keras.Sequential([keras.Input((2,)), *(layers.Dense(2, name=n) for n in names)])

    def shown(*bounds: str) -> list[str]:
        table = lines(model, layer_range=bounds)
        return [line.split()[1] for line in table if line.startswith("│")]

    assert shown("second", "third") == names[1:3]
    assert shown("third", "second") == names[1:3]
    assert shown("f", "f") == names  # the first of that form, and the last
    with pytest.raises(ValueError, match="fifth"):
        shown("first", "fifth")
    with pytest.raises(ValueError, match="two"):
        shown("first")


def test_a_shape_of_one_dimension_has_no_comma():
    number = keras.Input((), name="number")
    model = keras.Model(number, keras.ops.expand_dims(number, -1) * 2.0)
    assert any("(None)" in line and "number" in line for line in lines(model))
    assert "(None,)" not in "\n".join(lines(model))
