"""MelSpectrogram."""

import numpy as np
import pytest

import distgrad as tf

layers = tf.keras.layers
X = np.random.default_rng(0).normal(size=(2, 500)).astype(np.float32)


def expected(x, size, stride, bands, rate, power):
    """Power in bands of one signal, frame by frame."""
    padded = np.pad(x.astype(np.float64), size // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    frames = [padded[i : i + size] * window for i in range(0, len(padded) - size + 1, stride)]
    strength = np.abs(np.fft.rfft(frames)) ** power
    mel = 1127 * np.log(1 + np.linspace(0, rate / 2, size // 2 + 1) / 700)
    edges = np.linspace(*(1127 * np.log(1 + np.array([20, rate / 2]) / 700)), bands + 2)
    weights = [np.interp(mel, edges[i : i + 3], [0, 1, 0]) for i in range(bands)]
    return np.array(weights) @ strength.T


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_strength_in_bands(power):
    options = {"num_mel_bins": 6, "sampling_rate": 4000, "mag_exp": power, "power_to_db": False}
    layer = layers.MelSpectrogram(fft_length=64, sequence_stride=50, **options)
    y = layer(X)
    assert y.shape == (2, 6, 11)
    for found, x in zip(y, X, strict=True):
        np.testing.assert_allclose(found, expected(x, 64, 50, 6, 4000, power), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layer(X[0]), y[0], rtol=1e-5)


def test_decibels_below_the_loudest():
    options = {"fft_length": 64, "num_mel_bins": 6}
    power = layers.MelSpectrogram(power_to_db=False, **options)(X).numpy()
    found = layers.MelSpectrogram(top_db=10.0, ref_power=2.0, **options)(X).numpy()
    level = 10 * np.log10(power) - 10 * np.log10(2.0)
    np.testing.assert_allclose(found, np.maximum(level, level.max() - 10), rtol=1e-5, atol=1e-5)


def test_it_is_followed_by_a_tape_and_in_a_model():
    x = tf.constant(X)
    layer = layers.MelSpectrogram(fft_length=64, num_mel_bins=4)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_mean(layer(x))
    step = 1e-2 * np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
    slope = tf.reduce_sum(tape.gradient(y, x) * step)
    difference = (tf.reduce_mean(layer(x + step)) - tf.reduce_mean(layer(x - step))) / 2
    np.testing.assert_allclose(slope, difference, rtol=1e-2, atol=1e-4)
    model = tf.keras.Sequential([tf.keras.Input((500,)), layer])
    assert model.output_shape == (None, 4, 1)


def test_its_config_and_what_it_refuses():
    layer = layers.MelSpectrogram(fft_length=64, sampling_rate=8000)
    config = layer.get_config()
    assert (config["sequence_length"], config["max_freq"]) == (64, 4000)
    assert layers.MelSpectrogram.from_config(config).get_config() == config
    with pytest.raises(ValueError, match="fft_length"):
        layers.MelSpectrogram(fft_length=32, sequence_length=64)
