"""Numbers rounded as if they had few bits."""

import numpy as np
import pytest

import distgrad as tf

quantization = tf.quantization
GIVEN = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32) * 3


def nudged(x, low, high, bits, narrow):
    """The levels of the documentation: 0 is one of them."""
    first, last = int(narrow), 2**bits - 1
    step = (high - low) / (last - first)
    zero = np.clip(np.floor(first - low / step + 0.5), first, last)
    levels = (np.arange(first, last + 1) - zero) * step
    return levels[np.abs(x[..., None] - levels).argmin(-1)], levels[0], levels[-1]


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("bounds", [(-2.3, 3.1), (0.0, 4.0), (1.0, 3.0), (-4.0, -1.0)])
def test_to_levels_of_which_one_is_0(bits, narrow, bounds):
    low, high = map(tf.Variable, bounds)
    given, x = GIVEN, tf.constant(GIVEN)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = quantization.fake_quant_with_min_max_vars(x, low, high, bits, narrow)
        total = tf.reduce_sum(y * GIVEN)
    expected, least, most = nudged(GIVEN.astype(np.float64), *bounds, bits, narrow)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    of_x, of_low, of_high = tape.gradient(total, [x, low, high])
    np.testing.assert_array_equal(of_x, np.where((given >= least) & (given <= most), given, 0))
    np.testing.assert_allclose(of_low, given[given < least].sum(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(of_high, given[given > most].sum(), rtol=1e-5, atol=1e-6)
    fixed = quantization.fake_quant_with_min_max_args(GIVEN, *bounds, bits, narrow)
    np.testing.assert_allclose(fixed, y, atol=1e-6)


def test_each_channel_has_its_own():
    low, high = tf.Variable([-1.0, -2.0, -3.0]), tf.Variable([1.0, 2.0, 0.5])
    with tf.GradientTape() as tape:
        y = quantization.fake_quant_with_min_max_vars_per_channel(GIVEN, low, high, 3)
    for channel in range(3):
        alone = quantization.fake_quant_with_min_max_vars(
            GIVEN[:, channel], low[channel], high[channel], 3
        )
        np.testing.assert_array_equal(y[:, channel], alone)
    assert [g.shape for g in tape.gradient(y, [low, high])] == [(3,), (3,)]


def test_of_no_range_at_all_nothing_is_left():
    assert not quantization.fake_quant_with_min_max_vars(GIVEN, 0.0, 0.0).numpy().any()


@pytest.mark.parametrize(
    "call",
    [
        lambda: quantization.fake_quant_with_min_max_args(GIVEN, num_bits=1),
        lambda: quantization.fake_quant_with_min_max_args(GIVEN, 2.0, 1.0),
        lambda: quantization.fake_quant_with_min_max_vars_per_channel(GIVEN, [1.0], [2.0]),
    ],
)
def test_errors(call):
    with pytest.raises(tf.errors.InvalidArgumentError):
        call()


def test_what_there_is_not_says_what_there_is():
    with pytest.raises(AttributeError, match="ONNX"):
        quantization.quantize  # noqa: B018
