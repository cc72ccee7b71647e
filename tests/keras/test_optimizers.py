"""Optimizers against the stored numbers of Keras 3, and their two paths against each other."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm.communicator import Communicator
from distgrad.config import constructors
from distgrad.data.loader import Loader
from distgrad.data.source import ArraySource
from distgrad.training.reduction import ShardResult
from distgrad.training.step import TrainStep

optimizers = tf.keras.optimizers
FILE = Path(__file__).parents[1] / "reference" / "keras_optimizers.json"
STORED = json.loads(FILE.read_text())
CASES = [pytest.param(case, id=f"{i}-{case['class']}") for i, case in enumerate(STORED["cases"])]
NAMES = sorted(cls.__name__ for cls in optimizers._CLASSES)


def make(case: dict) -> tf.keras.optimizers.Optimizer:
    optimizer = getattr(optimizers, case["class"]).from_config(case["config"])
    if "excluded" in case:
        optimizer.exclude_from_weight_decay(var_names=[case["excluded"]])
    return optimizer


def start(dtype: str) -> list[tf.Variable]:
    return [
        tf.Variable(np.array(value, dtype), name=name)
        for value, name in zip(STORED["start"], ("kernel", "bias", "x"), strict=True)
    ]


def gradients(dtype: str) -> list[list[np.ndarray]]:
    return [[np.array(each, dtype) for each in step] for step in STORED["gradients"]]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_five_steps_are_those_of_keras(case, dtype):
    """In float64 to 1e-14, where Keras does not round its own settings to float32.

    It does round betas and weight decay: 1 - beta_2 = 0.001 is off by 1.3e-5 then, and Adam's
    weights by half of that times the way they went (here 0.5); hence the 1e-5. In float32 our
    weights, of order 1, are off from the exact ones by a few of their last digits.
    """
    tolerance = 1e-14 if dtype == "float64" else 1e-6
    if not case["exact"]:
        tolerance = 1e-5 if case["class"] in ("Adam", "AdamW") else max(tolerance, 3e-7)
    optimizer, variables = make(case), start(dtype)
    for step, expected in zip(gradients(dtype), case["steps"], strict=True):
        optimizer.apply_gradients(zip(map(tf.constant, step), variables, strict=True))
        for variable, value in zip(variables, expected, strict=True):
            np.testing.assert_allclose(variable.numpy(), value, rtol=0, atol=tolerance)
    assert int(optimizer.iterations) == 5 // (optimizer.gradient_accumulation_steps or 1)


# The arena of the training loop.


class Fed:
    """A loss whose gradients are those given; None leaves a variable out."""

    def __init__(self, variables, steps) -> None:
        self.variables, self.steps, self.step = variables, steps, 0

    def __call__(self, arrays, training):
        terms = [
            tf.cast(tf.reduce_sum(variable * gradient), "float64")
            for variable, gradient in zip(self.variables, self.steps[self.step], strict=True)
            if gradient is not None
        ]
        self.step += 1
        return ShardResult(tf.add_n(terms), np.zeros(0))


def by_the_loop(optimizer, variables, steps) -> None:
    train = TrainStep(
        Fed(variables, steps), 0, variables, optimizer, Communicator(), 1, 0, mean_loss=False
    )
    (batch,) = Loader(ArraySource(np.zeros((1, 1))), 1, 1, range(1), 0, shuffle=False).epoch(0)
    for number in range(len(steps)):
        train(number, batch)


def by_hand(optimizer, variables, steps) -> None:
    optimizer.build(variables)
    for step in steps:
        optimizer.apply_gradients(
            [(tf.constant(g), v) for g, v in zip(step, variables, strict=True) if g is not None]
        )


def bits(optimizer, variables) -> dict[str, bytes]:
    state = {f"{i}": variable for i, variable in enumerate(variables)}
    for name, slot in optimizer.slots.items():
        state |= {f"{name}/{i}": variable for i, variable in enumerate(slot)}
    return {key: np.asarray(v.numpy()).tobytes() for key, v in state.items()}


def many(rng: np.random.Generator) -> tuple[list[np.ndarray], list[list]]:
    """Odd sizes, two dtypes, a gradient that is missing now and then, one block boundary."""
    kinds = [
        ((17, 5), "float32"),
        ((3,), "float64"),
        ((), "float32"),
        ((300, 250), "float32"),  # more than one block of a norm
        ((7,), "float32"),
    ]
    values = [rng.normal(size=shape).astype(dtype) for shape, dtype in kinds]
    steps = [[rng.normal(size=s).astype(d) for s, d in kinds] for _ in range(4)]
    steps[1][0] = steps[2][4] = steps[3][2] = None
    return values, steps


OPTIONS = [
    {},
    {"clipvalue": 0.5, "weight_decay": 0.1},
    {"clipnorm": 0.7},
    {"global_clipnorm": 3.0, "weight_decay": 0.1},
    {"use_ema": True, "ema_overwrite_frequency": 2},
    {"gradient_accumulation_steps": 2, "clipnorm": 0.7, "weight_decay": 0.1},
]
FLAVOURS = [
    *((name, {}) for name in NAMES),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("Adam", {"amsgrad": True}),
    ("RMSprop", {"momentum": 0.8, "centered": True}),
    ("Ftrl", {"learning_rate_power": -0.7, "l1_regularization_strength": 0.1}),
]


@pytest.mark.filterwarnings("error", "ignore:no gradient for")  # some are missing on purpose
@pytest.mark.parametrize("name, config", FLAVOURS, ids=lambda value: str(value))
def test_the_arena_path_has_the_bits_of_the_path_by_variable(name, config):
    values, steps = many(np.random.default_rng(3))
    for options in OPTIONS:
        results = []
        for path in (by_the_loop, by_hand):
            rate = optimizers.schedules.CosineDecay(0.1, 10)
            optimizer = getattr(optimizers, name)(learning_rate=rate, **config, **options)
            optimizer.exclude_from_weight_decay(var_names=["v4"])
            variables = [tf.Variable(v, name=f"v{i}") for i, v in enumerate(values)]
            path(optimizer, variables, steps)
            results.append(bits(optimizer, variables))
        assert results[0] == results[1], (name, config, options)
        assert results[0]["3"] != values[3].tobytes()


def test_the_caller_s_gradients_are_left_alone():
    gradient, variable = tf.constant([3.0, 4.0]), tf.Variable([0.0, 0.0])
    optimizers.SGD(1.0, global_clipnorm=1.0).apply_gradients([(gradient, variable)])
    np.testing.assert_array_equal(gradient.numpy(), [3, 4])
    np.testing.assert_allclose(variable.numpy(), [-0.6, -0.8], rtol=1e-6)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_norm_that_is_no_number_spoils_all_gradients_as_in_keras():
    for options, expected in (
        ({"global_clipnorm": 1.0}, [math.nan, math.nan]),
        ({"clipnorm": 1.0}, [math.nan, -0.5]),
    ):
        v = [tf.Variable(0.0), tf.Variable(0.0)]
        optimizer = optimizers.SGD(1.0, **options)
        optimizer.apply_gradients([(tf.constant(math.inf), v[0]), (tf.constant(0.5), v[1])])
        np.testing.assert_array_equal([float(x) for x in v], expected)


def test_a_model_saved_between_two_updates_goes_on_with_the_same_bits(tmp_path):
    pytest.importorskip("h5py")
    x, y = np.eye(4, dtype="float32"), np.ones((4, 1), "float32")
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(4,))])
    model.compile(optimizers.Adam(0.1, gradient_accumulation_steps=3), "mse")
    model.fit(x, y, batch_size=1, shuffle=False, verbose=0)  # four calls: one more than an update
    model.save(tmp_path / "m.keras")
    again = tf.keras.models.load_model(tmp_path / "m.keras")
    assert (int(again.optimizer.calls), int(again.optimizer.iterations)) == (4, 1)
    for each in (model, again):
        each.fit(x, y, batch_size=2, shuffle=False, verbose=0)
    assert bits(again.optimizer, again.weights) == bits(model.optimizer, model.weights)


# State and settings.


def test_variables_are_named_as_in_keras():
    layer = tf.keras.layers.Dense(2, name="d")
    layer.build((None, 3))
    optimizer = optimizers.Adam(use_ema=True)
    optimizer.build(layer.trainable_variables)
    moments = [f"d_{w}_{kind}" for w in ("kernel", "bias") for kind in ("momentum", "velocity")]
    names = ["iteration", "learning_rate", "d_kernel_average", "d_bias_average", *moments]
    assert [v.name for v in optimizer.variables] == names
    assert [v.path for v in optimizer.variables] == [f"adam/{name}" for name in names]
    assert all(isinstance(v, tf.keras.Variable) for v in optimizer.variables)
    around = optimizers.LossScaleOptimizer(optimizer)
    own = ["iteration", "learning_rate", "step_counter", "dynamic_scale"]
    assert [v.name for v in around.variables] == own + names
    assert around.variables[3].path == "loss_scale_optimizer/dynamic_scale"
    rows = [v.path for v in optimizers.Adafactor(name="mine").variables]
    assert rows == ["mine/iteration", "mine/learning_rate"]
    assert optimizers.get(None) is None


@pytest.mark.parametrize(
    "name, slots",
    [
        ("SGD", []),
        ("Adam", ["momentum", "velocity"]),
        ("AdamW", ["momentum", "velocity"]),
        ("Adamax", ["momentum", "norm"]),
        ("Nadam", ["momentum", "velocity"]),
        ("RMSprop", ["velocity"]),
        ("Adagrad", ["accumulator"]),
        ("Adadelta", ["accumulated_grad", "accumulated_delta_var"]),
        ("Ftrl", ["accumulator", "linear"]),
        ("Lion", ["momentum"]),
    ],
)
def test_a_checkpoint_by_slot_names_continues_with_the_same_bits(name, slots):
    values, steps = many(np.random.default_rng(5))
    rng = {"learning_rate": 0.01, "use_ema": True, "global_clipnorm": 5.0}

    def fresh():
        variables = [tf.Variable(v) for v in values]
        return getattr(optimizers, name)(**rng), variables

    whole, variables = fresh()
    by_hand(whole, variables, steps)
    assert list(whole.slots) == [*slots, "average"]
    first, early = fresh()
    by_hand(first, early, steps[:2])
    saved = (
        {key: [np.array(v.numpy()) for v in slot] for key, slot in first.slots.items()},
        first.iterations.numpy(),
    )

    second, late = fresh()
    for variable, value in zip(late, early, strict=True):
        variable.assign(value)
    second.build(late)
    for key, slot in second.slots.items():
        for variable, value in zip(slot, saved[0][key], strict=True):
            variable.assign(value)
    second.iterations.assign(saved[1])
    by_the_loop(second, late, steps[2:])
    assert bits(second, late) == bits(whole, variables)


def test_slots_start_as_in_keras():
    variable = tf.Variable([1.0, 2.0])
    for cls in (optimizers.Adagrad, optimizers.Ftrl):
        optimizer = cls()
        optimizer.build([variable])
        assert optimizer.slots["accumulator"][0].numpy().tolist() == [np.float32(0.1)] * 2
    assert set(optimizer.scalars) == {"iterations", "learning_rate"}


def test_the_learning_rate_can_be_read_set_and_assigned():
    optimizer, variable = optimizers.SGD(0.5), tf.Variable(0.0)
    assert float(optimizer.learning_rate) == 0.5 and optimizer.learning_rate.numpy() == 0.5
    optimizer.learning_rate = 0.25
    assert float(optimizer.learning_rate) == 0.25
    optimizer.learning_rate.assign(2.0)
    optimizer.apply_gradients([(tf.constant(1.0), variable)])
    assert float(variable) == -2
    optimizer.learning_rate = optimizer.learning_rate * 0.5
    assert optimizer.get_config()["learning_rate"] == 1.0
    optimizer.learning_rate = lambda step: 7.0 + step
    assert float(optimizer.learning_rate) == 8.0
    optimizer.learning_rate = 0.5
    assert float(optimizer.learning_rate) == 0.5


def test_the_moving_average_takes_the_place_of_the_weights_at_the_end_of_fit():
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, use_bias=False, input_shape=(1,))])
    model.set_weights([np.array([[8.0]])])
    model.compile(optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5), "mse")
    model.fit(np.ones((2, 1)), np.zeros((2, 1)), epochs=1, batch_size=1, verbose=0)
    assert model.get_weights()[0] == 0  # 8 - 0.5 * 16 = 0, and it stays there


@pytest.mark.parametrize("name", NAMES)
def test_get_config_and_copies(name):
    optimizer = optimizers.get(name)
    assert type(optimizer).__name__ == name and type(optimizers.get(name.lower())) is type(
        optimizer
    )
    assert type(optimizers.get(type(optimizer))) is type(optimizer)
    rate = optimizers.schedules.ExponentialDecay(0.1, 5, 0.5)
    optimizer = getattr(optimizers, name)(rate, clipnorm=0.5, weight_decay=0.01)
    config = json.loads(json.dumps(optimizers.serialize(optimizer)))
    again = optimizers.get(config)
    assert again.get_config() == optimizer.get_config() and again.rate(6) == 0.05
    assert again.clipnorm == 0.5 and again.weight_decay == 0.01
    assert copy.deepcopy(optimizer).rate(6) == 0.05


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: optimizers.Adam(clipnorm=1.0, clipvalue=1.0), "clipnorm=1.0 and clipvalue=1.0"),
        (lambda: optimizers.SGD(global_clipnorm=1.0, clipnorm=1.0), "only one"),
        (lambda: optimizers.Adam(clipnorm=-1.0), "clipnorm"),
        (lambda: optimizers.Adam(weight_decay=-1.0), "weight_decay"),
        (lambda: optimizers.Adam(beta1=0.9), "beta1"),
        (lambda: optimizers.Adam(beta_1=1.0), "beta_1"),
        (lambda: optimizers.AdamW(weight_decay=None), "weight_decay"),
        (lambda: optimizers.Adam(-0.1), "learning_rate"),
        (lambda: optimizers.Adam("fast"), "'fast'"),
        (lambda: optimizers.Adam(use_ema=True, ema_momentum=2.0), "ema_momentum"),
        (lambda: optimizers.Adam(use_ema=True, ema_overwrite_frequency=0), "ema_overwrite"),
        (lambda: optimizers.Adam(gradient_accumulation_steps=1), "gradient_accumulation_steps"),
        (lambda: optimizers.Adam(gradient_accumulation_steps=2.5), "an int from 2 on, not 2.5"),
        (lambda: optimizers.SGD(momentum=-0.1), "momentum"),
        (lambda: optimizers.SGD(use_ema=True, ema_overwrite_frequency=2.5), "an int, .*not 2.5"),
        (lambda: optimizers.Lion(beta_1=0.0), "beta_1"),
        (lambda: optimizers.Ftrl(learning_rate_power=0.5), "learning_rate_power"),
        (lambda: optimizers.Ftrl(initial_accumulator_value=-1.0), "initial_accumulator_value"),
        (lambda: optimizers.get("adma"), "unknown optimizer 'adma'.*adam"),
        (lambda: optimizers.get(3), "unknown optimizer 3"),
        (lambda: optimizers.deserialize({"config": {}}), "class_name"),
    ],
)
def test_wrong_settings_are_value_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_weight_decay_cannot_be_restricted_after_the_first_update():
    optimizer, variable = optimizers.AdamW(), tf.Variable(1.0)
    optimizer.apply_gradients([(tf.constant(1.0), variable)])
    with pytest.raises(ValueError, match="before the first update"):
        optimizer.exclude_from_weight_decay(var_list=[variable])


@pytest.mark.parametrize("name", ["SGD", "Adam", "Lamb"])
def test_a_variable_that_comes_twice_is_updated_twice(name):
    make_one = getattr(optimizers, name)
    once, twice = (tf.Variable([3.0, -2.0]) for _ in range(2))
    alone, optimizer = make_one(0.5, weight_decay=0.1), make_one(0.5, weight_decay=0.1)
    first, second = tf.constant([1.0, 4.0]), tf.constant([-2.0, 0.5])
    optimizer.apply_gradients([(first, twice), (second, twice)])
    assert int(optimizer.iterations) == 1 and len(optimizer.trained) == 2
    once.assign(once * (1 - 0.05) ** 2)  # all decay comes before
    alone.weight_decay = None
    alone.apply_gradients([(first, once)])
    alone.iterations.assign(0)
    alone.apply_gradients([(second, once)])
    np.testing.assert_allclose(twice.numpy(), once.numpy(), rtol=1e-6)


def test_gradients_that_come_twice_are_clipped_together_and_not_accumulated():
    variable, optimizer = tf.Variable([0.0, 0.0]), optimizers.SGD(1.0, global_clipnorm=1.0)
    optimizer.apply([tf.constant([3.0, 0.0]), [0.0, 4.0]], [variable, variable])
    np.testing.assert_allclose(variable.numpy(), [-0.6, -0.8], rtol=1e-6)
    optimizer = optimizers.SGD(gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="several gradients.*gradient_accumulation_steps=2"):
        optimizer.apply([tf.ones(2), tf.ones(2)], [variable, variable])


def test_no_gradients_at_all_are_nothing_to_apply():
    optimizer = optimizers.SGD()
    optimizer.apply([], [])
    assert int(optimizer.iterations) == 0 and not optimizer.built


def test_a_borrowed_weight_does_not_decay():
    variable = tf.Variable([1.0])
    held = variable.value()
    optimizers.SGD(1.0, weight_decay=0.5).apply_gradients([(tf.constant([0.0]), variable)])
    assert held.numpy() == 1 and variable.numpy() == 0.5


def test_adafactor_where_neither_a_row_nor_a_column_has_a_gradient():
    variable, optimizer = tf.Variable(np.ones((2, 3), "f")), optimizers.Adafactor(0.1)
    optimizer.apply_gradients([(tf.constant([[0.0, 0.0, 0.0], [0.0, 0.5, 2.0]]), variable)])
    assert np.isfinite(variable.numpy()).all()
    changed = variable.numpy() != 1
    assert changed.tolist() == [[False, False, False], [False, True, True]]


# From a job.


@pytest.mark.parametrize("name", NAMES)
def test_a_job_can_use_every_optimizer_with_its_options(name):
    spec = {"type": name, "learning_rate": 0.01, "global_clipnorm": 1.0, "weight_decay": 0.01}
    assert list(constructors.check("optimizer", spec)) == []
    resolved = constructors.resolve("optimizer", spec)
    assert resolved.items() >= spec.items()
    settings = {key: value for key, value in resolved.items() if key != "type"}
    assert getattr(optimizers, name)(**settings).global_clipnorm == 1
    (wrong,) = constructors.check("optimizer", {**spec, "clipnorm": "x"})
    assert wrong[0] == ("clipnorm",) and "a number" in wrong[1]


def test_decay_is_ignored_with_a_warning_as_in_keras_3():
    with pytest.warns(UserWarning, match="decay is ignored"):
        optimizer = tf.keras.optimizers.SGD(0.1, decay=1e-6)
    assert float(optimizer.learning_rate) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("made", "name", "changes"),  # and what Keras has after two steps more with each value
    [
        (
            lambda: optimizers.SGD(0.1, momentum=0.9),
            "momentum",
            {0.0: 0.65, 0.5: 0.3, 0.9: -0.4225},
        ),
        (
            lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
            "momentum",
            {0.0: 0.56, 0.5: 0.135, 0.9: -0.76525},
        ),
        (
            lambda: optimizers.Adam(0.1, amsgrad=True),
            "amsgrad",
            {False: 0.71587604, True: 0.5405722},
        ),
    ],
)
def test_settings_that_need_a_state_may_change(made, name, changes):
    v, one = tf.Variable([1.0]), tf.constant([1.0])
    optimizer = made()
    optimizer.apply_gradients([(one, v)])
    for value, expected in changes.items():
        setattr(optimizer, name, value)
        optimizer.apply_gradients([(0.5 * one, v)])
        optimizer.apply_gradients([(2 * one, v)])
        assert v.numpy() == pytest.approx(expected, rel=1e-5)  # Keras's rate is in float32


def test_a_state_that_was_not_made_is_named():
    v, one = tf.Variable([1.0]), tf.constant([1.0])
    early = optimizers.SGD(0.1)
    early.momentum = 0.9
    for _ in range(3):
        early.apply_gradients([(one, v)])
    assert v.numpy() == pytest.approx(0.439)
    late = optimizers.SGD(0.1, name="late")
    late.apply_gradients([(one, v)])
    late.momentum = 0.9
    with pytest.raises(ValueError, match="late has no state 'momentum'.*constructor"):
        late.apply_gradients([(one, v)])


def test_fits_with_and_without_momentum():
    x, y = np.ones((8, 2), np.float32), np.ones((8, 1), np.float32)
    model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1)])
    model.compile(optimizers.SGD(0.01, momentum=0.9), "mse")
    model.fit(x, y, verbose=0)
    kept = model.optimizer.slots["momentum"][0].numpy()
    model.optimizer.momentum = 0.0
    before = model.layers[0].kernel.numpy()
    model.fit(x, y, verbose=0)
    assert (model.layers[0].kernel.numpy() != before).all()
    np.testing.assert_array_equal(model.optimizer.slots["momentum"][0].numpy(), kept)
