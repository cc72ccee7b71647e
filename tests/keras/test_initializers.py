"""Initial values: what they are distributed like, how seeds fix them, and names."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import distgrad as tf

initializers = tf.keras.initializers
SHAPE = (3, 3, 40, 60)  # fans of 360 and 540
FANS = {"fan_in": 360, "fan_out": 540, "fan_avg": 450}
LIMIT_NORMAL = 2 / 0.87962566103423978  # deviations at which a normal of deviation 1 is cut


@pytest.mark.parametrize(
    "name, scale, mode, distribution",
    [
        ("glorot_uniform", 1, "fan_avg", "uniform"),
        ("glorot_normal", 1, "fan_avg", "truncated_normal"),
        ("he_uniform", 2, "fan_in", "uniform"),
        ("he_normal", 2, "fan_in", "truncated_normal"),
        ("lecun_uniform", 1, "fan_in", "uniform"),
        ("lecun_normal", 1, "fan_in", "truncated_normal"),
        ("variance_scaling", 1, "fan_in", "truncated_normal"),
        (initializers.VarianceScaling(3.0, "fan_out", "normal"), 3, "fan_out", "truncated_normal"),
        (
            initializers.VarianceScaling(0.5, "fan_avg", "untruncated_normal"),
            0.5,
            "fan_avg",
            "untruncated_normal",
        ),
    ],
)
def test_variance_and_range_follow_the_fans(name, scale, mode, distribution):
    tf.random.set_seed(1)
    values = initializers.get(name)(SHAPE).numpy()
    deviation = math.sqrt(scale / FANS[mode])
    assert values.dtype == np.float32
    assert values.std() == pytest.approx(deviation, rel=0.02)
    assert abs(values.mean()) < 4 * deviation / math.sqrt(values.size)
    largest = np.abs(values).max() / deviation
    if distribution == "untruncated_normal":
        assert largest > 3.5
    else:
        limit = math.sqrt(3) if distribution == "uniform" else LIMIT_NORMAL
        assert 0.99 * limit < largest <= limit * (1 + 1e-6)


def test_plain_distributions():
    tf.random.set_seed(2)
    shape = (200, 300)
    normal = initializers.RandomNormal(1.0, 0.1)(shape).numpy()
    assert normal.mean() == pytest.approx(1, abs=2e-3) and normal.std() == pytest.approx(0.1, 0.02)
    cut = initializers.TruncatedNormal(1.0, 0.1)(shape).numpy()
    assert 0.8 <= cut.min() < 0.81 and 1.19 < cut.max() <= 1.2
    assert cut.std() == pytest.approx(0.1 * 0.87962566, rel=0.02)
    uniform = initializers.RandomUniform(-1.0, 3.0)(shape).numpy()
    assert -1 <= uniform.min() < -0.99 and 2.99 < uniform.max() < 3
    assert initializers.RandomNormal()(shape).numpy().std() == pytest.approx(0.05, rel=0.02)


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (2, 3, 4)])
def test_orthogonal(shape):
    value = initializers.Orthogonal(gain=2.0, seed=4)(shape, dtype="float64").numpy()
    flat = value.reshape(-1, shape[-1])
    small = flat if flat.shape[0] <= flat.shape[1] else flat.T
    np.testing.assert_allclose(small @ small.T, 4 * np.eye(len(small)), atol=1e-12)


def test_constants():
    assert initializers.Constant(3)((2,)).numpy().tolist() == [3, 3]
    assert initializers.get("ones")((2,), dtype="int32").numpy().tolist() == [1, 1]
    assert initializers.get("zeros")(()).numpy() == 0
    identity = initializers.Identity(2.0)((2, 3)).numpy()
    np.testing.assert_array_equal(identity, 2 * np.eye(2, 3, dtype=np.float32))


RANDOM = [
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "Orthogonal",
    "GlorotUniform",
    "HeNormal",
    "LecunNormal",
    "VarianceScaling",
]


@pytest.mark.parametrize("name", RANDOM)
def test_a_seed_fixes_every_call_and_no_seed_follows_the_global_one(name):
    make = getattr(initializers, name)
    fixed = make(seed=3)
    first = fixed((4, 5)).numpy()
    tf.random.set_seed(8)
    np.testing.assert_array_equal(fixed((4, 5)).numpy(), first)
    assert not np.array_equal(make(seed=4)((4, 5)).numpy(), first)
    free = make()
    one, two = free((4, 5)).numpy(), free((4, 5)).numpy()
    assert not np.array_equal(one, two)
    tf.random.set_seed(8)
    np.testing.assert_array_equal(make()((4, 5)).numpy(), one)


@pytest.mark.parametrize("name", [*RANDOM, "Zeros", "Ones", "Constant", "Identity", "HeUniform"])
def test_config_round_trip_and_names(name):
    made = initializers.get(name)
    config = json.loads(json.dumps(initializers.serialize(made)))
    again = initializers.get(config)
    assert type(again) is type(made) and vars(again) == vars(made)
    assert isinstance(initializers.get(getattr(initializers, name)), type(made))


def test_a_callable_and_an_array_are_initializers():
    layer = tf.keras.layers.Dense(2, kernel_initializer=lambda shape, dtype: np.ones(shape))
    layer.build((None, 3))
    assert layer.kernel.numpy().sum() == 6
    given = initializers.get(np.arange(3))
    assert given((3,), dtype="float32").numpy().tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="shape"):
        given((4,))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: initializers.get("he_norml"), "he_norml"),
        (lambda: initializers.get(3), "3"),
        (lambda: initializers.VarianceScaling(0.0), "scale"),
        (lambda: initializers.VarianceScaling(mode="fan"), "mode"),
        (lambda: initializers.VarianceScaling(distribution="cauchy"), "cauchy"),
        (lambda: initializers.Orthogonal()((3,)), "rank 2"),
        (lambda: initializers.Identity()((3, 3, 3)), "matrix"),
    ],
)
def test_wrong_settings_are_value_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("name", ["zeros", "constant", "he_normal", "glorot_uniform", "orthogonal"])
def test_a_shape_may_be_a_tensor(name):
    initializer = initializers.get(name)
    assert initializer(tf.constant([3, 2])).shape == (3, 2)
    assert initializer([tf.constant(3), 2]).shape == (3, 2)


def test_none_stands_for_the_default_of_weights():
    assert tf.keras.initializers.get(None) is None
    layer = tf.keras.layers.Dense(64, bias_initializer=None)
    layer.build((None, 3))
    assert np.ptp(layer.bias.numpy()) > 0.1  # Glorot's, as Keras's add_weight has it
    assert tf.keras.layers.Dense.from_config(layer.get_config()).bias_initializer is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_orthogonal_matrix_of_halves(dtype):
    made = tf.keras.initializers.Orthogonal(seed=1)((3, 3), dtype)
    assert made.dtype == dtype
    wide = tf.cast(made, tf.float32)
    np.testing.assert_allclose(wide @ tf.transpose(wide), np.eye(3), atol=0.02)
    assert tf.keras.layers.LSTM(2, dtype=dtype)(np.ones((1, 2, 3), np.float32)).dtype == dtype


def test_a_seed_generator_gives_other_weights_at_every_call():
    for cls in (initializers.HeNormal, initializers.RandomUniform, initializers.Orthogonal):
        made = cls(seed=tf.keras.random.SeedGenerator(3))
        first, second = made((3, 4)).numpy(), made((3, 4)).numpy()
        assert (first != second).any()
        config = json.loads(json.dumps(initializers.serialize(made)))
        again = initializers.get(config)
        np.testing.assert_array_equal(again((3, 4)), first)
        np.testing.assert_array_equal(made.clone()((3, 4)), first)


def test_the_other_names_of_keras():
    assert initializers.get("OrthogonalInitializer").gain == 1.0
    assert type(initializers.get("IdentityInitializer")) is initializers.Identity
    assert initializers.stft().side == initializers.get({"class_name": "STFT"}).side == "real"


def test_fans_of_given_axes():
    make = tf.keras.initializers.GlorotUniform
    wide = make(seed=1, input_axes=[0], output_axes=[1, 2])
    expected = np.sqrt(6 / (2 + 12))
    values = wide((2, 3, 4)).numpy()
    assert np.abs(values).max() <= expected and np.abs(values).max() > 0.8 * expected
    config = {"seed": None, "input_axes": None, "output_axes": None}  # of Keras 3.15
    assert make.from_config(config).get_config() == {"seed": None}
    assert make.from_config(wide.get_config()).get_config() == wide.get_config()
    assert wide.get_config()["output_axes"] == [1, 2]


def test_as_many_constants_as_the_shape_has():
    make = tf.constant_initializer(range(8))
    assert make([2, 4]).numpy().tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert tf.constant_initializer([1, 2])(shape=(3, 2)).numpy().tolist() == [[1, 2]] * 3
