"""Losses, metrics, layers and optimizers against the stored numbers of Keras 3."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
CASES = json.loads((Path(__file__).parents[1] / "reference" / "keras_names.json").read_text())


def restored(value):
    if isinstance(value, dict):
        return np.array(value["flat"], value["dtype"]).reshape(value["shape"])
    return [restored(item) for item in value]


def close(found, wanted):
    if isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            close(one, other)
        return
    assert tuple(np.shape(found)) == wanted.shape
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=2e-5, atol=2e-6)


def cases(room):
    return [
        pytest.param(*case[1:], functools.reduce(getattr, case[0].split("."), keras), id=f"{i}-{n}")
        for i, case in enumerate(CASES)
        if (n := case[0]).startswith(room)
    ]


@pytest.mark.parametrize(("config", "inputs", "more", "_", "results", "cls"), cases("losses"))
def test_losses(config, inputs, more, _, results, cls):
    loss = keras.losses.deserialize(keras.losses.serialize(cls(**config)))
    close(loss(*restored(inputs)), restored(results))


@pytest.mark.parametrize(("config", "inputs", "more", "_", "results", "cls"), cases("metrics"))
def test_metrics(config, inputs, more, _, results, cls):
    metric = keras.metrics.deserialize(keras.metrics.serialize(cls(**config)))
    metric.update_state(*restored(inputs))
    close(metric.result(), restored(results))
    held = metric.stateless_update_state(metric.stateless_reset_state(), *restored(inputs))
    metric.reset_state()
    close(metric.stateless_result(held), restored(results))


@pytest.mark.parametrize(("config", "inputs", "more", "weights", "results", "cls"), cases("layers"))
def test_layers(config, inputs, more, weights, results, cls, tmp_path):
    """As they are, by their config, within a functional model, and in its file."""
    layer = cls.from_config(cls(**config).get_config())
    values = restored(inputs)
    layer(*values, **more)
    layer.set_weights(restored(weights))
    wanted = restored(results)
    close(layer(*values, **more), wanted)
    given = [keras.Input(v.shape[1:]) for v in values]
    model = keras.Model(given, layer(*given, **more))
    close(model(values), wanted)
    model.save(tmp_path / "model.keras")
    close(keras.models.load_model(tmp_path / "model.keras")(values), wanted)


@pytest.mark.parametrize(("config", "steps", "more", "start", "results", "cls"), cases("optim"))
def test_optimizers(config, steps, more, start, results, cls):
    optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(cls(**config)))
    variables = [tf.Variable(value) for value in restored(start)]
    for step, wanted in zip(restored(steps), restored(results), strict=True):
        optimizer.apply_gradients(zip(map(tf.constant, step), variables, strict=True))
        close([v.numpy() for v in variables], wanted)
    assert int(optimizer.iterations) == len(steps)


def test_schedule_free_adam_is_the_average_of_its_points():
    """The paper's recursion; Keras on TensorFlow reads the point after it has moved it."""
    optimizer = keras.optimizers.ScheduleFreeAdamW(0.1, beta_1=0.8, warmup_steps=2)
    y, rng = tf.Variable(np.ones(3)), np.random.default_rng(0)
    z, x, v = np.ones(3), np.ones(3), np.zeros(3)
    for t in range(1, 6):
        g = rng.normal(size=3)
        optimizer.apply_gradients([(tf.constant(g), y)])
        v = 0.999 * v + 0.001 * g * g
        z = z - 0.1 * min(t / 2, 1) * g / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        x = (1 - 1 / t) * x + z / t
        np.testing.assert_allclose(y.numpy(), 0.2 * z + 0.8 * x, rtol=1e-10)


def test_names_for_layers_that_jobs_use():
    from distgrad.keras import specs

    layers = specs.classes("layer")
    assert {"EinsumDense", "ConvLSTM2D", "UnitNormalization", "AlphaDropout"} <= set(layers)
    assert {"Lamb", "Adafactor", "Muon"} <= set(specs.classes("optimizer"))
    assert {"Dice", "Tversky", "Circle"} <= set(specs.classes("loss"))
