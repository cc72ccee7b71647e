"""Learning-rate schedules against the stored numbers of Keras 3."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf

schedules = tf.keras.optimizers.schedules
STORED = json.loads((Path(__file__).parents[1] / "reference" / "keras_schedules.json").read_text())
CASES = [pytest.param(case, id=f"{i}-{case['class']}") for i, case in enumerate(STORED["cases"])]


@pytest.mark.parametrize("case", CASES)
def test_rates_are_those_of_keras(case):
    """To 1e-6, and near 0 to 2e-8: Keras computes in float32, at rates of order 0.1."""
    schedule = getattr(schedules, case["class"])(**case["config"])
    rates = [float(schedule(step)) for step in STORED["steps"]]
    np.testing.assert_allclose(rates, case["rates"], rtol=1e-6, atol=2e-8)
    assert float(schedule(tf.constant(7))) == rates[7]  # a step may be a tensor
    again = schedules.deserialize(json.loads(json.dumps(schedules.serialize(schedule))))
    assert [float(again(step)) for step in STORED["steps"]] == rates
    drawn = schedule(np.array(STORED["steps"], np.float64))  # all of them at once, as for a plot
    assert drawn.numpy().tolist() == rates and drawn.dtype == tf.float32


def test_restarts_are_exact_where_a_logarithm_would_round():
    schedule = schedules.CosineDecayRestarts(1.0, 10, t_mul=1.5)
    start, length = 0.0, 10.0
    for _ in range(20):
        assert schedule(start) == 1
        start, length = start + length, length * 1.5
        assert schedule(start - 0.01) < 1e-5


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: schedules.ExponentialDecay(0.1, 0, 0.5), "decay_steps"),
        (lambda: schedules.InverseTimeDecay(0.1, -1, 0.5), "decay_steps"),
        (lambda: schedules.PolynomialDecay(0.1, 0), "decay_steps"),
        (lambda: schedules.CosineDecay(0.1, 0), "decay_steps"),
        (lambda: schedules.CosineDecayRestarts(0.1, 0), "first_decay_steps"),
        (lambda: schedules.CosineDecayRestarts(0.1, 5, t_mul=0.5), "t_mul"),
        (lambda: schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.2]), "boundaries"),
        (lambda: schedules.deserialize({"class_name": "Cosine", "config": {}}), "Cosine"),
    ],
)
def test_wrong_settings_are_value_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    "rate, expected",
    [
        (schedules.PiecewiseConstantDecay([0, 1], [1.0, 10.0, 100.0]), [1, 10, 100]),
        (lambda step: 2.0**step, [1, 2, 4]),
        (lambda: 3.0, [3, 3, 3]),
    ],
)
def test_an_optimizer_asks_with_the_step_from_0(rate, expected):
    variable, optimizer = tf.Variable(0.0), tf.keras.optimizers.SGD(rate)
    for each in expected:
        before = float(variable)
        assert float(optimizer.learning_rate) == each
        optimizer.apply_gradients([(tf.constant(-1.0), variable)])
        assert float(variable) - before == each


def test_a_schedule_of_one_s_own():
    """As the Transformer tutorial of TensorFlow writes it."""

    class Warmup(schedules.LearningRateSchedule):
        def __init__(self, size, warmup_steps=4):
            self.size = tf.cast(size, tf.float32)
            self.warmup_steps = warmup_steps

        def __call__(self, step):
            step = tf.cast(step, dtype=tf.float32)
            return tf.math.rsqrt(self.size) * tf.math.minimum(
                tf.math.rsqrt(step + 1.0), (step + 1.0) * (self.warmup_steps**-1.5)
            )

    optimizer = tf.keras.optimizers.Adam(Warmup(16))
    variable = tf.Variable(1.0)
    optimizer.apply_gradients([(tf.constant(1.0), variable)])
    assert 1 - float(variable) == pytest.approx(0.25 * 4**-1.5, rel=1e-5)
    assert float(optimizer.learning_rate) == pytest.approx(0.25 * 2 * 4**-1.5)
    with pytest.raises(TypeError, match="schedule"):
        optimizer.learning_rate = 0.1


def test_a_schedule_of_ones_own_may_mix_its_step_with_floats():
    """As Keras's listing of a music transformer writes it: the step is a variable there."""

    class Warmup(schedules.LearningRateSchedule):
        def __call__(self, step):
            return tf.keras.ops.minimum(step * 0.25, 0.5 + step / 12)

    variable, optimizer = tf.Variable(0.0), tf.keras.optimizers.SGD(Warmup())
    for expected in [0, 0.25, 0.5, 0.75]:
        assert float(optimizer.learning_rate) == expected
        optimizer.apply_gradients([(tf.constant(-1.0), variable)])
    assert float(variable) == 1.5


def test_a_schedule_of_ones_own_is_read_with_its_optimizer():
    class Half(tf.keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.5

        def get_config(self):
            return {}

    config = tf.keras.optimizers.SGD(Half()).get_config()
    again = tf.keras.optimizers.SGD.from_config(config, custom_objects={"Half": Half})
    assert float(again.learning_rate) == 0.5
